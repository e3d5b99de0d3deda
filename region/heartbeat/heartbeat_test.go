package heartbeat

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
)

// region is the servers of a region as far as heartbeats go: one state, and
// contacts for each server, of which one leads. It runs on a synctest bubble's
// time.
type region struct {
	t       *testing.T
	store   *state.Store
	servers map[string]*Contacts

	mu      sync.Mutex // guards what follows
	index   uint64
	leader  string
	monitor *Monitor
	endTerm func()
	// cut are servers that nobody can ask.
	cut map[string]bool
	// down is when nodes were declared down, away when disconnected.
	down, away map[string]time.Time
	// held, unless nil, holds the leader up until it is closed.
	held chan struct{}
}

// pass waits while the leader is held up.
func (r *region) pass() {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held != nil {
		<-held
	}
}

func newRegion(t *testing.T, servers ...string) *region {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	r := &region{t: t, store: store, servers: map[string]*Contacts{}, cut: map[string]bool{}, down: map[string]time.Time{}, away: map[string]time.Time{}}
	for _, name := range servers {
		r.servers[name] = NewContacts(clock.Real)
	}
	return r
}

func (r *region) write(f func(*state.Txn) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	if err := r.store.Write(r.index, f); err != nil {
		r.t.Error(err)
	}
}

func (r *region) config(self string) Config {
	return Config{
		Snapshot: func() *state.Snapshot { r.pass(); return r.store.Snapshot() }, Contacts: r.servers[self], Clock: clock.Real, Log: hclog.NewNullLogger(),
		Peers: func() (out []string) {
			for name := range r.servers {
				if name != self {
					out = append(out, name)
				}
			}
			return out
		},
		Ask: func(ctx context.Context, addr string, req *method.NodeContactsRequest) (*method.NodeContactsResponse, error) {
			r.mu.Lock()
			cut := r.cut[addr] || r.cut[self]
			r.mu.Unlock()
			if cut {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return r.servers[addr].Tell(req), nil
		},
		Set: func(_ context.Context, verdicts []Verdict) error {
			for _, v := range verdicts {
				r.write(func(tx *state.Txn) error {
					_, err := tx.SetNodeStatus(v.Node.ID, v.Status, v.Why, time.Now().UnixNano())
					return err
				})
				r.mu.Lock()
				map[string]map[string]time.Time{model.NodeStatusDown: r.down, model.NodeStatusDisconnected: r.away}[v.Status][v.Node.ID] = time.Now()
				r.mu.Unlock()
			}
			return nil
		},
	}
}

// follow runs the part of each server that follows the leader.
func (r *region) follow(ctx context.Context) {
	for name, c := range r.servers {
		go func() {
			_ = c.Follow(ctx, r.config(name), func() string {
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.leader == name {
					return ""
				}
				return r.leader
			})
		}()
	}
}

// lead begins a term; "" leaves the region without a leader.
func (r *region) lead(name string) {
	r.mu.Lock()
	end := r.endTerm
	r.leader, r.monitor, r.endTerm = "", nil, nil
	r.mu.Unlock()
	if end != nil {
		end()
	}
	if name == "" {
		return
	}
	m := New(r.config(name))
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	r.mu.Lock()
	r.leader, r.monitor, r.endTerm = name, m, func() { cancel(); <-done }
	r.mu.Unlock()
}

// beat is a node's heartbeat; false when there was no leader to take it.
func (r *region) beat(id string) (time.Duration, bool) {
	r.pass()
	r.mu.Lock()
	m := r.monitor
	r.mu.Unlock()
	if m == nil {
		return 0, false
	}
	return m.Beat(id), true
}

func nodeID(i int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", i) }

// node registers and heartbeats as late as nodes do, until ctx ends.
func (r *region) node(ctx context.Context, i int) {
	id := nodeID(i)
	r.write(func(tx *state.Txn) error {
		return tx.UpsertNode(&model.Node{ID: id, Status: model.NodeStatusReady}, time.Now().UnixNano())
	})
	go func() {
		for ctx.Err() == nil {
			ttl, ok := r.beat(id)
			wait := time.Duration(method.BeatLatest * float64(ttl))
			if !ok {
				wait = 500 * time.Millisecond
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}()
}

func (r *region) downAt(i int) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.down[nodeID(i)]
	return at, ok
}

func TestADeadNodeIsFoundAndLiveOnesAreNotThroughChangesOfLeader(t *testing.T) {
	for _, c := range []struct {
		name string
		// dies is when the dead node stops, after the start of the region.
		dies time.Duration
		// change is what happens to the leaders.
		change func(r *region)
		// found is how long after its death the node must be down at the latest.
		found time.Duration
	}{
		{"no change", 40 * time.Second, func(*region) {}, 21 * time.Second},
		{"dies before the leader does", 40 * time.Second, func(r *region) {
			time.Sleep(45 * time.Second)
			r.kill("s1", "s2", time.Second)
		}, 21 * time.Second},
		{"dies during the change", 45500 * time.Millisecond, func(r *region) {
			time.Sleep(45 * time.Second)
			r.kill("s1", "s2", time.Second)
		}, 25 * time.Second},
		{"the election takes long", 46 * time.Second, func(r *region) {
			time.Sleep(45 * time.Second)
			r.kill("s1", "s2", 15*time.Second)
		}, 30 * time.Second},
		{"a change every eleven seconds", 40 * time.Second, func(r *region) {
			for i := range 8 {
				time.Sleep(11 * time.Second)
				r.lead("")
				time.Sleep(time.Second)
				r.lead([]string{"s2", "s3", "s1"}[i%3])
			}
		}, 25 * time.Second},
		{"the new leader had no contact with the old", 31 * time.Second, func(r *region) {
			time.Sleep(10 * time.Second)
			r.cutOff("s2", true)
			time.Sleep(34 * time.Second)
			r.cutOff("s2", false)
			r.kill("s1", "s2", time.Second)
		}, 22 * time.Second},
		{"the leader is held up", 40 * time.Second, func(r *region) {
			time.Sleep(45 * time.Second)
			held := make(chan struct{})
			r.hold(held)
			time.Sleep(25 * time.Second)
			r.hold(nil)
			close(held)
		}, 50 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				r := newRegion(t, "s1", "s2", "s3")
				r.follow(ctx)
				r.lead("s1")
				for i := 1; i <= 50; i++ {
					r.node(ctx, i)
				}
				dead, kill := context.WithCancel(ctx)
				r.node(dead, 0)
				var died time.Time
				go func() { time.Sleep(c.dies); died = time.Now(); kill() }()
				go c.change(r)
				time.Sleep(3 * time.Minute)
				for i := 1; i <= 50; i++ {
					if at, down := r.downAt(i); down {
						t.Errorf("live node %d went down %s before the dead one died", i, died.Sub(at))
					}
				}
				at, down := r.downAt(0)
				if !down {
					t.Fatal("the dead node was never declared down")
				}
				t.Logf("down %s after it died", at.Sub(died))
				if took := at.Sub(died); took < 0 || took > c.found {
					t.Errorf("the dead node was down %s after it died, want within %s", took, c.found)
				}
				r.lead("")
			})
		})
	}
}

