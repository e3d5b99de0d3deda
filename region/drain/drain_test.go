package drain

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/clock"
	"atoll/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a state that a test writes.
type world struct {
	t     testing.TB
	store *state.Store
	index uint64
	now   time.Time
	names map[model.UUID]string
	ids   map[string]model.UUID
}

func newWorld(t testing.TB) *world {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: store, now: time.Unix(1_000_000, 0), names: map[model.UUID]string{}, ids: map[string]model.UUID{}}
}

func (w *world) write(f func(*state.Txn) error) {
	w.t.Helper()
	w.index++
	if err := w.store.Write(w.index, f); err != nil {
		w.t.Fatal(err)
	}
}

func nodeID(i int) model.UUID { return model.UUID{15: byte(i)} }

// node adds a node, draining when d is not nil.
func (w *world) node(i int, d *model.DrainStrategy) {
	w.t.Helper()
	w.write(func(tx *state.Txn) error {
		return tx.UpsertNode(&model.Node{ID: nodeID(i).String(), Name: fmt.Sprint("n", i), Status: model.NodeStatusReady}, 1)
	})
	if d != nil {
		w.write(func(tx *state.Txn) error {
			_, err := tx.ChangeNode(nodeID(i).String(), nil, func(n *model.Node) { n.DrainStrategy = d })
			return err
		})
	}
}

func (w *world) job(id, jobType string, count, maxParallel int) {
	w.t.Helper()
	w.write(func(tx *state.Txn) error {
		_, err := tx.UpsertJob(&model.Job{
			ID: id, Namespace: model.DefaultNamespace, Type: jobType, TaskGroups: []*model.TaskGroup{{
				Name: "g", Count: count, Migrate: &model.MigrateStrategy{MaxParallel: maxParallel, MinHealthyTime: 10 * time.Second},
			}},
		})
		return err
	})
}

// place adds allocations "job.0", "job.1"… from a number on, and reports them
// running since long.
func (w *world) place(job string, node, from, n int) {
	w.t.Helper()
	p := &model.Plan{JobKey: model.JobID{Namespace: model.DefaultNamespace, ID: job}, Groups: []model.PlanGroup{{Name: "g", Resources: &model.AllocatedResources{}}}}
	for i := from; i < from+n; i++ {
		id := model.NewUUID(nil)
		name := fmt.Sprintf("%s.%d", job, i)
		w.names[id], w.ids[name] = name, id
		p.Place = append(p.Place, model.Placement{ID: id, NodeID: nodeID(node), Index: uint32(i)})
	}
	w.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(p, w.now.Add(-time.Hour).UnixNano()))
		return err
	})
	for i := from; i < from+n; i++ {
		w.report(fmt.Sprintf("%s.%d", job, i), node, model.AllocClientRunning, time.Hour)
	}
}

// report is what a node said of an allocation a while ago.
func (w *world) report(name string, node int, status string, ago time.Duration) {
	w.t.Helper()
	w.write(func(tx *state.Txn) error {
		_, err := tx.ReportAllocs(nodeID(node), []*model.AllocUpdate{{ID: w.ids[name].String(), ClientStatus: status}}, w.now.Add(-ago).UnixNano())
		return err
	})
}

func (w *world) migrate(names ...string) {
	yes := true
	w.write(func(tx *state.Txn) error {
		for _, name := range names {
			tx.TransitionAlloc(w.ids[name], &model.DesiredTransition{Migrate: &yes})
		}
		return nil
	})
}

func (w *world) stop(names ...string) {
	w.t.Helper()
	p := &model.Plan{}
	for _, name := range names {
		p.Stop = append(p.Stop, model.PlanStop{ID: w.ids[name]})
	}
	w.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(p, w.now.UnixNano()))
		return err
	})
}

