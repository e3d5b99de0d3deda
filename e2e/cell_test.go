//go:build e2e && linux

package e2e

import (
	"fmt"
	"slices"
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
