// Package unblock gives blocked evaluations another turn when room may have
// been made for them: a node came or changed, or an allocation ended. It is one
// of the leader's loops, with one goroutine, and knows of the others only by
// what they leave in the state.
//
// What it does follows from the state alone: an evaluation is woken when, on a
// class of nodes that could take what it could not place, room may have been
// made after the state on which it was last tried. So no wake-up is lost, not
// by a change of leader either.
package unblock

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/model"
)

// Config wires the loop.
type Config struct {
	Snapshot func() *state.Snapshot
	// Wake makes blocked evaluations pending; those that are blocked no more
	// are passed over.
	Wake func(ctx context.Context, ids []model.UUID) error
	Log  hclog.Logger
}

// pause bounds how often blocked evaluations are woken: while a large job
// stops, room appears a hundred times a second.
const pause = 200 * time.Millisecond

// wakeAtOnce bounds the evaluations of one write.
const wakeAtOnce = 4096

// Run wakes evaluations until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	// compared is the index of the newest state whose evaluations were all
	// compared with all its changes of capacity.
	compared := uint64(0)
	for {
		ws := make(state.Watch)
		snap := cfg.Snapshot()
		var err error
		// What changes during a pause is compared once it is over.
		if !snap.SchedulerConfig(ws).PauseEvalBroker {
			if err = wake(ctx, cfg, helped(snap, ws, compared)); err == nil {
				compared = snap.Index()
			} else if ctx.Err() == nil {
				cfg.Log.Warn("cannot wake blocked evaluations; trying again", "error", err)
			}
		}
		if err == nil && ws.WatchCtx(ctx) != nil {
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

func wake(ctx context.Context, cfg Config, ids []model.UUID) error {
	for len(ids) > 0 {
		n := min(len(ids), wakeAtOnce)
		if err := cfg.Wake(ctx, ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// helped returns the blocked evaluations for which room may have been made.
// What was so at the index compared already is not looked at again.
func helped(snap *state.Snapshot, ws state.Watch, compared uint64) []model.UUID {
	room := snap.Capacities(ws)
	var out []model.UUID
	for e := range snap.EvalsByStatus(ws, model.EvalBlocked) {
		since := e.SnapshotIndex
		if e.ModifyIndex <= compared {
			since = max(since, compared)
		}
		for _, c := range room {
			if c.Index <= since {
				break // the latest come first
			}
			// An eligible class may help even an evaluation that escaped its
			// classes; one that is not cannot.
			if eligible, seen := e.ClassEligibility[c.Class]; eligible || !seen {
				if id, ok := model.ParseUUID(e.ID); ok {
					out = append(out, id)
				}
				break
			}
		}
	}
	return out
}
