//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// writer registers jobs without pause, at any server that takes them, until it
// is stopped.
type writer struct {
	servers []*agent
	mu      sync.Mutex // guards acked
	acked   []string
	stop    chan struct{}
	done    chan struct{}
}

func startWriter(servers []*agent) *writer {
	w := &writer{servers: servers, stop: make(chan struct{}), done: make(chan struct{})}
	clients := make([]*api.Client, len(servers))
	for i, s := range servers {
		clients[i] = s.w.client(s)
	}
	go func() {
		defer close(w.done)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			default:
			}
			id := fmt.Sprintf("write-%05d", i)
			if _, _, err := clients[i%len(clients)].Jobs().Register(mockJob(id), nil); err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, id)
				w.mu.Unlock()
			}
		}
	}()
	return w
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// more waits until n more writes were acked.
func (w *writer) more(t *testing.T, n int) {
	t.Helper()
	begun := w.count()
	eventually(t, 60*time.Second, fmt.Sprintf("%d more writes", n), func() error {
		if got := w.count() - begun; got < n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

func (w *writer) end() []string {
	close(w.stop)
	<-w.done
	return w.acked
}

// hasAll waits until a server's own state has every acked write.
func hasAll(t *testing.T, s *agent, acked []string) {
	t.Helper()
	eventually(t, 60*time.Second, s.name+" has every acked write", func() error {
		have, err := jobsAt(s)
		if err != nil {
			return err
		}
		for _, id := range acked {
			if _, there := slices.BinarySearch(have, id); !there {
				return fmt.Errorf("%s is missing of %d", id, len(acked))
			}
		}
		return nil
	})
}

// said waits until an agent's log has a line with all the texts, after a place in
// it, and returns that line.
func said(t *testing.T, a *agent, after int, within time.Duration, texts ...string) (line string) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("%s says %q", a.name, texts), func() error {
		b, err := os.ReadFile(a.log)
		if err != nil {
			return err
		}
		for l := range strings.Lines(string(b[min(after, len(b)):])) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(l, text) }) {
				line = l
				return nil
			}
		}
		return errors.New("not yet")
	})
	return line
}

func logSize(t *testing.T, a *agent) int {
	t.Helper()
	st, err := os.Stat(a.log)
	if err != nil {
		t.Fatal(err)
	}
	return int(st.Size())
}

func TestAFullDiskCostsNoAckedWrite(t *testing.T) {
	hosts := []string{"s1", "s2", "s3"}
	w := newWorld(t, hosts...)
	var servers []*agent
	for _, h := range hosts {
		dir := filepath.Join(w.dir, h)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unmountUnder(w.dir) })
		servers = append(servers, w.agent(agentConfig{name: h, host: h, region: "us", server: true, expect: 3, join: hosts}))
	}
	var leader *agent
	eventually(t, 30*time.Second, "a leader", func() error {
		if leader = leaderOf(servers); leader == nil {
			return errors.New("none yet")
		}
		return nil
	})
	writes := startWriter(servers)
	for _, who := range []string{"a follower", "the leader"} {
		victim := leader
		if who == "a follower" {
			victim = servers[(slices.Index(servers, leader)+1)%3]
		}
		writes.more(t, 20)
		place, ballast := logSize(t, victim), filepath.Join(w.dir, victim.name, "ballast")
		fillDisk(t, ballast)
		begun := time.Now()
		said(t, victim, place, 10*time.Second, "takes no more part in its cell", "no space left on device")
		t.Logf("%s was out %s after its disk was full", who, time.Since(begun).Round(time.Millisecond))
		writes.more(t, 20)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		said(t, victim, place, 30*time.Second, "takes part in its cell again")
		writes.more(t, 20)
		eventually(t, 30*time.Second, "a leader", func() error {
			if leader = leaderOf(servers); leader == nil {
				return errors.New("none yet")
			}
			return nil
		})
	}
	acked := writes.end()
	for _, s := range servers {
		hasAll(t, s, acked)
	}
}

func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

