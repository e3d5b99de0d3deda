// Package heartbeat declares nodes down that were not heard of in time. It is
// one of the leader's loops: a new leader gives every node a whole TTL before
// it judges any, since it does not know when the last leader heard them.
//
// Beat may be called by any number of goroutines; Run is the one that judges.
package heartbeat

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// Config wires a heartbeat loop.
type Config struct {
	Snapshot func() *state.Snapshot
	// Down declares a node down, unless the node changed since ifIndex.
	Down func(ctx context.Context, nodeID, why string, ifIndex uint64) error
	// MinTTL is the shortest TTL, Grace what is added to it before a node
	// is judged, and MaxRate the nodes a second whose TTL may end: with more,
	// TTLs are stretched. Nodes beat well before theirs ends, so that 1.6
	// times as many heartbeats come. Zeros mean the Defaults.
	MinTTL, Grace time.Duration
	MaxRate       float64
	Clock         clock.Clock
	Log           hclog.Logger
}

// Defaults; 1,000 heartbeats a second cost a server a quarter of a core, of the
// two that it has at the least (docs/benchmarks.md).
const (
	DefaultMinTTL  = 10 * time.Second
	DefaultGrace   = 10 * time.Second
	DefaultMaxRate = 1000
)

// Monitor is one term's view of when nodes were heard.
type Monitor struct {
	cfg Config

	mu sync.Mutex // guards deadlines
	// deadlines are when a node is judged. A node without one is given one
	// when it is first seen in the state.
	deadlines map[string]time.Time
}

// New returns a monitor that has heard nobody.
func New(cfg Config) *Monitor {
	if cfg.MinTTL <= 0 {
		cfg.MinTTL = DefaultMinTTL
	}
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.MaxRate <= 0 {
		cfg.MaxRate = DefaultMaxRate
	}
	return &Monitor{cfg: cfg, deadlines: make(map[string]time.Time)}
}

// Beat records that a node was heard and returns within which time it should
// be heard again.
func (m *Monitor) Beat(nodeID string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	ttl := m.ttl()
	m.deadlines[nodeID] = m.cfg.Clock.Now().Add(ttl + m.cfg.Grace)
	return ttl
}

func (m *Monitor) ttl() time.Duration {
	return max(m.cfg.MinTTL, time.Duration(float64(len(m.deadlines))/m.cfg.MaxRate*float64(time.Second)))
}

// Run judges nodes until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	tick := time.NewTicker(max(m.cfg.Grace/10, 50*time.Millisecond))
	defer tick.Stop()
	for {
		for _, n := range m.overdue(m.cfg.Snapshot()) {
			why := "no heartbeat in time"
			if err := m.cfg.Down(ctx, n.ID, why, n.ModifyIndex); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				// It stays overdue and is judged again at the next tick.
				m.cfg.Log.Warn("cannot declare node down", "node", n.ID, "error", err)
				continue
			}
			m.cfg.Log.Warn("node is down", "node", n.ID, "name", n.Name, "cause", why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// overdue returns the nodes that should be declared down, and keeps the
// deadlines to nodes that can be.
func (m *Monitor) overdue(snap *state.Snapshot) []*model.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Clock.Now()
	known := make(map[string]bool, len(m.deadlines))
	var out []*model.Node
	for n := range snap.Nodes(nil, "") {
		if n.Status == model.NodeStatusDown {
			continue
		}
		known[n.ID] = true
		deadline, heard := m.deadlines[n.ID]
		switch {
		case !heard:
			m.deadlines[n.ID] = now.Add(m.ttl() + m.cfg.Grace)
		case now.After(deadline):
			out = append(out, n)
		}
	}
	for id := range m.deadlines {
		if !known[id] {
			delete(m.deadlines, id)
		}
	}
	return out
}
