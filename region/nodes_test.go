package region

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/client"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// kill ends a server as its death would: nothing is handed over or said.
func (s *testServer) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	_ = s.cfg.RPC.Close()
	_ = s.rpc.Shutdown(ctx)
	_ = s.cell.Close()
	s.stop()
}

// startCell starts a region of three servers and waits for its leader.
func startCell(t testing.TB, beats heartbeat.Config) (servers []*testServer) {
	t.Helper()
	var join []string
	for _, name := range []string{"s1", "s2", "s3"} {
		servers = append(servers, startAt(t, freeport.Addr(t), freeport.Addr(t), Config{
			Name: name, Region: "us", DataDir: t.TempDir(), Expect: 3, Join: join, Heartbeats: beats,
		}))
		join = []string{servers[0].cfg.AdvertiseSerf}
	}
	leaderOf(t, servers)
	return servers
}

func leaderOf(t testing.TB, servers []*testServer) (leader *testServer) {
	t.Helper()
	wait(t, "a leader", func() error {
		for _, s := range servers {
			if s.lead.monitor.Load() != nil && s.IsLeader() {
				leader = s
				return nil
			}
		}
		return fmt.Errorf("nobody leads")
	})
	return leader
}

// simNodes are nodes that register and heartbeat, each on a session of its own,
// and run nothing.
type simNodes struct {
	ids   []string
	stops []context.CancelFunc
	beats atomic.Int64
	done  sync.WaitGroup
}

func startNodes(t testing.TB, n int, servers []*testServer) *simNodes {
	t.Helper()
	out := &simNodes{}
	// Nodes come up a few at a time: a herd is not what this is about.
	few := make(chan struct{}, 100)
	var registered sync.WaitGroup
	for i := range n {
		few <- struct{}{}
		node, secret := aNode("dc1")
		c := rpc.NewClient(rpc.ClientConfig{Region: "us"})
		var addrs []string
		for j := range servers {
			addrs = append(addrs, servers[(i+j)%len(servers)].cfg.AdvertiseRPC)
		}
		c.SetServers(addrs)
		ctx, stop := context.WithCancel(context.Background())
		out.ids, out.stops = append(out.ids, node.ID), append(out.stops, stop)
		registered.Add(1)
		first := sync.OnceFunc(func() { registered.Done(); <-few })
		r := &client.Registrar{
			Caller: c, Node: func() *model.Node { return node }, SecretID: secret, Log: hclog.NewNullLogger(),
			Heard: func(*method.NodeHeartbeatResponse, bool) { first() },
			Took: func(_ time.Duration, err error) {
				if err == nil {
					out.beats.Add(1)
				}
			},
		}
		out.done.Go(func() {
			_ = r.Run(ctx)
			first()
			_ = c.Shutdown(context.Background())
		})
	}
	t.Cleanup(func() {
		for _, stop := range out.stops {
			stop()
		}
		out.done.Wait()
	})
	registered.Wait()
	return out
}

// downNodes are the nodes that a server's state says are down.
func downNodes(s *testServer) map[string]bool {
	out := make(map[string]bool)
	for n := range s.cell.Snapshot().Nodes(nil, "") {
		if n.Status == model.NodeStatusDown {
			out[n.ID] = true
		}
	}
	return out
}

