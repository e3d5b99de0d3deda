package region

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shirou/gopsutil/v4/process"

	"atoll/client"
	"atoll/internal/backoff"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// simulation is what the process that plays the nodes is told, by simulateEnv.
type simulation struct {
	Addr  string
	Nodes int
	// Pull lets each node keep its blocking query for work open, as nodes do.
	Pull bool
}

const simulateEnv = "ATOLL_SIMULATE_NODES"

// heard is what that process reports on a line of JSON: once when all nodes are
// registered, and again at each byte that it is sent, of the time since.
type heard struct {
	Registered, Beats int
	// Failed counts what failed, by cause.
	Failed        map[string]int
	P50, P99, Max time.Duration
	CPU           time.Duration
}

// BenchmarkNodes has 10,000 nodes register with one server and heartbeat at its
// default TTL for a minute, each on a TCP session of its own. The nodes are another
// process, so that this one's processor time and memory are the server's alone;
// the two share the machine. One iteration is the whole of it:
//
//	go test -run '^$' -bench Nodes -benchtime 1x ./region
func BenchmarkNodes(b *testing.B) {
	for _, s := range []simulation{{Nodes: 1000, Pull: true}, {Nodes: 10_000}, {Nodes: 10_000, Pull: true}} {
		b.Run(fmt.Sprintf("nodes=%d/pull=%v", s.Nodes, s.Pull), func(b *testing.B) {
			for b.Loop() {
				benchNodes(b, s)
			}
		})
	}
}

// steady is how long the nodes are watched: several of their TTLs.
const steady = time.Minute

func benchNodes(b *testing.B, s simulation) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	serf := freeport.Addr(b)
	server, err := New(Config{
		Name: "s1", Region: "us", Datacenter: "dc1", DataDir: b.TempDir(), RPC: l, AdvertiseRPC: l.Addr().String(), BindSerf: serf, AdvertiseSerf: serf,
		Expect: 1, Version: "bench", Log: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn}),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, func() bool { return false }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	wait(b, "leader", func() error {
		if server.lead.monitor.Load() == nil {
			return errors.New("no leader")
		}
		return nil
	})
	_, empty, err := use()
	if err != nil {
		b.Fatal(err)
	}

	s.Addr = l.Addr().String()
	spec, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	nodes := exec.Command(os.Args[0])
	nodes.Env = append(os.Environ(), simulateEnv+"="+string(spec))
	nodes.Stderr = os.Stderr
	stdin, err := nodes.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := nodes.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	if err := nodes.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = stdin.Close() // which ends it
		if err := nodes.Wait(); err != nil {
			b.Error(err)
		}
	}()
	lines := json.NewDecoder(bufio.NewReader(stdout))
	report := func() (h heard) {
		if err := lines.Decode(&h); err != nil {
			b.Fatalf("the nodes say no more: %v", err)
		}
		return h
	}
	registered := report()
	took := time.Since(begun)
	if registered.Registered != s.Nodes {
		b.Fatalf("%d nodes are registered, want %d", registered.Registered, s.Nodes)
	}
	index := server.cell.Snapshot().NodesIndex()
	before, _, err := use()
	if err != nil {
		b.Fatal(err)
	}
	measured := time.Now()
	timer := time.NewTimer(steady)
	defer timer.Stop()
	<-timer.C
	elapsed := time.Since(measured)
	cpu, resident, err := use()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := stdin.Write([]byte("\n")); err != nil {
		b.Fatal(err)
	}
	h := report()
	down := 0
	snap := server.cell.Snapshot()
	for n := range snap.Nodes(nil, "") {
		if n.Status != model.NodeStatusReady {
			down++
		}
	}
	// A node that was down and came back would have moved the index.
	if down > 0 || snap.NodesIndex() != index {
		b.Errorf("%d nodes are down; the nodes' index went from %d to %d", down, index, snap.NodesIndex())
	}
	for cause, n := range h.Failed {
		b.Errorf("%d failed: %s", n, cause)
	}
	b.ReportMetric(float64(s.Nodes)/took.Seconds(), "registrations/s")
	b.ReportMetric(100*(cpu-before).Seconds()/elapsed.Seconds(), "server-%cpu")
	b.ReportMetric(100*h.CPU.Seconds()/elapsed.Seconds(), "nodes-%cpu")
	b.ReportMetric(float64(h.Beats)/elapsed.Seconds(), "beats/s")
	b.ReportMetric(float64(h.P50.Microseconds())/1000, "beat-p50-ms")
	b.ReportMetric(float64(h.P99.Microseconds())/1000, "beat-p99-ms")
	b.ReportMetric(float64(h.Max.Microseconds())/1000, "beat-max-ms")
	b.ReportMetric(float64(resident)/(1<<20), "server-MiB")
	b.ReportMetric(float64(resident-empty)/1024/float64(s.Nodes), "KiB/node")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	b.ReportMetric(float64(down), "down")
}

