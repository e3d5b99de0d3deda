// Package rollout takes a region's part in the rollouts of multi-region jobs. It
// is one of the leader's loops: it does what federation/rollout says about the
// region's own shares, and exchanges what is known with the other regions. It
// owns a goroutine for each of them.
//
// Nothing is remembered but in the state, so that another leader goes on where
// this one ended: votes and shares are what the cell has committed, and what was
// heard from others is heard again.
package rollout

import (
	"cmp"
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/federation/rollout"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
)

// Config wires the loop.
type Config struct {
	// Region is our own.
	Region   string
	Snapshot func() *state.Snapshot
	Apply    func(ctx context.Context, cmd cell.Command, body any) error
	// Tell and Vote call the leader of another region, within two seconds.
	Tell func(ctx context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error)
	Vote func(ctx context.Context, region string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error)
	// Forgotten reports whether an operator had the region forget another. Nil: no
	// region is.
	Forgotten func(region string) bool
	// Fail is the command that fails a deployment, and reverts its job where it
	// says so.
	Fail  func(snap *state.Snapshot, d *model.Deployment, why string, now time.Time) *cell.DeploymentStatus
	Clock clock.Clock
	Log   hclog.Logger
	// Rand is what waits are jittered by, nil for chance.
	Rand func() float64
}

// Times of the loop.
const (
	// busy is between two exchanges while anything moves, calm when nothing has.
	busy = 500 * time.Millisecond
	calm = 2 * time.Second
	// patience is how long a proposal is left to its door before any region that
	// voted for it sees it through.
	patience = 5 * time.Second
	// lost is for how long a region is out of reach before on_unreachable is
	// applied to it: longer than an election, or the restart of its servers.
	lost = 10 * time.Second
	// round is between two times that all is told, what is settled too.
	round = 10 * time.Minute
	// kept is how long a region remembers a job of which nothing is left. One that
	// forgets votes for the same numbers again, so that it must be longer than
	// anything about the job may be under way, or undecided in a region that is cut
	// off.
	kept = time.Hour
	// keptForsaken is for how long that is so while a region was forgotten that
	// may come back one day with what it ran: long enough to stop it then.
	keptForsaken = 30 * 24 * time.Hour
)

// actsAtOnce bounds the steps that are committed side by side: Raft writes those
// together.
const actsAtOnce = 32

type loop struct {
	Config
	wg sync.WaitGroup

	mu    sync.Mutex // guards what follows
	peers map[string]*peer
	// votes are what other regions were heard to have voted for what is open
	// here.
	votes map[model.JobID]*ballot
	// aside are rollouts that cannot be gone on with, as they were then.
	aside map[model.JobID]uint64
	// sights are when a version was first seen.
	sights map[model.JobID]sight
}

type sight struct {
	id string
	at time.Time
}

// ballot is what is known of the votes for a proposal, since when.
type ballot struct {
	id      string
	yes, no []string
	since   time.Time
}

// Run takes part until ctx ends.
func Run(ctx context.Context, cfg Config) error { return newLoop(cfg).run(ctx) }

func newLoop(cfg Config) *loop {
	return &loop{Config: cfg, peers: make(map[string]*peer), votes: make(map[model.JobID]*ballot), aside: make(map[model.JobID]uint64), sights: make(map[model.JobID]sight)}
}

func (l *loop) run(ctx context.Context) error {
	defer l.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := uint64(0)
	for ctx.Err() == nil {
		ws := make(state.Watch)
		snap := l.Snapshot()
		snap.WatchStore(ws)
		open := false
		var acted atomic.Bool
		var acts sync.WaitGroup
		turns := make(chan struct{}, actsAtOnce)
		for r := range snap.Rollouts(ws) {
			cmd, body := l.consider(ctx, snap, ws, r)
			if body != nil {
				acts.Go(func() {
					turns <- struct{}{}
					defer func() { <-turns }()
					if l.act(ctx, r, cmd, body) {
						acted.Store(true)
					}
				})
			}
			open = open || !r.Settled()
		}
		acts.Wait()
		if acted.Load() {
			continue
		}
		if index := snap.RolloutsIndex(); index != told {
			told = index
			l.kick()
		}
		l.tidy()
		// Silence is noticed by the clock alone, and so is that it is time to forget.
		pause := time.Minute
		if open {
			pause = time.Second
		}
		wait, stop := context.WithTimeout(ctx, pause)
		_ = ws.WatchCtx(wait)
		stop()
	}
	return nil
}

