package cell

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/model"
)

// Config says how to run a member of a cell.
type Config struct {
	// ServerID is the id of a server that has none yet; "" makes one up. It is
	// kept with the data, and is the same over restarts.
	ServerID string
	// DataDir holds the log and the snapshots.
	DataDir string
	Stream  StreamLayer
	// Advertise is the address at which the other servers reach Stream.
	Advertise string
	// Alone is for a cell of one server. It needs no time to hear of others, and
	// has nobody to get its data from when that is damaged.
	Alone  bool
	Logger hclog.Logger
	// SnapshotThreshold is how many entries after a snapshot cause the next;
	// 0 means 8192.
	SnapshotThreshold uint64
	// Version is that of Atoll; entries and snapshots carry it.
	Version string
	// OpenLog opens the log store at a path; nil means raft-boltdb.
	OpenLog func(path string) (LogStore, error)
	// GoesOn reports whether the cell goes on without this server: another one
	// leads, and has committed something since it was asked. Then a majority
	// without this server has whatever this one ever acknowledged. It is asked,
	// until it says so, while this server's data are damaged: only then are they
	// set aside. Nil never says so.
	GoesOn func(ctx context.Context) bool
	// Renewed is told the id under which this server has come back without its
	// data; nil tells nobody.
	Renewed func(id string)
	// hang is for tests; 0 means hangLimit.
	hang time.Duration
	// replay is for tests; 0 means replayLimit.
	replay time.Duration
}

// Cell is this server's part in its cell. Open makes one, Run keeps it going
// over failures of the disk, Close ends it.
type Cell struct {
	cfg    Config
	dir    dataDir
	log    hclog.Logger
	leader chan bool
	done   chan struct{}
	// own are the cell's goroutines, for which Close waits.
	own sync.WaitGroup
	// turn is closed and replaced when what Leader or Leads say may have changed.
	turn atomic.Pointer[chan struct{}]
	// state is what readers see.
	state atomic.Pointer[state.Store]

	mu     sync.Mutex // guards what follows
	member *member    // nil while there is none
	id     string
	// down is why there is no member, since when, and contact the last time the
	// leader was heard.
	down    error
	since   time.Time
	contact time.Time
}

// Open starts the server's member on what its data directory holds, once every
// byte of that was checked. A fresh one waits to be bootstrapped or to be added
// by a leader.
//
// With damaged data there is no member (Down says why) until Run has replaced
// them from the others; for a server that is Alone the *Damage is returned. Data
// of a newer version are a *state.Newer. Nothing is changed in either.
func Open(cfg Config) (*Cell, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.OpenLog == nil {
		cfg.OpenLog = openBolt
	}
	empty, err := state.New()
	if err != nil {
		return nil, err
	}
	c := &Cell{
		cfg: cfg, dir: dataDir{filepath.Join(cfg.DataDir, "raft"), cfg.Version}, log: cfg.Logger.Named("cell"),
		leader: make(chan bool, 1), done: make(chan struct{}),
	}
	c.state.Store(empty)
	c.Turned()
	err = c.start(cfg.ServerID)
	var damage *Damage
	if errors.As(err, &damage) && !cfg.Alone {
		c.setDown(err)
		c.log.Error(damagedMessage, "error", err)
		err = nil
	}
	if err != nil {
		if damage != nil {
			err = fmt.Errorf("%w; no other server has this cell's data, so that nothing was changed: restore the directory from a copy, or move it away and restore a snapshot into a new cell", err)
		}
		return nil, fmt.Errorf("cannot open the cell: %w", err)
	}
	c.own.Go(c.accept) // ended by Close
	return c, nil
}

// start checks the directory and starts a member on it.
func (c *Cell) start(newID string) error {
	id, err := c.dir.prepare(c.cfg.OpenLog, newID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.id = id
	c.mu.Unlock()
	if err := c.dir.checkLogged(c.log); err != nil {
		return err
	}
	m, err := c.startMember(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.member, c.down = m, nil
	c.mu.Unlock()
	if seen := c.Snapshot().Index(); m.state.Snapshot().Index() < seen {
		m.own.Go(func() { c.catchUp(m, seen) })
	} else {
		c.show(m)
	}
	// Without a channel an observer costs no goroutine: its filter is told.
	m.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if _, ok := o.Data.(raft.LeaderObservation); ok {
			c.Turned()
		}
		return false
	}))
	c.Turned()
	m.own.Go(func() { c.followLeadership(m) })
	m.own.Go(func() { c.keepReplayShort(m) })
	m.own.Go(func() { m.watchLeader(m.gone) })
	return nil
}

