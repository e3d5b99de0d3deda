package region

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"

	"atoll/cell"
	"atoll/federation"
	"atoll/federation/summary"
	"atoll/internal/clock"
	"atoll/internal/group"
	"atoll/internal/wholefile"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/autopilot"
	"atoll/region/gc"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// Config says how to run a server.
type Config struct {
	Name, Region, Datacenter string
	DataDir                  string
	// RPC is the port's listener, AdvertiseRPC how others reach it.
	RPC          net.Listener
	AdvertiseRPC string
	// BindSerf and AdvertiseSerf are gossip's addresses.
	BindSerf, AdvertiseSerf string
	// Expect is how many servers start the cell together; 0 joins one.
	Expect int
	// Join are gossip addresses of servers of this region or any other.
	Join []string
	// Regions are those that may join and be spoken with, beside our own; none
	// means all.
	Regions []string
	// JoinInterval is the longest wait between tries; after JoinTries without
	// any success the server gives up, 0 never.
	JoinInterval time.Duration
	JoinTries    int
	// Autopilot is what a new cell begins with; zero means the defaults.
	Autopilot model.AutopilotConfig
	// AutopilotUpdate and AutopilotReconcile are how often autopilot measures
	// and acts; 0 means as often as it does by itself.
	AutopilotUpdate, AutopilotReconcile time.Duration

	Workers    int
	Heartbeats heartbeat.Config
	// Refusals says when a node that keeps refusing plans is made ineligible.
	Refusals RefusalConfig
	// Keep says how long what is over stays in the state, CollectInterval how
	// often that is looked at; zeros mean the defaults of package gc.
	Keep            gc.Thresholds
	CollectInterval time.Duration
	// SnapshotThreshold is how many log entries cause a snapshot; 0 means
	// 8192.
	SnapshotThreshold uint64
	// CheckTask refuses a task that its driver could not start.
	CheckTask func(*model.Task) error
	Limits    rpc.Limits
	Dial      rpc.DialFunc
	Version   string
	Clock     clock.Clock
	Log       hclog.Logger
	Metrics   *metrics.Metrics
}

// RefusalConfig is about nodes that refuse plans for no known reason. Zeros mean
// the defaults of package planner.
type RefusalConfig struct {
	// Ignore leaves such nodes eligible.
	Ignore    bool
	Threshold int
	Window    time.Duration
}

// Server is one server of a region. New makes one, Run runs it.
type Server struct {
	cfg      Config
	rpc      *rpc.Server
	listener *rpc.Listener
	cell     *cell.Cell
	gossip   *federation.Gossip
	dir      *federation.Directory
	router   *federation.Router
	members  *membership
	lead     *leadership
	look     *lookout
	sessions *sessions
	contacts *heartbeat.Contacts
	sums     *aggregates
	loops    *group.Group
}

