package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/federation"
	"atoll/internal/backoff"
	"atoll/internal/wholefile"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/autopilot"
)

// membership starts the cell when enough servers of the region are there, and
// keeps its members in step with what gossip says while this server leads.
// Gossip admits servers and moves their addresses; it removes only those that
// have left or were declared gone. Servers of another cell are no concern of
// ours, whatever region they claim.
type membership struct {
	cell   *cell.Cell
	gossip *federation.Gossip
	dir    *federation.Directory
	addr   string // our own, as others reach it
	expect int
	// ask asks another server of the region about itself.
	ask func(ctx context.Context, addr string) (*method.ServerStatusResponse, error)
	// cellFile keeps the id of our cell.
	cellFile string
	log      hclog.Logger

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	// cellID is our cell's, kept over restarts, since a server that starts has
	// no state before it hears of its leader. "" says that this server never
	// was in a cell.
	cellID string
}

func newMembership(cellFile string) *membership {
	return &membership{cellFile: cellFile, changed: make(chan struct{})}
}

// notify says that the directory changed.
func (m *membership) notify() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *membership) change() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// self is this server as a member; its id changes when it comes back without
// its data.
func (m *membership) self() cell.Server { return cell.Server{ID: m.cell.ID(), Addr: m.addr} }

// ofCell is the id of our cell, "" while that is not known.
func (m *membership) ofCell() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cellID
}

// peers are the region's servers that may be of our cell.
func (m *membership) peers() []federation.Peer {
	peers, _ := m.dir.Own()
	return peers
}