// act does a step; it reports whether that changed anything.
func (l *loop) act(ctx context.Context, r *model.Rollout, cmd cell.Command, body any) bool {
	switch err := l.Apply(ctx, cmd, body); {
	case err == nil:
		if s, ok := body.(*cell.RolloutShare); ok {
			l.Log.Info("a share of a multi-region job moves on", "job", r.JobID, "version", s.Version, "state", s.Share.State, "why", s.Share.Why)
		}
		return true
	case ctx.Err() == nil && model.KindOf(err) != model.KindConflict:
		l.Log.Warn("cannot go on with a rollout; trying again", "job", r.JobID, "error", err)
	}
	return false
}

// consider is what to do about a rollout: a command and its body, or nothing. One
// that it panics over is set aside until it changes, so that the others go on.
func (l *loop) consider(ctx context.Context, snap *state.Snapshot, ws state.Watch, r *model.Rollout) (cmd cell.Command, body any) {
	l.mu.Lock()
	aside := l.aside[r.Key()] == r.ModifyIndex
	l.mu.Unlock()
	if aside {
		return 0, nil
	}
	defer l.survive(r.Key())
	l.hire(ctx, r)
	return l.step(snap, ws, r)
}

// survive, deferred, sets a rollout aside that what it ends panicked over.
func (l *loop) survive(key model.JobID) {
	p := recover()
	if p == nil {
		return
	}
	l.Log.Error("cannot go on with a rollout: it is set aside until it changes", "namespace", key.Namespace, "job", key.ID, "panic", p, "stack", hclog.Stacktrace())
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.Snapshot().Rollout(nil, key); r != nil {
		l.aside[key] = r.ModifyIndex
	}
}

// tidy drops what is noted about rollouts that are not so any more.
func (l *loop) tidy() {
	snap := l.Snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.votes, func(key model.JobID, b *ballot) bool {
		r := snap.Rollout(nil, key)
		return r == nil || r.Accepted == nil || r.Accepted.ID != b.id
	})
	maps.DeleteFunc(l.sights, func(key model.JobID, _ sight) bool {
		r := snap.Rollout(nil, key)
		return r == nil || r.Settled()
	})
	maps.DeleteFunc(l.aside, func(key model.JobID, index uint64) bool {
		r := snap.Rollout(nil, key)
		return r == nil || r.ModifyIndex != index
	})
}

// step is what to do about a rollout: a command and its body, or nothing.
func (l *loop) step(snap *state.Snapshot, ws state.Watch, r *model.Rollout) (cell.Command, any) {
	if l.forgets(snap, r) {
		return cell.CmdRolloutForget, &cell.RolloutForget{Key: r.Key(), Index: r.ModifyIndex}
	}
	if region := l.forsaken(snap, r); region != "" {
		return cell.CmdRolloutLearn, &cell.RolloutLearn{Key: r.Key(), Own: l.Region, Forgotten: region, Time: l.Clock.Now().UnixNano()}
	}
	if p := r.Accepted; p != nil && p.Judge([]string{l.Region}, nil) == model.VerdictWon {
		return cell.CmdRolloutLearn, l.decided(p, model.VerdictWon)
	}
	if s := Advance(Turn{l.Region, l.Clock.Now(), l.goneSince(r), l.Fail}, snap, ws, r); s != nil {
		return cell.CmdRolloutShare, s
	}
	return 0, nil
}

// goneSince is gone, of regions that have been so for as long as the version has been
// here: a region that is just back may not have been spoken to yet.
func (l *loop) goneSince(r *model.Rollout) func(region string) bool {
	if r.Won == nil || r.Settled() {
		return l.gone
	}
	now := l.Clock.Now()
	l.mu.Lock()
	s, seen := l.sights[r.Key()]
	if !seen || s.id != r.Won.ID {
		s = sight{r.Won.ID, now}
		l.sights[r.Key()] = s
	}
	l.mu.Unlock()
	if now.Sub(s.at) < lost {
		return func(string) bool { return false }
	}
	return l.gone
}

// forsaken is a region that was forgotten and is waited for still, "" for none.
func (l *loop) forsaken(snap *state.Snapshot, r *model.Rollout) string {
	if l.Forgotten == nil {
		return ""
	}
	for _, region := range concerned(r) {
		s := r.Share(region)
		if waits := s != nil && !s.State.Over() || unheard(snap, r, region); waits && region != l.Region && l.Forgotten(region) {
			return region
		}
	}
	return ""
}

