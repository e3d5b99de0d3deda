// Package heartbeat declares nodes down that were not heard of in time, through
// any change of leader.
//
// Every heartbeat reaches the leader, which alone judges; so the leader knows
// when each node was heard, and nobody else does: a server that only carries
// heartbeats to it sees those of some nodes, and those of nodes that are
// connected to the leader itself would be lost with it. Hence the other servers
// keep a copy: each asks the leader every second for the contacts that are new
// (Contacts.Follow). A new leader asks the others once more, of which one may
// have led before it, and then knows of every heartbeat but those of the last
// moments before the change, and of the change itself, when none could be taken.
//
// It judges by that (Monitor.due). A node that was overdue already when its
// contacts were last complete is down at once. Any other may have been heard
// unseen, and is due again within method.BeatLatest of its TTL; it is given so
// long from the beginning of the term, and half of the grace to get through. So
// no live node goes down for a change of leader, and a dead one outlives its
// ordinary time by no more than the change took and a few seconds; a dozen
// changes in a row add no more than one.
//
// A node with allocations that may go on without it being heard (the disconnect
// block of their groups) is disconnected first, and down when the last of them is
// lost. Its contact is kept until then, through any change of leader.
//
// A leader that was itself held up (a paused machine, a full CPU) has a gap of
// the same kind behind it, and treats it in the same way.
//
// Beat may be called by any number of goroutines; Run is the one that judges.
package heartbeat

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
)

// Config wires a heartbeat loop.
type Config struct {
	Snapshot func() *state.Snapshot
	// Contacts are the server's, kept through its terms.
	Contacts *Contacts
	// Peers are the addresses of the region's other servers, Ask asks one.
	Peers func() []string
	Ask   Ask
	// Set changes the status of nodes, of each unless it changed since it was
	// judged.
	Set func(ctx context.Context, verdicts []Verdict) error
	// MinTTL is the shortest TTL, Grace what is added to it before a node
	// is judged, and MaxRate the heartbeats a second that TTLs are
	// stretched to keep. Zeros mean the Defaults.
	MinTTL, Grace time.Duration
	MaxRate       float64
	Clock         clock.Clock
	Log           hclog.Logger
}

// Verdict is a node's new status, and why.
type Verdict struct {
	Node   *model.Node
	Status string
	Why    string
}

// Defaults; 1,000 heartbeats a second cost a third of a core, and less than half
// of one while each node waits for its work too (docs/benchmarks.md).
const (
	DefaultMinTTL  = 10 * time.Second
	DefaultGrace   = 10 * time.Second
	DefaultMaxRate = 1000
)

// Monitor is one term's judge.
type Monitor struct {
	cfg Config

	// live is how many nodes there are that are not down.
	live atomic.Int64

	// complete and began are the ends of the time in which heartbeats may have
	// been taken of which this server knows nothing. They are Run's.
	complete, began time.Time
}

// New returns a monitor for a term that begins.
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
	m := &Monitor{cfg: cfg}
	m.live.Store(int64(cfg.Contacts.count()))
	return m
}

// Beat records that a node was heard and returns within which time it should
// be heard again.
func (m *Monitor) Beat(nodeID string) time.Duration {
	ttl := m.ttl()
	m.cfg.Contacts.record(nodeID, ttl)
	return ttl
}

// ttl is such that all nodes together keep to the rate.
func (m *Monitor) ttl() time.Duration {
	return max(m.cfg.MinTTL, time.Duration(float64(m.live.Load())/m.cfg.MaxRate/method.BeatMean*float64(time.Second)))
}