// bootstrap starts a new cell once as many servers as expected are there. Only
// the one with the lowest id does so, after all the others have told that they
// would start the same: servers whose gossip has not met yet must not start two
// cells. The others take what they are sent, as does a server that is not
// expected to start a cell.
func (m *membership) bootstrap(ctx context.Context) error {
	fresh, err := m.cell.Fresh()
	if err != nil || !fresh || m.expect == 0 {
		return err
	}
	if id := m.ofCell(); id != "" {
		m.log.Error("this server was in a cell and has lost its log; it waits to be admitted again, and starts no new cell unless the file with the cell's id is removed", "cell", id, "file", m.cellFile)
		return nil
	}
	if m.expect == 1 {
		return m.cell.Bootstrap([]cell.Server{m.self()})
	}
	said := ""
	for {
		again := time.Second
		changed := m.change()
		servers, why := m.starters()
		if why == "" && servers[0].ID == m.cell.ID() {
			if err := m.agree(ctx, servers); err == nil {
				m.log.Info("starting the region's cell", "servers", len(servers))
				return m.cell.Bootstrap(servers)
			} else {
				why, again = err.Error(), 100*time.Millisecond
			}
		}
		if why != "" && why != said && ctx.Err() == nil {
			said = why
			m.log.Info("the region's cell is not started yet", "cause", why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(again):
		}
		// Another may have started the cell, or admitted us to it.
		if fresh, err := m.cell.Fresh(); err != nil || !fresh {
			return err
		}
	}
}

// starters are the servers with which this one would start a cell, by id; else
// it says what is in the way.
func (m *membership) starters() (servers []cell.Server, why string) {
	peers, contested := m.dir.Own()
	for _, p := range peers {
		switch {
		case !p.Alive:
		case p.Cell != "" || contested:
			return nil, "the region has a cell, whose leader admits new servers"
		case p.Expect == m.expect:
			servers = append(servers, cell.Server{ID: p.ID, Addr: p.RPC})
		case p.Expect != 0:
			return nil, fmt.Sprintf("server %s has bootstrap_expect %d, this one %d; make them the same", p.Name, p.Expect, m.expect)
		}
	}
	if len(servers) < m.expect {
		return nil, fmt.Sprintf("%d servers of %d are there", len(servers), m.expect)
	}
	slices.SortFunc(servers, func(a, b cell.Server) int { return strings.Compare(a.ID, b.ID) })
	return servers, ""
}

// starterIDs are those of starters, nil when this server would start no cell.
func (m *membership) starterIDs() (ids []string) {
	if fresh, err := m.cell.Fresh(); err != nil || !fresh {
		return nil
	}
	servers, _ := m.starters()
	for _, s := range servers {
		ids = append(ids, s.ID)
	}
	return ids
}

// agree fails unless each server would start a cell of the same servers.
func (m *membership) agree(ctx context.Context, servers []cell.Server) error {
	var ids []string
	for _, s := range servers {
		ids = append(ids, s.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, s := range servers {
		if s.ID == m.cell.ID() {
			continue
		}
		r, err := m.ask(ctx, s.Addr)
		switch {
		case err != nil:
			return fmt.Errorf("the server at %s does not answer: %w", s.Addr, err)
		case r.ID != s.ID || !slices.Equal(r.Starters, ids):
			return fmt.Errorf("the server at %s does not see the same servers yet", s.Addr)
		}
	}
	return nil
}

// identify keeps the identity of our cell as soon as it is known, and gossips
// it, until ctx ends.
func (m *membership) identify(ctx context.Context) error {
	settle := backoff.Policy{Min: 50 * time.Millisecond, Max: 5 * time.Second}
	for {
		ws := make(state.Watch)
		if c := m.cell.Snapshot().Cell(ws); c != nil && c.ID != m.ofCell() {
			if err := wholefile.Write(m.cellFile, []byte(c.ID+"\n")); err != nil {
				m.log.Error("cannot keep the id of the cell; after a restart this server is taken for a new one", "error", err)
			}
			m.mu.Lock()
			m.cellID = c.ID
			m.mu.Unlock()
			_ = settle.Retry(ctx, nil, func(context.Context) error { return m.gossip.SetCell(c.ID) })
			// The directory sees our region with other eyes now.
			m.gossip.Changed()
		}
		if ws.WatchCtx(ctx) != nil {
			return nil
		}
	}
}

// tend admits servers to the cell and takes out those that left, while this
// server leads.
func (m *membership) tend(ctx context.Context, pilot *autopilot.Pilot) error {
	for {
		changed := m.change()
		if err := m.reconcile(ctx, pilot); err != nil && ctx.Err() == nil {
			m.log.Warn("cannot bring the cell's members in step with gossip; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(5 * time.Second):
		}
	}
}

// reconcile makes one pass. What fails for one server keeps no other back.
func (m *membership) reconcile(ctx context.Context, pilot *autopilot.Pilot) error {
	have, err := m.cell.Servers()
	if err != nil {
		return err
	}
	addrs := make(map[string]string, len(have))
	for _, s := range have {
		addrs[s.ID] = s.Addr
	}
	var errs []error
	peers, contested := m.dir.Own()
	for _, p := range peers {
		addr, member := addrs[p.ID]
		switch {
		case p.Left && member && p.ID != m.cell.ID():
			m.log.Info("a server left the cell", "server", p.Name)
			errs = append(errs, m.cell.RemoveServer(p.ID))
		case p.Alive && !member && p.Cell == "" && contested:
			// Both leaders would send it their logs.
			m.log.Error("a new server is not admitted while servers of another cell claim the region: stop those, or declare them gone with atoll server force-leave", "server", p.Name)
		case p.Alive && !member && p.Cell == "" && !m.blank(ctx, p):
			m.log.Debug("a server that may start a cell of its own is not admitted", "server", p.Name)
		case p.Alive && !member && slices.ContainsFunc(peers, func(o federation.Peer) bool { return o.Alive && o.RPC == p.RPC && o.ID != p.ID }):
			// To admit it would be to take that one out.
			m.log.Error("a new server is not admitted while it advertises the address of another", "server", p.Name, "addr", p.RPC)
		case p.Alive && addr != p.RPC:
			m.log.Info("admitting a server to the cell", "server", p.Name, "addr", p.RPC)
			errs = append(errs, pilot.Add(p))
		}
	}
	return errors.Join(errs...)
}

// blank reports whether a server that names no cell is of none, and will start
// none: only such a one may be sent our log.
func (m *membership) blank(ctx context.Context, p federation.Peer) bool {
	if p.Expect == 1 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := m.ask(ctx, p.RPC)
	return err == nil && r.ID == p.ID && r.LastIndex == 0
}

// leaveTime bounds how long a server that leaves waits to be taken out of its
// cell: longer than an election and what the new leader does first.
const leaveTime = 5 * time.Second

// left waits until the cell has taken this server out, after gossip has said
// that it leaves: the others may need its vote for that. When no other could
// lead, it has nobody to wait for.
func (m *membership) left(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	for n := 0; ; n++ {
		conf, err := m.cell.Configuration()
		if err != nil {
			return err
		}
		is := func(s *model.RaftServer) bool { return s.ID == m.cell.ID() }
		others := slices.ContainsFunc(conf.Servers, func(s *model.RaftServer) bool { return s.Voter && !is(s) })
		if !slices.ContainsFunc(conf.Servers, is) || !others {
			return nil
		}
		if m.cell.IsLeader() && n > 0 {
			// It could not hand over: it takes itself out, and steps down.
			if err := m.cell.RemoveServer(m.cell.ID()); err != nil {
				return err
			}
		}
		if !(backoff.Policy{Min: 50 * time.Millisecond, Max: 200 * time.Millisecond}).Sleep(ctx, n) {
			return fmt.Errorf("the cell did not take this server out within %s; it stays a member: remove it with atoll operator raft remove-peer -peer-id %s", leaveTime, m.cell.ID())
		}
	}
}