// New opens the server's data and starts to listen for gossip; nothing is
// served until Run. On an error nothing is left open but cfg.RPC.
func New(cfg Config) (_ *Server, err error) {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Dial == nil {
		cfg.Dial = rpc.DialTCP
	}
	if cfg.CheckTask == nil {
		cfg.CheckTask = func(*model.Task) error { return nil }
	}
	if cfg.Autopilot == (model.AutopilotConfig{}) {
		cfg.Autopilot = model.DefaultAutopilot()
	}
	if err := cfg.Autopilot.Validate(); err != nil {
		return nil, fmt.Errorf("cannot use the autopilot configuration: %w", err)
	}
	dir := filepath.Join(cfg.DataDir, "server")
	if err := wholefile.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the server's data directory: %w", err)
	}
	advertise, err := net.ResolveTCPAddr("tcp", cfg.AdvertiseRPC)
	if err != nil {
		return nil, fmt.Errorf("cannot use the advertised address %q: %w", cfg.AdvertiseRPC, err)
	}
	s := &Server{
		cfg: cfg, members: newMembership(filepath.Join(dir, "cell-id")), sessions: newSessions(),
		contacts: heartbeat.NewContacts(cfg.Clock), loops: group.New(context.Background()),
	}
	if s.members.cellID, err = readID(s.members.cellFile); err != nil {
		return nil, err
	}
	s.listener = rpc.NewListener(cfg.RPC, advertise, cfg.Dial, cfg.Limits)
	s.rpc = rpc.NewServer(rpc.ServerConfig{Dial: cfg.Dial, Limits: cfg.Limits, Log: cfg.Log, Metrics: cfg.Metrics})
	s.dir, err = federation.NewDirectory(federation.DirectoryConfig{
		Region: cfg.Region, Self: cfg.AdvertiseRPC, Cell: s.members.ofCell, Probe: s.probe, DataDir: dir, Regions: cfg.Regions, Clock: cfg.Clock, Log: cfg.Log.Named("directory"),
	})
	if err != nil {
		return nil, err
	}
	s.look = &lookout{self: cfg.AdvertiseRPC, ping: s.ping, commit: s.commit}
	s.cell, err = cell.Open(cell.Config{
		DataDir: dir, Stream: s.listener.Raft(), Advertise: cfg.AdvertiseRPC, Alone: cfg.Expect == 1,
		Logger: cfg.Log, SnapshotThreshold: cfg.SnapshotThreshold, Version: cfg.Version,
		GoesOn: s.look.goesOn, Renewed: s.renewed,
	})
	if err != nil {
		return nil, err
	}
	s.gossip, err = federation.NewGossip(federation.GossipConfig{
		Name: cfg.Name, Region: cfg.Region, Datacenter: cfg.Datacenter, ID: s.cell.ID(), Cell: s.members.cellID, Bind: cfg.BindSerf, Advertise: cfg.AdvertiseSerf,
		RPC: cfg.AdvertiseRPC, Expect: cfg.Expect, Build: cfg.Version, DataDir: dir, Regions: cfg.Regions, Log: cfg.Log, Notify: s.gossipChanged,
	})
	if err != nil {
		return nil, errors.Join(err, s.cell.Close())
	}
	s.look.cell, s.look.peers, s.look.cellID = s.cell, s.members.peers, s.members.ofCell
	s.router = federation.NewRouter(s.dir, s.look, s.sessions)
	s.rpc.SetRouter(s.router)
	s.members.cell, s.members.gossip, s.members.dir = s.cell, s.gossip, s.dir
	s.members.addr, s.members.expect, s.members.ask, s.members.log = cfg.AdvertiseRPC, cfg.Expect, s.ask, cfg.Log.Named("membership")
	s.lead = &leadership{
		cell: s.cell, cellName: cfg.Region, clock: cfg.Clock, log: cfg.Log.Named("leader"), workers: cfg.Workers,
		heartbeats: s.heartbeats(), refusals: cfg.Refusals, keep: cfg.Keep, collectInterval: cfg.CollectInterval, autopilot: cfg.Autopilot, tend: s.members.tend,
		calls: s.rpc, known: s.dir.Names, forgotten: s.dir.Forgotten,
		pilots: autopilot.Config{
			Snapshot: s.cell.Snapshot, Peers: s.members.peers, Ask: s.ask,
			Gone: func(name string) error { return s.gossip.ForceLeave(name, false) },
			Log:  cfg.Log, Update: cfg.AutopilotUpdate, Reconcile: cfg.AutopilotReconcile,
		},
	}
	s.bind()
	return s, nil
}

// heartbeats is the configuration wired to this server.
func (s *Server) heartbeats() heartbeat.Config {
	cfg := s.cfg.Heartbeats
	cfg.Snapshot, cfg.Clock, cfg.Log = s.cell.Snapshot, s.cfg.Clock, s.cfg.Log.Named("heartbeat")
	cfg.Contacts = s.contacts
	cfg.Peers = func() (out []string) {
		servers, err := s.cell.Servers()
		if err != nil {
			cfg.Log.Warn("cannot ask the other servers when nodes were heard", "error", err)
		}
		for _, m := range servers {
			if m.Addr != s.cfg.AdvertiseRPC {
				out = append(out, m.Addr)
			}
		}
		return out
	}
	cfg.Ask = func(ctx context.Context, addr string, req *method.NodeContactsRequest) (*method.NodeContactsResponse, error) {
		return rpc.Call(ctx, s.rpc.At(addr), method.NodeContacts, rpc.To{}, req)
	}
	return cfg
}

// leaderElsewhere is the leader's address, "" when it is unknown or ours.
func (s *Server) leaderElsewhere() string {
	if addr := s.look.Leader(); addr != s.cfg.AdvertiseRPC {
		return addr
	}
	return ""
}

