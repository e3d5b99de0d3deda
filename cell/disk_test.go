package cell

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/internal/freeport"
)

// ring is a cell of three members whose disks can fail, each with its Run.
type ring struct {
	t     *testing.T
	dirs  map[string]string
	addrs map[string]string
	disks map[string]*disk

	mu      sync.Mutex // guards what follows
	cells   map[string]*Cell
	stop    map[string]func()
	renewed map[string]string // the new ids
}

var ringNames = []string{"s1", "s2", "s3"}

func newRing(t *testing.T) *ring {
	r := &ring{
		t: t, dirs: map[string]string{}, addrs: map[string]string{}, disks: map[string]*disk{},
		cells: map[string]*Cell{}, stop: map[string]func(){}, renewed: map[string]string{},
	}
	for _, name := range ringNames {
		r.dirs[name] = t.TempDir()
		r.disks[name] = &disk{}
	}
	t.Cleanup(func() {
		for _, name := range ringNames {
			r.close(name)
		}
	})
	return r
}

// begin opens all members and bootstraps them.
func (r *ring) begin() *ring {
	r.t.Helper()
	var servers []Server
	for _, name := range ringNames {
		r.open(name)
		servers = append(servers, Server{name, r.addrs[name]})
	}
	for _, name := range ringNames {
		if err := r.cell(name).Bootstrap(servers); err != nil {
			r.t.Fatal(err)
		}
	}
	return r
}

