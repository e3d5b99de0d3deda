// Package planner applies plans: one after another, it checks each against the
// newest state, cuts it down to what still fits, and commits that. So many
// workers can plan at once on snapshots of their own and never oversubscribe a
// node.
//
// Plans are pipelined: while earlier ones are on their way through Raft, the
// next is checked against the state as it will be with them. They commit in the
// order in which they were checked, or not at all.
//
// A plan whose check panics fails alone.
//
// Run has three goroutines: one that checks, one that waits for commits, and one
// that takes nodes out of service which keep refusing (Refusals). Submit may be
// called by any number of workers. The queue holds as many plans as there are
// workers waiting for theirs. The package does not know how plans are made.
package planner

import (
	"context"
	"fmt"
	"sync"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/model"
)

// Depth is how many plans may be on their way through Raft: enough that a commit
// on a slow disk carries several, few enough that checking against them costs
// little.
const Depth = 16

// Proposed is a plan on its way through Raft. Wait returns the index at which
// it was applied.
type Proposed interface {
	Wait(ctx context.Context) (uint64, any, error)
}

// Config wires a planner.
type Config struct {
	Snapshot func() *state.Snapshot
	// Check returns what of a plan still holds on a snapshot with other plans
	// pending, and the nodes that refused.
	Check func(snap *state.Snapshot, pending []*model.Plan, plan *model.Plan) (*model.Plan, []model.UUID)
	// Propose hands a plan to Raft. What is proposed by one caller is applied
	// in its order.
	Propose func(*model.Plan) (Proposed, error)
	// Refusals is about nodes that keep refusing.
	Refusals Refusals
}

// Planner is one term's queue of plans.
type Planner struct {
	cfg      Config
	queue    chan request
	refusals *tracker
	aside    aside.Items
}

type request struct {
	plan *model.Plan
	done chan<- reply
}

type reply struct {
	result *model.PlanResult
	err    error
}

// New returns a planner with nothing queued.
func New(cfg Config) *Planner {
	return &Planner{
		cfg: cfg, queue: make(chan request), refusals: newTracker(cfg.Refusals),
		aside: aside.Items{Clock: cfg.Refusals.Clock, Log: cfg.Refusals.Log},
	}
}

// Submit waits until the plan was applied and says how much of it. An error
// means that the worker cannot know; it must not go on with the evaluation.
func (p *Planner) Submit(ctx context.Context, plan *model.Plan) (*model.PlanResult, error) {
	done := make(chan reply, 1)
	select {
	case p.queue <- request{plan, done}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-done:
		return r.result, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// flight is an accepted plan between its check and its commit.
type flight struct {
	plan     *model.Plan
	proposed Proposed
	result   *model.PlanResult
	done     chan<- reply
}

// Run applies plans until ctx ends.
func (p *Planner) Run(ctx context.Context) error {
	// However Run ends, what waits for ctx must not hold it up.
	ctx, cancel := context.WithCancel(ctx)
	flights := make(chan *flight, Depth)
	landed := make(chan *flight, Depth)
	var wg sync.WaitGroup
	wg.Go(func() {
		for f := range flights {
			f.land(ctx)
			landed <- f
		}
	})
	wg.Go(func() { p.refusals.run(ctx) })
	defer wg.Wait()
	defer close(flights)
	defer cancel()
	var pending []*model.Plan
	for {
		// Stop first: a full queue must not hold a lost leadership up.
		if ctx.Err() != nil {
			return nil
		}
		queue := p.queue
		if len(pending) == Depth {
			queue = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-landed:
			// In the order of their proposal. The next snapshot holds it.
			pending = pending[1:]
		case r := <-queue:
			f, err := p.examine(r, pending)
			switch {
			case err != nil:
				r.done <- reply{nil, err}
			case f.proposed == nil:
				r.done <- reply{f.result, nil}
			default:
				pending = append(pending, f.plan)
				flights <- f
			}
		}
	}
}

// examine checks a plan, and has its worker told when that panics: the evaluation
// is tried again, until it is given up.
func (p *Planner) examine(r request, pending []*model.Plan) (f *flight, err error) {
	if until := p.aside.Do("eval", r.plan.EvalID.String(), func() { f, err = p.check(r, pending) }); !until.IsZero() {
		return nil, fmt.Errorf("cannot check the plan: it made the planner panic, which is logged")
	}
	return f, err
}

// check cuts a plan down to what holds and proposes that, if there is any.
func (p *Planner) check(r request, pending []*model.Plan) (*flight, error) {
	snap := p.cfg.Snapshot()
	accepted, rejected := p.cfg.Check(snap, pending, r.plan)
	p.refusals.note(snap, pending, r.plan, rejected)
	f := &flight{plan: accepted, done: r.done}
	f.result = &model.PlanResult{Placed: len(accepted.Place), Asked: len(r.plan.Place), Rejected: rejected}
	if len(rejected) > 0 || f.result.Placed < f.result.Asked {
		f.result.RefreshIndex = snap.Index()
	}
	if accepted.NoOp() {
		return f, nil
	}
	var err error
	f.proposed, err = p.cfg.Propose(accepted)
	return f, err
}

// land waits for the commit and tells the worker.
func (f *flight) land(ctx context.Context) {
	index, _, err := f.proposed.Wait(ctx)
	if err != nil {
		f.done <- reply{nil, err}
		return
	}
	f.result.AllocIndex = index
	if f.result.RefreshIndex != 0 {
		f.result.RefreshIndex = index
	}
	f.done <- reply{f.result, nil}
}
