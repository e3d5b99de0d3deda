package unblock

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell/state"
	"atoll/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a state with a node of class "has" that runs an allocation.
type world struct {
	t     *testing.T
	store *state.Store
	index uint64
	node  *model.Node
	alloc string
	// refuse makes that many writes fail.
	refuse int
}

func newWorld(t *testing.T) *world {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store, node: aNode("has")}
	w.register(w.node)
	job := &model.Job{ID: "runs", Namespace: model.DefaultNamespace, Type: model.JobTypeService, TaskGroups: []*model.TaskGroup{{
		Name: "g", Count: 1, EphemeralDisk: model.NewEphemeralDisk(), Tasks: []*model.Task{{Name: "t", Driver: "mock", Resources: model.NewResources()}},
	}}}
	w.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(job); return err })
	id, nodeID := model.NewUUID(nil), model.UUID{}
	nodeID, _ = model.ParseUUID(w.node.ID)
	w.alloc = id.String()
	w.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(&model.Plan{
			EvalID: model.NewUUID(nil), JobKey: job.Key(), Groups: []model.PlanGroup{{Name: "g", Resources: job.TaskGroups[0].AllocatedResources()}},
			Place: model.Placements{{ID: id, NodeID: nodeID}},
		}, 1))
		return err
	})
	return w
}

func aNode(class string) *model.Node {
	return &model.Node{
		ID: model.NewUUID(nil).String(), Name: class, ComputedClass: class, Status: model.NodeStatusReady, SchedulingEligibility: model.NodeEligible,
	}
}

func (w *world) write(f func(*state.Txn) error) {
	w.t.Helper()
	w.index++
	if err := w.store.Write(w.index, f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) register(n *model.Node) {
	w.t.Helper()
	w.write(func(tx *state.Txn) error { return tx.UpsertNode(n, 1) })
}

// blocked adds an evaluation that blocked on the state of an index.
func (w *world) blocked(index uint64, classes map[string]bool) *model.Evaluation {
	w.t.Helper()
	id := model.NewUUID(nil).String()
	e := &model.Evaluation{
		ID: id, Namespace: model.DefaultNamespace, JobID: "blocked " + id, Status: model.EvalBlocked, SnapshotIndex: index, ClassEligibility: classes,
	}
	w.write(func(tx *state.Txn) error { return tx.UpsertEvals([]*model.Evaluation{e}) })
	return e
}

func (w *world) isWoken(e *model.Evaluation) bool {
	return w.store.Snapshot().Eval(nil, e.ID).Status == model.EvalPending
}

// run runs the loop until the returned function is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() {
		done <- Run(ctx, Config{Snapshot: w.store.Snapshot, Log: hclog.NewNullLogger(), Wake: func(_ context.Context, ids []model.UUID) error {
			if w.refuse > 0 {
				w.refuse--
				return errors.New("no")
			}
			w.write(func(tx *state.Txn) error {
				_, err := tx.MoveEvals(ids, model.EvalBlocked, model.EvalPending, "", 1)
				return err
			})
			return nil
		}})
	}()
	return func() { cancel(); <-done }
}

// settled waits until the loop has nothing more to do.
func settled() {
	for range 5 {
		synctest.Wait()
		time.Sleep(2 * pause)
	}
	synctest.Wait()
}

