package rollout

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/backoff"
	"atoll/model"
	"atoll/model/method"
)

// peer is another region that shares jobs with ours.
type peer struct {
	region string
	kick   chan struct{}

	// failing is since when it has been out of reach, zero while it answers;
	// guarded by loop.mu.
	failing time.Time
	// holds are the versions that it is known to hold, and told is up to which
	// change it was told of a rollout, by job; the goroutine's alone.
	holds map[model.JobID]string
	told  map[model.JobID]uint64
}

// newsAtOnce bounds the jobs that one exchange is about, so that what it takes to
// write them down stays well within a call's time.
const newsAtOnce = 64

// hire sees that somebody talks to each region that has to do with a rollout.
func (l *loop) hire(ctx context.Context, r *model.Rollout) {
	for _, region := range concerned(r) {
		if region == l.Region {
			continue
		}
		l.mu.Lock()
		if l.peers[region] == nil {
			p := &peer{region: region, kick: make(chan struct{}, 1), holds: make(map[model.JobID]string), told: make(map[model.JobID]uint64)}
			l.peers[region] = p
			l.wg.Go(func() { l.talk(ctx, p) })
		}
		l.mu.Unlock()
	}
}

// concerned are the regions that have to do with a rollout.
func concerned(r *model.Rollout) (out []string) {
	add := func(regions ...string) {
		for _, region := range regions {
			if !slices.Contains(out, region) {
				out = append(out, region)
			}
		}
	}
	for _, p := range []*model.Proposal{r.Won, r.Accepted} {
		if p != nil {
			add(p.Participants()...)
			add(p.Base...)
		}
	}
	for _, s := range r.Shares {
		add(s.Region)
	}
	return out
}

// kick has everybody talk at once.
func (l *loop) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}

// gone reports whether a region has been out of reach for long.
func (l *loop) gone(region string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[region]
	return p != nil && !p.failing.IsZero() && l.Clock.Now().Sub(p.failing) >= lost
}

// talk exchanges with one region until ctx ends: what changed here at once, and
// all that is open now and then.
func (l *loop) talk(ctx context.Context, p *peer) {
	pace := backoff.Policy{Min: busy, Max: calm, Rand: l.Rand}
	var due time.Time
	for quiet := 0; ctx.Err() == nil; {
		if !time.Now().Before(due) {
			due = time.Now().Add(pace.Wait(quiet))
			l.repeat(p)
		}
		news, open := l.newsFor(p)
		if len(news) > 0 {
			moved, err := l.exchange(ctx, p, news)
			l.heard(p, err)
			if quiet++; moved {
				quiet = 0
				due = time.Now().Add(pace.Wait(quiet))
			}
			if err == nil && (moved || len(news) == newsAtOnce) {
				continue // there may be more
			}
		} else if !open {
			// What it was like when last spoken to says nothing of what it will be
			// like.
			l.heard(p, nil)
		}
		var tick <-chan time.Time
		timer := time.NewTimer(time.Until(due))
		if open || len(news) > 0 {
			tick = timer.C
		}
		select {
		case <-ctx.Done():
		case <-p.kick:
		case <-tick:
		}
		timer.Stop()
	}
}

// repeat has all that is open told anew, which is how we hear of it.
func (l *loop) repeat(p *peer) {
	snap := l.Snapshot()
	for key := range p.told {
		if r := snap.Rollout(nil, key); r == nil || !r.Settled() {
			delete(p.told, key)
		}
	}
}

func (l *loop) heard(p *peer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = l.Clock.Now()
	}
}

// newsFor is what a region should hear: what changed since it was told, the
// first time in a term all that it has to do with. open reports whether anything
// is open.
func (l *loop) newsFor(p *peer) (news []method.RolloutNews, open bool) {
	snap := l.Snapshot()
	for r := range snap.Rollouts(nil) {
		if !slices.Contains(concerned(r), p.region) {
			continue
		}
		mute := unheard(snap, r, p.region)
		open = open || mute || !r.Settled()
		if p.told[r.Key()] == r.ModifyIndex && !mute || len(news) == newsAtOnce {
			continue
		}
		n := News(snap, r.Key())
		if held, known := p.holds[r.Key()]; known && held != n.Won.ID && r.Won != nil {
			n.Proposal = r.Won
		}
		n.Index = r.ModifyIndex
		news = append(news, n)
	}
	return news, open
}

// unheard reports whether a region has yet to be heard since ours was restored.
func unheard(snap *state.Snapshot, r *model.Rollout, region string) bool {
	own := snap.Cell(nil)
	if own == nil {
		return false
	}
	c := *r
	c.Reborn(own.Incarnation, own.Region)
	return slices.Contains(c.Unheard, region)
}

// News is what the region knows of a job.
func News(snap *state.Snapshot, key model.JobID) method.RolloutNews {
	n := method.RolloutNews{Key: key}
	if own := snap.Cell(nil); own != nil {
		n.Region = own.Region
	}
	if job := snap.Job(nil, key); job != nil {
		n.Taken = job.Version + 1
	}
	r := snap.Rollout(nil, key)
	if r == nil {
		return n
	}
	n.Won, n.Votes, n.Open, n.Blind, n.Shares = r.Won.Mark(), r.Votes, r.Open, r.Blind, r.Shares
	n.Undecided = r.Accepted.Submits()
	return n
}

