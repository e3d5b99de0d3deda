package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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
	// ID is unique. The same submit may come to two doors, or to one twice, and
	// what they make of it may differ.
	ID string
	// Request is the submit's request id, and Hash what it asked for: the same
	// submit that comes again, by whatever door, finds what became of it.
	Request string
	Hash    [16]byte
	// Version is the number that the proposal is to have in all regions.
	Version uint64
	// Born is the Time of the job's first version.
	Born int64
	// Follows is the version that it is to follow, and Base are the regions of
	// that, whose majority it needs beside that of its own; none for a new job.
	Follows Mark
	Base    []string
	// Before are the newest submits before it, oldest first: those of the versions
	// that it follows, and those that were undecided and that it overrules.
	Before []Submit
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

// Submit names a proposal, and the request that made it.
type Submit struct {
	ID, Request string
	Hash        [16]byte
	Version     uint64
	Time        int64
}

// submitsKept bounds Proposal.Before.
const submitsKept = 16

// Submits are a proposal's own and those before it.
func (p *Proposal) Submits() []Submit {
	if p == nil {
		return nil
	}
	return append(slices.Clone(p.Before), Submit{p.ID, p.Request, p.Hash, p.Version, p.Time})
}

// Succeeds says that a proposal comes after some submits, in the order of their
// numbers.
func (p *Proposal) Succeeds(submits []Submit) {
	for _, s := range submits {
		if s.ID != p.ID && !slices.Contains(p.Before, s) {
			p.Before = append(p.Before, s)
		}
	}
	slices.SortFunc(p.Before, func(a, b Submit) int { return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID)) })
	p.Before = p.Before[max(0, len(p.Before)-submitsKept):]
}

// Mark orders the versions of a job that have won: by the birth of the job, then
// by number. Two jobs may be born under one name in regions that do not hear each
// other, or list different regions; when they meet, the younger is the job, and
// the other is stopped. The id is for those that were born in the same instant.
type Mark struct {
	Born    int64
	Version uint64
	ID      string
}

// After reports whether a version comes after another; each comes after none.
func (m Mark) After(o Mark) bool {
	if m.ID == "" || o.ID == "" {
		return m.ID != ""
	}
	return cmp.Or(cmp.Compare(m.Born, o.Born), cmp.Compare(m.Version, o.Version), cmp.Compare(m.ID, o.ID)) > 0
}

