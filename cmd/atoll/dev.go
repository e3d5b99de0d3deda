package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
)

func devCommand() *cobra.Command {
	var regions, dataDir, logLevel string
	c := &cobra.Command{
		Use: "dev", Short: "Run several regions on this machine, for trying things out", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			names := strings.Split(regions, ",")
			for i := range names {
				names[i] = strings.TrimSpace(names[i])
			}
			if slices.Contains(names, "") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
				return fmt.Errorf("-regions %q must be different names with commas between them", regions)
			}
			return runDev(names, dataDir, logLevel)
		},
	}
	f := c.Flags()
	f.StringVar(&regions, "regions", "us,eu,ap", "`NAMES` of the regions, with commas between them")
	f.StringVar(&dataDir, "data-dir", "", "`DIRECTORY` for the data of all; without one it goes when they stop")
	f.StringVar(&logLevel, "log-level", "INFO", "of the agents, whose logs are in the data directory")
	return c
}

// devAgent is one region's agent process.
type devAgent struct {
	region          string
	http, rpc, serf int
	log             string
	cmd             *exec.Cmd
	stdin           io.Closer
	done            chan struct{}
	err             error // set before done is closed
}

func (a *devAgent) url() string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(a.http))
}

// Bounds of starting and stopping all.
const (
	devStart = 60 * time.Second
	devStop  = 15 * time.Second
)

func runDev(regions []string, dataDir, logLevel string) (err error) {
	if dataDir == "" {
		if dataDir, err = os.MkdirTemp("", "atoll-dev-"); err != nil {
			return fmt.Errorf("cannot make a data directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dataDir)) }()
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	agents, err := devPorts(regions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopDev(agents)) }()
	for _, a := range agents {
		if err := a.start(agents, dataDir, logLevel); err != nil {
			return err
		}
	}
	fmt.Printf("starting %d regions; data and logs are in %s\n", len(agents), dataDir)
	for _, a := range agents {
		fmt.Printf("  %-12s %s pid %d\n", a.region, a.url(), a.cmd.Process.Pid)
	}
	begun := time.Now()
	if err := awaitDev(ctx, agents); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Printf("ready after %s: every region sees every other. Try\n  atoll job run -address %s -region %s FILE\nand end all with Ctrl-C.\n",
		time.Since(begun).Round(10*time.Millisecond), agents[0].url(), agents[len(agents)-1].region)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		for _, a := range agents {
			if a.ended() {
				return fmt.Errorf("the agent of region %q ended: %w; its log is %s", a.region, cmp.Or(a.err, errors.New("by itself")), a.log)
			}
		}
	}
}

// devPorts finds ports: Nomad's own and those ten higher each, where they are
// free.
func devPorts(regions []string) ([]*devAgent, error) {
	var out []*devAgent
	for i, r := range regions {
		a := &devAgent{region: r}
		for at, to := range []*int{&a.http, &a.rpc, &a.serf} {
			port, err := freePort(4646 + 10*i + at)
			if err != nil {
				return nil, err
			}
			*to = port
		}
		out = append(out, a)
	}
	return out, nil
}

// freePort returns wish, if it is free on tcp and udp, else another.
func freePort(wish int) (int, error) {
	for _, port := range []int{wish, 0, 0, 0, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		port = l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = p.Close()
		return port, nil
	}
	return 0, errors.New("cannot find a free port on 127.0.0.1")
}

func (a *devAgent) start(all []*devAgent, dataDir, logLevel string) error {
	dir := filepath.Join(dataDir, a.region)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("cannot make the data directory of region %q: %w", a.region, err)
	}
	a.log = filepath.Join(dir, "agent.log")
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the log of region %q: %w", a.region, err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's file: %w", err)
	}
	args := []string{
		"agent", "-dev", "-with-parent", "-region", a.region, "-node", a.region + "-1", "-data-dir", dir, "-log-level", logLevel,
		"-http-port", strconv.Itoa(a.http), "-rpc-port", strconv.Itoa(a.rpc), "-serf-port", strconv.Itoa(a.serf),
	}
	for _, other := range all {
		if other != a {
			args = append(args, "-retry-join", net.JoinHostPort("127.0.0.1", strconv.Itoa(other.serf)))
		}
	}
	a.cmd = exec.Command(self, args...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	// Its end tells the agent that we are gone, however we went.
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return err
	}
	// Ctrl-C is for us alone: we stop them in order.
	ownGroup(a.cmd)
	if err := a.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the agent of region %q: %w", a.region, err)
	}
	a.done = make(chan struct{})
	go func() {
		a.err = a.cmd.Wait()
		close(a.done)
	}()
	return nil
}

func (a *devAgent) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// awaitDev waits until each agent has a leader and a ready node, and reaches
// every other region.
func awaitDev(ctx context.Context, agents []*devAgent) error {
	ctx, cancel := context.WithTimeout(ctx, devStart)
	defer cancel()
	for _, a := range agents {
		c := &apiclient.Client{Address: a.url()}
		for {
			if a.ended() {
				return fmt.Errorf("the agent of region %q ended while it started: %w; its log is %s", a.region, cmp.Or(a.err, errors.New("by itself")), a.log)
			}
			missing := devMissing(ctx, c, len(agents))
			if missing == "" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("region %q is not ready within %s: %s; its log is %s", a.region, devStart, missing, a.log)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// devMissing says what an agent still lacks, "" when nothing.
func devMissing(ctx context.Context, c *apiclient.Client, want int) string {
	regions, err := c.Regions(ctx, apiclient.Selection{})
	if err != nil {
		return err.Error()
	}
	if len(regions) < want {
		return fmt.Sprintf("it sees %d of %d regions", len(regions), want)
	}
	nodes, answers, err := c.Nodes(ctx, "")
	if err != nil {
		return err.Error()
	}
	for _, a := range answers {
		if a.Freshness != "live" {
			return fmt.Sprintf("region %q is %s to it", a.Region, a.Freshness)
		}
	}
	ready := 0
	for _, n := range nodes {
		if n.Status == "ready" {
			ready++
		}
	}
	if ready < want {
		return fmt.Sprintf("%d of %d nodes are ready", ready, want)
	}
	return ""
}

// stopDev stops the agents in the reverse of the order in which they started.
func stopDev(agents []*devAgent) error {
	var errs []error
	for _, a := range slices.Backward(agents) {
		if a.done == nil {
			continue
		}
		_ = a.cmd.Process.Signal(syscall.SIGTERM)
		_ = a.stdin.Close()
	}
	timeout := time.After(devStop)
	for _, a := range slices.Backward(agents) {
		if a.done == nil {
			continue
		}
		select {
		case <-a.done:
		case <-timeout:
			_ = a.cmd.Process.Kill()
			<-a.done
			errs = append(errs, fmt.Errorf("the agent of region %q did not stop within %s and was killed", a.region, devStop))
		}
	}
	return errors.Join(errs...)
}
