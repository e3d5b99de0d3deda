//go:build e2e && power && linux

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"atoll/internal/forgetfs"
)

// A whole region, its node too, loses its power, first while it starts. Whatever
// was acked is there when it is back; each agent starts again on what its disk
// kept, and the node runs what it is for. What becomes of the cell alone, and
// what the tests find when a sync is missing, is seen in cell/power_loss_test.go.
func TestAPowerLossOfARegionCostsNoAckedWrite(t *testing.T) {
	seeds := 1
	if s := os.Getenv("ATOLL_POWER_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.Atoi(s); err != nil || seeds < 1 {
			t.Fatalf("ATOLL_POWER_SEEDS is %q, want a number", s)
		}
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			powerLosses(t, rand.New(rand.NewPCG(uint64(seed), 0)))
		})
	}
}

func powerLosses(t *testing.T, r *rand.Rand) {
	hosts := []string{"s1", "s2", "s3"}
	names := append([]string{"node"}, hosts...)
	w := newWorld(t, names...)
	disk, dir := forgetfs.New(nil), t.TempDir()
	unmount := mounted(t, disk, dir)
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		if err := os.Symlink(filepath.Join(dir, name), filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
		// Where data_dir is to be.
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.Sync(), root.Close()); err != nil {
		t.Fatal(err)
	}
	cutAfter := func(n int) {
		disk.CutWhen(func(string, string) bool { n--; return n < 0 })
	}
	cutAfter(100 + r.IntN(400))
	var servers, agents []*agent
	for _, h := range hosts {
		servers = append(servers, w.agent(agentConfig{name: h, host: h, region: "us", server: true, expect: 3, join: hosts}))
	}
	agents = append(servers, w.agent(agentConfig{name: "node", host: "node", region: "us", client: true, servers: hosts}))
	acked := &ackedJobs{}
	place, ids := map[string]int{}, map[string]string{}
	for round := range 5 {
		before := acked.count()
		acked.write(servers, round)
		if round > 0 {
			eventually(t, 30*time.Second, "30 more writes", func() error {
				if n := acked.count() - before; n < 30 {
					return fmt.Errorf("%d so far", n)
				}
				return nil
			})
			cutAfter(r.IntN(500))
		}
		select {
		case <-disk.Off():
		case <-time.After(60 * time.Second):
			t.Fatal("the disk was not written to within a minute")
		}
		for _, a := range agents {
			_ = a.cmd.Process.Kill()
		}
		for _, a := range agents {
			<-a.done
			w.endProcessesUnder(filepath.Join(w.dir, a.name))
			w.endProcessesUnder(filepath.Join(dir, a.name))
		}
		acked.writers.Wait()
		if err := unmount(); err != nil {
			t.Fatal(err)
		}
		disk.PowerOn(r)
		unmount = mounted(t, disk, dir)

		for _, a := range agents {
			place[a.name] = logSize(t, a)
			a.start()
		}
		for _, s := range servers {
			hasAll(t, s, acked.ids)
		}
		eventually(t, 30*time.Second, "a node that is ready", func() error {
			nodes, _, err := w.client(servers[0]).Nodes().List(nil)
			for _, n := range nodes {
				if n.Status != api.NodeStatusReady {
					continue
				}
				if was := ids["node"]; was != "" && was != n.ID {
					t.Errorf("round %d: the node was %s and is %s", round, was, n.ID)
				}
				ids["node"] = n.ID
				return nil
			}
			return cmp.Or(err, errors.New("none yet"))
		})
		for addr, s := range peers(t, servers[0]) {
			if was := ids[addr]; was != "" && was != s.ID {
				t.Errorf("round %d: the server at %s was %s and is %s", round, addr, was, s.ID)
			}
			ids[addr] = s.ID
		}
		for _, a := range agents {
			b, err := os.ReadFile(a.log)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b[place[a.name]:])) {
				if strings.Contains(line, "damaged") || strings.Contains(line, "panic") {
					t.Errorf("round %d: %s says: %s", round, a.name, line)
				}
			}
		}
	}
	t.Logf("%d writes were acked", acked.count())
}

// ackedJobs are the ids of the jobs whose registration was acked.
type ackedJobs struct {
	writers sync.WaitGroup
	mu      sync.Mutex // guards ids
	ids     []string
}

func (a *ackedJobs) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ids)
}

// write registers jobs at each server until that is gone.
func (a *ackedJobs) write(servers []*agent, round int) {
	for _, s := range servers {
		c := s.w.client(s)
		a.writers.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("r%d-%s-%d", round, s.name, i)
				_, _, err := c.Jobs().Register(mockJob(id), nil)
				if err == nil {
					a.mu.Lock()
					a.ids = append(a.ids, id)
					a.mu.Unlock()
				}
				select {
				case <-s.done:
					return
				default:
				}
			}
		})
	}
}

func mounted(t *testing.T, d *forgetfs.Disk, dir string) (unmount func() error) {
	t.Helper()
	unmount, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	return unmount
}
