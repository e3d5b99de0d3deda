//go:build e2e && linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// leads returns the server of the region that leads it, as another sees it.
func leads(t *testing.T, asked *agent, servers map[string]*agent) (name string) {
	t.Helper()
	eventually(t, 20*time.Second, "the region has a leader", func() error {
		addr, err := asked.w.client(asked).Status().Leader()
		for n, s := range servers {
			if addr == s.host.ip+":4647" {
				name = n
				return nil
			}
		}
		return fmt.Errorf("it is %q, %v", addr, err)
	})
	return name
}

// jobsAt are the jobs in a server's own state, which may lag behind.
func jobsAt(s *agent) (ids []string, err error) {
	jobs, _, err := s.w.client(s).Jobs().List(&api.QueryOptions{AllowStale: true})
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	slices.Sort(ids)
	return ids, err
}

func TestThreeServersOutliveTheirLeader(t *testing.T) {
	hosts := []string{"a", "b", "c"}
	w := newWorld(t, append(hosts, "node")...)
	servers := make(map[string]*agent)
	for _, h := range hosts {
		servers[h] = w.agent(agentConfig{name: h, host: h, region: "us", server: true, expect: 3, join: hosts})
	}
	node := w.agent(agentConfig{name: "node", host: "node", region: "us", client: true, servers: hosts})
	awaitRegions(t, node, "node", "us")
	var acked []string
	// write submits a job until it is accepted, and returns how long that took.
	write := func(through *agent) time.Duration {
		id := fmt.Sprintf("job-%d", len(acked))
		begun := time.Now()
		eventually(t, 10*time.Second, id+" is accepted", func() error {
			_, _, err := w.client(through).Jobs().Register(service(id, "us", "exec sleep 1000"), nil)
			return err
		})
		acked = append(acked, id)
		return time.Since(begun)
	}
	write(servers["a"])
	awaitAllocs(t, servers["a"], "us", "job-0", "running", 1)

	// Twice, so that the second time a server that was restarted must count.
	for round := range 2 {
		dead := leads(t, node, servers)
		var others []*agent
		for name, s := range servers {
			if name != dead {
				others = append(others, s)
			}
		}
		servers[dead].kill()
		took := write(others[0])
		t.Logf("round %d: leader %s killed, the next write was accepted after %s", round, dead, took.Round(time.Millisecond))
		if took > 5*time.Second {
			t.Errorf("the next write was accepted after %s", took)
		}
		// By every door, a client's too, and it runs.
		write(others[1])
		write(node)
		for _, id := range acked {
			awaitAllocs(t, others[1], "us", id, "running", 1)
		}
		nodes, _, err := w.client(others[0]).Nodes().List(nil)
		if err != nil || len(nodes) != 1 || nodes[0].Status != "ready" {
			t.Errorf("the nodes are %+v, %v", nodes, err)
		}

		servers[dead].start()
		eventually(t, 30*time.Second, dead+" catches up", func() error {
			ids, err := jobsAt(servers[dead])
			if err != nil || !slices.Equal(ids, acked) {
				return fmt.Errorf("it has %v of %v, %v", ids, acked, err)
			}
			return nil
		})
		peers, err := w.client(servers[dead]).Status().Peers()
		if err != nil || len(peers) != 3 {
			t.Errorf("its peers are %v, %v", peers, err)
		}
	}
}

// All servers of a region die at one moment, under writers: what was acked is
// there afterwards, and what ran goes on as if nothing had been.
func TestAllServersDieAtOnce(t *testing.T) {
	w, servers := cellOfThree(t)
	node := w.agent(agentConfig{name: "n3", host: "n1", region: "us", client: true, servers: []string{"s1", "s2", "s3"}, portBase: 6646})
	eventually(t, 30*time.Second, "the third node is there", func() error {
		nodes, _, err := w.client(servers[0]).Nodes().List(nil)
		if err != nil || len(nodes) != 3 {
			return fmt.Errorf("%d nodes, %v", len(nodes), err)
		}
		return nil
	})
	starts := filepath.Join(t.TempDir(), "starts")
	if _, _, err := w.client(node).Jobs().Register(service("runs", "us", fmt.Sprintf("echo $$ >>%s; exec sleep 1000", starts)), nil); err != nil {
		t.Fatal(err)
	}
	awaitAllocs(t, servers[0], "us", "runs", "running", 1)
	for round := range 2 {
		// Each write is of a job of its own: none that comes later hides that one
		// is lost.
		stop := make(chan struct{})
		var writers sync.WaitGroup
		var mu sync.Mutex
		var acked []string
		for n := range 4 {
			writers.Go(func() {
				c := &cellClient{servers: servers, http: &http.Client{Timeout: 5 * time.Second}, rng: rand.New(rand.NewPCG(uint64(round), uint64(n)))}
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					j := mockJob(fmt.Sprintf("job-%d-%d-%05d", round, n, i))
					j.Type, j.ParameterizedJob = new("batch"), &api.ParameterizedJobConfig{} // never placed
					if err := c.register(j); err != nil {
						t.Errorf("%s: %v", *j.ID, err)
						return
					}
					mu.Lock()
					acked = append(acked, *j.ID)
					mu.Unlock()
				}
			})
		}
		more := func(what string) {
			mu.Lock()
			enough := len(acked) + 100
			mu.Unlock()
			eventually(t, 60*time.Second, what, func() error {
				mu.Lock()
				defer mu.Unlock()
				if len(acked) < enough {
					return fmt.Errorf("%d of %d", len(acked), enough)
				}
				return nil
			})
		}
		more("writes are acked")
		for _, s := range servers {
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range servers {
			<-s.done
		}
		for _, s := range servers {
			s.start()
		}
		more("writes are acked again")
		close(stop)
		writers.Wait()
		for _, s := range servers {
			hasAll(t, s, acked)
		}
		t.Logf("round %d: %d acknowledged writes", round, len(acked))
		awaitAllocs(t, servers[1], "us", "runs", "running", 1)
		b, err := os.ReadFile(starts)
		if err != nil || strings.Count(string(b), "\n") != 1 {
			t.Errorf("round %d: the task was started as %q, %v", round, b, err)
		}
		if cmd, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/cmdline"); err != nil || !strings.Contains(string(cmd), "sleep") {
			t.Errorf("round %d: the task's process is %q, %v", round, cmd, err)
		}
	}
	checkPlacements(t, w.client(servers[0]))
}