// place puts a running allocation on a node, of a group with a disconnect block.
func (r *region) place(i int, d *model.DisconnectStrategy) {
	job := &model.Job{ID: fmt.Sprint("j", i), Namespace: "default", TaskGroups: []*model.TaskGroup{{Name: "g", Count: 1, Disconnect: d}}}
	id := model.NewUUID(nil)
	node, _ := model.ParseUUID(nodeID(i))
	r.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(job); return err })
	r.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(&model.Plan{
			JobKey: job.Key(), Groups: []model.PlanGroup{{Name: "g", Resources: &model.AllocatedResources{}}}, Place: model.Placements{{ID: id, NodeID: node}},
		}, 1))
		return err
	})
	r.write(func(tx *state.Txn) error {
		_, err := tx.ReportAllocs(node, []*model.AllocUpdate{{ID: id.String(), ClientStatus: model.AllocClientRunning}}, 1)
		return err
	})
}

func TestANodeWhoseWorkMayGoOnIsDisconnectedBeforeItIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		r := newRegion(t, "s1", "s2", "s3")
		r.follow(ctx)
		r.lead("s1")
		for i, d := range []*model.DisconnectStrategy{{LostAfter: 5 * time.Minute, Replace: true}, {StopOnClientAfter: time.Minute}, nil} {
			r.node(ctx, i)
			r.place(i, d)
		}
		time.Sleep(time.Minute)
		cancel() // all of them die, and nobody follows any more
		died := time.Now()
		time.Sleep(time.Minute)
		r.lead("s2")
		time.Sleep(10 * time.Minute)
		r.lead("")
		within := func(what string, at time.Time, from, to time.Duration) {
			t.Helper()
			if d := at.Sub(died); at.IsZero() || d < from || d > to {
				t.Errorf("%s %s after it died, want %s to %s", what, d, from, to)
			}
		}
		within("node 0 was disconnected", r.away[nodeID(0)], 10*time.Second, 21*time.Second)
		within("node 0 was down", r.down[nodeID(0)], 5*time.Minute+10*time.Second, 5*time.Minute+21*time.Second)
		for i := 1; i < 3; i++ {
			within(fmt.Sprintf("node %d was down", i), r.down[nodeID(i)], 10*time.Second, 21*time.Second)
			if at, away := r.away[nodeID(i)]; away {
				t.Errorf("node %d was disconnected at %s", i, at)
			}
		}
	})
}

