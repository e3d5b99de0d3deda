// Package planner applies plans: one after another, it checks each against the
// newest state, cuts it down to what still fits, and commits that. So many
// workers can plan at once on snapshots of their own and never oversubscribe a
// node.
//
// Run is the one goroutine that applies; Submit may be called by any number of
// workers. The queue holds as many plans as there are workers waiting for
// theirs. The package does not know how plans are made.
package planner

import (
	"context"

	"atoll/cell/state"
	"atoll/model"
)

// Config wires a planner.
type Config struct {
	Snapshot func() *state.Snapshot
	// Check returns what of a plan still holds on a snapshot, and the nodes
	// that refused.
	Check func(*state.Snapshot, *model.Plan) (*model.Plan, []model.UUID)
	// Commit applies a plan and returns its Raft index. A result whose
	// error kind is OutcomeUnknown ends the term.
	Commit func(context.Context, *model.Plan) (uint64, error)
}

// Planner is one term's queue of plans.
type Planner struct {
	cfg   Config
	queue chan request
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
func New(cfg Config) *Planner { return &Planner{cfg: cfg, queue: make(chan request)} }

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

// Run applies plans until ctx ends.
func (p *Planner) Run(ctx context.Context) error {
	for {
		// Stop first: a full queue must not hold a lost leadership up.
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case r := <-p.queue:
			result, err := p.apply(ctx, r.plan)
			r.done <- reply{result, err}
		}
	}
}

func (p *Planner) apply(ctx context.Context, plan *model.Plan) (*model.PlanResult, error) {
	snap := p.cfg.Snapshot()
	accepted, rejected := p.cfg.Check(snap, plan)
	result := &model.PlanResult{Placed: len(accepted.Place), Asked: len(plan.Place), Rejected: rejected}
	if len(rejected) > 0 || result.Placed < result.Asked {
		result.RefreshIndex = snap.Index()
	}
	if accepted.NoOp() {
		return result, nil
	}
	index, err := p.cfg.Commit(ctx, accepted)
	if err != nil {
		return nil, err
	}
	result.AllocIndex = index
	if result.RefreshIndex != 0 {
		result.RefreshIndex = index
	}
	return result, nil
}
