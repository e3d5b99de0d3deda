// Package autopilot tends the servers of a cell while this server leads it: it
// watches their health, gives new ones a vote once they are stable, and takes
// dead ones out when that makes the cell safer. It is raft-autopilot with
// gossip's view of who is there and our calls for how far each one is.
//
// A Pilot lives for a term. Run owns its goroutines and waits for them. It
// decides from Raft's configuration and never adds a server by itself: Add
// does, for whoever knows that the server is of this cell.
package autopilot

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftautopilot "github.com/hashicorp/raft-autopilot"

	"atoll/cell/state"
	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
)

// Config wires a pilot.
type Config struct {
	Raft     raftautopilot.Raft
	Snapshot func() *state.Snapshot
	// Peers are the region's servers that may be of this cell, by gossip,
	// ourselves included.
	Peers func() []federation.Peer
	// Ask asks the server at an address how far it is.
	Ask func(ctx context.Context, addr string) (*method.ServerStatusResponse, error)
	// Gone declares a dead server gone for good: it leaves gossip, and then
	// the cell.
	Gone func(name string) error
	Log  hclog.Logger
	// Update is how often health is measured, Reconcile how often it is acted
	// on; 0 means every 2 and 10 seconds.
	Update, Reconcile time.Duration
}

// Pilot tends a cell for one term.
type Pilot struct {
	cfg  Config
	ap   *raftautopilot.Autopilot
	gone chan string

	mu    sync.Mutex // guards heard
	heard map[raft.ServerID]heard
}

// heard is a server's last answer.
type heard struct {
	at    time.Time
	stats raftautopilot.ServerStats
}

// New returns a pilot that does nothing until Run.
func New(cfg Config) *Pilot {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	p := &Pilot{cfg: cfg, gone: make(chan string, 16), heard: make(map[raft.ServerID]heard)}
	p.ap = raftautopilot.New(cfg.Raft, (*delegate)(p),
		raftautopilot.WithLogger(cfg.Log), raftautopilot.WithPromoter(&promoter{raft: cfg.Raft}),
		raftautopilot.WithUpdateInterval(cfg.Update), raftautopilot.WithReconcileInterval(cfg.Reconcile))
	return p
}

// Run tends the cell until ctx ends, and returns when its goroutines have ended.
func (p *Pilot) Run(ctx context.Context) error {
	p.ap.Start(ctx)
	for {
		select {
		case <-ctx.Done():
			<-p.ap.Stop()
			return nil
		case name := <-p.gone:
			p.cfg.Log.Warn("a dead server is taken out of the cell", "server", name)
			if err := p.cfg.Gone(name); err != nil && ctx.Err() == nil {
				p.cfg.Log.Warn("cannot take a dead server out of the cell; trying again", "server", name, "error", err)
			}
		}
	}
}

// Add makes a server a member without a vote, or moves a member to its new
// address. A member of another id at the same address goes first: that server
// lost its data.
func (p *Pilot) Add(s federation.Peer) error { return p.ap.AddServer(serverOf(s)) }

// Health is the cell's as last measured; nil until it was.
func (p *Pilot) Health() *model.CellHealth {
	st := p.ap.GetState()
	if st == nil || st.Leader == "" {
		return nil
	}
	out := &model.CellHealth{Healthy: st.Healthy, FailureTolerance: st.FailureTolerance, Leader: string(st.Leader)}
	for _, id := range st.Voters {
		out.Voters = append(out.Voters, string(id))
	}
	ids := make([]raft.ServerID, 0, len(st.Servers))
	for id := range st.Servers {
		ids = append(ids, id)
	}
	raftautopilot.SortServers(ids, st)
	for _, id := range ids {
		s := st.Servers[id]
		out.Servers = append(out.Servers, &model.ServerHealth{
			ID: string(id), Name: s.Server.Name, Address: string(s.Server.Address), SerfStatus: string(s.Server.NodeStatus),
			Version: s.Server.Version, Leader: s.State == raftautopilot.RaftLeader, LastContact: s.Stats.LastContact,
			LastTerm: s.Stats.LastTerm, LastIndex: s.Stats.LastIndex, Healthy: s.Health.Healthy,
			Voter: s.HasVotingRights(), StableSince: s.Health.StableSince,
		})
	}
	return out
}

