package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"atoll/agent"
	"atoll/agent/config"
	"atoll/model"
)

// agentFlags are those of "atoll agent"; given ones count over files.
type agentFlags struct {
	files                                     []string
	dev                                       bool
	region, dc, name, dataDir, bind, logLevel string
	server, client                            bool
	expect                                    int
	join, servers, meta                       []string
	http, rpc, serf                           int
	withParent                                bool
}

func agentCommand() *cobra.Command { return new(agentFlags).command() }

func (f *agentFlags) command() *cobra.Command {
	c := &cobra.Command{
		Use: "agent", Short: "Run an agent: a server, a client, or both", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config(c)
			if err != nil {
				return err
			}
			return runAgent(c.Context(), cfg, f.withParent)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.files, "config", nil, "configuration `FILE or directory`; may come again")
	fl.BoolVar(&f.dev, "dev", false, "server and client in one process; its tasks, and its data unless -data-dir is given, go when it stops")
	fl.StringVar(&f.region, "region", "", "the agent's region `NAME`")
	fl.StringVar(&f.dc, "dc", "", "the agent's datacenter `NAME`")
	fl.StringVar(&f.name, "node", "", "the agent's `NAME`, unique in its region")
	fl.StringVar(&f.dataDir, "data-dir", "", "`DIRECTORY` for what must outlast the process")
	fl.StringVar(&f.bind, "bind", "", "`ADDRESS` to listen on")
	fl.StringVar(&f.logLevel, "log-level", "", "TRACE, DEBUG, INFO, WARN or ERROR")
	fl.BoolVar(&f.server, "server", false, "be a server")
	fl.BoolVar(&f.client, "client", false, "be a client")
	fl.IntVar(&f.expect, "bootstrap-expect", 0, "`NUMBER` of servers that start the region together")
	fl.StringArrayVar(&f.join, "retry-join", nil, "gossip `ADDRESS` of a server to join, of any region; may come again")
	fl.StringArrayVar(&f.servers, "servers", nil, "RPC `ADDRESS` of a server, for a client; may come again")
	fl.StringArrayVar(&f.meta, "meta", nil, "the node's metadata `KEY=VALUE`; may come again")
	fl.IntVar(&f.http, "http-port", 0, "`PORT` of the API")
	fl.IntVar(&f.rpc, "rpc-port", 0, "`PORT` of RPC")
	fl.IntVar(&f.serf, "serf-port", 0, "`PORT` of gossip")
	fl.BoolVar(&f.withParent, "with-parent", false, "stop when standard input ends")
	_ = fl.MarkHidden("with-parent")
	return c
}

// config puts defaults, files and flags together, in that order.
func (f *agentFlags) config(c *cobra.Command) (*config.Config, error) {
	cfg := config.Default()
	if f.dev {
		cfg.MakeDev()
	}
	if err := cfg.Load(f.files); err != nil {
		return nil, err
	}
	set := c.Flags().Changed
	text := func(name string, to *string, v string) {
		if set(name) {
			*to = v
		}
	}
	text("region", &cfg.Region, f.region)
	text("dc", &cfg.Datacenter, f.dc)
	text("node", &cfg.Name, f.name)
	text("data-dir", &cfg.DataDir, f.dataDir)
	text("bind", &cfg.BindAddr, f.bind)
	text("log-level", &cfg.LogLevel, f.logLevel)
	if set("server") {
		cfg.Server.Enabled = f.server
	}
	if set("client") {
		cfg.Client.Enabled = f.client
	}
	for name, at := range map[string]struct {
		to *int
		v  int
	}{"bootstrap-expect": {&cfg.Server.BootstrapExpect, f.expect}, "http-port": {&cfg.Ports.HTTP, f.http}, "rpc-port": {&cfg.Ports.RPC, f.rpc}, "serf-port": {&cfg.Ports.Serf, f.serf}} {
		if set(name) {
			*at.to = at.v
		}
	}
	cfg.Server.Join.RetryJoin = append(cfg.Server.Join.RetryJoin, f.join...)
	cfg.Client.Servers = append(cfg.Client.Servers, f.servers...)
	for _, kv := range f.meta {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("-meta %q is not KEY=VALUE", kv)
		}
		cfg.Client.Meta[k] = v
	}
	switch strings.ToUpper(cfg.LogLevel) {
	case "TRACE", "DEBUG", "INFO", "WARN", "ERROR":
	default:
		return nil, fmt.Errorf("log_level %q is none of TRACE, DEBUG, INFO, WARN, ERROR", cfg.LogLevel)
	}
	return cfg, nil
}

// checkTask is what the agent's drivers say of a task. A job file is checked by
// it before it is sent, while its lines are at hand.
func checkTask(t *model.Task) error { return agent.CheckTask(t) }

// shimCommand is this program as a task's shim. On Linux it is named so that it
// is the same program even after its file was replaced.
func shimCommand() ([]string, error) {
	if runtime.GOOS == "linux" {
		return []string{"/proc/self/exe", "shim"}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this program's file: %w", err)
	}
	return []string{self, "shim"}, nil
}

func runAgent(ctx context.Context, cfg *config.Config, withParent bool) error {
	shim, err := shimCommand()
	if err != nil {
		return err
	}
	// Signals first: one that comes while the agent starts stops it too.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var leave atomic.Bool
	go func() {
		select {
		case s := <-signals:
			leave.Store(s == os.Interrupt && cfg.LeaveOnInterrupt || s == syscall.SIGTERM && cfg.LeaveOnTerminate)
			fmt.Fprintf(os.Stderr, "stopping on %s\n", s)
			cancel()
		case <-ctx.Done():
			return
		}
		// A second signal does not wait.
		<-signals
		os.Exit(1)
	}()
	if withParent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	begun := time.Now()
	a, err := agent.New(ctx, cfg, agent.Options{Log: os.Stderr, Shim: shim})
	if err != nil {
		return err
	}
	fmt.Printf("Atoll %s: agent %q of region %q at http://%s, started in %s\n", agent.Build, cfg.Name, cfg.Region, a.HTTPAddr(), time.Since(begun).Round(time.Millisecond))
	return a.Run(ctx, leave.Load)
}