func (r *ring) open(name string) *Cell {
	r.t.Helper()
	c, err := r.tryOpen(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *ring) tryOpen(name string) (*Cell, error) {
	addr := r.addrs[name]
	if addr == "" {
		addr = freeport.Addr(r.t)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	r.addrs[name] = l.Addr().String()
	log := hclog.NewNullLogger()
	if testing.Verbose() {
		log = hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Info})
	}
	d := r.disks[name]
	c, err := Open(Config{
		ServerID: name, DataDir: r.dirs[name], Stream: tcpStream{l}, Advertise: l.Addr().String(), SnapshotThreshold: 64,
		Version: "v-test", Logger: log, hang: 300 * time.Millisecond,
		OpenLog: func(path string) (LogStore, error) {
			s, err := openBolt(path)
			if err != nil {
				return nil, err
			}
			return &failing{s, d}, nil
		},
		LedElsewhere: func(context.Context) bool { return r.led(name) },
		Renewed: func(id string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.renewed[name] = id
		},
	})
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	})
	wg.Go(func() { // drained until Close ends Raft and, with it, its notifications
		for {
			select {
			case <-c.Leadership():
			case <-c.Done():
				return
			}
		}
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells[name] = c
	r.stop[name] = func() {
		cancel()
		if err := c.Close(); err != nil {
			r.t.Error(err)
		}
		wg.Wait()
	}
	return c, nil
}

func (r *ring) cell(name string) *Cell {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cells[name]
}

func (r *ring) close(name string) {
	r.mu.Lock()
	stop := r.stop[name]
	delete(r.stop, name)
	delete(r.cells, name)
	r.mu.Unlock()
	if stop != nil {
		r.disks[name].heal()
		stop()
	}
}

// led reports whether a member other than name leads.
func (r *ring) led(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, c := range r.cells {
		if other != name && c.IsLeader() {
			return true
		}
	}
	return false
}

func (r *ring) until(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	r.t.Fatalf("not within 30 s: %s", what)
}

// leader waits for a leader, other than the one of a name.
func (r *ring) leader(not string) (name string, c *Cell) {
	r.t.Helper()
	r.until("a leader", func() bool {
		for _, n := range ringNames {
			if cell := r.cell(n); n != not && cell != nil && cell.IsLeader() && cell.Barrier(time.Second) == nil {
				name, c = n, cell
				return true
			}
		}
		return false
	})
	return name, c
}

func (r *ring) follower(leader string) string {
	for _, n := range ringNames {
		if n != leader {
			return n
		}
	}
	return ""
}

// put writes jobs through whoever leads and returns the ids that were acked.
func (r *ring) put(prefix string, n int) (acked []string) {
	r.t.Helper()
	for i := range n {
		id := fmt.Sprintf("%s-%d", prefix, i)
		r.until("a write", func() bool {
			for _, name := range ringNames {
				c := r.cell(name)
				if c == nil || !c.IsLeader() {
					continue
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				if _, _, err := c.ApplyOnce(ctx, CmdJobRegister, request(id, 1), &JobRegister{Job: testJob(id, 1)}); err == nil {
					return true
				}
			}
			return false
		})
		acked = append(acked, id)
	}
	return acked
}

// has waits until a member has all jobs of the given ids.
func (r *ring) has(name string, ids []string) {
	r.t.Helper()
	r.until(name+" has every acked write", func() bool {
		c := r.cell(name)
		have := map[string]bool{}
		for j := range c.Snapshot().Jobs(nil, "*", "") {
			have[j.ID] = true
		}
		for _, id := range ids {
			if !have[id] {
				return false
			}
		}
		return c.Down() == nil
	})
}

// disk fails on demand.
type disk struct {
	full atomic.Bool
	mu   sync.Mutex // guards hung
	hung chan struct{}
}

var errFull = errors.New("no space left on device")

func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung = make(chan struct{})
}

func (d *disk) heal() {
	d.full.Store(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung != nil {
		close(d.hung)
		d.hung = nil
	}
}

func (d *disk) write(f func() error) error {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if d.full.Load() {
		return errFull
	}
	return f()
}

// failing is a LogStore on such a disk.
type failing struct {
	LogStore
	disk *disk
}

func (f *failing) StoreLogs(logs []*raft.Log) error {
	return f.disk.write(func() error { return f.LogStore.StoreLogs(logs) })
}

func (f *failing) Set(k, v []byte) error {
	return f.disk.write(func() error { return f.LogStore.Set(k, v) })
}

func (f *failing) DeleteRange(min, max uint64) error {
	return f.disk.write(func() error { return f.LogStore.DeleteRange(min, max) })
}

func TestAMemberWhoseDiskFailsLeavesAndComesBackUnaided(t *testing.T) {
	for _, kind := range []string{"full", "hung"} {
		for _, who := range []string{"a follower", "the leader"} {
			t.Run(kind+", "+who, func(t *testing.T) {
				r := newRing(t).begin()
				first, _ := r.leader("")
				acked := r.put("before", 20)
				victim := first
				if who == "a follower" {
					victim = r.follower(first)
				}
				failed := time.Now()
				if kind == "full" {
					r.disks[victim].full.Store(true)
				} else {
					r.disks[victim].hang()
				}
				acked = append(acked, r.put("during", 20)...)
				r.until("the member is out", func() bool { return r.cell(victim).Down() != nil })
				if took := time.Since(failed); took > 10*time.Second {
					t.Errorf("it was out after %s, want ten seconds at the most", took)
				}
				if r.cell(victim).IsLeader() || r.cell(victim).Leader() != "" {
					t.Error("a member that is out has a leader")
				}
				if _, _, err := r.cell(victim).Apply(context.Background(), CmdEvals, &Evals{}); err == nil {
					t.Error("a member that is out takes a write")
				}
				if who == "the leader" {
					if next, _ := r.leader(victim); next == victim {
						t.Error("it leads on")
					}
				}
				acked = append(acked, r.put("after", 20)...)
				r.disks[victim].heal()
				for _, name := range ringNames {
					r.has(name, acked)
				}
			})
		}
	}
}

func TestReadersNeverSeeAnOlderStateWhenAMemberIsStartedAgain(t *testing.T) {
	r := newRing(t).begin()
	first, c := r.leader("")
	acked := r.put("a", 10)
	victim := r.follower(first)
	r.has(victim, acked)
	if err := c.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan uint64, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v := r.cell(victim)
	go func() {
		newest := uint64(0)
		for ctx.Err() == nil {
			ws := make(state.Watch)
			snap := v.Snapshot()
			snap.WatchAny(ws)
			if snap.Index() < newest {
				t.Errorf("the state went from index %d back to %d", newest, snap.Index())
			}
			newest = max(newest, snap.Index())
			_ = ws.WatchCtx(ctx)
		}
		seen <- newest
	}()
	r.disks[victim].full.Store(true)
	acked = append(acked, r.put("b", 10)...)
	r.until("the member is out", func() bool { return v.Down() != nil })
	r.disks[victim].heal()
	r.has(victim, acked)
	r.until("readers see the member's own state", func() bool { return v.state.Load() == v.current().state })
	cancel()
	<-seen
}

func TestALoneMemberWaitsForItsDisk(t *testing.T) {
	d := &disk{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{ServerID: "s1", DataDir: t.TempDir(), Stream: tcpStream{l}, Advertise: l.Addr().String(), Alone: true, OpenLog: func(path string) (LogStore, error) {
		s, err := openBolt(path)
		return &failing{s, d}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-done, c.Close()); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Bootstrap([]Server{{"s1", l.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	leads := func(want bool) {
		t.Helper()
		for got := range c.Leadership() {
			if got == want {
				return
			}
		}
	}
	leads(true)
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	d.full.Store(true)
	_, _, err = c.Apply(ctx, CmdJobRegister, &JobRegister{Job: testJob("b", 1)})
	if err == nil {
		t.Fatal("a write on a full disk was acked")
	}
	leads(false)
	d.heal()
	leads(true)
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("c", 1)})
	have := map[string]bool{}
	for j := range c.Snapshot().Jobs(nil, "*", "") {
		have[j.ID] = true
	}
	if !have["a"] || !have["c"] {
		t.Errorf("jobs %v", have)
	}
}

func TestWhatAFailedSnapshotLeavesIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir)
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	if err := c.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "raft", "snapshots", "9-9-9.tmp")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	c = openAlone(t, dir)
	if there, err := exists(left); err != nil || there {
		t.Errorf("it is there: %v, %v", there, err)
	}
	if c.Snapshot().Index() == 0 {
		t.Error("the whole one is gone too")
	}
}
