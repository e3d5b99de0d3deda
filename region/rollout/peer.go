package rollout

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/backoff"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// peer is another region that shares jobs with ours.
type peer struct {
	region string
	kick   chan struct{}

	// failing is since when it has been out of reach, zero while it answers,
	// unknown says that it is so because nobody knows the region, and holds is what
	// it has said that it holds, by job; guarded by loop.mu.
	failing time.Time
	unknown bool
	holds   map[model.JobID]held
	// told is up to which change it was told of a rollout, and again are those
	// that it is to be told once more; the goroutine's alone.
	told  map[model.JobID]uint64
	again map[model.JobID]bool
}

// held is what a region has said of a job: the newest version that it knows to
// have won, and whether that is over there.
type held struct {
	won  string
	over bool
}

// Bounds of one exchange, so that what it takes to send it and to write it down
// stays well within a call's time: how many jobs it is about, and from how many
// bytes of their specs on no other is added. A single spec may be larger.
const (
	newsAtOnce  = 64
	specsAtOnce = 512 << 10
)

// hire sees that somebody talks to each region that has to do with a rollout.
func (l *loop) hire(ctx context.Context, r *model.Rollout) {
	for _, region := range concerned(r) {
		if region == l.Region {
			continue
		}
		l.mu.Lock()
		if l.peers[region] == nil {
			p := &peer{
				region: region, kick: make(chan struct{}, 1), holds: make(map[model.JobID]held), told: make(map[model.JobID]uint64), again: make(map[model.JobID]bool),
			}
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

// talk exchanges with one region until ctx ends: what changed here at once, all
// that is open now and then, and now and then all.
func (l *loop) talk(ctx context.Context, p *peer) {
	pace := backoff.Policy{Min: busy, Max: calm, Rand: l.Rand}
	var due time.Time
	all := time.Now().Add(round)
	more := false
	for quiet := 0; ctx.Err() == nil; {
		// What is repeated waits for all that was to be told before, so that none
		// waits for ever.
		if now := time.Now(); !more && !now.Before(due) {
			due = now.Add(pace.Wait(quiet))
			l.repeat(p, !now.Before(all))
			if !now.Before(all) {
				all = now.Add(round)
			}
		}
		var news []method.RolloutNews
		var open bool
		news, open, more = l.newsFor(p)
		if len(news) > 0 {
			moved, err := l.exchange(ctx, p, news)
			l.heard(p, err)
			if quiet++; moved {
				quiet = 0
				due = time.Now().Add(pace.Wait(quiet))
			}
			if err == nil && (moved || more) {
				continue // there may be more
			}
		} else if !open {
			// What it was like when last spoken to says nothing of what it will be
			// like.
			l.heard(p, nil)
		}
		next := all
		if (open || len(news) > 0) && due.Before(all) {
			next = due
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-p.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// repeat has all that is open told again, which is how we hear of it; or really
// all, which is how a region that was rebuilt comes to hear of what it is to run,
// and we hear what is over everywhere.
func (l *loop) repeat(p *peer, all bool) {
	snap := l.Snapshot()
	for r := range snap.Rollouts(nil) {
		if slices.Contains(concerned(r), p.region) && (all || !r.Settled() || unheard(snap, r, p.region)) {
			p.again[r.Key()] = true
		}
	}
	if !all {
		return
	}
	gone := func(key model.JobID) bool { return snap.Rollout(nil, key) == nil }
	maps.DeleteFunc(p.told, func(key model.JobID, _ uint64) bool { return gone(key) })
	maps.DeleteFunc(p.again, func(key model.JobID, _ bool) bool { return gone(key) })
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(p.holds, func(key model.JobID, _ held) bool { return gone(key) })
}

// heard notes whether a region is in reach: one that answers with any other error
// is.
func (l *loop) heard(p *peer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.unknown = err != nil && model.KindOf(err) == model.KindUnknownRegion
	switch {
	case !silent(err):
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = l.Clock.Now()
	}
}

// silent reports whether an error says that nobody answered for a region.
func silent(err error) bool {
	if err == nil {
		return false
	}
	switch model.KindOf(err) {
	case model.KindUnreachable, model.KindDeadline, model.KindUnknownRegion, model.KindNoLeader:
		return true
	}
	return false
}

// newsFor is what a region should hear: what changed since it was told, the
// first time in a term all that it has to do with, and then what it is to hear
// again. open reports whether anything is open, more whether anything had to be
// left for the next time.
func (l *loop) newsFor(p *peer) (news []method.RolloutNews, open, more bool) {
	snap := l.Snapshot()
	var first, then []*model.Rollout
	for r := range snap.Rollouts(nil) {
		if !slices.Contains(concerned(r), p.region) {
			continue
		}
		open = open || !r.Settled() || unheard(snap, r, p.region)
		if p.told[r.Key()] != r.ModifyIndex {
			first = append(first, r)
		} else if p.again[r.Key()] {
			then = append(then, r)
		}
	}
	specs := 0
	for _, r := range append(first, then...) {
		if len(news) == newsAtOnce || specs >= specsAtOnce {
			return news, open, true
		}
		n := News(snap, r.Key())
		if has, known := p.heldOf(l, r.Key()); known && brings(&n, has.won) {
			n.Proposal = r.Won
			specs += size(r.Won)
		}
		n.Index = r.ModifyIndex
		news = append(news, n)
	}
	return news, open, false
}

func (p *peer) heldOf(l *loop, key model.JobID) (held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, known := p.holds[key]
	return h, known
}

// brings reports whether a region that knows what n says brings its version to one
// that holds another, "" for none. What is over is brought to none that has nothing
// of the job: that one has forgotten it, or was rebuilt since, and would begin it
// anew.
func brings(n *method.RolloutNews, holds string) bool {
	return n.Won.ID != "" && n.Won.ID != holds && (holds != "" || !n.Over)
}

// size is how many bytes a version takes in a message.
func size(p *model.Proposal) int {
	b, err := wire.Encode(p)
	if err != nil {
		return 0 // the call will say so
	}
	return len(b)
}

// Bound takes the versions out of an answer that make it too large: who asked for
// them asks again.
func Bound(news []method.RolloutNews) {
	specs := 0
	for i := range news {
		switch n := &news[i]; {
		case n.Proposal == nil:
		case specs >= specsAtOnce:
			n.Proposal = nil
		default:
			specs += size(n.Proposal)
		}
	}
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
	if n.Over = over(snap, key, r); r == nil {
		return n
	}
	n.Won, n.Votes, n.Open, n.Blind, n.Shares = r.Won.Mark(), r.Votes, r.Open, r.Blind, r.Shares
	n.Undecided = r.Accepted.Submits()
	return n
}

// Answer is News for a region that has told what it knows: with the version that
// has won, if that is newer than what it holds. Where that is over, a door needs it
// for the next to follow it.
func Answer(snap *state.Snapshot, heard *method.RolloutNews) method.RolloutNews {
	n := News(snap, heard.Key)
	if n.Won.After(heard.Won) {
		n.Proposal = snap.Rollout(nil, heard.Key).Won
	}
	return n
}

// exchange tells a region what is known here and takes up what it answers; it
// reports whether anything moved. When the region refuses it as a whole, the job
// at fault is looked for, so that the others do not suffer from it.
func (l *loop) exchange(ctx context.Context, p *peer, news []method.RolloutNews) (bool, error) {
	out, err := l.Tell(ctx, p.region, &method.RolloutTellRequest{News: news})
	switch {
	case err == nil:
	case silent(err) || ctx.Err() != nil:
		return false, err
	case len(news) > 1:
		one, err := l.exchange(ctx, p, news[:len(news)/2])
		if silent(err) {
			return one, err
		}
		two, err := l.exchange(ctx, p, news[len(news)/2:])
		return one || two, err
	default:
		l.refused(p, &news[0], err)
		return false, nil
	}
	for _, n := range news {
		p.told[n.Key] = n.Index
		delete(p.again, n.Key)
	}
	var moved atomic.Bool
	var wg sync.WaitGroup
	for i := range out.News {
		n := &out.News[i]
		if n.Error != "" {
			l.refused(p, &method.RolloutNews{Key: n.Key, Index: p.told[n.Key]}, errors.New(n.Error))
			continue
		}
		has, _ := p.heldOf(l, n.Key)
		if ours := News(l.Snapshot(), n.Key); has.won != n.Won.ID || ours.Won.After(n.Won) && brings(&ours, n.Won.ID) {
			moved.Store(true)
		}
		l.mu.Lock()
		p.holds[n.Key] = held{n.Won.ID, n.Over}
		l.mu.Unlock()
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					l.Log.Error("cannot take up what another region knows of a rollout", "region", n.Region, "job", n.Key.ID, "panic", p, "stack", hclog.Stacktrace())
				}
			}()
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
		n := &out.News[i]
		if n.Error != "" {
			continue
		}
		switch ours := News(snap, n.Key); {
		case ours.Won.After(n.Won) && brings(&ours, n.Won.ID):
			delete(p.told, n.Key) // it lacks a version: that goes at once
		case n.Won.After(ours.Won) && brings(n, ours.Won.ID):
			p.again[n.Key] = true // we lack one, which did not come, or was not taken up
		}
	}
	return moved.Load(), nil
}

// refused notes that a region could not take up what it was told of one job. It is
// told again in a while, or when that has changed.
func (l *loop) refused(p *peer, n *method.RolloutNews, err error) {
	l.Log.Warn("another region cannot take up what it was told of a rollout; telling it again later", "region", p.region, "job", n.Key.ID, "error", err)
	p.told[n.Key] = n.Index
	p.again[n.Key] = true
}

// Learn is the command that takes up what another region knows, nil when nothing
// of it is new. A version that is over there is not begun here, unless an earlier
// one is held, or it was voted for.
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
		case r.Accepted != nil && r.Accepted.ID == n.Won.ID:
			body.Won = r.Accepted
		case n.Proposal != nil && brings(n, r.Won.Mark().ID):
			body.Won = n.Proposal
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