func TestAFlippedByteCostsNoAckedWrite(t *testing.T) {
	for _, c := range []struct {
		of, extra string
		// flip changes a byte of a server's data, and returns the file.
		flip func(t *testing.T, raft string) string
		says string
	}{
		{"the log", "", flipInLog, "log entry"},
		{"a snapshot", "server {\n raft_snapshot_threshold = 20\n}\n", flipInSnapshot, "snapshot"},
	} {
		t.Run(c.of, func(t *testing.T) {
			hosts := []string{"s1", "s2", "s3"}
			w := newWorld(t, hosts...)
			var servers []*agent
			for _, h := range hosts {
				servers = append(servers, w.agent(agentConfig{name: h, host: h, region: "us", server: true, expect: 3, join: hosts, extra: c.extra}))
			}
			var leader *agent
			eventually(t, 30*time.Second, "a leader", func() error {
				if leader = leaderOf(servers); leader == nil {
					return errors.New("none yet")
				}
				return nil
			})
			at := slices.Index(servers, leader)
			victim, others := servers[(at+1)%3], []*agent{leader, servers[(at+2)%3]}
			raft := filepath.Join(w.dir, victim.name, "server", "raft")
			before := peers(t, leader)
			writes := startWriter(others)
			writes.more(t, 50)
			eventually(t, 30*time.Second, victim.name+" has the data that will be damaged", func() error {
				if c.extra == "" || len(snapshots(raft)) > 0 {
					return nil
				}
				return errors.New("no snapshot yet")
			})

			victim.kill()
			file := c.flip(t, raft)
			writes.more(t, 20)
			place := logSize(t, victim)
			victim.start()
			t.Log(said(t, victim, place, 20*time.Second, file+" is damaged at byte ", c.says))
			said(t, victim, place, 30*time.Second, "the damaged data are set aside", "raft.damaged-")
			// At first without a vote, then as one of three.
			eventually(t, 60*time.Second, "a new member with a vote", func() error {
				after := peers(t, leader)
				addr := victim.host.ip + ":4647"
				if m := after[addr]; m == nil || !m.Voter || m.ID == before[addr].ID || len(after) != 3 {
					return fmt.Errorf("%d members, it is %+v", len(after), m)
				}
				return nil
			})
			acked := writes.end()
			for _, s := range servers {
				hasAll(t, s, acked)
			}
			kept, err := filepath.Glob(filepath.Join(w.dir, victim.name, "server", "raft.damaged-*", "log.db"))
			if err != nil || len(kept) != 1 {
				t.Errorf("the damaged data are kept as %v, %v", kept, err)
			}
		})
	}
}

func flipInLog(t *testing.T, raft string) string {
	t.Helper()
	log := filepath.Join(raft, "log.db")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// Wherever it stands: the live record is among them.
	text := []byte("write-00010")
	if !bytes.Contains(b, text) {
		t.Fatalf("%s is not in %s", text, log)
	}
	if err := os.WriteFile(log, bytes.ReplaceAll(b, text, []byte("write-0001p")), 0o600); err != nil {
		t.Fatal(err)
	}
	return log
}

// snapshots are the files of state of a server's whole snapshots.
func snapshots(raft string) []string {
	found, _ := filepath.Glob(filepath.Join(raft, "snapshots", "*", "state.bin"))
	return slices.DeleteFunc(found, func(name string) bool { return strings.HasSuffix(filepath.Dir(name), ".tmp") })
}

func flipInSnapshot(t *testing.T, raft string) string {
	t.Helper()
	found := snapshots(raft)
	slices.Sort(found)
	file := found[len(found)-1]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// peers are the cell's members by address.
func peers(t *testing.T, a *agent) map[string]*api.RaftServer {
	t.Helper()
	out := map[string]*api.RaftServer{}
	eventually(t, 30*time.Second, "the cell's members", func() error {
		conf, err := a.w.client(a).Operator().RaftGetConfiguration(nil)
		if err != nil {
			return err
		}
		clear(out)
		for _, s := range conf.Servers {
			out[s.Address] = s
		}
		return nil
	})
	return out
}