// bind binds the services to the method table.
func (s *Server) bind() {
	read := &reader{snapshot: s.cell.Snapshot, contact: s.cell.LastContact, leader: s.look.Leader, verify: s.cell.Verify}
	write := &writer{applier: s.cell, clock: s.cfg.Clock}
	multi := &rollouts{reader: read, writer: write, region: s.cfg.Region, calls: s.rpc, links: linksBy(s.rpc), log: s.cfg.Log.Named("rollouts")}
	multi.bind(s.rpc)
	(&jobs{reader: read, writer: write, multi: multi, region: s.cfg.Region, checkTask: s.cfg.CheckTask}).bind(s.rpc)
	(&deployments{reader: read, writer: write}).bind(s.rpc)
	(&scaling{reader: read, writer: write, multi: multi}).bind(s.rpc)
	(&namespaces{
		reader: read, writer: write, region: s.cfg.Region, calls: s.rpc, known: s.dir.Names, copies: s.lead.copies.Load,
		log: s.cfg.Log.Named("namespaces"), turn: make(chan struct{}, 1),
	}).bind(s.rpc)
	(&allocs{reader: read, writer: write, nodes: s.rpc}).bind(s.rpc)
	(&evals{reader: read, writer: write}).bind(s.rpc)
	(&events{snapshot: s.cell.Snapshot, leads: s.cell.Leads, newest: func(ctx context.Context) (uint64, error) {
		out, err := rpc.Call(ctx, s.rpc, method.SummaryTotals, rpc.To{}, &method.Empty{})
		if err != nil {
			return 0, err
		}
		return out.Index, nil
	}}).bind(s.rpc)
	(&schedulers{reader: read, writer: write}).bind(s.rpc)
	(&system{writer: write, collector: s.lead.collector.Load}).bind(s.rpc)
	(&nodes{reader: read, writer: write, sessions: s.sessions, beat: s.lead.beat, contacts: s.contacts, directory: s.addresses}).bind(s.rpc)
	(&status{
		reader:   read,
		self:     method.MembersResponse{ServerName: s.cfg.Name, ServerRegion: s.cfg.Region, ServerDC: s.cfg.Datacenter},
		version:  s.cfg.Version,
		isLeader: s.cell.IsLeader, gossip: s.gossip, dir: s.dir, cellID: s.members.ofCell,
		peers: func() (out []string, err error) {
			servers, err := s.cell.Servers()
			for _, m := range servers {
				out = append(out, m.Addr)
			}
			return out, err
		},
		commit:     func() error { return s.cell.Barrier(commitTime) },
		hasSession: func(id string) bool { return s.sessions.Session(id) != nil },
	}).bind(s.rpc)
	(&federal{region: s.cfg.Region, self: s.cfg.Name, selfAddr: s.cfg.AdvertiseRPC, gossip: s.gossip, dir: s.dir, calls: s.rpc, status: s.status}).bind(s.rpc)
	sums := &summaries{reader: read, region: s.cfg.Region, dir: s.dir}
	sums.own = summary.NewOwn(s.cfg.Region, sums.changes, s.cfg.Clock)
	sums.bind(s.rpc)
	s.sums = &aggregates{
		region: s.cfg.Region, dir: s.dir, own: sums.own, calls: s.rpc, leads: s.cell.Leads, leader: s.look.Leader, clock: s.cfg.Clock,
		copies: summary.NewCopies(summary.Config{
			Region: s.cfg.Region, Caller: s.rpc, Regions: s.dir.Regions, Clock: s.cfg.Clock, Log: s.cfg.Log.Named("summary"), Metrics: s.cfg.Metrics,
		}),
	}
	s.sums.bind(s.rpc)
	(&snapshots{
		reader: read, cell: s.cell, region: s.cfg.Region, clock: s.cfg.Clock, leads: s.cell.Leads,
		stage: stage{dir: filepath.Join(s.cfg.DataDir, "server")},
	}).bind(s.rpc)
	(&operator{reader: read, writer: write, cell: s.cell, peers: s.members.peers, pilot: s.lead.pilot.Load}).bind(s.rpc)
}

// Run serves until ctx ends, and returns when everything has stopped. It stops
// in this order, each step bounded: leadership is handed over, so that writes
// go on elsewhere; gossip is left or dropped, and one that leaves stays until the
// cell has taken it out, which may need its vote; RPC sessions are closed, before
// Raft, which a read in flight would hold up; then the cell.
func (s *Server) Run(ctx context.Context, leave func() bool) error {
	s.loops.Go("rpc", func(ctx context.Context) error { return s.listener.Serve(ctx, s.rpc.ServeConn) })
	s.loops.Go("gossip", s.gossip.Run)
	s.loops.Go("directory", s.dir.Run)
	s.loops.Go("leadership", s.lead.run)
	s.loops.Go("cell", s.cell.Run)
	s.loops.Go("lookout", s.look.run)
	s.loops.Go("contacts", func(ctx context.Context) error { return s.contacts.Follow(ctx, s.heartbeats(), s.leaderElsewhere) })
	s.loops.Go("summaries", s.sums.copies.Run)
	s.loops.Go("own summary", s.sums.own.Run)
	s.loops.Go("join", func(ctx context.Context) error {
		return s.gossip.RetryJoin(ctx, s.cfg.Join, s.cfg.JoinInterval, s.cfg.JoinTries)
	})
	s.loops.Go("bootstrap", s.members.bootstrap)
	s.loops.Go("identity", s.members.identify)
	s.gossip.Changed()
	var failed error
	select {
	case <-ctx.Done():
	case <-s.loops.Context().Done():
		failed = context.Cause(s.loops.Context())
	}
	return errors.Join(failed, s.stop(leave()))
}

