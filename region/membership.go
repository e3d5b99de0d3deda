package region

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/federation"
)

// membership starts the cell when enough servers of the region are there, and
// keeps its members in step with what gossip says while this server leads.
// Gossip adds servers and moves their addresses; it removes only those that
// said that they leave.
type membership struct {
	cell   *cell.Cell
	gossip *federation.Gossip
	region string
	addr   string // our own, as others reach it
	expect int
	log    hclog.Logger

	mu      sync.Mutex // guards changed
	changed chan struct{}
}

func newMembership() *membership { return &membership{changed: make(chan struct{})} }

// notify says that gossip's members changed.
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

// peers are the region's servers that gossip knows.
func (m *membership) peers() (out []federation.Peer) {
	all, _ := m.gossip.Peers()
	for _, p := range all {
		if p.Region == m.region {
			out = append(out, p)
		}
	}
	return out
}

// bootstrap starts a new cell once as many servers as expected are there, all
// of which expect as many. Each of them does the same with the same list. A
// server that holds a log already, or is not expected to start a cell, waits to
// be added.
func (m *membership) bootstrap(ctx context.Context) error {
	fresh, err := m.cell.Fresh()
	if err != nil {
		return err
	}
	if m.expect == 0 || !fresh {
		return nil
	}
	if m.expect == 1 {
		return m.cell.Bootstrap([]cell.Server{{ID: m.cell.ID(), Addr: m.addr}})
	}
	for {
		changed := m.change()
		var servers []cell.Server
		agreed := true
		for _, p := range m.peers() {
			if !p.Alive {
				continue
			}
			if p.Cell != "" {
				// There is a cell already: its leader will add us.
				m.log.Info("the region has a cell; waiting to be added to it", "cell", p.Cell)
				return nil
			}
			agreed = agreed && p.Expect == m.expect
			servers = append(servers, cell.Server{ID: p.ID, Addr: p.RPC})
		}
		switch {
		case !agreed:
			m.log.Warn("servers of the region expect different numbers; make server.bootstrap_expect the same", "ours", m.expect)
		case len(servers) == m.expect:
			m.log.Info("starting the region's cell", "servers", len(servers))
			return m.cell.Bootstrap(servers)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(time.Second):
			// The cell may have begun without us.
			if fresh, err := m.cell.Fresh(); err != nil || !fresh {
				return err
			}
		}
	}
}

// tend adds servers to the cell and takes out those that left, while this
// server leads.
func (m *membership) tend(ctx context.Context) error {
	for {
		changed := m.change()
		if err := m.reconcile(); err != nil && ctx.Err() == nil {
			m.log.Warn("cannot bring the cell's members in step with gossip; trying again", "error", err)
		}
		if c := m.cell.Snapshot().Cell(nil); c != nil {
			if err := m.gossip.SetCell(c.ID); err != nil {
				m.log.Warn("cannot gossip the cell's identity", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(5 * time.Second):
		}
	}
}

func (m *membership) reconcile() error {
	have, err := m.cell.Servers()
	if err != nil {
		return err
	}
	addrs := make(map[string]string, len(have))
	for _, s := range have {
		addrs[s.ID] = s.Addr
	}
	ours := m.cell.Snapshot().Cell(nil)
	if err := m.removeReplaced(have); err != nil {
		return err
	}
	for _, p := range m.peers() {
		addr, member := addrs[p.ID]
		switch {
		case p.Left && member && p.ID != m.cell.ID():
			m.log.Info("a server left", "server", p.Name)
			if err := m.cell.RemoveServer(p.ID); err != nil {
				return err
			}
		case p.Alive && p.Cell != "" && ours != nil && p.Cell != ours.ID:
			m.log.Error("a server of another cell claims this region; it is kept apart", "server", p.Name, "its cell", p.Cell, "ours", ours.ID)
		case p.Alive && addr != p.RPC:
			m.log.Info("adding server to the cell", "server", p.Name, "addr", p.RPC)
			if err := m.cell.AddServer(cell.Server{ID: p.ID, Addr: p.RPC}); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeReplaced takes out members at whose address another server answers now:
// one that lost its data, or set them aside as damaged, comes back with a new id.
func (m *membership) removeReplaced(have []cell.Server) error {
	at, alive := make(map[string]string), make(map[string]bool) // ids by address, and all
	for _, p := range m.peers() {
		if p.Alive {
			at[p.RPC], alive[p.ID] = p.ID, true
		}
	}
	for _, s := range have {
		if id := at[s.Addr]; id != "" && !alive[s.ID] {
			m.log.Info("a server has come back without its data; its old place in the cell is given up", "addr", s.Addr, "old id", s.ID, "new id", id)
			if err := m.cell.RemoveServer(s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