// Mark is the proposal's place among the versions of its job; that of nil is
// before all.
func (p *Proposal) Mark() Mark {
	if p == nil {
		return Mark{}
	}
	return Mark{p.Born, p.Version, p.ID}
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
	// Forsaken says that the share is over because the region was forgotten,
	// without a word of it.
	Forsaken bool
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
	// that it may still vote for, and Blind the lowest from which on all votes are
	// kept.
	Votes []Vote
	Open  uint64
	Blind uint64
	// Incarnation is the cell's. In one that was restored from a snapshot the
	// votes since that are forgotten: until each of Unheard has told which numbers
	// it knows of, the region does not vote.
	Incarnation string
	Unheard     []string
	// Won is the newest version known to have won, nil before there is one.
	Won *Proposal
	// Shares are how far the participants of Won are, in their order, as far as
	// the region has heard.
	Shares []Share
	// Time is when the region last took up anything about the job, by its own
	// clock, in Unix nanoseconds; 0 in records of before that was noted.
	Time        int64
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

// RunsIn reports whether a region has part in a job that its regions run together.
func (r *Rollout) RunsIn(region string) bool {
	s := r.Share(region)
	return r.Live() && s != nil && s.State != ShareStopped
}

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

// Vote takes up a proposal, or says why the region does not vote for it. Whether
// it never will is Refuses' to say.
//
// While a region waits to hear what became of a vote of its, it votes for no other
// but one that overrules it and goes by the same regions: else the majorities of
// the two could miss each other. And it votes for none that would follow an older
// version than the newest it knows.
func (r *Rollout) Vote(p *Proposal) (why string) {
	a := r.Accepted
	switch {
	case r.Voted(p.Version) == p.ID:
		return ""
	case len(r.Unheard) > 0:
		return fmt.Sprintf("the region was restored from a snapshot, and has not heard of job %q from %s since", p.Job.ID, strings.Join(r.Unheard, ", "))
	case p.Version < r.Open, r.Won.Mark().After(p.Follows):
		return fmt.Sprintf("version %d of job %q is another submit's", p.Version, p.Job.ID)
	case a != nil && a.Mark().After(p.Follows) && !(slices.ContainsFunc(p.Before, func(s Submit) bool { return s.ID == a.ID }) &&
		slices.Equal(a.Regions(), p.Regions()) && (len(p.Base) == 0 || slices.Equal(p.Base, p.Regions()))):
		return fmt.Sprintf("another submit of job %q is being decided", p.Job.ID)
	}
	r.Open, r.Accepted = p.Version+1, p
	r.Votes = append(slices.Clone(r.Votes), Vote{p.Version, p.ID})
	if n := len(r.Votes) - votesKept; n > 0 {
		r.Blind = r.Votes[n-1].Version + 1
		r.Votes = r.Votes[n:]
	}
	return ""
}

// Refuses reports whether the region has not voted for a proposal and never will:
// it has voted for its number or for a higher one, or knows of a version that the
// proposal does not follow.
func (r *Rollout) Refuses(p *Proposal) bool {
	return Refuses(r.Votes, r.Open, r.Blind, r.Won.Mark(), p)
}

// Refuses is Rollout.Refuses by what another region tells of itself.
func Refuses(votes []Vote, open, blind uint64, won Mark, p *Proposal) bool {
	return !slices.Contains(votes, Vote{p.Version, p.ID}) && blind <= p.Version && (p.Version < open || won.After(p.Follows))
}

// Adopt takes up a version that has won; it reports whether it is news. All
// shares of it begin as pending. The regions of the version before, unless they
// have stopped, have a share too even when this one does not know of them: that of
// stopping; and so has our own.
func (r *Rollout) Adopt(p *Proposal, own string) bool {
	if !p.Mark().After(r.Won.Mark()) {
		return false
	}
	r.Won, r.Open = p, max(r.Open, p.Version+1)
	if r.Accepted != nil && !r.Accepted.Mark().After(p.Mark()) {
		r.Accepted = nil
	}
	if len(r.Unheard) > 0 {
		r.mustHear(p, own) // the region may have voted for what followed it, too
	}
	before := r.Shares
	r.Shares = nil
	add := func(region string) {
		if r.Share(region) == nil {
			r.Shares = append(r.Shares, Share{Region: region, State: SharePending})
		}
	}
	for _, region := range p.Participants() {
		add(region)
	}
	for _, s := range before {
		if s.State != ShareStopped {
			add(s.Region)
		}
	}
	add(own)
	return true
}

// Reborn notes the incarnation of the region's cell; when it is another than that
// of the record, the other regions have to be heard.
func (r *Rollout) Reborn(incarnation, own string) {
	if r.Incarnation != incarnation {
		r.Incarnation, r.Unheard = incarnation, nil
		for _, p := range []*Proposal{r.Won, r.Accepted} {
			if p != nil {
				r.mustHear(p, own)
			}
		}
	}
}

// mustHear adds the voters of a proposal to those that have to be heard.
func (r *Rollout) mustHear(p *Proposal, own string) {
	r.Unheard = slices.Clone(r.Unheard)
	for _, region := range p.Voters() {
		if region != own && !slices.Contains(r.Unheard, region) {
			r.Unheard = append(r.Unheard, region)
		}
	}
}

// Heard notes which numbers a region that had to be heard knows of: the region
// itself may have voted for these.
func (r *Rollout) Heard(region string, open uint64) bool {
	i := slices.Index(r.Unheard, region)
	if i < 0 {
		return false
	}
	r.Unheard = slices.Delete(slices.Clone(r.Unheard), i, i+1)
	r.Open = max(r.Open, open)
	r.Blind = r.Open
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
func (r *Rollout) Hear(id string, shares []Share, own string) bool {
	if r.Won == nil || r.Won.ID != id {
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

// Forsake ends the share of a region that was forgotten, and waits for no word of
// it. When the region comes back, what it says of its share stands all the same.
func (r *Rollout) Forsake(region string, now int64) (changed bool) {
	if i := slices.Index(r.Unheard, region); i >= 0 {
		r.Unheard, changed = slices.Delete(slices.Clone(r.Unheard), i, i+1), true
	}
	if s := r.Share(region); s != nil && !s.State.Over() {
		r.Shares = slices.Clone(r.Shares)
		s = r.Share(region)
		s.State, s.Why, s.Time, s.Forsaken, changed = ShareStopped, "the region was forgotten", now, true, true
	}
	return changed
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