// TestNodesStayUpThroughTheDeathOfTheLeader runs 300 nodes with a short TTL; with
// ATOLL_NODES set, as many as that with the TTL of production, and reports
// figures: ATOLL_NODES=5000 go test ./region -run DeathOfTheLeader -v.
func TestNodesStayUpThroughTheDeathOfTheLeader(t *testing.T) {
	count, ttl := 300, 4*time.Second
	if s := os.Getenv("ATOLL_NODES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		count, ttl = n, heartbeat.DefaultMinTTL
	}
	// With a grace as long as the TTL, the bound for a dead node is the TTL
	// and the grace, and what a change adds.
	bound := 3 * ttl
	servers := startCell(t, heartbeat.Config{MinTTL: ttl, Grace: ttl})
	started := time.Now()
	nodes := startNodes(t, count, servers)
	t.Logf("%d nodes registered in %s", count, time.Since(started).Round(time.Millisecond))
	before := nodes.beats.Load()
	since := time.Now()
	// Two rounds, so that the beats are spread as they are in the long run.
	for nodes.beats.Load()-before < int64(2*count) {
		if time.Since(since) > 10*ttl {
			t.Fatalf("%d heartbeats of %d nodes in %s", nodes.beats.Load()-before, count, time.Since(since))
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%.0f heartbeats/s", float64(nodes.beats.Load()-before)/time.Since(since).Seconds())

	leader := leaderOf(t, servers)
	var rest []*testServer
	for _, s := range servers {
		if s != leader {
			rest = append(rest, s)
		}
	}
	dead := map[string]bool{nodes.ids[0]: true, nodes.ids[1]: true, nodes.ids[2]: true}
	nodes.stops[0]() // before the change
	leader.kill()
	nodes.stops[1]() // during it
	died := time.Now()
	next := leaderOf(t, rest)
	t.Logf("another leads %s after the death", time.Since(died).Round(time.Millisecond))
	nodes.stops[2]() // after it
	found := make(map[string]bool)
	for deadline := died.Add(bound); len(found) < len(dead); time.Sleep(20 * time.Millisecond) {
		for id := range downNodes(next) {
			if !dead[id] {
				t.Fatalf("a live node is down %s after the leader died", time.Since(died))
			}
			if !found[id] {
				found[id] = true
				t.Logf("a dead node is down %s after the leader died", time.Since(died).Round(time.Millisecond))
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d dead nodes are down %s after the leader died; the next leader still leads: %v", len(found), len(dead), bound, next.IsLeader())
		}
	}
	// Long enough for whatever was wrongly thought dead to be found so.
	for end := died.Add(bound); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := len(downNodes(next)); n != len(dead) {
			t.Fatalf("%d nodes are down, want the %d dead ones", n, len(dead))
		}
	}
}

func TestSessionsOfNodesThatAreGoneAreNotKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pool := rpc.NewPool(rpc.DialTCP, hclog.NewNullLogger())
	defer pool.Close()
	dialled := func() *rpc.Session {
		s, err := pool.Session(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	gone := dialled()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	var live *rpc.Session
	wait(t, "another session", func() error {
		if live = dialled(); live.Closed() {
			return errors.New("it is closed")
		}
		return nil
	})
	s := newSessions()
	for i := range 100 {
		s.put(fmt.Sprint("live-", i), live)
	}
	for i := range 5000 {
		s.put(fmt.Sprint("gone-", i), gone)
	}
	if n := len(s.byNode); n > 3*100 {
		t.Errorf("%d sessions are kept, of which 100 are of nodes that are there", n)
	}
	for i := range 100 {
		if s.Session(fmt.Sprint("live-", i)) != live {
			t.Fatalf("node %d has no session", i)
		}
	}
}

func TestANodeThatIsBackIsAskedHowItsAllocationsAre(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	n, secret := aNode("dc1")
	call(t, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
	job := aJob("web", 1)
	job.TaskGroups[0].Disconnect = &model.DisconnectStrategy{LostAfter: time.Hour, Replace: true, Reconcile: model.ReconcileBestScore}
	register(t, s.RPC(), "", job)
	var alloc *model.AllocStub
	report := func() *method.IndexResponse {
		return call(t, s.RPC(), method.NodeUpdate, rpc.To{}, &method.NodeUpdateAllocsRequest{
			NodeID: n.ID, SecretID: secret, Updates: []*model.AllocUpdate{{ID: alloc.ID, ClientStatus: model.AllocClientRunning}},
		})
	}
	allocIs := func(status string) {
		t.Helper()
		wait(t, "the allocation is "+status, func() error {
			all := call(t, s.RPC(), method.JobAllocations, rpc.To{}, &method.JobAllocsRequest{JobID: "web"}).Allocs
			if len(all) != 1 || all[0].ClientStatus != status {
				return fmt.Errorf("%d allocations", len(all))
			}
			alloc = all[0]
			return nil
		})
	}
	beat := func() bool {
		t.Helper()
		return call(t, s.RPC(), method.NodeHeartbeat, rpc.To{}, &method.NodeHeartbeatRequest{NodeID: n.ID, SecretID: secret}).Report
	}
	// What was said in time is not asked for.
	told := func() {
		t.Helper()
		wait(t, "the servers know", func() error {
			if report(); beat() {
				return errors.New("the node is asked")
			}
			return nil
		})
	}
	allocIs(model.AllocClientPending)
	told()
	allocIs(model.AllocClientUnknown) // the node is silent
	for range 2 {
		if !beat() {
			t.Error("the node is not asked how its allocation is")
		}
	}
	told()
}
