package cell

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"atoll/cell/state"
	"atoll/model"
)

// StreamLayer carries Raft's connections: a listener for those that come, Dial
// for those that go.
type StreamLayer interface {
	net.Listener
	Dial(addr string, timeout time.Duration) (net.Conn, error)
}

// Config says how to run a member of a cell.
type Config struct {
	// ServerID is this server's, the same over restarts.
	ServerID string
	// DataDir holds the log and the snapshots.
	DataDir string
	Stream  StreamLayer
	// Advertise is the address at which the other servers reach Stream.
	Advertise string
	// Alone tunes for a cell of one server, which needs no time to hear of
	// others.
	Alone  bool
	Logger hclog.Logger
	// SnapshotThreshold is how many entries after a snapshot cause the next;
	// 0 means 8192.
	SnapshotThreshold uint64
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
	snapshotsKept        = 2
)

// maxWrites bounds the writes of Apply that Raft has at a time: four of the
// batches that it syncs at once. Those beyond wait outside of it, where they can
// still be taken back when their caller's time ends. Without the bound, a server
// that gets more than it can write spends itself on writes that nobody waits for
// any more, and whose callers have come again.
const maxWrites = 256

// Cell is this server's member of its cell. Open makes one, Close ends it.
type Cell struct {
	raft      *raft.Raft
	store     *state.Store
	logs      *raftboltdb.BoltStore
	transport *raft.NetworkTransport
	stream    *streamLayer
	advertise raft.ServerAddress
	id        raft.ServerID
	// writes holds an element for each write of Apply in Raft.
	writes chan struct{}
	done   chan struct{}
	// established is the term for which Establish has waited.
	established atomic.Uint64
	// turn is closed and replaced when what Leader or Leads say may have changed.
	turn atomic.Pointer[chan struct{}]
	// stopWatch ends the watch over the leader, which watching waits for.
	stopWatch context.CancelFunc
	watching  sync.WaitGroup
}

// Open starts the member on what its data directory holds. A fresh one waits
// to be bootstrapped or to be added by a leader.
func Open(cfg Config) (_ *Cell, err error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	dir := filepath.Join(cfg.DataDir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open cell: %w", err)
	}
	store, err := state.New()
	if err != nil {
		return nil, err
	}
	log := cfg.Logger.Named("raft")
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	if err != nil {
		return nil, fmt.Errorf("cannot open snapshots in %s: %w", dir, err)
	}
	logs, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "log.db"),
		// Another process on the same directory would hold the lock: say
		// so instead of waiting for ever.
		BoltOptions: &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open log in %s (is another agent using it?): %w", dir, err)
	}
	cache, err := raft.NewLogCache(512, logs)
	if err != nil {
		return nil, errors.Join(err, logs.Close())
	}
	stream := &streamLayer{
		StreamLayer: cfg.Stream, id: cfg.ServerID, log: log, open: make(map[net.Conn]struct{}), ids: make(map[raft.ServerAddress]raft.ServerID),
		ended: make(chan struct{}, 1),
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: 3, Timeout: transportTimeout, Logger: log,
	})
	c := &Cell{
		store: store, logs: logs, transport: transport, stream: stream, done: make(chan struct{}), writes: make(chan struct{}, maxWrites),
		advertise: raft.ServerAddress(cfg.Advertise), id: raft.ServerID(cfg.ServerID),
	}
	rc := raft.DefaultConfig()
	rc.LocalID = c.id
	rc.Logger = log
	// A server that an operator took out of the cell goes on as a follower, and
	// can be admitted again.
	rc.ShutdownOnRemove = false
	rc.HeartbeatTimeout, rc.ElectionTimeout = electionTimeout, electionTimeout
	if cfg.Alone {
		rc.HeartbeatTimeout, rc.ElectionTimeout = aloneElectionTimeout, aloneElectionTimeout
	}
	rc.LeaderLeaseTimeout = rc.HeartbeatTimeout
	rc.CommitTimeout = 10 * time.Millisecond
	// The state is large and rebuilt only on a start: snapshot seldom.
	rc.SnapshotInterval, rc.SnapshotThreshold = 30*time.Second, 8192
	if cfg.SnapshotThreshold > 0 {
		rc.SnapshotThreshold = cfg.SnapshotThreshold
	}
	rc.TrailingLogs = 10240
	rc.BatchApplyCh = true
	if c.raft, err = raft.NewRaft(rc, &fsm{store}, cache, logs, snaps, transport); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start raft: %w", err), transport.Close(), logs.Close())
	}
	stream.raft.Store(c.raft)
	c.turned()
	// Without a channel an observer costs no goroutine: its filter is told.
	c.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if _, ok := o.Data.(raft.LeaderObservation); ok {
			c.turned()
		}
		return false
	}))
	var ctx context.Context
	ctx, c.stopWatch = context.WithCancel(context.Background())
	c.watching.Go(func() { c.watchLeader(ctx) })
	return c, nil
}