func TestWhatMayLeaveNow(t *testing.T) {
	never := &model.DrainStrategy{}
	force := &model.DrainStrategy{DrainSpec: model.DrainSpec{Deadline: -1}}
	in := func(w *world, d time.Duration) *model.DrainStrategy {
		return &model.DrainStrategy{ForceDeadline: w.now.Add(d)}
	}
	for _, c := range []struct {
		name  string
		world func(w *world)
		mark  []string
		done  []string
		again time.Duration // from now
	}{
		{name: "a node that does not drain", world: func(w *world) { w.node(1, nil); w.job("web", "service", 2, 1); w.place("web", 1, 0, 2) }},
		{name: "an empty node is done", world: func(w *world) { w.node(1, never); w.node(2, in(w, time.Hour)) }, done: []string{"n1", "n2"}, again: time.Hour},
		{name: "as many as max_parallel at first", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 5, 2)
			w.place("web", 1, 0, 5)
		}, mark: []string{"web.0", "web.1"}},
		{name: "over all draining nodes together", world: func(w *world) {
			w.node(1, never)
			w.node(2, never)
			w.job("web", "service", 4, 1)
			w.place("web", 2, 0, 2)
			w.place("web", 1, 2, 2)
		}, mark: []string{"web.0"}},
		{name: "each job by itself", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 2, 1)
			w.job("api", "service", 3, 3)
			w.place("web", 1, 0, 2)
			w.place("api", 1, 0, 3)
		}, mark: []string{"api.0", "api.1", "api.2", "web.0"}},
		{name: "no more while one is on its way", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 3, 1)
			w.place("web", 1, 0, 3)
			w.migrate("web.0")
		}},
		{name: "no more until its replacement runs", world: func(w *world) {
			w.node(1, never)
			w.node(2, nil)
			w.job("web", "service", 3, 1)
			w.place("web", 1, 0, 3)
			w.migrate("web.0")
			w.stop("web.0")
			w.place("web", 2, 0, 1)
			w.report("web.0", 2, model.AllocClientPending, time.Second)
		}},
		{name: "no more until its replacement has run for min_healthy_time", world: func(w *world) {
			w.node(1, never)
			w.node(2, nil)
			w.job("web", "service", 3, 1)
			w.place("web", 1, 0, 3)
			w.migrate("web.0")
			w.stop("web.0")
			w.place("web", 2, 0, 1)
			w.report("web.0", 2, model.AllocClientRunning, 4*time.Second)
		}, again: 6 * time.Second},
		{name: "the next once its replacement is healthy", world: func(w *world) {
			w.node(1, never)
			w.node(2, nil)
			w.job("web", "service", 3, 1)
			w.place("web", 1, 0, 3)
			w.migrate("web.0")
			w.stop("web.0")
			w.place("web", 2, 0, 1)
		}, mark: []string{"web.1"}},
		{name: "what is unhealthy on the node goes first, as fast as others", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 4, 2)
			w.place("web", 1, 0, 4)
			w.report("web.2", 1, model.AllocClientPending, time.Hour)
			w.report("web.3", 1, model.AllocClientRunning, time.Second)
		}, mark: []string{"web.2", "web.3"}, again: 9 * time.Second},
		{name: "max_parallel of none waits for the deadline", world: func(w *world) {
			w.node(1, in(w, time.Minute))
			w.job("web", "service", 2, 0)
			w.place("web", 1, 0, 2)
		}, again: time.Minute},
		{name: "the deadline takes all that is left", world: func(w *world) {
			w.node(1, in(w, 0))
			w.job("web", "service", 3, 1)
			w.job("sums", "batch", 1, 1)
			w.job("log", "system", 1, 1)
			w.place("web", 1, 0, 3)
			w.place("sums", 1, 0, 1)
			w.place("log", 1, 0, 1)
			w.migrate("web.0")
		}, mark: []string{"log.0", "sums.0", "web.1", "web.2"}},
		{name: "force takes all at once", world: func(w *world) {
			w.node(1, force)
			w.job("web", "service", 2, 1)
			w.place("web", 1, 0, 2)
		}, mark: []string{"web.0", "web.1"}},
		{name: "force leaves system jobs where they are to be ignored", world: func(w *world) {
			w.node(1, &model.DrainStrategy{DrainSpec: model.DrainSpec{Deadline: -1, IgnoreSystemJobs: true}})
			w.job("log", "system", 1, 1)
			w.place("log", 1, 0, 1)
		}, done: []string{"n1"}},
		{name: "batch work runs to its end", world: func(w *world) {
			w.node(1, in(w, time.Minute))
			w.job("sums", "batch", 2, 1)
			w.place("sums", 1, 0, 2)
			w.report("sums.0", 1, model.AllocClientComplete, 0)
		}, again: time.Minute},
		{name: "system jobs stay while others are there", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 1, 1)
			w.job("log", "system", 1, 1)
			w.place("web", 1, 0, 1)
			w.place("log", 1, 0, 1)
			w.migrate("web.0")
			w.stop("web.0")
		}},
		{name: "system jobs leave last", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 1, 1)
			w.job("log", "system", 1, 1)
			w.place("web", 1, 0, 1)
			w.place("log", 1, 0, 1)
			w.stop("web.0")
			w.report("web.0", 1, model.AllocClientComplete, 0)
		}, mark: []string{"log.0"}},
		{name: "what stops is not gone", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 1, 1)
			w.place("web", 1, 0, 1)
			w.stop("web.0")
		}},
		{name: "what has stopped is gone", world: func(w *world) {
			w.node(1, never)
			w.job("web", "service", 1, 1)
			w.place("web", 1, 0, 1)
			w.stop("web.0")
			w.report("web.0", 1, model.AllocClientComplete, 0)
		}, done: []string{"n1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.world(w)
			s := decide(w.store.Snapshot(), nil, w.now, &aside.Items{})
			var mark, done []string
			for _, id := range s.mark {
				mark = append(mark, w.names[id])
			}
			slices.Sort(mark)
			for _, n := range s.done {
				done = append(done, n.Name)
			}
			if !slices.Equal(mark, c.mark) {
				t.Errorf("marks %v, want %v", mark, c.mark)
			}
			if !slices.Equal(done, c.done) {
				t.Errorf("done %v, want %v", done, c.done)
			}
			again := time.Duration(0)
			if !s.again.IsZero() {
				again = s.again.Sub(w.now)
			}
			if again != c.again {
				t.Errorf("looks again in %s, want %s", again, c.again)
			}
		})
	}
}

