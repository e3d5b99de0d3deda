package planner

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// Refusals says when a node that keeps refusing plans is taken out of service:
// where the scheduler and the check of its plans disagree about a node, the same
// plan would be made and refused for ever, and work that has room elsewhere would
// not be placed.
//
// Only refusals count that nothing explains: neither the node, nor what it runs,
// nor the job changed since the state that the plan was made on. That workers
// race for the same nodes is no reason to lose any.
type Refusals struct {
	// Quarantine takes a node out of service; nil never does.
	Quarantine func(ctx context.Context, node model.UUID, refusals int) error
	// Threshold is how many refusals within Window it takes; zeros mean the
	// defaults.
	Threshold int
	Window    time.Duration
	Clock     clock.Clock
	Log       hclog.Logger
}

// Defaults of Refusals.
const (
	DefaultThreshold = 15
	DefaultWindow    = 5 * time.Minute
)

// maxQuarantined bounds the nodes taken out within a window: if many refuse, it
// is not the nodes that are at fault.
const maxQuarantined = 5

// tracker counts refusals. note is for the one goroutine that checks plans.
type tracker struct {
	cfg  Refusals
	when map[model.UUID][]time.Time
	// taken is when nodes were taken out, the newest last.
	taken []time.Time
	queue chan quarantine
}

type quarantine struct {
	node     model.UUID
	refusals int
}

func newTracker(cfg Refusals) *tracker {
	if cfg.Threshold <= 0 {
		cfg.Threshold = DefaultThreshold
	}
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	return &tracker{cfg: cfg, when: make(map[model.UUID][]time.Time), queue: make(chan quarantine, maxQuarantined)}
}

// note takes up that nodes refused a plan. Only the first counts: that a second
// refuses may follow from it.
func (t *tracker) note(snap *state.Snapshot, pending []*model.Plan, plan *model.Plan, rejected []model.UUID) {
	if t.cfg.Quarantine == nil || len(rejected) == 0 || explained(snap, pending, plan, rejected[0]) {
		return
	}
	node, now := rejected[0], t.cfg.Clock.Now()
	recent := func(when []time.Time) []time.Time {
		return slices.DeleteFunc(when, func(at time.Time) bool { return now.Sub(at) > t.cfg.Window })
	}
	t.when[node] = append(recent(t.when[node]), now)
	count := len(t.when[node])
	if count < t.cfg.Threshold {
		t.cfg.Log.Debug("a node refused a plan, and nothing explains why", "node", node.String(), "eval", plan.EvalID.String(), "refusals", count)
		return
	}
	delete(t.when, node)
	for id, when := range t.when {
		if t.when[id] = recent(when); len(t.when[id]) == 0 {
			delete(t.when, id)
		}
	}
	if t.taken = recent(t.taken); len(t.taken) >= maxQuarantined {
		t.cfg.Log.Error("many nodes keep refusing plans; no more of them are taken out of service", "node", node.String(), "refusals", count, "taken_out", len(t.taken), "window", t.cfg.Window)
		return
	}
	t.taken = append(t.taken, now)
	select {
	case t.queue <- quarantine{node, count}:
	default: // it will refuse again
	}
}

// explained reports whether something that the plan did not know of may be why
// a node refused it.
func explained(snap *state.Snapshot, pending []*model.Plan, plan *model.Plan, node model.UUID) bool {
	n, job := snap.Node(nil, node.String()), snap.Job(nil, plan.JobKey)
	if n == nil || n.ModifyIndex > plan.SnapshotIndex || job == nil || job.JobModifyIndex > plan.SnapshotIndex {
		return true
	}
	if _, changed := snap.AllocsOfNodeSince(nil, node, math.MaxUint64); changed > plan.SnapshotIndex {
		return true
	}
	return slices.ContainsFunc(pending, func(p *model.Plan) bool {
		return slices.ContainsFunc(p.Place, func(pl model.Placement) bool { return pl.NodeID == node })
	})
}

// run takes nodes out of service until ctx ends.
func (t *tracker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-t.queue:
			if err := t.cfg.Quarantine(ctx, q.node, q.refusals); err != nil && ctx.Err() == nil {
				t.cfg.Log.Warn("cannot take a node out of service that keeps refusing plans", "node", q.node.String(), "error", err)
			}
		}
	}
}
