package cell

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/model"
)

// member is one run of Raft on the data directory. A cell closes it when its
// disk fails, and opens another when that is well again.
type member struct {
	id     raft.ServerID
	addr   raft.ServerAddress // at which the others reach it
	raft   *raft.Raft
	state  *state.Store
	log    *checkedLog
	stream *streamLayer
	net    *raft.NetworkTransport
	began  time.Time
	replay replay
	// gone ends when the member takes no more part, and with it its own
	// goroutines, for which cut waits.
	gone context.Context
	end  context.CancelFunc
	own  sync.WaitGroup
	// writes holds an element for each write of Apply in Raft.
	writes chan struct{}
	// established is the term for which Establish has waited.
	established atomic.Uint64

	mu   sync.Mutex // guards owed and paid
	owed int        // answers that Raft still owes
	paid chan struct{}
}

// startMember runs Raft on a directory that was checked.
func (c *Cell) startMember(id string) (_ *member, err error) {
	log := c.cfg.Logger.Named("raft")
	store, err := state.New()
	if err != nil {
		return nil, err
	}
	store.Build = c.cfg.Version
	path := c.dir.file(fileLog)
	inner, err := c.cfg.OpenLog(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open log %s (is another agent using it?): %w", path, err)
	}
	m := &member{
		id: raft.ServerID(id), addr: raft.ServerAddress(c.cfg.Advertise), state: store, writes: make(chan struct{}, maxWrites), stream: newStreamLayer(c.cfg.Stream, id, c.log), began: time.Now(),
		log: newCheckedLog(inner, path, c.cfg.Version, c.log),
	}
	m.gone, m.end = context.WithCancel(context.Background())
	if c.cfg.hang > 0 {
		m.log.hang = c.cfg.hang
	}
	m.net = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.stream, MaxPool: 3, Timeout: transportTimeout, Logger: log,
	})
	defer func() {
		if err != nil {
			m.end()
			_ = m.net.Close()
			_ = m.log.Close()
		}
	}()
	cache, err := raft.NewLogCache(512, m.log)
	if err != nil {
		return nil, err
	}
	snaps, err := openSnapshots(c.dir.path, c.cfg.Version, c.log, m.log.fail)
	if err != nil {
		return nil, err
	}
	if err := beginAnew(m.log, c.dir.path); err != nil {
		return nil, err
	}
	// Raft begins with a read of its log and a write of its term, and panics
	// when those fail; a failure that checkedLog knows of ends the goroutine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
		}()
		err = fmt.Errorf("cannot use %s", path)
		m.raft, err = raft.NewRaft(c.raftConfig(id, log), &fsm{store, &m.replay}, cache, m.log, snaps, transport{m.net})
	}()
	<-done
	if broken := m.log.broken.Load(); broken != nil && err != nil {
		return nil, *broken
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start raft: %w", err)
	}
	return m, nil
}

// Raft's timings. Half a second without a heartbeat starts an election, which
// leaves room within one second for the election itself, and is fifty times
// what a loaded two-core server was seen to delay a heartbeat by. A lone server
// only waits for itself.
const (
	electionTimeout      = 500 * time.Millisecond
	aloneElectionTimeout = 50 * time.Millisecond
	transportTimeout     = 10 * time.Second
	applyTimeout         = 10 * time.Second
)

// maxWrites bounds the writes of Apply that Raft has at a time: four of the
// batches that it syncs at once. Those beyond wait outside of it, where they can
// still be taken back when their caller's time ends. Without the bound, a server
// that gets more than it can write spends itself on writes that nobody waits for
// any more, and whose callers have come again.
const maxWrites = 256

func (c *Cell) raftConfig(id string, log hclog.Logger) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.Logger = log
	// A server that an operator took out of the cell goes on as a follower, and
	// can be admitted again.
	rc.ShutdownOnRemove = false
	rc.HeartbeatTimeout, rc.ElectionTimeout = electionTimeout, electionTimeout
	if c.cfg.Alone {
		rc.HeartbeatTimeout, rc.ElectionTimeout = aloneElectionTimeout, aloneElectionTimeout
	}
	rc.LeaderLeaseTimeout = rc.HeartbeatTimeout
	rc.CommitTimeout = 10 * time.Millisecond
	// See keepReplayShort for the snapshots that are taken before these.
	rc.SnapshotInterval, rc.SnapshotThreshold = 30*time.Second, 8192
	if c.cfg.SnapshotThreshold > 0 {
		rc.SnapshotThreshold = c.cfg.SnapshotThreshold
	}
	rc.TrailingLogs = 10240
	rc.BatchApplyCh = true
	return rc
}

// promise is an answer that Raft owes. Raft answers not all when it ends.
type promise struct {
	future raft.Future
	done   chan struct{}
	err    error
	gone   context.Context
}

// promise takes up an answer of Raft's; ended, unless nil, is called when it has
// come.
func (m *member) promise(f raft.Future, ended func()) *promise {
	p := &promise{future: f, done: make(chan struct{}), gone: m.gone}
	m.mu.Lock()
	m.owed++
	m.mu.Unlock()
	go func() { // ends with Raft's answer, for which cut waits a while
		p.err = f.Error()
		if ended != nil {
			ended()
		}
		close(p.done)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.owed--; m.owed == 0 && m.paid != nil {
			close(m.paid)
			m.paid = nil
		}
	}()
	return p
}

// wait returns Raft's answer, or that the member or ctx ended without one.
func (p *promise) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.gone.Done():
		// It may have answered in time after all.
		select {
		case <-p.done:
			return p.err
		default:
			return raft.ErrRaftShutdown
		}
	}
}

// drainTime is how long cut waits for Raft's last answers: a leader that hears
// nobody gives up its lease, and with it what it has not committed, within the
// election's time-out.
const drainTime = 4 * electionTimeout

// cut takes the member out: nothing that it says is heard from now on, and
// whoever waits for its answer has it.
func (m *member) cut() {
	_ = m.net.Close() // and with it the stream layer
	m.mu.Lock()
	paid := make(chan struct{})
	if m.paid = paid; m.owed == 0 {
		close(paid)
		m.paid = nil
	}
	m.mu.Unlock()
	select {
	case <-paid:
	case <-time.After(drainTime):
	}
	m.end()
	m.own.Wait()
}

// stop ends Raft after cut, and waits until it has let go of the files.
func (m *member) stop() error {
	err := m.raft.Shutdown().Error()
	if closeErr := m.log.Close(); err == nil {
		err = closeErr
	}
	return err
}

// lastContact is when the member heard its leader, zero when it never did.
func (m *member) lastContact() time.Time {
	if m.raft.State() == raft.Leader {
		return time.Now()
	}
	return m.raft.LastContact()
}

// errDown is what a cell without a member says.
func errDown(why error) error {
	return model.Errorf(model.KindNoLeader, "this server takes no part in its cell at the moment: %w", why)
}
