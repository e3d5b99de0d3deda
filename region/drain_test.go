package region

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/client"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// runNode is a node that says of every allocation that it runs as soon as it has
// it, and that it ended as soon as it is told to stop.
func runNode(t testing.TB, servers []*testServer, node *model.Node, secret string) {
	t.Helper()
	runJudgingNode(t, servers, node, secret, func(*model.Allocation) *model.AllocDeploymentStatus { return nil })
}

// runJudgingNode is one that says also how healthy each is.
func runJudgingNode(t testing.TB, servers []*testServer, node *model.Node, secret string, judge func(*model.Allocation) *model.AllocDeploymentStatus) {
	t.Helper()
	c := rpc.NewClient(rpc.ClientConfig{Region: servers[0].cfg.Region})
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.cfg.AdvertiseRPC)
	}
	c.SetServers(addrs)
	ctx, stop := context.WithCancel(context.Background())
	registered := make(chan struct{})
	first := sync.OnceFunc(func() { close(registered) })
	var work sync.WaitGroup
	work.Go(func() {
		_ = (&client.Registrar{
			Caller: c, Node: func() *model.Node { return node }, SecretID: secret, Log: hclog.NewNullLogger(),
			Heard: func(*method.NodeHeartbeatResponse, bool) { first() },
		}).Run(ctx)
	})
	work.Go(func() {
		select {
		case <-registered:
		case <-ctx.Done():
		}
		var index uint64
		for ctx.Err() == nil {
			got, err := rpc.Call(ctx, c, method.NodePullAllocs, rpc.To{AllowStale: true}, &method.NodeAllocsRequest{
				Query: method.Query{MinIndex: index, MaxWait: time.Second}, NodeID: node.ID, SecretID: secret,
			})
			if err == nil {
				var updates []*model.AllocUpdate
				for _, a := range got.Changed {
					switch {
					case a.ClientTerminal():
					case a.ServerTerminal():
						updates = append(updates, &model.AllocUpdate{ID: a.ID, ClientStatus: model.AllocClientComplete})
					default:
						updates = append(updates, &model.AllocUpdate{ID: a.ID, ClientStatus: model.AllocClientRunning, DeploymentID: a.DeploymentID, DeploymentStatus: judge(a)})
					}
				}
				if len(updates) > 0 {
					_, err = rpc.Call(ctx, c, method.NodeUpdate, rpc.To{}, &method.NodeUpdateAllocsRequest{NodeID: node.ID, SecretID: secret, Updates: updates})
				}
			}
			if index = 0; err == nil {
				index = got.Index
			}
		}
	})
	t.Cleanup(func() {
		stop()
		work.Wait()
		_ = c.Shutdown(context.Background())
	})
	<-registered
}

