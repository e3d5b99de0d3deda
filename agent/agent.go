package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/agent/config"
	"atoll/api"
	"atoll/client"
	"atoll/internal/group"
	"atoll/internal/wholefile"
	"atoll/region"
	"atoll/region/gc"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// Build is the version, set when the binary is linked.
var Build = "dev"

// Options are what an agent is given beside its configuration.
type Options struct {
	// Log is where the log goes.
	Log io.Writer
	// Shim is the program, and its first arguments, that becomes the shim of a
	// task.
	Shim []string
}

// Agent is one agent.
type Agent struct {
	cfg       *config.Config
	log       hclog.Logger
	telemetry *telemetry
	server    *region.Server // nil without one
	node      *client.Client // nil without one
	http      *http.Server
	listener  net.Listener
	drain     context.CancelFunc
	// cleanup undoes what New did and Run does not: last first.
	cleanup []func() error
}

// New makes an agent of a configuration, or says what is wrong with it.
func New(ctx context.Context, cfg *config.Config, opts Options) (_ *Agent, err error) {
	a := &Agent{cfg: cfg, log: newLog(cfg, opts.Log)}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.undo())
		}
	}()
	// What is wrong with the configuration is said before anything is made.
	addrs, err := resolve(cfg)
	for _, w := range cfg.Warnings {
		a.log.Warn(w)
	}
	if err != nil {
		return nil, err
	}
	if err := a.dataDir(); err != nil {
		return nil, err
	}
	if a.telemetry, err = newTelemetry(cfg); err != nil {
		return nil, err
	}
	if a.listener, err = a.listen("ports.http", addrs.bindHTTP); err != nil {
		return nil, err
	}
	httpAddr := advertised(addrs.http, a.listener)
	var rpcListener net.Listener
	if cfg.Server.Enabled {
		if rpcListener, err = a.listen("ports.rpc", addrs.bindRPC); err != nil {
			return nil, err
		}
		addrs.rpc = advertised(addrs.rpc, rpcListener)
	}
	if cfg.Client.Enabled {
		if err := a.newNode(ctx, addrs, httpAddr, opts); err != nil {
			return nil, err
		}
	}
	// Last, since it cannot be undone but by running it.
	if cfg.Server.Enabled {
		if err := a.newServer(addrs, rpcListener); err != nil {
			return nil, errors.Join(err, a.closeNode())
		}
	}
	a.newHTTP()
	return a, nil
}

func newLog(cfg *config.Config, to io.Writer) hclog.Logger {
	if to == nil {
		to = io.Discard
	}
	return hclog.New(&hclog.LoggerOptions{
		Name: "atoll", Level: hclog.LevelFromString(cfg.LogLevel), Output: to, JSONFormat: cfg.LogJSON, TimeFormat: "2006-01-02T15:04:05.000Z07:00",
	})
}

// onUndo notes what undoes a step.
func (a *Agent) onUndo(f func() error) { a.cleanup = append(a.cleanup, f) }

func (a *Agent) undo() error {
	var errs []error
	for i := len(a.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, a.cleanup[i]())
	}
	a.cleanup = nil
	return errors.Join(errs...)
}

// dataDir makes the data directory and holds it, so that no second agent uses
// it. A development agent without one has a directory that goes with it.
func (a *Agent) dataDir() error {
	if a.cfg.DataDir == "" {
		dir, err := os.MkdirTemp("", "atoll-dev-")
		if err != nil {
			return fmt.Errorf("cannot make a data directory: %w", err)
		}
		a.cfg.DataDir = dir
		a.onUndo(func() error { return os.RemoveAll(dir) })
	}
	abs, err := filepath.Abs(a.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("cannot use data_dir %q: %w", a.cfg.DataDir, err)
	}
	a.cfg.DataDir = abs
	if err := wholefile.MkdirAll(abs, 0o711); err != nil {
		return fmt.Errorf("cannot make data_dir %q: %w", abs, err)
	}
	f, err := lock(filepath.Join(abs, "lock"))
	if err != nil {
		return fmt.Errorf("cannot use data_dir %q: %w; each agent needs one of its own", abs, err)
	}
	a.onUndo(f.Close)
	return nil
}