func TestAChangeWakesThoseThatItMayHelp(t *testing.T) {
	end := func(w *world) {
		w.write(func(tx *state.Txn) error {
			id, _ := model.ParseUUID(w.node.ID)
			_, err := tx.ReportAllocs(id, []*model.AllocUpdate{{ID: w.alloc, ClientStatus: model.AllocClientComplete}}, 1)
			return err
		})
	}
	status := func(s string) func(*world) {
		return func(w *world) {
			w.write(func(tx *state.Txn) error { _, err := tx.SetNodeStatus(w.node.ID, s, "", 1); return err })
		}
	}
	// What blocks, by the eligibility of the class "has".
	const able, unable, unseen = "able", "unable", "unseen"
	for _, c := range []struct {
		name   string
		change func(w *world)
		woken  []string
	}{
		{"an allocation ends on a node", end, []string{able, unseen}},
		{"a node of the class comes", func(w *world) { w.register(aNode("has")) }, []string{able, unseen}},
		{"a node of a class that nobody saw comes", func(w *world) { w.register(aNode("new")) }, []string{able, unable, unseen}},
		{"a node without a class comes", func(w *world) { w.register(aNode("")) }, []string{able, unable, unseen}},
		{"a node changes its class", func(w *world) { n := *w.node; n.ComputedClass = "new"; w.register(&n) }, []string{able, unable, unseen}},
		{"a node that takes no work comes", func(w *world) { n := aNode("has"); n.SchedulingEligibility = model.NodeIneligible; w.register(n) }, nil},
		{"a node goes down", status(model.NodeStatusDown), nil},
		{"a node goes down, an allocation of it ends, it comes back", func(w *world) {
			status(model.NodeStatusDown)(w)
			end(w)
			status(model.NodeStatusReady)(w)
		}, []string{able, unseen}},
		{"a job is registered", func(w *world) {
			w.write(func(tx *state.Txn) error {
				_, err := tx.UpsertJob(&model.Job{ID: "x", Namespace: "default", Type: model.JobTypeService})
				return err
			})
		}, nil},
	} {
		for _, when := range []string{"while the loop runs", "before a new leader's loop starts", "before the evaluation is written"} {
			t.Run(c.name+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					var stop func()
					index := w.index
					evals := make(map[string]*model.Evaluation)
					block := func() {
						evals[able] = w.blocked(index, map[string]bool{"has": true, "hasn't": false})
						evals[unable] = w.blocked(index, map[string]bool{"has": false})
						evals[unseen] = w.blocked(index, map[string]bool{"hasn't": false})
					}
					switch when {
					case "while the loop runs":
						block()
						stop = w.run()
						settled()
						c.change(w)
					case "before a new leader's loop starts":
						block()
						c.change(w)
						stop = w.run()
					default:
						stop = w.run()
						settled()
						c.change(w)
						settled()
						block()
					}
					settled()
					for name, e := range evals {
						if got, want := w.isWoken(e), slices.Contains(c.woken, name); got != want {
							t.Errorf("%s: woken %v, want %v", name, got, want)
						}
					}
					stop()
				})
			})
		}
	}
}

func TestAWriteThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.blocked(0, nil)
		w.refuse = 3
		stop := w.run()
		settled()
		stop()
		if w.refuse != 0 || !w.isWoken(e) {
			t.Errorf("woken %v, %d refusals left", w.isWoken(e), w.refuse)
		}
	})
}

func TestManyAreWokenInBoundedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []*model.Evaluation
		for range wakeAtOnce + 1 {
			all = append(all, w.blocked(0, nil))
		}
		before := w.index
		stop := w.run()
		settled()
		stop()
		for _, e := range all {
			if !w.isWoken(e) {
				t.Fatalf("%s sleeps", e.ID)
			}
		}
		if w.index != before+2 {
			t.Errorf("%d writes, want 2", w.index-before)
		}
	})
}

func TestNothingIsWokenDuringAPauseAndNothingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pause := func(paused bool) {
			w.write(func(tx *state.Txn) error {
				c := model.DefaultSchedulerConfig()
				c.PauseEvalBroker = paused
				return tx.SetSchedulerConfig(c)
			})
		}
		e := w.blocked(w.index, nil)
		defer w.run()()
		pause(true)
		settled()
		w.register(aNode("has"))
		settled()
		if w.isWoken(e) {
			t.Error("woken during the pause")
		}
		pause(false)
		settled()
		if !w.isWoken(e) {
			t.Error("not woken after the pause")
		}
	})
}