// use is what this process has taken of the processor so far, and what it holds of
// the memory, garbage included.
func use() (cpu time.Duration, resident int64, err error) {
	self, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0, 0, err
	}
	times, err := self.Times()
	if err != nil {
		return 0, 0, err
	}
	memory, err := self.MemoryInfo()
	if err != nil {
		return 0, 0, err
	}
	return time.Duration((times.User + times.System) * float64(time.Second)), int64(memory.RSS), nil
}

// simulateNodes plays the nodes, in a process of its own.
func simulateNodes(spec string) error {
	var s simulation
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	sim := &nodesim{failed: make(map[string]int)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// They share two cores with the server, which nodes do not: were they to
	// come all at once, it would be their own retries that is measured.
	turn := make(chan struct{}, 256)
	var running, registering sync.WaitGroup
	registering.Add(s.Nodes)
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Error})
	for range s.Nodes {
		running.Go(func() {
			select {
			case turn <- struct{}{}:
				sim.run(ctx, s, func() { <-turn; registering.Done() }, log)
			case <-ctx.Done():
			}
		})
	}
	registered := make(chan error, 1)
	go func() {
		registering.Wait()
		registered <- nil
	}()
	asked := make(chan error, 1)
	go func() {
		for in := bufio.NewReader(os.Stdin); ; {
			_, err := in.ReadByte()
			asked <- err
			if err != nil {
				return
			}
		}
	}()
	for {
		var err error
		select {
		case err = <-registered:
		case err = <-asked:
		}
		if err != nil {
			break // whoever started us is done with us, or gone
		}
		if err := sim.report(); err != nil {
			return err
		}
	}
	cancel()
	running.Wait()
	return nil
}

// nodesim counts what the nodes hear.
type nodesim struct {
	registered atomic.Int64
	mu         sync.Mutex // guards what follows
	took       []time.Duration
	// failed counts heartbeats and blocking queries that failed, by cause.
	failed map[string]int
	cpu    time.Duration
}

// report says what was heard since the last report.
func (s *nodesim) report() error {
	s.mu.Lock()
	took, failed := s.took, s.failed
	s.took, s.failed = nil, make(map[string]int)
	s.mu.Unlock()
	slices.Sort(took)
	at := func(share float64) time.Duration {
		if len(took) == 0 {
			return 0
		}
		return took[int(share*float64(len(took)-1))]
	}
	total, _, err := use()
	if err != nil {
		return err
	}
	h := heard{Registered: int(s.registered.Load()), Beats: len(took), Failed: failed, P50: at(0.5), P99: at(0.99), Max: at(1), CPU: total - s.cpu}
	s.cpu = total
	return json.NewEncoder(os.Stdout).Encode(h)
}

// cause is an error without the times and addresses in which each differs.
func cause(err error) string { return model.KindOf(err).String() }

func (s *nodesim) pullFailed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed["a query: "+cause(err)]++
}

// run is one node: all that a node does which runs nothing.
func (s *nodesim) run(ctx context.Context, spec simulation, registered func(), log hclog.Logger) {
	node, secret := aNode("dc1")
	c := rpc.NewClient(rpc.ClientConfig{Region: "us", Log: log})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{spec.Addr})
	var first sync.Once
	var pulling sync.WaitGroup
	defer pulling.Wait()
	registrar := &client.Registrar{
		Caller: c, Node: func() *model.Node { return node }, SecretID: secret, Log: log,
		Heard: func(*method.NodeHeartbeatResponse, bool) {
			first.Do(func() {
				s.registered.Add(1)
				registered()
				if spec.Pull {
					pulling.Go(func() { pull(ctx, c, node.ID, secret, s.pullFailed) })
				}
			})
		},
		Took: func(d time.Duration, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.took = append(s.took, d)
			if err != nil && ctx.Err() == nil {
				s.failed[cause(err)]++
			}
		},
	}
	_ = registrar.Run(ctx)
}

// pull keeps the node's blocking query open.
func pull(ctx context.Context, c rpc.Caller, id, secret string, failed func(error)) {
	index := uint64(0)
	for failures := 0; ctx.Err() == nil; {
		answer, err := rpc.Call(ctx, c, method.NodePullAllocs, rpc.To{AllowStale: true, Quiet: 15 * time.Second}, &method.NodeAllocsRequest{
			Query: method.Query{MinIndex: index, MaxWait: 5 * time.Minute}, NodeID: id, SecretID: secret,
		})
		if err == nil {
			index = answer.Index
			continue
		}
		if ctx.Err() == nil {
			failed(err)
		}
		backoff.Policy{Max: 5 * time.Second}.Sleep(ctx, failures)
		failures++
	}
}
