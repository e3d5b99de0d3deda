package model

import (
	"cmp"
	"slices"
)

// A multi-region job has no coordinator. Each of its regions keeps a Rollout:
// which versions it has voted for, which version has won, and how far the regions
// are with it. A version number is won once: a region votes at most once for each
// number, and never again for a lower one, so that what a majority of the regions
// has voted for is all that can be of that number. What a region knows it tells
// the others, and they it: votes and shares only move forward, so that whatever
// was heard, in whatever order, ends in the same.

// Proposal is a version of a multi-region job that one submit asks for.
type Proposal struct {
	// ID is the submit's request id, and Hash what it asked for: the same submit
	// that comes again, by whatever door, finds what became of it.
	ID   string
	Hash [16]byte
	// Version is the number that the proposal is to have in all regions.
	Version uint64
	// Base are the regions of the version that it is to follow, whose majority it
	// needs beside that of its own; none for a new job.
	Base []string
	// Job is the job as it was submitted. One that is to be stopped has Stop.
	Job   *Job
	Purge bool
	// Counts are the parts of a count that was divided, in the order of the
	// regions; nil when none was.
	Counts []int
	// Removed are regions that may still run an earlier version and are not
	// listed any more.
	Removed []string
	// Door is the region that took the submit, at Time in Unix nanoseconds.
	Door string
	Time int64
	// EvalPriority is that of the evaluations it causes, 0 for the job's.
	EvalPriority int
}

// Key is the key of the proposed job.
func (p *Proposal) Key() JobID { return p.Job.Key() }

// Regions are the regions that are to run the version.
func (p *Proposal) Regions() []string { return p.Job.Multiregion.RegionNames() }

// Participants are all regions that have something to do: those that are to run
// the version, and then those that ran an earlier one.
func (p *Proposal) Participants() []string { return append(p.Regions(), p.Removed...) }