func TestADrainKeepsMaxParallelThroughAChangeOfLeader(t *testing.T) {
	const count, maxParallel = 20, 3
	servers := startCell(t, heartbeat.Config{MinTTL: 3 * time.Second, Grace: 10 * time.Second})
	full, secret := aNode("dc1")
	runNode(t, servers, full, secret)
	job := aJob("web", count, "dc1")
	g := job.TaskGroups[0]
	g.Tasks[0].Resources.CPU, g.Tasks[0].Resources.MemoryMB = 10, 10
	g.Migrate = &model.MigrateStrategy{MaxParallel: maxParallel, HealthCheck: model.HealthTaskStates, MinHealthyTime: 200 * time.Millisecond, HealthyDeadline: time.Minute}
	leader := leaderOf(t, servers)
	register(t, leader.RPC(), "", job)
	key := model.JobID{Namespace: model.DefaultNamespace, ID: "web"}
	moved := func(s *testServer) (running, elsewhere int) {
		rows, _ := s.cell.Snapshot().AllocsOfJob(nil, key)
		for r := range rows {
			if r.Client != model.ClientRunning || r.ServerTerminal() || r.Transition().ShouldMigrate() {
				continue
			}
			running++
			if r.NodeID.String() != full.ID {
				elsewhere++
			}
		}
		return running, elsewhere
	}
	wait(t, "the job runs on one node", func() error {
		if n, _ := moved(leader); n != count {
			return fmt.Errorf("%d of %d run", n, count)
		}
		return nil
	})
	for range 2 {
		n, s := aNode("dc1")
		runNode(t, servers, n, s)
	}
	var rest []*testServer
	for _, s := range servers {
		if s != leader {
			rest = append(rest, s)
		}
	}

	// Whoever follows sees every state that others act on.
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	least := count
	watching.Go(func() {
		for {
			ws := make(state.Watch)
			rest[0].cell.Snapshot().WatchAny(ws)
			n, _ := moved(rest[0])
			least = min(least, n)
			if ws.WatchCtx(ctx) != nil {
				return
			}
		}
	})
	time.Sleep(200 * time.Millisecond) // all are healthy
	start := time.Now()
	r := call(t, leader.RPC(), method.NodeDrain, rpc.To{}, &method.NodeDrainRequest{NodeID: full.ID, DrainSpec: &model.DrainSpec{}, Meta: map[string]string{"message": "a new disk"}})
	if r.NodeModifyIndex == 0 || r.Index == 0 {
		t.Errorf("the drain's answer: %+v", r)
	}
	wait(t, "some have moved", func() error {
		if _, n := moved(rest[0]); n < 5 {
			return fmt.Errorf("%d have moved", n)
		}
		return nil
	})
	leader.kill()
	next := leaderOf(t, rest)
	wait(t, "the drain is complete", func() error {
		n := next.cell.Snapshot().Node(nil, full.ID)
		if n.DrainStrategy != nil {
			_, away := moved(next)
			return fmt.Errorf("%d of %d have moved", away, count)
		}
		return nil
	})
	t.Logf("drained of %d in %s", count, time.Since(start).Round(time.Millisecond))
	// The drain is over once nothing is left on its node; what was placed last may
	// still be starting.
	wait(t, "all run elsewhere", func() error {
		if running, away := moved(next); running != count || away != count {
			return fmt.Errorf("%d of %d run, %d elsewhere", running, count, away)
		}
		return nil
	})
	stop()
	watching.Wait()
	if least < count-maxParallel {
		t.Errorf("only %d of %d ran at a time, with max_parallel %d", least, count, maxParallel)
	}
	n := next.cell.Snapshot().Node(nil, full.ID)
	if n.SchedulingEligibility != model.NodeIneligible || n.LastDrain == nil || n.LastDrain.Status != model.DrainComplete || n.LastDrain.Meta["message"] != "a new disk" {
		t.Errorf("after the drain the node is %s, its last drain %+v", n.SchedulingEligibility, n.LastDrain)
	}
	var events []string
	for _, e := range n.Events {
		events = append(events, e.Message)
	}
	if !slices.Contains(events, "Node drain strategy set") || !slices.Contains(events, "Node drain complete") {
		t.Errorf("events: %q", events)
	}
}

func TestAnAllocationThatIsStoppedIsPlacedElsewhere(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	leaderOf(t, []*testServer{s})
	n, secret := aNode("dc1")
	runNode(t, []*testServer{s}, n, secret)
	register(t, s.RPC(), "", aJob("web", 1, "dc1"))
	key := model.JobID{Namespace: model.DefaultNamespace, ID: "web"}
	var first *model.AllocRow
	wait(t, "it runs", func() error {
		rows, _ := s.cell.Snapshot().AllocsOfJob(nil, key)
		for r := range rows {
			if r.Client == model.ClientRunning {
				first = r
				return nil
			}
		}
		return fmt.Errorf("it does not")
	})
	out := call(t, s.RPC(), method.AllocStop, rpc.To{RequestID: "stop-1"}, &method.AllocStopRequest{AllocID: first.ID.String()})
	if out.EvalID == "" || s.cell.Snapshot().Eval(nil, out.EvalID).TriggeredBy != model.TriggerAllocStop {
		t.Errorf("answer %+v", out)
	}
	wait(t, "another runs in its place", func() error {
		old := s.cell.Snapshot().Alloc(nil, first.ID)
		if old.Client != model.ClientComplete || !old.HasNext() {
			return fmt.Errorf("it is %d, and was replaced: %v", old.Client, old.HasNext())
		}
		if next := s.cell.Snapshot().Alloc(nil, old.Extra.Next); next == nil || next.Client != model.ClientRunning {
			return fmt.Errorf("the next: %+v", next)
		}
		return nil
	})
	// The same request stops nothing more.
	again := call(t, s.RPC(), method.AllocStop, rpc.To{RequestID: "stop-1"}, &method.AllocStopRequest{AllocID: first.ID.String()})
	if *again != *out {
		t.Errorf("sent again: %+v, was %+v", again, out)
	}
	for _, id := range []string{"no-id", model.NewUUID(nil).String()} {
		if _, err := rpc.Call(t.Context(), s.RPC(), method.AllocStop, rpc.To{}, &method.AllocStopRequest{AllocID: id}); model.KindOf(err) != model.KindNotFound {
			t.Errorf("stop of %s: %v", id, err)
		}
	}
}