// Answer is News for a region that has told what it knows: with the version that
// has won, if that is newer than what it holds.
func Answer(snap *state.Snapshot, heard *method.RolloutNews) method.RolloutNews {
	n := News(snap, heard.Key)
	if n.Won.After(heard.Won) {
		n.Proposal = snap.Rollout(nil, heard.Key).Won
	}
	return n
}

// exchange tells a region what is known here and takes up what it answers; it
// reports whether anything moved.
func (l *loop) exchange(ctx context.Context, p *peer, news []method.RolloutNews) (bool, error) {
	out, err := l.Tell(ctx, p.region, &method.RolloutTellRequest{News: news})
	if err != nil {
		return false, err
	}
	for _, n := range news {
		p.told[n.Key] = n.Index
	}
	var moved atomic.Bool
	var wg sync.WaitGroup
	for i := range out.News {
		n := &out.News[i]
		if n.Won != News(l.Snapshot(), n.Key).Won || p.holds[n.Key] != n.Won.ID {
			moved.Store(true)
		}
		p.holds[n.Key] = n.Won.ID
		wg.Go(func() {
			if err := n.Check(); err != nil {
				l.Log.Warn("cannot take up what another region says of a rollout", "region", p.region, "job", n.Key.ID, "error", err)
				return
			}
			body := Learn(l.Snapshot(), l.Region, n, l.Clock.Now())
			if body == nil {
				body = l.count(ctx, p.region, n)
			}
			if body == nil {
				return
			}
			if err := l.Apply(ctx, cell.CmdRolloutLearn, body); err == nil {
				moved.Store(true)
			} else if ctx.Err() == nil {
				l.Log.Warn("cannot take up what another region knows of a rollout; trying again", "region", p.region, "job", n.Key.ID, "error", err)
			}
		})
	}
	wg.Wait()
	snap := l.Snapshot()
	for i := range out.News {
		if n := &out.News[i]; News(snap, n.Key).Won.After(n.Won) {
			delete(p.told, n.Key) // it lacks a version: that goes at once
		}
	}
	return moved.Load(), nil
}

// Learn is the command that takes up what another region knows, nil when nothing
// of it is new.
func Learn(snap *state.Snapshot, own string, n *method.RolloutNews, now time.Time) *cell.RolloutLearn {
	r := snap.Rollout(nil, n.Key)
	body := &cell.RolloutLearn{Key: n.Key, Own: own, Awaits: model.NewUUID(nil).String(), ID: n.Won.ID, Shares: n.Shares, Time: now.UnixNano()}
	mute := r != nil && unheard(snap, r, n.Region)
	if mute {
		body.From, body.Open = n.Region, n.Open
	}
	if r == nil {
		r = &model.Rollout{}
	}
	if n.Won.After(r.Won.Mark()) {
		switch {
		case n.Proposal != nil:
			body.Won = n.Proposal
		case r.Accepted != nil && r.Accepted.ID == n.Won.ID:
			body.Won = r.Accepted
		case mute:
		default:
			return nil // it sends the version when it knows that we lack it
		}
		return body
	}
	trial := *r
	if !trial.Hear(n.Won.ID, n.Shares, own) && !mute {
		return nil
	}
	return body
}

// count takes up a region's vote for what is open here. When that decides it, it
// is the command that says so. A proposal that its door has left is seen through
// first: a region that may still vote for it is asked to.
func (l *loop) count(ctx context.Context, region string, n *method.RolloutNews) *cell.RolloutLearn {
	r := l.Snapshot().Rollout(nil, n.Key)
	if r == nil || r.Accepted == nil {
		return nil
	}
	p := r.Accepted
	now := l.Clock.Now()
	l.mu.Lock()
	b := l.votes[n.Key]
	if b == nil || b.id != p.ID {
		b = &ballot{id: p.ID, yes: []string{l.Region}, since: now}
		l.votes[n.Key] = b
	}
	late := now.Sub(b.since) >= patience
	l.mu.Unlock()
	yes := slices.Contains(n.Votes, model.Vote{Version: p.Version, ID: p.ID})
	never := model.Refuses(n.Votes, n.Open, n.Blind, n.Won, p)
	if !yes && !never && late {
		answer, err := l.Vote(ctx, region, &method.RolloutVoteRequest{Proposal: p})
		if err == nil {
			yes, never = answer.Yes, answer.Never
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if yes && !slices.Contains(b.yes, region) {
		b.yes = append(b.yes, region)
	}
	if never && !slices.Contains(b.no, region) {
		b.no = append(b.no, region)
	}
	verdict := p.Judge(b.yes, b.no)
	if verdict == model.VerdictOpen {
		return nil
	}
	delete(l.votes, n.Key)
	l.Log.Info("a proposal is decided by the votes that were heard", "job", p.Job.ID, "version", p.Version, "won", verdict == model.VerdictWon)
	return l.decided(p, verdict)
}

// decided is the command that takes up what became of a proposal.
func (l *loop) decided(p *model.Proposal, verdict model.Verdict) *cell.RolloutLearn {
	body := Won(p, l.Region, l.Clock.Now())
	if verdict == model.VerdictLost {
		body.Won, body.Lost = nil, p.ID
	}
	return body
}

// Won is the command that takes up a version that has won.
func Won(p *model.Proposal, own string, now time.Time) *cell.RolloutLearn {
	return &cell.RolloutLearn{Key: p.Key(), Own: own, Won: p, Awaits: model.NewUUID(nil).String(), Time: now.UnixNano()}
}