// Voters are the regions whose voices count, those of the base first.
func (p *Proposal) Voters() []string {
	out := slices.Clone(p.Base)
	for _, r := range p.Regions() {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// Count is a region's part of a count that was divided, -1 when none was.
func (p *Proposal) Count(region string) int {
	if i := slices.Index(p.Regions(), region); i >= 0 && i < len(p.Counts) {
		return p.Counts[i]
	}
	return -1
}

// Vote is a region's vote for a number.
type Vote struct {
	Version uint64
	ID      string
}

// Verdict is what can be told of a proposal.
type Verdict int

// Verdicts. Neither of the last two ever changes.
const (
	VerdictOpen Verdict = iota
	VerdictWon
	VerdictLost
)

// Judge tells what became of a proposal by the votes that are known: yes holds
// the regions that voted for it, and no those that never will.
func (p *Proposal) Judge(yes, no []string) Verdict {
	verdict := VerdictWon
	for _, set := range [][]string{p.Base, p.Regions()} {
		if len(set) == 0 {
			continue
		}
		all, won, lost := voices(set, set), voices(set, yes), voices(set, no)
		switch {
		case 2*(all-lost) <= all:
			return VerdictLost
		case 2*won <= all:
			verdict = VerdictOpen
		}
	}
	return verdict
}

// Majority reports whether some regions of a set are a majority of it.
func Majority(set, some []string) bool { return 2*voices(set, some) > voices(set, set) }

// voices counts the voices of those of a set that are in some: one each, and two
// for the first of an even set, so that of two regions the first goes on alone.
func voices(set, some []string) (n int) {
	for i, region := range set {
		if slices.Contains(some, region) {
			n++
			if i == 0 && len(set)%2 == 0 {
				n++
			}
		}
	}
	return n
}

// ShareState is how far a region is with a version. A region's state only moves
// down this list.
type ShareState string

// Share states.
const (
	// SharePending waits for its turn; the region still has what it had.
	SharePending ShareState = "pending"
	// ShareRunning has begun.
	ShareRunning ShareState = "running"
	// ShareBlocked is done here, and waits for the others.
	ShareBlocked ShareState = "blocked"
	// The others are over.
	ShareSuccessful ShareState = "successful"
	ShareFailed     ShareState = "failed"
	ShareStopped    ShareState = "stopped"
)

// Over reports whether the state is a last one.
func (s ShareState) Over() bool {
	return s == ShareSuccessful || s == ShareFailed || s == ShareStopped
}

// Share is one region's part of a rollout. Only the region itself changes it.
type Share struct {
	Region string
	State  ShareState
	// Seq counts the region's changes of its share of this version.
	Seq uint64
	// Why tells people what happened, "" when nothing did.
	Why string
	// DeploymentID, JobVersion and EvalID are the region's own. JobVersion is
	// the rollout's, unless the region went on to a later one of its own
	// meanwhile, by reverting.
	DeploymentID string
	EvalID       string
	JobVersion   uint64
	// Time is when the region last changed it, by the region's clock, in Unix
	// nanoseconds.
	Time int64
}

// Rollout is what a region knows of a multi-region job's newest version.
type Rollout struct {
	Namespace, JobID string
	// Accepted is what the region voted for last, unless that is known to have
	// won or lost.
	Accepted *Proposal
	// Votes are the newest of its votes, oldest first; Open is the lowest number
	// that it may still vote for.
	Votes []Vote
	Open  uint64
	// Won is the newest version known to have won, nil before there is one.
	Won *Proposal
	// Shares are how far the participants of Won are, in their order, as far as
	// the region has heard.
	Shares      []Share
	CreateIndex uint64
	ModifyIndex uint64
}

// votesKept bounds Votes.
const votesKept = 32

// Key is the job's key.
func (r *Rollout) Key() JobID { return JobID{r.Namespace, r.JobID} }

// Share returns a region's share, nil when it has none.
func (r *Rollout) Share(region string) *Share {
	if r == nil {
		return nil
	}
	for i := range r.Shares {
		if r.Shares[i].Region == region {
			return &r.Shares[i]
		}
	}
	return nil
}

// Live reports whether the job is one that its regions run together: a version
// was won, and it was not to stop the job.
func (r *Rollout) Live() bool { return r != nil && r.Won != nil && !r.Won.Job.Stop }

// Settled reports whether there is nothing left to do or to hear of.
func (r *Rollout) Settled() bool {
	if r.Accepted != nil {
		return false
	}
	return !slices.ContainsFunc(r.Shares, func(s Share) bool { return !s.State.Over() })
}

// Voted returns the id that the region voted for at a number, "" when none is
// known.
func (r *Rollout) Voted(version uint64) string {
	if r == nil {
		return ""
	}
	for _, v := range r.Votes {
		if v.Version == version {
			return v.ID
		}
	}
	return ""
}

// Vote takes up a proposal, unless a number as high was voted for or won before;
// it reports whether the region has voted for it, now or earlier.
func (r *Rollout) Vote(p *Proposal) bool {
	if p.Version < r.Open {
		return r.Voted(p.Version) == p.ID
	}
	r.Open, r.Accepted = p.Version+1, p
	r.Votes = append(slices.Clone(r.Votes), Vote{p.Version, p.ID})
	if n := len(r.Votes) - votesKept; n > 0 {
		r.Votes = r.Votes[n:]
	}
	return true
}

// Adopt takes up a version that has won; it reports whether it is news. All
// shares of it begin as pending.
func (r *Rollout) Adopt(p *Proposal) bool {
	if r.Won != nil && r.Won.Version >= p.Version {
		return false
	}
	r.Won, r.Open = p, max(r.Open, p.Version+1)
	if r.Accepted != nil && r.Accepted.Version <= p.Version {
		r.Accepted = nil
	}
	r.Shares = nil
	for _, region := range p.Participants() {
		r.Shares = append(r.Shares, Share{Region: region, State: SharePending})
	}
	return true
}

// Drop gives up a proposal that has lost.
func (r *Rollout) Drop(id string) bool {
	if r.Accepted == nil || r.Accepted.ID != id {
		return false
	}
	r.Accepted = nil
	return true
}

// Hear takes up what others know of the shares of a version; it reports whether
// anything was news. What a region says of itself counts the most: so own is
// never changed by others.
func (r *Rollout) Hear(version uint64, id string, shares []Share, own string) bool {
	if r.Won == nil || r.Won.Version != version || r.Won.ID != id {
		return false
	}
	news := false
	r.Shares = slices.Clone(r.Shares)
	for _, s := range shares {
		if mine := r.Share(s.Region); mine != nil && s.Region != own && s.Seq > mine.Seq {
			*mine, news = s, true
		}
	}
	return news
}

// Set changes the region's own share.
func (r *Rollout) Set(s Share) {
	r.Shares = slices.Clone(r.Shares)
	if mine := r.Share(s.Region); mine != nil {
		s.Seq = mine.Seq + 1
		s.DeploymentID = cmp.Or(s.DeploymentID, mine.DeploymentID)
		s.EvalID = cmp.Or(s.EvalID, mine.EvalID)
		s.JobVersion = cmp.Or(s.JobVersion, mine.JobVersion)
		*mine = s
	}
}