// followLeadership tells of what the member tells, while there is one.
func (c *Cell) followLeadership(m *member) {
	for {
		select {
		case leads := <-m.raft.LeaderCh():
			c.tell(leads)
		case <-m.gone.Done():
			return
		}
	}
}

// accept hands connections to the member of the moment.
func (c *Cell) accept() {
	for {
		conn, err := c.cfg.Stream.Accept()
		if err != nil {
			select {
			case <-c.done:
				return
			case <-time.After(20 * time.Millisecond):
				continue
			}
		}
		if m := c.current(); m != nil {
			m.stream.offer(conn)
		} else {
			_ = conn.Close()
		}
	}
}

// current is the member, nil when there is none.
func (c *Cell) current() *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.member
}

// up is the member, or a NoLeader error that says why there is none.
func (c *Cell) up() (*member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.member == nil {
		return nil, errDown(c.down)
	}
	return c.member, nil
}

func (c *Cell) setDown(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.member != nil {
		c.contact = c.member.lastContact()
	}
	c.member, c.down, c.since = nil, why, time.Now()
}

// Down is why this server takes no part in its cell, nil when it does.
func (c *Cell) Down() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// ID is this server's. It changes when the server comes back without its data.
func (c *Cell) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Close stops the member and waits for it; its owner calls it once Run has
// ended, and a second call does nothing. RPC sessions should be closed before: a
// read in flight would hold it up.
func (c *Cell) Close() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	var err error
	if m := c.current(); m != nil {
		c.setDown(errors.New("it was closed"))
		m.cut()
		err = m.stop()
	}
	close(c.done)
	err = errors.Join(err, c.cfg.Stream.Close())
	c.own.Wait()
	return err
}

// Done is closed when Close has stopped Raft.
func (c *Cell) Done() <-chan struct{} { return c.done }

// Server is a member of the cell.
type Server struct{ ID, Addr string }

// Fresh reports whether the member holds neither log nor snapshot, and never
// did: only then may it be bootstrapped.
func (c *Cell) Fresh() (bool, error) {
	m, err := c.up()
	if err != nil {
		return false, nil // there may be data yet
	}
	if before, err := c.dir.setAsideBefore(); err != nil || before {
		return false, err
	}
	return m.raft.LastIndex() == 0, nil
}

// Bootstrap starts a new cell of the given servers. All of them may do so with
// the same list.
func (c *Cell) Bootstrap(servers []Server) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	conf := raft.Configuration{}
	for _, s := range servers {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	if err := m.promise(m.raft.BootstrapCluster(conf), nil).wait(context.Background()); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("cannot bootstrap cell: %w", err)
	}
	return nil
}

// Leadership delivers true and false as this server becomes and ceases to be
// the leader. It has one reader. A reader that is late gets the newest alone, so
// that Raft never waits for it: a true that follows a true is a new term.
func (c *Cell) Leadership() <-chan bool { return c.leader }

// tell gives the reader of Leadership the newest.
func (c *Cell) tell(leads bool) {
	for {
		select {
		case c.leader <- leads:
			return
		default:
		}
		select {
		case <-c.leader:
		default:
		}
	}
}

// IsLeader reports whether this server is the leader, as far as it knows.
func (c *Cell) IsLeader() bool {
	m := c.current()
	return m != nil && m.raft.State() == raft.Leader
}

// Leader returns the leader's address, "" when none is known.
func (c *Cell) Leader() string {
	m := c.current()
	if m == nil {
		return ""
	}
	addr, _ := m.raft.LeaderWithID()
	return string(addr)
}

// LastContact is how long ago this server heard its leader, 0 for the leader
// itself, and −1 when it never did.
func (c *Cell) LastContact() time.Duration {
	c.mu.Lock()
	m, t := c.member, c.contact
	c.mu.Unlock()
	if m != nil {
		if m.raft.State() == raft.Leader {
			return 0
		}
		t = m.raft.LastContact()
	}
	if t.IsZero() {
		return -1
	}
	return time.Since(t)
}

// Servers returns the cell's members.
func (c *Cell) Servers() ([]Server, error) {
	m, err := c.up()
	if err != nil {
		return nil, err
	}
	f := m.raft.GetConfiguration()
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
func (c *Cell) Barrier(timeout time.Duration) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	if err := m.promise(m.raft.Barrier(timeout), nil).wait(context.Background()); err != nil {
		return err
	}
	c.show(m)
	return nil
}

