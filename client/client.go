package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"

	"atoll/drivers"
	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/internal/group"
	"atoll/internal/wholefile"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// Installed is a driver that the node has.
type Installed struct {
	Kind   drivers.Kind
	Driver drivers.Driver
}

// Config says how to run a node.
type Config struct {
	Name, Region, Datacenter, NodePool, NodeClass string
	// StateDir is for what the node must remember, AllocDir for the files of
	// allocations.
	StateDir, AllocDir string
	// Servers are RPC addresses to begin with; the servers themselves name
	// others.
	Servers []string
	Meta    map[string]string
	Drivers []Installed
	// Address is where the ports of tasks are opened, HTTPAddr where the
	// agent's API is.
	Address, HTTPAddr string
	// CPU is in MHz, 0 for what the machine has; likewise MemoryMB and DiskMB.
	CPU, MemoryMB, DiskMB          int
	Reserved                       *model.NodeReservedResources
	MinDynamicPort, MaxDynamicPort int
	MaxKillTimeout                 time.Duration
	// KeepEnded is how many ended allocations' files are kept.
	KeepEnded int
	// StopTasks ends all tasks when the node stops.
	StopTasks bool
	Version   string
	Dial      rpc.DialFunc
	Limits    rpc.Limits
	Clock     clock.Clock
	Log       hclog.Logger
	Metrics   *metrics.Metrics
}

// Client is one node. New makes one, Run runs it.
type Client struct {
	cfg     Config
	log     hclog.Logger
	clock   clock.Clock
	store   *store
	rpc     *rpc.Client
	drivers map[string]Installed
	secret  string
	reports *reporter
	// nodeChanged is signalled when the node should register what it is anew.
	nodeChanged chan struct{}
	ended       chan struct{}
	hurry       atomic.Bool

	mu      sync.Mutex // guards what follows
	node    *model.Node
	dir     directory
	runners map[string]*allocRunner
	// contact is when a server last took a heartbeat, ttl what it then said.
	contact contact
	ttl     time.Duration
	// collected are ended allocations whose files were removed.
	collected map[string]bool
}