// kill makes a leader unreachable, and another lead after an election.
func (r *region) kill(old, next string, election time.Duration) {
	r.cutOff(old, true)
	r.lead("")
	time.Sleep(election)
	r.lead(next)
}

func (r *region) hold(held chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
}

func (r *region) cutOff(name string, cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut[name] = cut
}

func TestAHeartbeatWinsOverAVerdictThatIsNotWrittenYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "s1")
		const nodes = 3*atOnce + 1
		for i := range nodes {
			r.write(func(tx *state.Txn) error {
				return tx.UpsertNode(&model.Node{ID: nodeID(i), Status: model.NodeStatusReady}, time.Now().UnixNano())
			})
		}
		cfg := r.config("s1")
		var m *Monitor
		set, sets := cfg.Set, 0
		cfg.Set = func(ctx context.Context, verdicts []Verdict) error {
			time.Sleep(time.Millisecond)
			if sets++; sets == 1 {
				// All others are heard while the first are written.
				for i := atOnce; i < nodes-1; i++ {
					m.Beat(nodeID(i))
				}
			}
			return set(ctx, verdicts)
		}
		m = New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		time.Sleep(DefaultMinTTL + 2*DefaultGrace)
		cancel()
		<-done
		if len(r.down) != atOnce+1 {
			t.Errorf("%d of %d nodes went down, want the %d that were not heard", len(r.down), nodes, atOnce+1)
		}
	})
}

func TestTheTTLGrowsWithTheNodesAndHoldsTheRate(t *testing.T) {
	for nodes, want := range map[int]time.Duration{10: 10 * time.Second, 5000: 10 * time.Second, 10_000: 16 * time.Second} {
		c := NewContacts(clock.Real)
		for i := range nodes {
			c.record(nodeID(i), 0)
		}
		m := New(Config{Contacts: c})
		got := m.Beat(nodeID(0))
		if got != want {
			t.Errorf("%d nodes: TTL %s, want %s", nodes, got, want)
		}
		if rate := float64(nodes) / (got.Seconds() * method.BeatMean); rate > DefaultMaxRate {
			t.Errorf("%d nodes make %.0f heartbeats a second, over %d", nodes, rate, DefaultMaxRate)
		}
	}
}

func TestAServerThatNeverKnewTellsNothing(t *testing.T) {
	c := NewContacts(clock.Real)
	c.record("a", time.Second)
	if told := c.Tell(&method.NodeContactsRequest{}); told.Known || len(told.Contacts) > 0 {
		t.Errorf("told %+v", told)
	}
}

func TestOnlyWhatIsNewIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewContacts(clock.Real)
		c.record("old", time.Second)
		time.Sleep(time.Minute)
		c.record("new", 2*time.Second)
		c.completeTo(time.Now())
		time.Sleep(3 * time.Second)
		told := c.Tell(&method.NodeContactsRequest{Within: 10 * time.Second})
		if want := (method.NodeContact{Age: 3 * time.Second, TTL: 2 * time.Second}); len(told.Contacts) != 1 || told.Contacts["new"] != want || told.Behind != 3*time.Second {
			t.Errorf("told %+v", told)
		}
		if told := c.Tell(&method.NodeContactsRequest{}); len(told.Contacts) != 2 {
			t.Errorf("all: told %+v", told)
		}
	})
}