// Establish waits until everything committed before this server's term is in
// the local state. From then on the server Leads.
func (c *Cell) Establish(timeout time.Duration) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	term := m.raft.CurrentTerm()
	if err := c.Barrier(timeout); err != nil {
		return err
	}
	m.established.Store(term)
	c.Turned()
	return nil
}

// Turned wakes who waits for Turn.
func (c *Cell) Turned() {
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
	m := c.current()
	return m != nil && m.raft.State() == raft.Leader && m.established.Load() == m.raft.CurrentTerm()
}

// Verify asks a majority of the cell whether this server leads still. A read of
// the local state after it sees every write that was acknowledged before it.
func (c *Cell) Verify(ctx context.Context) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	if err := m.promise(m.raft.VerifyLeader(), nil).wait(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return model.Errorf(model.KindNoLeader, "cannot answer for the region: this server ceased to lead it")
	}
	return nil
}

// Snapshot returns the newest local state.
func (c *Cell) Snapshot() *state.Snapshot { return c.state.Load().Snapshot() }

// TakeSnapshot makes Raft write a snapshot now.
func (c *Cell) TakeSnapshot() error {
	m, err := c.up()
	if err != nil {
		return err
	}
	return m.promise(m.raft.Snapshot(), nil).wait(context.Background())
}

// Stats are Raft's own figures.
func (c *Cell) Stats() map[string]string {
	m := c.current()
	if m == nil {
		return map[string]string{"state": "Down", "down": c.Down().Error()}
	}
	return m.raft.Stats()
}

// Proposed is a command on its way through Raft.
type Proposed struct {
	*promise
	cell   *Cell
	member *member
}

// Propose hands a command to Raft without waiting for the commit, so that
// the next can be prepared meanwhile. Commands commit in the order in which
// one caller proposes them.
//
// A request, unless nil, makes it apply once: when the same request was applied
// before, nothing is changed and its first answer is given.
func (c *Cell) Propose(cmd Command, req *state.Request, body any) (*Proposed, error) {
	m, err := c.up()
	if err != nil {
		return nil, err
	}
	return c.propose(m, cmd, req, body, nil)
}

// propose calls ended, unless nil, when Raft has done with the command.
func (c *Cell) propose(m *member, cmd Command, req *state.Request, body any, ended func()) (*Proposed, error) {
	b, err := encode(cmd, req, body)
	if err != nil {
		return nil, err
	}
	entry := raft.Log{Data: b, Extensions: []byte(c.cfg.Version)}
	return &Proposed{m.promise(m.raft.ApplyLog(entry, applyTimeout), ended), c, m}, nil
}

// Wait returns the Raft index of the commit and the command's answer. An error
// of kind NoLeader or Busy means that nothing was applied, OutcomeUnknown that
// it may have been, any other is the command's own refusal. The context's end
// gives OutcomeUnknown.
func (p *Proposed) Wait(ctx context.Context) (uint64, any, error) {
	if err := p.wait(ctx); err != nil {
		return 0, nil, raftError(err)
	}
	// Whoever reads now sees the write.
	p.cell.show(p.member)
	a := p.future.(raft.ApplyFuture).Response().(answer)
	return a.index, a.value, a.err
}

// Apply proposes a command, when it is its turn, and waits for it; errors are
// those of Wait.
func (c *Cell) Apply(ctx context.Context, cmd Command, body any) (uint64, any, error) {
	return c.ApplyOnce(ctx, cmd, nil, body)
}

// ApplyOnce proposes a command for a request and waits for it; see Propose.
func (c *Cell) ApplyOnce(ctx context.Context, cmd Command, req *state.Request, body any) (uint64, any, error) {
	m, err := c.up()
	if err != nil {
		return 0, nil, err
	}
	select {
	case m.writes <- struct{}{}:
	case <-m.gone.Done():
		return 0, nil, errDown(c.Down())
	case <-ctx.Done():
		return 0, nil, model.Errorf(model.KindBusy, "cannot write: the leader has more to write than it can, and the call's time ended before its turn")
	}
	ended := func() { <-m.writes }
	p, err := c.propose(m, cmd, req, body, ended)
	if err != nil {
		ended()
		return 0, nil, err
	}
	return p.Wait(ctx)
}

func raftError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return model.Errorf(model.KindNoLeader, "cannot write: this server is not the leader")
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return model.Errorf(model.KindBusy, "cannot write: the leader took no more writes within %s", applyTimeout)
	}
	// A leader that failed to write an entry may have it on its disk all the
	// same, and bring it to the others after a restart.
	return model.Errorf(model.KindOutcomeUnknown, "cannot tell whether the write was committed: %w", err)
}