func (a *Agent) listen(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for %s: %w; is another agent running? choose another port", addr, key, err)
	}
	// Whoever serves it closes it too; twice does no harm.
	a.onUndo(func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

func (a *Agent) closeNode() error {
	if a.node == nil {
		return nil
	}
	return a.node.Close()
}

func (a *Agent) newServer(addrs *addresses, l net.Listener) (err error) {
	cfg := a.cfg
	a.server, err = region.New(region.Config{
		Name: cfg.Name, Region: cfg.Region, Datacenter: cfg.Datacenter, DataDir: cfg.DataDir,
		RPC: l, AdvertiseRPC: addrs.rpc, BindSerf: addrs.bindSerf, AdvertiseSerf: addrs.serf,
		Expect: cfg.Server.BootstrapExpect, Join: cfg.Server.Join.RetryJoin, JoinInterval: cfg.Server.Join.RetryInterval,
		JoinTries: cfg.Server.Join.RetryMax, Regions: cfg.Federation.Regions, Autopilot: cfg.Autopilot,
		Workers:    cfg.Server.NumSchedulers,
		Heartbeats: heartbeat.Config{MinTTL: cfg.Server.MinHeartbeatTTL, Grace: cfg.Server.HeartbeatGrace, MaxRate: cfg.Server.MaxHeartbeats},
		Refusals: region.RefusalConfig{
			Ignore: !cfg.Server.PlanRejection.Enabled, Threshold: cfg.Server.PlanRejection.Threshold, Window: cfg.Server.PlanRejection.Window,
		},
		Keep: gc.Thresholds{
			Evals: cfg.Server.GC.EvalThreshold, BatchEvals: cfg.Server.GC.BatchEvalThreshold, Deployments: cfg.Server.GC.DeploymentThreshold, Jobs: cfg.Server.GC.JobThreshold, Nodes: cfg.Server.GC.NodeThreshold,
		},
		CollectInterval:   cfg.Server.GC.Interval,
		SnapshotThreshold: uint64(cfg.Server.RaftSnapshotThreshold),
		CheckTask:         CheckTask, Version: Build, Log: a.log, Metrics: a.telemetry.metrics,
	})
	if err == nil {
		a.telemetry.flush = append(a.telemetry.flush, a.server.RPC().Flush)
	}
	return err
}

func (a *Agent) newNode(ctx context.Context, addrs *addresses, httpAddr string, opts Options) error {
	cfg := a.cfg
	installed, err := newDrivers(cfg, a.log, opts.Shim)
	if err != nil {
		return err
	}
	servers := cfg.Client.Servers
	if cfg.Server.Enabled {
		servers = append([]string{addrs.rpc}, servers...)
	}
	for i, s := range servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			servers[i] = net.JoinHostPort(s, strconv.Itoa(config.Default().Ports.RPC))
		}
	}
	host, _, err := net.SplitHostPort(httpAddr)
	if err != nil {
		return fmt.Errorf("cannot use advertise.http %q: %w", httpAddr, err)
	}
	a.node, err = client.New(ctx, client.Config{
		Name: cfg.Name, Region: cfg.Region, Datacenter: cfg.Datacenter, NodePool: cfg.Client.NodePool, NodeClass: cfg.Client.NodeClass,
		StateDir: cmp.Or(cfg.Client.StateDir, filepath.Join(cfg.DataDir, "client")), AllocDir: cmp.Or(cfg.Client.AllocDir, filepath.Join(cfg.DataDir, "alloc")),
		Servers: servers, Meta: cfg.Client.Meta, Drivers: installed, Address: host, HTTPAddr: httpAddr,
		CPU: cfg.Client.CPUTotalCompute, MemoryMB: cfg.Client.MemoryTotalMB, DiskMB: cfg.Client.DiskTotalMB, Reserved: reserved(cfg),
		MinDynamicPort: cfg.Client.MinDynamicPort, MaxDynamicPort: cfg.Client.MaxDynamicPort, MaxKillTimeout: cfg.Client.MaxKillTimeout,
		KeepEnded: cfg.Client.GCMaxAllocs, StopTasks: cfg.Dev, Version: Build, Log: a.log, Metrics: a.telemetry.metrics,
	})
	if err == nil {
		a.telemetry.flush = append(a.telemetry.flush, a.node.Caller().Flush)
	}
	return err
}