// Close stops the member and waits for it; its owner calls it, and a second
// call does nothing. RPC sessions should be closed before: a read in flight
// would hold it up.
func (c *Cell) Close() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	c.stopWatch()
	c.watching.Wait()
	err := c.raft.Shutdown().Error()
	close(c.done)
	return errors.Join(err, c.transport.Close(), c.logs.Close())
}

// Done is closed when Close has stopped Raft.
func (c *Cell) Done() <-chan struct{} { return c.done }

// Server is a member of the cell.
type Server struct{ ID, Addr string }

// Fresh reports whether the member holds neither log nor snapshot: only then
// may it be bootstrapped.
func (c *Cell) Fresh() (bool, error) {
	last, err := c.logs.LastIndex()
	return err == nil && last == 0 && c.raft.LastIndex() == 0, err
}

// Bootstrap starts a new cell of the given servers. All of them may do so with
// the same list.
func (c *Cell) Bootstrap(servers []Server) error {
	conf := raft.Configuration{}
	for _, s := range servers {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	if err := c.raft.BootstrapCluster(conf).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("cannot bootstrap cell: %w", err)
	}
	return nil
}

// Leadership delivers true and false as this server becomes and ceases to be
// the leader. It has one reader. A reader that is late gets the newest alone, so
// that Raft never waits for it: a true that follows a true is a new term.
func (c *Cell) Leadership() <-chan bool { return c.raft.LeaderCh() }

// IsLeader reports whether this server is the leader, as far as it knows.
func (c *Cell) IsLeader() bool { return c.raft.State() == raft.Leader }

// Leader returns the leader's address, "" when none is known.
func (c *Cell) Leader() string {
	addr, _ := c.raft.LeaderWithID()
	return string(addr)
}

// LastContact is how long ago this server heard its leader, 0 for the leader
// itself, and −1 when it never did.
func (c *Cell) LastContact() time.Duration {
	if c.IsLeader() {
		return 0
	}
	if t := c.raft.LastContact(); !t.IsZero() {
		return time.Since(t)
	}
	return -1
}

// Servers returns the cell's members.
func (c *Cell) Servers() ([]Server, error) {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("cannot read raft configuration: %w", err)
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{string(s.ID), string(s.Address)})
	}
	return out, nil
}

// Barrier returns once everything committed before it is in the local state.
func (c *Cell) Barrier(timeout time.Duration) error { return c.raft.Barrier(timeout).Error() }

// Establish waits until everything committed before this server's term is in
// the local state. From then on the server Leads.
func (c *Cell) Establish(timeout time.Duration) error {
	term := c.raft.CurrentTerm()
	if err := c.Barrier(timeout); err != nil {
		return err
	}
	c.established.Store(term)
	c.turned()
	return nil
}

func (c *Cell) turned() {
	next := make(chan struct{})
	if old := c.turn.Swap(&next); old != nil {
		close(*old)
	}
}