// TestTheLoopWakesForChangesAndForTime runs the loop on a fake clock, with a
// scheduler that moves what is marked to another node.
func TestTheLoopWakesForChangesAndForTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.now = time.Now()
		w.node(1, &model.DrainStrategy{ForceDeadline: w.now.Add(time.Hour)})
		w.node(2, nil)
		w.job("web", "service", 3, 1)
		w.job("sums", "batch", 1, 1)
		w.place("web", 1, 0, 3)
		w.place("sums", 1, 0, 1)
		ctx, cancel := context.WithCancel(t.Context())
		marked := make(chan []string)
		done := make(chan string)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = Run(ctx, Config{
				Snapshot: w.store.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger(),
				Mark: func(_ context.Context, ids []model.UUID) error {
					var names []string
					for _, id := range ids {
						names = append(names, w.names[id])
					}
					w.migrate(names...)
					marked <- names
					return nil
				},
				Done: func(_ context.Context, n *model.Node) error {
					w.write(func(tx *state.Txn) error {
						_, err := tx.ChangeNode(n.ID, nil, func(n *model.Node) { n.DrainStrategy = nil })
						return err
					})
					done <- n.Name
					return nil
				},
			})
		}()
		start := time.Now()
		for i := range 3 {
			name := fmt.Sprintf("web.%d", i)
			if got := <-marked; !slices.Equal(got, []string{name}) {
				t.Fatalf("marked %v, want %s", got, name)
			}
			if took := time.Since(start); i > 0 && (took < 10*time.Second || took > 10*time.Second+2*pause) {
				t.Errorf("%s was marked %s after the one before it ran again, want its min_healthy_time", name, took)
			}
			synctest.Wait()
			w.now = time.Now()
			w.stop(name)
			w.report(name, 1, model.AllocClientComplete, 0)
			w.place("web", 2, i, 1)
			w.report(name, 2, model.AllocClientPending, 0)
			time.Sleep(time.Minute)
			w.now, start = time.Now(), time.Now()
			w.report(name, 2, model.AllocClientRunning, 0)
		}
		if got := <-marked; !slices.Equal(got, []string{"sums.0"}) || time.Since(start) < 50*time.Minute {
			t.Errorf("marked %v after %s, want the batch work at the deadline", got, time.Since(start))
		}
		synctest.Wait()
		w.report("sums.0", 1, model.AllocClientComplete, 0)
		if got := <-done; got != "n1" {
			t.Errorf("%s is done", got)
		}
		cancel()
		<-ended
	})
}

func TestAGroupThatMakesTheLoopPanicHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	w.node(1, &model.DrainStrategy{})
	for _, id := range []string{"bad", "web"} {
		w.job(id, "service", 1, 1)
		w.place(id, 1, 0, 1)
	}
	// Planted: no job comes into the state so.
	w.store.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "bad"}).TaskGroups[0] = nil
	items := &aside.Items{Clock: clock.Func(func() time.Time { return w.now }), Log: hclog.NewNullLogger()}
	s := decide(w.store.Snapshot(), nil, w.now, items)
	if len(s.mark) != 1 || s.mark[0] != w.ids["web.0"] || len(s.done) != 0 || !s.again.Equal(w.now.Add(aside.Pause)) {
		t.Errorf("marks %v, done %v, again at %s", s.mark, s.done, s.again)
	}
}