func serverOf(p federation.Peer) *raftautopilot.Server {
	status := raftautopilot.NodeFailed
	switch {
	case p.Left:
		status = raftautopilot.NodeLeft
	case p.Alive:
		status = raftautopilot.NodeAlive
	}
	return &raftautopilot.Server{
		ID: raft.ServerID(p.ID), Name: p.Name, Address: raft.ServerAddress(p.RPC), NodeStatus: status,
		// Autopilot counts those that can have a vote by their type.
		NodeType: raftautopilot.NodeVoter, Version: p.Build, RaftVersion: 3,
	}
}

// delegate is a Pilot as raft-autopilot asks of it.
type delegate Pilot

func (d *delegate) AutopilotConfig() *raftautopilot.Config {
	c := d.cfg.Snapshot().AutopilotConfig(nil)
	if c == nil {
		return nil
	}
	return &raftautopilot.Config{
		CleanupDeadServers: c.CleanupDeadServers, LastContactThreshold: c.LastContactThreshold, MaxTrailingLogs: c.MaxTrailingLogs,
		MinQuorum: c.MinQuorum, ServerStabilizationTime: c.ServerStabilizationTime,
	}
}

func (d *delegate) NotifyState(*raftautopilot.State) {}

func (d *delegate) KnownServers() map[raft.ServerID]*raftautopilot.Server {
	out := make(map[raft.ServerID]*raftautopilot.Server)
	for _, p := range d.cfg.Peers() {
		out[raft.ServerID(p.ID)] = serverOf(p)
	}
	return out
}

// FetchServerStats asks all servers at once, until ctx ends. One that does not
// answer has been without a contact for longer each time it is asked: its old
// figures must not pass for new ones.
func (d *delegate) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*raftautopilot.Server) map[raft.ServerID]*raftautopilot.ServerStats {
	begun := time.Now()
	var wg sync.WaitGroup
	for id, s := range servers {
		wg.Go(func() {
			r, err := d.cfg.Ask(ctx, string(s.Address))
			if err != nil || r.ID != string(id) {
				return
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.heard[id] = heard{time.Now(), raftautopilot.ServerStats{LastContact: r.LastContact, LastTerm: r.LastTerm, LastIndex: r.LastIndex}}
		})
	}
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[raft.ServerID]*raftautopilot.ServerStats)
	for id := range servers {
		h, ever := d.heard[id]
		stats := h.stats
		switch {
		case !ever:
			stats.LastContact = -1
		case h.at.Before(begun) && stats.LastContact >= 0:
			stats.LastContact += time.Since(h.at)
		}
		out[id] = &stats
	}
	for id := range d.heard {
		if servers[id] == nil {
			delete(d.heard, id)
		}
	}
	return out
}

// RemoveFailedServer must not wait; what finds no place is asked for again.
func (d *delegate) RemoveFailedServer(s *raftautopilot.Server) {
	select {
	case d.gone <- s.Name:
	default:
	}
}

// promoter gives stable servers a vote, and keeps the dead ones whose removal
// would gain nothing.
type promoter struct {
	raftautopilot.StablePromoter
	raft raftautopilot.Raft
}

// FilterFailedServerRemovals keeps one dead voter when an even number would
// remain without it: of three voters with one dead, and of two without it, none
// can be lost; but the dead one of three helps again the moment it is back,
// while one that was removed must first be admitted by a leader that the cell
// may have lost by then. Its place is freed once another has come for it. A
// failed server is kept before one that gossip does not know, which is less
// likely to be back. Raft-autopilot bounds the rest to a minority, and by
// MinQuorum.
func (p *promoter) FilterFailedServerRemovals(_ *raftautopilot.Config, _ *raftautopilot.State, dead *raftautopilot.FailedServers) *raftautopilot.FailedServers {
	f := p.raft.GetConfiguration()
	if f.Error() != nil {
		return &raftautopilot.FailedServers{}
	}
	voters := 0
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	alive := voters - len(dead.FailedVoters) - len(dead.StaleVoters)
	switch {
	case alive <= voters/2:
		// Gossip sees less than Raft does, or this server leads no more.
		return &raftautopilot.FailedServers{}
	case alive%2 != 0:
		return dead
	}
	out := *dead
	switch {
	case len(out.FailedVoters) > 0:
		out.FailedVoters = out.FailedVoters[1:]
	case len(out.StaleVoters) > 0:
		out.StaleVoters = out.StaleVoters[1:]
	}
	return &out
}