// stopTime bounds each step of stopping.
const stopTime = 2 * time.Second

func (s *Server) stop(leave bool) error {
	var errs []error
	step := func(name string, f func() error) {
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, fmt.Errorf("cannot %s: %w", name, err))
			}
		case <-time.After(stopTime):
			errs = append(errs, fmt.Errorf("cannot %s within %s; going on", name, stopTime))
		}
	}
	step("hand over leadership", s.cell.HandOver)
	if leave {
		step("leave gossip", s.gossip.Leave)
		if err := s.members.left(context.Background()); err != nil {
			errs = append(errs, err)
		}
	}
	step("stop gossip", s.gossip.Close)
	step("close rpc", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		return s.rpc.Shutdown(ctx)
	})
	s.loops.Stop()
	step("stop the loops", s.loops.Wait)
	step("close the cell", s.cell.Close)
	return errors.Join(errs...)
}

// RPC is the caller for this process: it serves what belongs here and forwards
// the rest.
func (s *Server) RPC() *rpc.Server { return s.rpc }

// Ready reports whether the region has a leader that this server knows.
func (s *Server) Ready() bool { return s.look.Leader() != "" }

// Stats are the server's figures, for people.
func (s *Server) Stats() map[string]string { return s.cell.Stats() }

// IsLeader reports whether this server leads its region.
func (s *Server) IsLeader() bool { return s.cell.IsLeader() }

// gossipChanged takes up what gossip says now. Gossip's goroutine alone calls
// it, so that an older view never follows a newer one.
func (s *Server) gossipChanged() {
	peers, refused := s.gossip.Peers()
	s.dir.Update(peers)
	s.dir.Refuse(refused)
	s.members.notify()
}

// addresses are the RPC addresses of our region's servers and of all regions'.
func (s *Server) addresses() (own []string, all map[string][]string) {
	all = make(map[string][]string)
	for _, r := range s.dir.Regions() {
		all[r.Name] = r.Servers
		if r.Name == s.cfg.Region {
			own = r.Servers
		}
	}
	return own, all
}

// status is what this server says of itself.
func (s *Server) status() *method.ServerStatusResponse {
	out := &method.ServerStatusResponse{ID: s.cell.ID(), LastContact: s.cell.LastContact(), Starters: s.members.starterIDs()}
	out.LastTerm, out.LastIndex = s.cell.LogEnd()
	return out
}

// ask asks the server of our region at an address about itself.
func (s *Server) ask(ctx context.Context, addr string) (*method.ServerStatusResponse, error) {
	if addr == s.cfg.AdvertiseRPC {
		return s.status(), nil
	}
	return rpc.Call(ctx, s.rpc.At(addr), method.StatusServer, rpc.To{}, &method.Empty{})
}

// probe asks one server of another region for a sign of life.
func (s *Server) probe(ctx context.Context, p federation.Peer) error {
	_, err := s.ping(ctx, p)
	return err
}

// ping asks a server who it is, on a connection of its own: the one in the pool
// may be what is broken.
func (s *Server) ping(ctx context.Context, p federation.Peer) (*method.PingResponse, error) {
	c := rpc.NewClient(rpc.ClientConfig{Region: p.Region, Dial: s.cfg.Dial, Limits: s.cfg.Limits, Log: s.cfg.Log})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{p.RPC})
	pong, err := rpc.Call(ctx, c, method.StatusPing, rpc.To{}, &method.Empty{})
	switch {
	case err != nil:
		return nil, err
	case pong.Region != p.Region:
		return nil, fmt.Errorf("the server at %s is of region %q, not %q", p.RPC, pong.Region, p.Region)
	case pong.CellID != "" && p.Cell != "" && pong.CellID != p.Cell:
		return nil, fmt.Errorf("the server at %s is of the cell %s, not %s", p.RPC, pong.CellID, p.Cell)
	}
	return pong, nil
}

// commit has the server of our region at an address, which must lead, commit an
// entry.
func (s *Server) commit(ctx context.Context, addr string) error {
	_, err := rpc.Call(ctx, s.rpc.At(addr), method.StatusCommit, rpc.To{}, &method.Empty{})
	return err
}

// renewed gossips the id under which this server has come back.
func (s *Server) renewed(id string) {
	if err := s.gossip.SetID(id); err != nil {
		s.cfg.Log.Error("cannot gossip this server's new id; restart it", "error", err)
	}
}
