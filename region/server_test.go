package region

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// The test's own binary plays the nodes of BenchmarkNodes.
func TestMain(m *testing.M) {
	if spec := os.Getenv("ATOLL_SIMULATE_NODES"); spec != "" {
		if err := simulateNodes(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Memberlist does not wait for the probe that is under way when it is shut
	// down; that ends by itself within a second or two.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// testServer is a running server on loopback.
type testServer struct {
	*Server
	cfg    Config
	leave  atomic.Bool
	cancel context.CancelFunc
	done   chan error
}

func startServer(t testing.TB, name, region, dir string, expect int, join ...string) *testServer {
	t.Helper()
	return startAt(t, freeport.Addr(t), freeport.Addr(t), Config{Name: name, Region: region, DataDir: dir, Expect: expect, Join: join})
}

// startAt starts a server at RPC and gossip addresses of the test's choice.
func startAt(t testing.TB, addr, serf string, cfg Config) *testServer {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Datacenter, cfg.RPC, cfg.AdvertiseRPC = "dc1", l, l.Addr().String()
	cfg.BindSerf, cfg.AdvertiseSerf, cfg.JoinInterval, cfg.Version = serf, serf, time.Second, "test"
	if cfg.Heartbeats.MinTTL == 0 {
		cfg.Heartbeats = heartbeat.Config{MinTTL: 500 * time.Millisecond, Grace: 500 * time.Millisecond}
	}
	return runServer(t, cfg)
}

func runServer(t testing.TB, cfg Config) *testServer {
	t.Helper()
	if testing.Verbose() {
		cfg.Log = hclog.New(&hclog.LoggerOptions{Name: cfg.Name, Level: hclog.Info})
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ts := &testServer{Server: s, cfg: cfg, cancel: cancel, done: make(chan error, 1)}
	go func() { ts.done <- s.Run(ctx, ts.leave.Load) }()
	t.Cleanup(ts.stop)
	return ts
}

func (s *testServer) stop() {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
		// A leader whose peers were stopped before it cannot hand over.
		<-s.done
	}
}

func wait(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func call[Q, R any](t testing.TB, c rpc.Caller, m method.Method[Q, R], to rpc.To, req *Q) *R {
	t.Helper()
	r, err := rpc.Call(t.Context(), c, m, to, req)
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	return r
}

func aNode(dc string) (*model.Node, string) {
	return &model.Node{
		ID: model.NewUUID(nil).String(), Name: "n-" + dc, Datacenter: dc, NodePool: model.NodePoolDefault,
		Attributes: map[string]string{"kernel.name": "linux"},
		Drivers:    map[string]*model.DriverInfo{"mock": {Detected: true, Healthy: true}},
		NodeResources: &model.NodeResources{
			Cpu: model.NodeCpuResources{CpuShares: 1000}, Memory: model.NodeMemoryResources{MemoryMB: 1000}, Disk: model.NodeDiskResources{DiskMB: 10_000},
		},
	}, model.NewUUID(nil).String()
}

func aJob(id string, count int, dcs ...string) *model.Job {
	return &model.Job{
		ID: id, Datacenters: dcs, TaskGroups: []*model.TaskGroup{{
			Name: "g", Count: count,
			Tasks: []*model.Task{{Name: "t", Driver: "mock", Resources: &model.Resources{CPU: 100, MemoryMB: 100}, LogConfig: &model.LogConfig{MaxFiles: 1, MaxFileSizeMB: 1}}},
		}},
	}
}

func register(t testing.TB, c rpc.Caller, region string, job *model.Job) *method.JobRegisterResponse {
	t.Helper()
	return call(t, c, method.JobRegister, rpc.To{Region: region}, &method.JobRegisterRequest{Job: job})
}

func placed(c rpc.Caller, region, job string, want int) error {
	r, err := rpc.Call(context.Background(), c, method.JobAllocations, rpc.To{Region: region}, &method.JobAllocsRequest{JobID: job})
	if err != nil {
		return err
	}
	n := 0
	for _, a := range r.Allocs {
		if a.DesiredStatus == model.AllocDesiredRun && !model.ClientTerminal(a.ClientStatus) {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d allocations, want %d", n, want)
	}
	return nil
}

func TestAJobIsPlacedBlocksAndIsPlacedWhenANodeComes(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	wait(t, "leader", func() error {
		if !s.IsLeader() {
			return fmt.Errorf("no leader")
		}
		return nil
	})
	n1, secret := aNode("dc1")
	reg := call(t, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n1, SecretID: secret})
	if !reg.Registered || reg.TTL <= 0 {
		t.Errorf("registration: %+v", reg)
	}
	beat := func(ctx context.Context, id, secret string) {
		for ctx.Err() == nil {
			_, _ = rpc.Call(ctx, s.RPC(), method.NodeHeartbeat, rpc.To{}, &method.NodeHeartbeatRequest{NodeID: id, SecretID: secret})
			time.Sleep(100 * time.Millisecond)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { beat(ctx, n1.ID, secret); close(done) }()
	defer func() { cancel(); <-done }()

	r := register(t, s.RPC(), "", aJob("web", 12, "dc1", "dc2"))
	// Ten fit the first node; two wait for the second datacenter.
	wait(t, "first placements", func() error { return placed(s.RPC(), "", "web", 10) })
	var blocked *model.Evaluation
	wait(t, "blocked evaluation", func() error {
		e := call(t, s.RPC(), method.EvalGet, rpc.To{}, &method.EvalRequest{EvalID: r.EvalID}).Eval
		if e.Status != model.EvalComplete || e.BlockedEval == "" {
			return fmt.Errorf("evaluation is %s, blocked %q", e.Status, e.BlockedEval)
		}
		blocked = e
		return nil
	})
	if m := blocked.FailedTGAllocs["g"]; m == nil || m.DimensionExhausted["cpu"] == 0 || blocked.QueuedAllocations["g"] != 2 {
		t.Errorf("the reason is missing: %+v %v", m, blocked.QueuedAllocations)
	}
	absent := register(t, s.RPC(), "", aJob("far", 1, "dc9"))
	n2, secret2 := aNode("dc2")
	call(t, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n2, SecretID: secret2})
	wait(t, "all placements", func() error { return placed(s.RPC(), "", "web", 12) })
	wait(t, "the absent datacenter's reason", func() error {
		e := call(t, s.RPC(), method.EvalGet, rpc.To{}, &method.EvalRequest{EvalID: absent.EvalID}).Eval
		if m := e.FailedTGAllocs["g"]; m == nil || m.NodesEvaluated != 0 {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	// The second node sends no heartbeats: its work is lost and blocks.
	wait(t, "node down", func() error {
		n := call(t, s.RPC(), method.NodeGet, rpc.To{}, &method.NodeRequest{NodeID: n2.ID}).Node
		if n.Status != model.NodeStatusDown {
			return fmt.Errorf("node is %s", n.Status)
		}
		if n.SecretID != "" {
			t.Fatal("the node's secret is shown")
		}
		return nil
	})
	wait(t, "lost placements", func() error { return placed(s.RPC(), "", "web", 10) })
	call(t, s.RPC(), method.JobDeregister, rpc.To{}, &method.JobDeregisterRequest{JobID: "web"})
	wait(t, "stopped", func() error { return placed(s.RPC(), "", "web", 0) })
}

func TestThreeServersFormACellAndTwoRegionsForwardToEachOther(t *testing.T) {
	s1 := startServer(t, "s1", "us", t.TempDir(), 3)
	s2 := startServer(t, "s2", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	s3 := startServer(t, "s3", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	eu := startServer(t, "e1", "eu", t.TempDir(), 1, s1.cfg.AdvertiseSerf)
	all := []*testServer{s1, s2, s3, eu}
	for _, s := range all {
		wait(t, "directory", func() error {
			if n := len(s.dir.Regions()); n != 2 {
				return fmt.Errorf("%d regions", n)
			}
			if !s.Ready() {
				return fmt.Errorf("no leader")
			}
			return nil
		})
	}
	for i, s := range all {
		for _, region := range []string{"us", "eu"} {
			id := fmt.Sprintf("job-%d-%s", i, region)
			register(t, s.RPC(), region, aJob(id, 1))
			for _, reader := range all {
				got := call(t, reader.RPC(), method.JobGet, rpc.To{Region: region}, &method.JobRequest{JobID: id}).Job
				if got == nil || got.Region != region {
					t.Fatalf("%s read from %s: %+v", id, reader.cfg.Name, got)
				}
			}
		}
	}
	if _, err := rpc.Call(t.Context(), eu.RPC(), method.JobGet, rpc.To{Region: "mars"}, &method.JobRequest{JobID: "x"}); model.KindOf(err) != model.KindUnknownRegion {
		t.Errorf("an unknown region: %v", err)
	}
	// A leader that dies does not lose the region.
	for _, s := range []*testServer{s1, s2, s3} {
		if s.IsLeader() {
			s.stop()
			break
		}
	}
	wait(t, "a write after the leader died", func() error {
		_, err := rpc.Call(t.Context(), eu.RPC(), method.JobRegister, rpc.To{Region: "us"}, &method.JobRegisterRequest{Job: aJob("after", 1)})
		return err
	})
}

func TestFiftyStartsAndStopsLeaveNothing(t *testing.T) {
	n := 50
	if testing.Short() {
		n = 5
	}
	dir := t.TempDir()
	for range n {
		s := startServer(t, "s1", "us", dir, 1)
		wait(t, "leader", func() error {
			if !s.IsLeader() {
				return fmt.Errorf("no leader")
			}
			return nil
		})
		s.stop()
	}
}

func TestANodeThatComesAgainUnchangedCostsNoWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// With the default heartbeats, it is not down before the test is over.
	serf := freeport.Addr(t)
	s := runServer(t, Config{
		Name: "s1", Region: "us", Datacenter: "dc1", DataDir: t.TempDir(), RPC: l, AdvertiseRPC: l.Addr().String(),
		BindSerf: serf, AdvertiseSerf: serf, Expect: 1, Version: "test",
	})
	n, secret := aNode("dc1")
	n.Meta, n.Links = map[string]string{}, nil
	n.Drivers["mock"].UpdateTime = time.Now()
	// As a node does, over the wire.
	c := rpc.NewClient(rpc.ClientConfig{Region: "us"})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{s.cfg.AdvertiseRPC})
	registered := func() uint64 {
		t.Helper()
		var index uint64
		wait(t, "registration", func() error {
			r, err := rpc.Call(t.Context(), c, method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
			if err == nil {
				index = r.Index
			}
			return err
		})
		return index
	}
	first := registered()
	if again := registered(); again != first {
		t.Errorf("the same node again: index %d after %d", again, first)
	}
	n.Attributes["cpu.arch"] = "amd64"
	changed := registered()
	if changed <= first {
		t.Errorf("a changed node: index %d after %d", changed, first)
	}
	// The node is down, and comes again: that is a change.
	if _, _, err := s.cell.Apply(t.Context(), cell.CmdNodeStatus, &cell.NodeStatus{NodeID: n.ID, Status: model.NodeStatusDown, Derive: cell.NewDerive(1)}); err != nil {
		t.Fatal(err)
	}
	if back := registered(); back <= changed || s.cell.Snapshot().Node(nil, n.ID).Status != model.NodeStatusReady {
		t.Errorf("a node that was down: index %d after %d", back, changed)
	}
	if _, err := rpc.Call(t.Context(), c, method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: model.NewUUID(nil).String()}); model.KindOf(err) != model.KindForbidden {
		t.Errorf("another secret: %v", err)
	}
}
