//go:build bench

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"

	"atoll/client"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// BenchmarkLeaderDeath kills the leader of three servers to which 5,000 nodes
// heartbeat at the defaults, each on a session of its own. Three nodes die with
// it: one just before, one with the leader, one once another leads. It fails when
// a live node goes down, for however short, or a dead one is not down within 30 s.
// The nodes are this process; all share the machine.
func BenchmarkLeaderDeath(b *testing.B) {
	const nodes = 5000
	for b.Loop() {
		leaderDeath(b, nodes)
	}
}

// benchServer is a server on loopback.
type benchServer struct {
	cmd  *exec.Cmd
	api  *api.Client
	rpc  string
	done chan struct{}
}

func startServers(b *testing.B, n int) (all []*benchServer) {
	b.Helper()
	bin := os.Getenv("ATOLL_BIN")
	if bin == "" {
		b.Fatal("ATOLL_BIN is not set: run these with make bench")
	}
	dir := b.TempDir()
	serf := ""
	for i := range n {
		var ports [3]int
		for i := range ports {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ports[i] = l.Addr().(*net.TCPAddr).Port
			_ = l.Close()
		}
		name := fmt.Sprintf("s%d", i+1)
		args := []string{"agent", "-server", "-bootstrap-expect", fmt.Sprint(n), "-bind", "127.0.0.1", "-node", name, "-log-level", "WARN", "-data-dir", filepath.Join(dir, name)}
		for i, flag := range []string{"-http-port", "-rpc-port", "-serf-port"} {
			args = append(args, flag, fmt.Sprint(ports[i]))
		}
		if serf == "" {
			serf = fmt.Sprintf("127.0.0.1:%d", ports[2])
		} else {
			args = append(args, "-retry-join", serf)
		}
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			b.Fatal(err)
		}
		s := &benchServer{cmd: exec.Command(bin, args...), rpc: fmt.Sprintf("127.0.0.1:%d", ports[1]), done: make(chan struct{})}
		if s.api, err = api.NewClient(&api.Config{Address: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}); err != nil {
			b.Fatal(err)
		}
		s.cmd.Stdout, s.cmd.Stderr = log, log
		if err := s.cmd.Start(); err != nil {
			b.Fatal(err)
		}
		go func() {
			_ = s.cmd.Wait()
			_ = log.Close()
			close(s.done)
		}()
		b.Cleanup(s.kill)
		all = append(all, s)
	}
	return all
}

func (s *benchServer) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// leading waits until one of the servers leads, and returns it.
func leading(b *testing.B, servers []*benchServer) *benchServer {
	b.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, s := range servers {
			addr, err := s.api.Status().Leader()
			if err != nil {
				continue
			}
			for _, l := range servers {
				if l.rpc == addr {
					return l
				}
			}
		}
	}
	b.Fatal("nobody leads after 60 s")
	return nil
}

func leaderDeath(b *testing.B, n int) {
	servers := startServers(b, 3)
	leading(b, servers)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.rpc)
	}
	var beats, failed, ttl atomic.Int64
	stops := make(map[string]context.CancelFunc)
	var ids []string
	var running, registering sync.WaitGroup
	few := make(chan struct{}, 100)
	defer func() {
		for _, stop := range stops {
			stop()
		}
		running.Wait()
	}()
	begun := time.Now()
	for i := range n {
		few <- struct{}{}
		node := &model.Node{
			ID: model.NewUUID(nil).String(), Name: fmt.Sprint("n", i), Datacenter: "dc1", NodePool: model.NodePoolDefault,
			NodeResources: &model.NodeResources{Cpu: model.NodeCpuResources{CpuShares: 1000}, Memory: model.NodeMemoryResources{MemoryMB: 1000}},
		}
		c := rpc.NewClient(rpc.ClientConfig{Region: "global"})
		c.SetServers([]string{addrs[i%3], addrs[(i+1)%3], addrs[(i+2)%3]})
		ctx, stop := context.WithCancel(context.Background())
		ids, stops[node.ID] = append(ids, node.ID), stop
		registering.Add(1)
		first := sync.OnceFunc(func() { registering.Done(); <-few })
		r := &client.Registrar{
			Caller: c, Node: func() *model.Node { return node }, SecretID: model.NewUUID(nil).String(),
			Log:   hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
			Heard: func(a *method.NodeHeartbeatResponse, _ bool) { ttl.Store(int64(a.TTL)); first() },
			Took: func(_ time.Duration, err error) {
				if err != nil {
					failed.Add(1)
				} else {
					beats.Add(1)
				}
			},
		}
		running.Go(func() {
			_ = r.Run(ctx)
			first()
			_ = c.Shutdown(context.Background())
		})
	}
	registering.Wait()
	b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "registrations/s")
	// Three rounds spread the heartbeats as they are in the long run.
	start, from := time.Now(), beats.Load()
	for beats.Load()-from < int64(3*n) {
		if time.Since(start) > 2*time.Minute {
			b.Fatalf("%d heartbeats in %s, %d failed", beats.Load()-from, time.Since(start), failed.Load())
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.ReportMetric(float64(beats.Load()-from)/time.Since(start).Seconds(), "beats/s")
	if failed.Load() > 0 {
		b.Logf("%d heartbeats failed before anything died; the TTL is %s", failed.Load(), time.Duration(ttl.Load()))
	}

	leader := leading(b, servers)
	var rest []*benchServer
	for _, s := range servers {
		if s != leader {
			rest = append(rest, s)
		}
	}
	before := nodesIndex(b, rest[0])
	failed.Store(0)
	stops[ids[0]]()
	leader.kill()
	died := time.Now()
	stops[ids[1]]()
	next := leading(b, rest)
	b.ReportMetric(ms(time.Since(died)), "new-leader-ms")
	stops[ids[2]]()
	var took time.Duration
	for i, id := range ids[:3] {
		for {
			got, _, err := next.api.Nodes().Info(id, &api.QueryOptions{AllowStale: true})
			if err == nil && got.Status == api.NodeStatusDown {
				break
			}
			if time.Since(died) > 30*time.Second {
				b.Fatalf("dead node %d is not down %s after the leader died", i, time.Since(died))
			}
			time.Sleep(50 * time.Millisecond)
		}
		took = time.Since(died)
	}
	b.ReportMetric(took.Seconds(), "dead-found-s")
	// Long enough for whatever is wrongly taken for dead to be found so.
	time.Sleep(time.Until(died.Add(35 * time.Second)))
	b.ReportMetric(float64(failed.Load()), "failed-beats")
	all, _, err := next.api.Nodes().List(&api.QueryOptions{AllowStale: true})
	if err != nil {
		b.Fatal(err)
	}
	dead := strings.Join(ids[:3], " ")
	wrong := 0
	for _, node := range all {
		if node.ModifyIndex > before && !strings.Contains(dead, node.ID) {
			wrong++
		}
	}
	b.ReportMetric(float64(wrong), "live-down")
	if wrong > 0 || len(all) != n {
		b.Errorf("%d of %d live nodes went down", wrong, len(all))
	}
}

// nodesIndex is the index of the last change of a node.
func nodesIndex(b *testing.B, s *benchServer) uint64 {
	b.Helper()
	_, meta, err := s.api.Nodes().List(&api.QueryOptions{AllowStale: true})
	if err != nil {
		b.Fatal(err)
	}
	return meta.LastIndex
}
