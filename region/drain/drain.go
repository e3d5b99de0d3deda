// Package drain empties nodes. It is one of the leader's loops, with one
// goroutine: it marks allocations that are to leave their node
// (model.DesiredTransition), as many at once as their groups allow, and the
// scheduler stops those and places others elsewhere. It ends a node's drain once
// nothing is left there.
//
// All that it knows is in the state, so that a new leader's loop goes on where
// the last one was: which nodes drain, until when, what is marked, what of a
// group is healthy. decide says what can be done for one state and time.
package drain

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/model"
)

// Config wires the loop.
type Config struct {
	Snapshot func() *state.Snapshot
	// Mark lets allocations leave their nodes.
	Mark func(ctx context.Context, allocs []model.UUID) error
	// Done ends the drain of a node, unless the node has changed or something has
	// come to it.
	Done  func(ctx context.Context, n *model.Node) error
	Clock clock.Clock
	Log   hclog.Logger
}

// pause bounds how often all draining nodes are looked at.
const pause = 100 * time.Millisecond

// batch bounds how many allocations are marked by one write.
const batch = 1000

// Run empties nodes until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	failures := 0
	items := aside.Items{Clock: cfg.Clock, Log: cfg.Log}
	for {
		ws := make(state.Watch)
		s := decide(cfg.Snapshot(), ws, cfg.Clock.Now(), &items)
		if err := carryOut(ctx, cfg, s); err != nil {
			if ctx.Err() == nil {
				cfg.Log.Warn("cannot drain nodes; trying again", "error", err)
			}
			if !(backoff.Policy{Max: 5 * time.Second}).Sleep(ctx, failures) {
				return nil
			}
			failures++
			continue
		}
		failures = 0
		wait, cancel := ctx, context.CancelFunc(func() {})
		if !s.again.IsZero() {
			wait, cancel = context.WithTimeout(ctx, s.again.Sub(cfg.Clock.Now()))
		}
		_ = ws.WatchCtx(wait)
		cancel()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func carryOut(ctx context.Context, cfg Config, s *step) error {
	for rest := s.mark; len(rest) > 0; {
		n := min(len(rest), batch)
		if err := cfg.Mark(ctx, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	for _, n := range s.done {
		if err := cfg.Done(ctx, n); err != nil {
			return err
		}
		if now := cfg.Snapshot().Node(nil, n.ID); now == nil || now.DrainStrategy == nil {
			cfg.Log.Info("a node is drained", "node", n.ID, "name", n.Name)
		}
	}
	return nil
}