// New opens the node's data and looks at the machine. Nothing is started until
// Run.
func New(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.MaxKillTimeout <= 0 {
		cfg.MaxKillTimeout = 30 * time.Second
	}
	if cfg.KeepEnded <= 0 {
		cfg.KeepEnded = 50
	}
	for dir, mode := range map[string]os.FileMode{cfg.StateDir: 0o700, cfg.AllocDir: 0o711} {
		if err := wholefile.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("cannot make the node's data directory: %w", err)
		}
	}
	// Paths in it are told to tasks, whose working directories differ.
	var err error
	if cfg.AllocDir, err = filepath.Abs(cfg.AllocDir); err != nil {
		return nil, fmt.Errorf("cannot use the allocations' directory: %w", err)
	}
	c := &Client{
		cfg: cfg, log: cfg.Log.Named("client"), clock: cfg.Clock, drivers: make(map[string]Installed),
		nodeChanged: make(chan struct{}, 1), ended: make(chan struct{}, 1),
		runners: make(map[string]*allocRunner), collected: make(map[string]bool),
	}
	for _, d := range cfg.Drivers {
		c.drivers[d.Kind.Name] = d
	}
	id, secret, err := identity(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	c.secret = secret
	if c.store, err = openStore(cfg.StateDir); err != nil {
		return nil, err
	}
	if c.dir, err = c.store.directory(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read what the node remembers: %w", err), c.store.close())
	}
	if c.contact, err = c.store.contact(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read what the node remembers: %w", err), c.store.close())
	}
	c.node = c.fingerprint(ctx, id)
	c.rpc = rpc.NewClient(rpc.ClientConfig{
		Region: cfg.Region, Dial: cfg.Dial, Limits: cfg.Limits, Log: cfg.Log, Directory: c.serversOf, Metrics: cfg.Metrics,
	})
	c.rpc.SetServers(union(cfg.Servers, c.dir.Servers))
	c.reports = newReporter(c.send, c.allocEnded)
	rpc.HandleStream(c.rpc.Server, method.NodeLogs, c.logs)
	return c, nil
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// Caller makes calls to any region.
func (c *Client) Caller() *rpc.Client { return c.rpc }

// NodeID is the node's id.
func (c *Client) NodeID() string { return c.describe().ID }

// Servers are the servers of the region that the node knows, the one in use
// first.
func (c *Client) Servers() []string { return c.rpc.Servers() }

// Lost reports whether none of the servers of the node's region answers.
func (c *Client) Lost() bool { return c.rpc.Lost() }

// Regions are all regions that the node has heard of, with their servers.
func (c *Client) Regions() []model.RegionStatus {
	c.mu.Lock()
	known := model.Clone(c.dir.Regions)
	c.mu.Unlock()
	var out []model.RegionStatus
	for _, name := range slices.Sorted(maps.Keys(known)) {
		st := model.RegionStatus{Name: name, Servers: known[name], Healthy: name != c.cfg.Region || !c.Lost(), LastContact: -1}
		if at := c.rpc.LastContact(name); !at.IsZero() {
			st.LastContact = time.Since(at)
		}
		out = append(out, st)
	}
	return out
}

func (c *Client) serversOf(region string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dir.Regions[region]
}

// describe is the node as it is now; not to be changed.
func (c *Client) describe() *model.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

func (c *Client) allocDirs(id string) dirs { return dirs{filepath.Join(c.cfg.AllocDir, id)} }

func (c *Client) runner(id string) *allocRunner {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runners[id]
}

// Bounds of stopping tasks when the node stops with them.
const (
	hurriedKill = 2 * time.Second
	hurriedStop = 5 * time.Second
)

func (c *Client) hurried() bool { return c.hurry.Load() }

// killTimeout is how long a task may take to end.
func (c *Client) killTimeout(asked time.Duration) time.Duration {
	if c.hurried() {
		return min(asked, hurriedKill)
	}
	return min(asked, c.cfg.MaxKillTimeout)
}

// Run takes up the tasks that the node left running and serves until ctx ends.
// Then, in this order: the loops that take orders end; tasks are ended, if the
// node is so configured, else let go of; drivers close; the session with the
// servers; the data.
func (c *Client) Run(ctx context.Context) error {
	// Tasks have a life of their own, so that they can be ended before they
	// are let go of.
	tasks := group.New(context.Background())
	restored, err := c.restore(tasks)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	loops := group.New(ctx)
	registered := make(chan struct{})
	var first sync.Once
	registrar := &Registrar{
		Caller: c.rpc, Node: c.describe, SecretID: c.secret, Changed: c.nodeChanged, Contact: c.contacted, Log: c.log,
		Heard: func(a *method.NodeHeartbeatResponse, anew bool) {
			c.heard(a, anew)
			c.asked(a)
			first.Do(func() { close(registered) })
		},
	}
	after := func(run func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case <-registered:
				return run(ctx)
			}
		}
	}
	loops.Go("register", registrar.Run)
	loops.Go("report", after(c.reports.run))
	loops.Go("pull", after(func(ctx context.Context) error { return c.pull(ctx, tasks) }))
	loops.Go("fingerprint", c.watchMachine)
	loops.Go("collect", c.collect)
	loops.Go("contact", c.watchContact)
	c.log.Info("the node runs", "node", c.NodeID(), "restored_allocations", restored)
	err = loops.Wait()
	if c.cfg.StopTasks {
		c.stopTasks()
	}
	tasks.Stop()
	return errors.Join(err, tasks.Wait(), c.Close())
}