// Turn returns a channel that is closed once what Leader or Leads say may have
// changed since: thousands can wait for it, where each looking again and again
// would keep the election from its processor.
func (c *Cell) Turn() <-chan struct{} { return *c.turn.Load() }

// Leads reports whether this server is the leader, as far as it knows, with
// nothing of earlier terms missing from its state: only then may it answer for
// its region.
func (c *Cell) Leads() bool {
	return c.IsLeader() && c.established.Load() == c.raft.CurrentTerm()
}

// Verify asks a majority of the cell whether this server leads still. A read of
// the local state after it sees every write that was acknowledged before it.
func (c *Cell) Verify(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.raft.VerifyLeader().Error() }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		if err != nil {
			return model.Errorf(model.KindNoLeader, "cannot answer for the region: this server ceased to lead it")
		}
		return nil
	}
}

// Snapshot returns the newest local state.
func (c *Cell) Snapshot() *state.Snapshot { return c.store.Snapshot() }

// TakeSnapshot makes Raft write a snapshot now.
func (c *Cell) TakeSnapshot() error { return c.raft.Snapshot().Error() }

// Stats are Raft's own figures.
func (c *Cell) Stats() map[string]string { return c.raft.Stats() }

// Proposed is a command on its way through Raft.
type Proposed struct {
	future raft.ApplyFuture
	// ended is called when Raft has done with it; nil calls nothing.
	ended func()
}

// Propose hands a command to Raft without waiting for the commit, so that
// the next can be prepared meanwhile. Commands commit in the order in which
// one caller proposes them.
//
// A request, unless nil, makes it apply once: when the same request was applied
// before, nothing is changed and its first answer is given.
func (c *Cell) Propose(cmd Command, req *state.Request, body any) (*Proposed, error) {
	b, err := encode(cmd, req, body)
	if err != nil {
		return nil, err
	}
	return &Proposed{future: c.raft.Apply(b, applyTimeout)}, nil
}

// Wait returns the Raft index of the commit and the command's answer. An error
// of kind NoLeader or Busy means that nothing was applied, OutcomeUnknown that
// it may have been, any other is the command's own refusal. The context's end
// gives OutcomeUnknown.
func (p *Proposed) Wait(ctx context.Context) (uint64, any, error) {
	done := make(chan error, 1)
	go func() {
		err := p.future.Error()
		if p.ended != nil {
			p.ended()
		}
		done <- err
	}()
	select {
	case <-ctx.Done():
		return 0, nil, model.Errorf(model.KindOutcomeUnknown, "cannot tell whether the write was committed: %w", ctx.Err())
	case err := <-done:
		if err != nil {
			return 0, nil, raftError(err)
		}
	}
	a := p.future.Response().(answer)
	return a.index, a.value, a.err
}

// Apply proposes a command, when it is its turn, and waits for it; errors are
// those of Wait.
func (c *Cell) Apply(ctx context.Context, cmd Command, body any) (uint64, any, error) {
	return c.ApplyOnce(ctx, cmd, nil, body)
}

// ApplyOnce proposes a command for a request and waits for it; see Propose.
func (c *Cell) ApplyOnce(ctx context.Context, cmd Command, req *state.Request, body any) (uint64, any, error) {
	select {
	case c.writes <- struct{}{}:
	case <-ctx.Done():
		return 0, nil, model.Errorf(model.KindBusy, "cannot write: the leader has more to write than it can, and the call's time ended before its turn")
	}
	p, err := c.Propose(cmd, req, body)
	if err != nil {
		<-c.writes
		return 0, nil, err
	}
	p.ended = func() { <-c.writes }
	return p.Wait(ctx)
}

func raftError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return model.Errorf(model.KindNoLeader, "cannot write: this server is not the leader")
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return model.Errorf(model.KindBusy, "cannot write: the leader took no more writes within %s", applyTimeout)
	case errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return model.Errorf(model.KindOutcomeUnknown, "cannot tell whether the write was committed: %w", err)
	}
	return fmt.Errorf("cannot write to raft: %w", err)
}