// Run judges nodes until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	m.learn(ctx)
	tick := time.NewTicker(max(m.cfg.Grace/10, 50*time.Millisecond))
	defer tick.Stop()
	m.complete, m.began = m.cfg.Contacts.completedAt(), m.cfg.Clock.Now()
	for last := m.began; ; {
		now := m.cfg.Clock.Now()
		if now.Sub(last) > m.cfg.Grace/2 {
			m.complete, m.began = last, now
		}
		last = now
		m.cfg.Contacts.completeTo(now)
		if verdicts := m.judge(now, m.cfg.Snapshot()); len(verdicts) > 0 {
			m.carryOut(ctx, verdicts, now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// learn asks all other servers what they know.
func (m *Monitor) learn(ctx context.Context) {
	var asking sync.WaitGroup
	for _, addr := range m.cfg.Peers() {
		asking.Go(func() {
			if err := m.cfg.Contacts.learn(ctx, m.cfg.Ask, addr); err != nil && ctx.Err() == nil {
				m.cfg.Log.Debug("cannot learn from a server when nodes were heard", "server", addr, "error", err)
			}
		})
	}
	asking.Wait()
}

// atOnce is how many verdicts are carried out together: a few milliseconds' worth,
// so that of a rack that is back, or a leader that was held up, few are overtaken by
// a heartbeat while they are written.
const atOnce = 64

// carryOut writes verdicts that were judged at a moment, but for nodes that were
// heard since.
func (m *Monitor) carryOut(ctx context.Context, verdicts []Verdict, judged time.Time) {
	for part := range slices.Chunk(verdicts, atOnce) {
		part = slices.DeleteFunc(part, func(v Verdict) bool { return m.cfg.Contacts.heardAfter(v.Node.ID, judged) })
		if len(part) == 0 {
			continue
		}
		if err := m.cfg.Set(ctx, part); err != nil {
			if ctx.Err() == nil {
				// They stay overdue and are judged again at the next tick.
				m.cfg.Log.Warn("cannot record that nodes were not heard in time; trying again", "nodes", len(verdicts), "error", err)
			}
			return
		}
		for _, v := range part {
			m.cfg.Log.Warn("a node was not heard in time", "node", v.Node.ID, "name", v.Node.Name, "status", v.Status)
		}
	}
}

// judge returns the nodes whose status should change.
func (m *Monitor) judge(now time.Time, snap *state.Snapshot) []Verdict {
	m.cfg.Contacts.sweep(snap)
	ttl := m.ttl()
	live := int64(0)
	var out []Verdict
	for n := range snap.Nodes(nil, "") {
		if n.Status == model.NodeStatusDown {
			continue
		}
		live++
		due := m.due(m.cfg.Contacts.get(n.ID, ttl))
		if !now.After(due) {
			continue
		}
		switch until := due.Add(lostAfter(snap, n.ID)); {
		case now.After(until) && n.Status == model.NodeStatusDisconnected:
			out = append(out, Verdict{n, model.NodeStatusDown, "no heartbeat before its allocations were lost"})
		case now.After(until):
			out = append(out, Verdict{n, model.NodeStatusDown, "no heartbeat in time"})
		case n.Status != model.NodeStatusDisconnected:
			out = append(out, Verdict{n, model.NodeStatusDisconnected, "no heartbeat in time; allocations may go on there"})
		}
	}
	m.live.Store(live)
	return out
}

// lostAfter is how long a node's allocations may be out of touch before the last
// of them is lost: so long the node is disconnected rather than down.
func lostAfter(snap *state.Snapshot, nodeID string) (longest time.Duration) {
	id, ok := model.ParseUUID(nodeID)
	if !ok {
		return 0
	}
	for r := range snap.AllocsOfNode(nil, id) {
		if r.Terminal() || r.Client == model.ClientPending {
			continue
		}
		if g := r.Job().Group(r.Shared.Group); g != nil && g.Disconnect != nil {
			longest = max(longest, g.Disconnect.LostAfter)
		}
	}
	return longest
}

// due is when a node must have been heard again.
func (m *Monitor) due(c contact) time.Time {
	due := c.at.Add(c.ttl + m.cfg.Grace)
	// A quarter of the grace is what a heartbeat may be late by on any day.
	next := time.Duration(method.BeatLatest*float64(c.ttl)) + m.cfg.Grace/4
	if c.at.After(m.began) || c.at.Add(next).Before(m.complete) {
		return due
	}
	// It may have been heard in the time of which nothing is known. What it sends
	// now may first have to find another server.
	if unseen := m.began.Add(next + m.cfg.Grace/4); unseen.After(due) {
		return unseen
	}
	return due
}
