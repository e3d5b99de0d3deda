// Package unblock gives blocked evaluations another turn when room may have
// been made for them: a node came or changed, or an allocation ended. It is one
// of the leader's loops, with one goroutine, and knows of the others only by
// what they leave in the state.
package unblock

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// Config wires the loop.
type Config struct {
	Snapshot func() *state.Snapshot
	Write    func(ctx context.Context, evals []*model.Evaluation) error
	Clock    clock.Clock
	Log      hclog.Logger
}

// pause bounds how often blocked evaluations are woken: while a large job
// stops, room appears a hundred times a second.
const pause = 200 * time.Millisecond

// Run wakes evaluations until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		ws := make(state.Watch)
		snap := cfg.Snapshot()
		room := snap.CapacityIndex(ws)
		var wake []*model.Evaluation
		for e := range snap.EvalsByStatus(ws, model.EvalBlocked) {
			if e.SnapshotIndex < room {
				c := *e
				c.Status, c.StatusDescription, c.ModifyTime = model.EvalPending, "", cfg.Clock.Now().UnixNano()
				wake = append(wake, &c)
			}
		}
		if len(wake) > 0 {
			if err := cfg.Write(ctx, wake); err != nil && ctx.Err() == nil {
				cfg.Log.Warn("cannot wake blocked evaluations; trying again", "error", err)
			}
		}
		if ws.WatchCtx(ctx) != nil {
			return nil
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}
