// Package gc deletes from the state what nobody needs any more. It is one of the
// leader's loops, with one goroutine, and knows of the others only by what they
// leave in the state.
//
// What may go, once it has been over for its threshold:
//
//	allocations  that ended and that no reconciliation of their job will look at
//	evaluations  that are over, once none of their allocations is left
//	deployments  that are over and not their job's newest, likewise
//	jobs         that are dead and stopped, or done for good, with all of theirs
//	nodes        that are down, once nothing runs on them
//
// A pass chooses on a snapshot, and deletes in batches that pass over whatever
// changed since (state.Reap): no batch holds up the log for long, and what a
// pass leaves the next one finds.
package gc

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/clock"
	"atoll/model"
)

// Thresholds say how long what is over is kept; zeros mean the defaults.
type Thresholds struct {
	// Evals is for evaluations and allocations, BatchEvals for those of batch
	// and sysbatch jobs.
	Evals, BatchEvals time.Duration
	Deployments       time.Duration
	Jobs              time.Duration
	Nodes             time.Duration
}

// Default thresholds, and how often a pass is made: Nomad's.
var Default = Thresholds{Evals: time.Hour, BatchEvals: 24 * time.Hour, Deployments: time.Hour, Jobs: 4 * time.Hour, Nodes: 24 * time.Hour}

// DefaultInterval is how often a pass is made.
const DefaultInterval = 5 * time.Minute

// batchSize bounds the objects of one write: as many take the state machine about
// 12 ms (BenchmarkReap in cell/state).
const batchSize = 512

// Unneeded returns the ended allocations of a job that are old and that its
// reconciliation does not need.
type Unneeded func(snap *state.Snapshot, key model.JobID, old func(*model.AllocRow) bool) []*model.AllocRow

// Config wires a collector.
type Config struct {
	Snapshot func() *state.Snapshot
	Unneeded Unneeded
	Reap     func(context.Context, *state.Reap) (*state.Reaped, error)
	Thresholds
	// Interval is the time between passes; 0 means DefaultInterval.
	Interval time.Duration
	Clock    clock.Clock
	Log      hclog.Logger
}

// Collector is one term's collector.
type Collector struct {
	cfg   Config
	force chan chan<- error
	// aside is the passes' own.
	aside aside.Items
}

// New returns a collector.
func New(cfg Config) *Collector {
	for _, t := range []struct{ at, or *time.Duration }{
		{&cfg.Evals, &Default.Evals}, {&cfg.BatchEvals, &Default.BatchEvals}, {&cfg.Deployments, &Default.Deployments}, {&cfg.Jobs, &Default.Jobs}, {&cfg.Nodes, &Default.Nodes},
	} {
		if *t.at <= 0 {
			*t.at = *t.or
		}
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	return &Collector{cfg: cfg, force: make(chan chan<- error), aside: aside.Items{Clock: cfg.Clock, Log: cfg.Log}}
}

// Run makes a pass each interval until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.pass(ctx, c.cfg.Thresholds); err != nil && ctx.Err() == nil {
				c.cfg.Log.Warn("cannot collect garbage; trying again later", "error", err)
			}
		case done := <-c.force:
			done <- c.pass(ctx, none)
		}
	}
}

// none are thresholds that let everything go that is over, whatever the clock
// that its end was written by.
var none = Thresholds{-1, -1, -1, -1, -1}

// Force makes a pass at once that waits for no threshold, and returns when it is
// over or ctx ends; then the pass goes on.
func (c *Collector) Force(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case c.force <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (c *Collector) pass(ctx context.Context, t Thresholds) error {
	snap := c.cfg.Snapshot()
	chosen := choose(snap, c.cfg.Unneeded, t, c.cfg.Clock.Now(), &c.aside)
	var sum state.Reaped
	var err error
	for _, r := range chosen.batches(snap.Index(), batchSize) {
		var out *state.Reaped
		if out, err = c.cfg.Reap(ctx, r); err != nil {
			break
		}
		sum.Allocs += out.Allocs
		sum.Evals += out.Evals
		sum.Deployments += out.Deployments
		sum.Jobs += out.Jobs
		sum.Nodes += out.Nodes
	}
	if sum != (state.Reaped{}) {
		c.cfg.Log.Info("garbage was collected", "allocations", sum.Allocs, "evaluations", sum.Evals, "deployments", sum.Deployments, "jobs", sum.Jobs, "nodes", sum.Nodes)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