func (a *Agent) caller() rpc.Caller {
	if a.server != nil {
		return a.server.RPC()
	}
	return a.node.Caller()
}

func (a *Agent) newHTTP() {
	cfg := api.Config{
		Region: a.cfg.Region, Datacenter: a.cfg.Datacenter, Name: a.cfg.Name, Version: Build, Caller: a.caller(),
		Shown: shown(a.cfg), Metrics: a.telemetry.memory, Prometheus: a.telemetry.prometheus, Log: a.log,
	}
	// Nil pointers within interfaces would not be nil.
	if a.server != nil {
		cfg.Server = a.server
	}
	if a.node != nil {
		cfg.Node = a.node
	}
	base, cancel := context.WithCancel(context.Background())
	a.drain = cancel
	a.http = &http.Server{
		Handler: api.New(cfg), BaseContext: func(net.Listener) context.Context { return base },
		// A connection that sends its header slowly is no client.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: a.log.Named("http").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// HTTPAddr is where the agent's API listens.
func (a *Agent) HTTPAddr() string { return a.listener.Addr().String() }

// Run serves until ctx ends or a part fails. leave says, once ctx has ended,
// whether the agent leaves the region for good. Stopping has an order, and each
// step a bound:
//
//  1. HTTP: requests that wait are answered or broken off, none is taken anew.
//  2. The node: its tasks are ended or let go of while servers still answer.
//  3. The server: leadership is handed over, gossip left, sessions closed, and
//     Raft last, which reads in flight would hold up.
//  4. Telemetry and the data directory.
func (a *Agent) Run(ctx context.Context, leave func() bool) error {
	type part struct {
		name  string
		group *group.Group
		stop  func()
	}
	start := func(name string, run func(context.Context) error) part {
		g := group.New(context.Background())
		g.Go(name, func(ctx context.Context) error {
			err := run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errors.New("it ended by itself")
			}
			return err
		})
		return part{name, g, g.Stop}
	}
	parts := []part{start("telemetry", a.telemetry.run)}
	if a.server != nil {
		parts = append(parts, start("server", func(ctx context.Context) error { return a.server.Run(ctx, leave) }))
	}
	if a.node != nil {
		parts = append(parts, start("client", a.node.Run))
	}
	web := start("http", func(context.Context) error { return a.http.Serve(a.listener) })
	web.stop = func() { a.stopHTTP(); web.group.Stop() }
	parts = append(parts, web)
	a.log.Info("the agent runs", "version", Build, "region", a.cfg.Region, "name", a.cfg.Name, "http", a.HTTPAddr())

	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, p := range parts {
		defer context.AfterFunc(p.group.Context(), cancel)()
	}
	<-ended.Done()
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		begun := time.Now()
		p.stop()
		if err := p.group.Wait(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
		a.log.Info("stopped", "part", p.name, "took", time.Since(begun).Round(time.Millisecond))
	}
	return errors.Join(append(errs, a.undo())...)
}

// Bounds of ending HTTP: how long requests may finish by themselves, and how
// long they may take once they are told to.
const (
	httpGrace = 300 * time.Millisecond
	httpEnd   = time.Second
)

func (a *Agent) stopHTTP() {
	shutdown := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		return a.http.Shutdown(ctx)
	}
	err := shutdown(httpGrace)
	a.drain()
	if err != nil && shutdown(httpEnd) != nil {
		_ = a.http.Close()
	}
}