// Turn is whose step it is, and when. Gone reports regions that have been out of
// reach for long, and Fail is as in Config: a share that is pending needs none.
type Turn struct {
	Region string
	Now    time.Time
	Gone   func(region string) bool
	Fail   func(snap *state.Snapshot, d *model.Deployment, why string, now time.Time) *cell.DeploymentStatus
}

// Advance is the next step of the region's own share, nil when there is none.
func Advance(t Turn, snap *state.Snapshot, ws state.Watch, r *model.Rollout) *cell.RolloutShare {
	mine := r.Share(t.Region)
	if mine == nil || mine.State.Over() {
		return nil
	}
	d := deploymentOf(snap, ws, r.Key(), mine)
	to, why := rollout.Next(r, t.Region, t.Gone, look(snap, ws, r, mine, d))
	if to == "" || to == model.ShareRunning && snap.Namespace(ws, r.Namespace) == nil {
		return nil // its namespace is on its way here too
	}
	now := t.Now
	out := &cell.RolloutShare{
		Key: r.Key(), Version: r.Won.Version, ID: r.Won.ID, From: mine.State,
		Share: model.Share{Region: t.Region, State: to, Why: why, Time: now.UnixNano()},
	}
	if d != nil {
		out.Share.DeploymentID = d.ID
	}
	switch to {
	case model.ShareRunning, model.ShareStopped:
		priority := r.Won.EvalPriority
		if priority == 0 {
			priority = r.Won.Job.Priority
		}
		out.Eval = &model.Evaluation{
			ID: model.NewUUID(nil).String(), Namespace: r.Namespace, JobID: r.JobID, Type: r.Won.Job.Type, Priority: priority,
			TriggeredBy: model.TriggerJobRegister, Status: model.EvalPending, CreateTime: now.UnixNano(), ModifyTime: now.UnixNano(),
		}
		if to == model.ShareStopped {
			out.Eval.TriggeredBy = model.TriggerJobDeregister
			break
		}
		out.Eval.DeploymentID = mine.DeploymentID
	case model.ShareFailed:
		if d != nil && d.Active() {
			out.Deployment = t.Fail(snap, d, why, now)
		}
	case model.ShareSuccessful:
		if d != nil && d.Active() {
			out.Deployment = &cell.DeploymentStatus{Time: now.UnixNano(), Update: model.DeploymentUpdate{
				DeploymentID: d.ID, Status: model.DeploymentSuccessful, StatusDescription: "deployment completed successfully in all regions",
			}}
		}
	}
	return out
}

// deploymentOf is the deployment of a share that has begun, nil when there is
// none.
func deploymentOf(snap *state.Snapshot, ws state.Watch, key model.JobID, mine *model.Share) *model.Deployment {
	if mine.State == model.SharePending {
		return nil
	}
	job := snap.Job(ws, key)
	for _, d := range snap.DeploymentsOfJob(ws, key) {
		// A job that was purged and is born again counts its versions anew.
		if job != nil && d.JobCreateIndex == job.CreateIndex && d.Begun() && d.JobVersion == mine.JobVersion {
			return d
		}
	}
	return nil
}

// look sees how far a share's own work is.
func look(snap *state.Snapshot, ws state.Watch, r *model.Rollout, mine *model.Share, d *model.Deployment) (out rollout.Local) {
	switch {
	case mine.State == model.SharePending:
		if w := snap.Deployment(ws, mine.DeploymentID); mine.DeploymentID != "" && w != nil && w.Status == model.DeploymentFailed {
			out.Failed = w.StatusDescription
		}
	case d == nil:
		// Nothing is deployed step by step: it is done once it was scheduled.
		out.Done = true
		if mine.EvalID != "" {
			out.Done, out.Failed = scheduled(snap, ws, mine.EvalID)
		}
	case d.Status == model.DeploymentFailed:
		out.Failed = d.StatusDescription
	case d.Status == model.DeploymentSuccessful:
		out.Done, out.Released = true, mine.State == model.ShareBlocked
	case d.Status == model.DeploymentBlocked, d.Status == model.DeploymentCancelled:
		out.Done = true
	}
	return out
}

// scheduled reports whether an evaluation is over, or why it failed for good. One
// that failed for now goes on as the next.
func scheduled(snap *state.Snapshot, ws state.Watch, id string) (done bool, failed string) {
	e := snap.Eval(ws, id)
	for e != nil && e.Status == model.EvalFailed {
		if e.NextEval == "" {
			return false, cmp.Or(e.StatusDescription, "its evaluation failed")
		}
		e = snap.Eval(ws, e.NextEval)
	}
	return e == nil || e.Terminal(), ""
}