// Close closes what New opened, for a node that was not run; Run does it itself.
func (c *Client) Close() error {
	var errs []error
	for _, d := range c.drivers {
		errs = append(errs, d.Driver.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	errs = append(errs, c.rpc.Shutdown(ctx), c.store.close())
	return errors.Join(errs...)
}

// stopTasks ends every task, and waits for that within hurriedStop.
func (c *Client) stopTasks() {
	c.hurry.Store(true)
	c.mu.Lock()
	var running []*allocRunner
	for _, r := range c.runners {
		running = append(running, r)
	}
	c.mu.Unlock()
	for _, r := range running {
		r.killAll(&model.TaskEvent{Type: model.TaskKilling, DisplayMessage: "The node stops, and its tasks with it"})
	}
	timer := time.NewTimer(hurriedStop)
	defer timer.Stop()
	for _, r := range running {
		select {
		case <-r.done:
		case <-timer.C:
			c.log.Error("not all tasks could be ended; going on", "allocation", r.id)
			return
		}
	}
}

// restore takes up what the disk holds.
func (c *Client) restore(tasks *group.Group) (int, error) {
	records, err := c.store.allocs()
	if err != nil {
		return 0, fmt.Errorf("cannot take up the node's tasks: %w", err)
	}
	for _, r := range records {
		runner := newAllocRunner(c, r)
		// Before it could start a task anew.
		c.overdue(runner)
		c.begin(tasks, runner)
	}
	return len(records), nil
}

func (c *Client) begin(tasks *group.Group, r *allocRunner) {
	c.mu.Lock()
	c.runners[r.id] = r
	c.mu.Unlock()
	tasks.Go("alloc "+r.id, func(ctx context.Context) error { r.run(ctx); return nil })
}

// heard takes what a server says of the servers.
func (c *Client) heard(a *method.NodeHeartbeatResponse, anew bool) {
	c.mu.Lock()
	next := directory{Servers: a.Servers, Regions: a.Regions, Index: c.dir.Index}
	if anew {
		// The servers begin anew, and their indexes with them.
		next.Index = 0
	}
	same := equal(c.dir, next)
	c.dir, c.ttl = next, a.TTL
	c.mu.Unlock()
	if len(a.Servers) > 0 {
		c.rpc.SetServers(a.Servers)
	}
	if !same {
		if err := c.store.putDirectory(next); err != nil {
			c.log.Warn("cannot keep the directory of servers", "error", err)
		}
	}
}

func equal(a, b directory) bool {
	if a.Index != b.Index || !slices.Equal(a.Servers, b.Servers) || len(a.Regions) != len(b.Regions) {
		return false
	}
	for region, servers := range a.Regions {
		if !slices.Equal(servers, b.Regions[region]) {
			return false
		}
	}
	return true
}

// send reports to the servers.
func (c *Client) send(ctx context.Context, updates []*model.AllocUpdate) error {
	_, err := rpc.Call(ctx, c.rpc, method.NodeUpdate, rpc.To{}, &method.NodeUpdateAllocsRequest{NodeID: c.NodeID(), SecretID: c.secret, Updates: updates})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("cannot report to the servers; trying on", "allocations", len(updates), "error", err)
	}
	return err
}

// pullQuiet is for how long the servers may be silent on a blocking query. A
// server that is gone is noticed by heartbeats, which end its session.
const pullQuiet = 15 * time.Second

// pull asks for the node's allocations, and runs them.
func (c *Client) pull(ctx context.Context, tasks *group.Group) error {
	index := uint64(0)
	for failures := 0; ctx.Err() == nil; {
		answer, err := rpc.Call(ctx, c.rpc, method.NodePullAllocs, rpc.To{AllowStale: true, Quiet: pullQuiet}, &method.NodeAllocsRequest{
			Query: method.Query{MinIndex: index, MaxWait: 5 * time.Minute}, NodeID: c.NodeID(), SecretID: c.secret,
		})
		if err != nil {
			if ctx.Err() == nil {
				c.log.Warn("cannot ask for allocations; trying on", "error", err)
			}
			if !(backoff.Policy{Max: 5 * time.Second}).Sleep(ctx, failures) {
				return nil
			}
			failures++
			// Whatever server answers next, ask it for everything.
			index = 0
			continue
		}
		failures = 0
		if c.older(answer.Index) {
			// A server that lags behind: what is missing from its answer
			// may only be missing there.
			c.log.Debug("an answer older than what is known is not acted on", "index", answer.Index)
			index = 0
			if !(backoff.Policy{Min: 200 * time.Millisecond, Max: time.Second}).Sleep(ctx, 1) {
				return nil
			}
			continue
		}
		c.apply(tasks, answer)
		index = answer.Index
	}
	return nil
}

// older reports whether an index is below what the node has seen; otherwise it
// is the newest seen from now on.
func (c *Client) older(index uint64) bool {
	c.mu.Lock()
	if index < c.dir.Index {
		c.mu.Unlock()
		return true
	}
	changed := index != c.dir.Index
	c.dir.Index = index
	kept := c.dir
	c.mu.Unlock()
	if changed {
		if err := c.store.putDirectory(kept); err != nil {
			c.log.Warn("cannot keep the index of allocations", "error", err)
		}
	}
	return false
}

// here names the region in an allocation of a job that runs in several.
func (c *Client) here(a *model.Allocation) *model.Allocation {
	if a.Job.Region != model.GlobalRegion {
		return a
	}
	local, job := *a, *a.Job
	job.Region = c.cfg.Region
	local.Job = &job
	return &local
}

// apply makes what runs here be what the answer says.
func (c *Client) apply(tasks *group.Group, answer *method.NodeAllocsResponse) {
	for _, a := range answer.Changed {
		if a == nil || a.Job == nil {
			continue
		}
		a = c.here(a)
		if r := c.runner(a.ID); r != nil {
			r.update(a)
			continue
		}
		c.mu.Lock()
		known := c.collected[a.ID]
		c.mu.Unlock()
		switch {
		case known || a.ClientTerminal():
			continue
		case a.ServerTerminal():
			// It was stopped before it came here: nobody else can say so.
			c.reports.add(&model.AllocUpdate{ID: a.ID, ClientStatus: model.AllocClientComplete, ClientDescription: "Stopped before it was started"})
			continue
		}
		// On disk before it is acted on.
		if err := c.store.putAlloc(a); err != nil {
			c.log.Error("cannot keep an allocation, and does not start it", "allocation", a.ID, "error", err)
			continue
		}
		if stopAfter(a) > 0 {
			c.keepContact()
		}
		c.begin(tasks, newAllocRunner(c, &allocRecord{Alloc: a}))
	}
	c.mu.Lock()
	var gone []*allocRunner
	for id, r := range c.runners {
		if _, there := answer.Indexes[id]; !there {
			gone = append(gone, r)
		}
	}
	for id := range c.collected {
		if _, there := answer.Indexes[id]; !there {
			delete(c.collected, id)
		}
	}
	c.mu.Unlock()
	for _, r := range gone {
		r.unwanted.Store(true)
		r.killAll(&model.TaskEvent{Type: model.TaskKilling, DisplayMessage: "The servers have forgotten the allocation"})
	}
	if len(gone) > 0 {
		c.allocEnded()
	}
}

// drop forgets an ended allocation and its files.
func (c *Client) drop(r *allocRunner) {
	if err := r.forget(); err != nil {
		c.log.Warn("cannot remove the files of an ended allocation", "allocation", r.id, "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.runners, r.id)
	c.collected[r.id] = true
}

// allocEnded tells the collector.
func (c *Client) allocEnded() {
	select {
	case c.ended <- struct{}{}:
	default:
	}
}

// collect removes the files of ended allocations: those that the servers have
// forgotten, and the oldest beyond the number that is kept.
func (c *Client) collect(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.ended:
		}
		type end struct {
			r  *allocRunner
			at time.Time
		}
		var ended []end
		c.mu.Lock()
		for _, r := range c.runners {
			select {
			case <-r.ended:
				ended = append(ended, end{r, r.finished()})
			default:
			}
		}
		c.mu.Unlock()
		slices.SortFunc(ended, func(a, b end) int { return a.at.Compare(b.at) })
		for i, e := range ended {
			// What the servers have not heard of yet has to outlast a restart.
			if e.r.unwanted.Load() || i < len(ended)-c.cfg.KeepEnded && !c.reports.unsent(e.r.id) {
				c.drop(e.r)
			}
		}
	}
}
