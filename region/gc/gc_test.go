package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// left is what a region holds, by the names that a test gave.
func (r *region) left() string {
	snap := r.store.Snapshot()
	var out []string
	for j := range snap.Jobs(nil, model.AllNamespaces, "") {
		out = append(out, "job "+j.ID)
	}
	evals, allocs, nodes := map[string]int{}, map[string]int{}, 0
	for e := range snap.Evals(nil, "") {
		evals[e.JobID]++
	}
	for row := range snap.Allocs(nil, "", model.UUID{}) {
		allocs[row.Job().ID]++
	}
	for range snap.Nodes(nil, "") {
		nodes++
	}
	for d := range snap.Deployments(nil, "") {
		out = append(out, "deployment "+d.StatusDescription)
	}
	for id, n := range evals {
		out = append(out, fmt.Sprintf("%d evals of %s", n, id))
	}
	for id, n := range allocs {
		out = append(out, fmt.Sprintf("%d allocs of %s", n, id))
	}
	out = append(out, fmt.Sprintf("%d nodes", nodes))
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// deploy adds a deployment of a job that is over, under a name.
func (r *region) deploy(id, name, status string) {
	j := r.store.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id})
	d := &model.Deployment{
		ID: model.NewUUID(r.ids).String(), Namespace: j.Namespace, JobID: j.ID, JobVersion: j.Version, JobCreateIndex: j.CreateIndex,
		Status: model.DeploymentRunning, StatusDescription: name, CreateTime: r.now.UnixNano(), ModifyTime: r.now.UnixNano(),
	}
	r.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(&model.Plan{JobKey: j.Key(), JobVersion: j.Version, Deployment: d}, r.now.UnixNano()))
		return err
	})
	if status != model.DeploymentRunning {
		r.write(func(tx *state.Txn) error {
			_, err := tx.SetDeploymentStatus(model.DeploymentUpdate{DeploymentID: d.ID, Status: status, StatusDescription: name}, r.now.UnixNano())
			return err
		})
	}
}

// say is what a node says of all allocations of a job.
func (r *region) say(id, status string) {
	rows, _ := r.store.Snapshot().AllocsOfJob(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id})
	for row := range rows {
		r.write(func(tx *state.Txn) error {
			_, err := tx.ReportAllocs(row.NodeID, []*model.AllocUpdate{{ID: row.ID.String(), ClientStatus: status}}, r.now.UnixNano())
			return err
		})
	}
}

func (r *region) launchAndWork(id string) string {
	child := r.launch(id)
	r.work()
	return child
}

func (r *region) stop(id string) {
	key := model.JobID{Namespace: model.DefaultNamespace, ID: id}
	r.write(func(tx *state.Txn) error { _, err := tx.StopJob(key); return err })
	r.eval(key, model.TriggerJobDeregister)
	r.work()
}

func (r *region) reap(t Thresholds) {
	snap := r.store.Snapshot()
	for _, batch := range choose(snap, unneeded, t, r.now, &aside.Items{}).batches(snap.Index(), 2) {
		r.write(func(tx *state.Txn) error { _, err := tx.Reap(batch); return err })
	}
}

func TestWhatIsKeptAndForHowLong(t *testing.T) {
	const service, batch = model.JobTypeService, model.JobTypeBatch
	type step struct {
		after time.Duration
		want  string
	}
	for _, c := range []struct {
		name string
		do   func(r *region)
		// steps are what is left some time after it was done.
		steps []step
		// forced is what is left when nothing is waited for.
		forced string
	}{{
		name:   "what runs stays, and the evaluation that placed it",
		do:     func(r *region) { r.register("j", service, 2, 0, ""); r.work() },
		steps:  []step{{1000 * time.Hour, "1 evals of j, 1 nodes, 2 allocs of j, job j"}},
		forced: "1 evals of j, 1 nodes, 2 allocs of j, job j",
	}, {
		name: "an ended allocation goes after an hour, and then its evaluation",
		do: func(r *region) {
			r.register("j", service, 1, 0, "")
			r.work()
			r.say("j", model.AllocClientComplete)
			r.eval(model.JobID{Namespace: model.DefaultNamespace, ID: "j"}, model.TriggerRetryFailed)
			r.work()
		},
		steps: []step{
			{59 * time.Minute, "1 nodes, 2 allocs of j, 2 evals of j, job j"},
			{61 * time.Minute, "1 allocs of j, 1 evals of j, 1 nodes, job j"},
		},
		forced: "1 allocs of j, 1 evals of j, 1 nodes, job j",
	}, {
		name: "a failed allocation that will not be placed again stays, or it would be",
		do: func(r *region) {
			r.register("j", batch, 1, 0, "")
			r.write(func(tx *state.Txn) error {
				j := model.Clone(r.store.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "j"}))
				j.TaskGroups[0].ReschedulePolicy = &model.ReschedulePolicy{}
				j.TaskGroups = append(j.TaskGroups, model.Clone(j.TaskGroups[0]))
				j.TaskGroups[1].Name = "runs"
				_, err := tx.UpsertJob(j)
				return err
			})
			r.work()
			rows, _ := r.store.Snapshot().AllocsOfJob(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "j"})
			for row := range rows {
				if row.Shared.Group == "g" {
					r.write(func(tx *state.Txn) error {
						_, err := tx.ReportAllocs(row.NodeID, []*model.AllocUpdate{{ID: row.ID.String(), ClientStatus: model.AllocClientFailed}}, r.now.UnixNano())
						return err
					})
				}
			}
		},
		steps:  []step{{1000 * time.Hour, "1 evals of j, 1 nodes, 2 allocs of j, job j"}},
		forced: "1 evals of j, 1 nodes, 2 allocs of j, job j",
	}, {
		name: "a stopped job goes after four hours, its evaluations with it, its allocations before",
		do: func(r *region) {
			r.register("j", service, 2, 0, "")
			r.work()
			r.stop("j")
			r.say("j", model.AllocClientComplete)
		},
		steps: []step{
			{61 * time.Minute, "1 nodes, 2 evals of j, job j"},
			{239 * time.Minute, "1 nodes, 2 evals of j, job j"},
			{241 * time.Minute, "1 nodes"},
		},
		forced: "1 nodes",
	}, {
		name: "allocations whose node has not told of their end hold all up",
		do: func(r *region) {
			r.register("j", service, 2, 0, "")
			r.work()
			r.stop("j")
		},
		steps:  []step{{1000 * time.Hour, "1 nodes, 2 allocs of j, 2 evals of j, job j"}},
		forced: "1 nodes, 2 allocs of j, 2 evals of j, job j",
	}, {
		name: "batch work that is done goes with its job",
		do: func(r *region) {
			r.register("j", batch, 2, 0, "")
			r.work()
			r.say("j", model.AllocClientComplete)
		},
		steps: []step{
			{239 * time.Minute, "1 evals of j, 1 nodes, 2 allocs of j, job j"},
			{241 * time.Minute, "1 nodes"},
		},
		forced: "1 nodes",
	}, {
		name: "a parent stays until it is stopped, its children go when they are done",
		do: func(r *region) {
			r.parent("p")
			r.say(r.launchAndWork("p"), model.AllocClientComplete)
		},
		steps: []step{
			{239 * time.Minute, "1 allocs of p/periodic-1767225600, 1 evals of p/periodic-1767225600, 1 nodes, job p, job p/periodic-1767225600"},
			{241 * time.Minute, "1 nodes, job p"},
			{1000 * time.Hour, "1 nodes, job p"},
		},
		forced: "1 nodes, job p",
	}, {
		name: "a stopped parent goes, and not with a child that runs",
		do: func(r *region) {
			r.parent("p")
			r.launchAndWork("p")
			r.now = r.now.Add(100 * time.Hour)
			r.stop("p")
		},
		steps: []step{
			{239 * time.Minute, "1 allocs of p/periodic-1767225600, 1 evals of p, 1 evals of p/periodic-1767225600, 1 nodes, job p, job p/periodic-1767225600"},
			{241 * time.Minute, "1 allocs of p/periodic-1767225600, 1 evals of p/periodic-1767225600, 1 nodes, job p/periodic-1767225600"},
		},
		forced: "1 allocs of p/periodic-1767225600, 1 evals of p/periodic-1767225600, 1 nodes, job p/periodic-1767225600",
	}, {
		name: "a child outlives its parent no longer than it runs",
		do: func(r *region) {
			r.parent("p")
			id := r.launchAndWork("p")
			r.write(func(tx *state.Txn) error { return tx.PurgeJob(model.JobID{Namespace: model.DefaultNamespace, ID: "p"}) })
			r.say(id, model.AllocClientComplete)
		},
		steps:  []step{{241 * time.Minute, "1 nodes"}},
		forced: "1 nodes",
	}, {
		name: "what a purged job leaves goes by its own threshold",
		do: func(r *region) {
			for _, j := range []string{service, batch} {
				r.register(j, j, 1, 0, "")
				r.work()
				r.write(func(tx *state.Txn) error { return tx.PurgeJob(model.JobID{Namespace: model.DefaultNamespace, ID: j}) })
				r.say(j, model.AllocClientComplete)
			}
		},
		steps: []step{
			{61 * time.Minute, "1 allocs of batch, 1 evals of batch, 1 nodes"},
			{1441 * time.Minute, "1 nodes"},
		},
		forced: "1 nodes",
	}, {
		name: "a service that died without being stopped stays",
		do: func(r *region) {
			r.register("j", service, 1, 0, "nowhere")
			r.work()
			r.write(func(tx *state.Txn) error {
				for e := range r.store.Snapshot().EvalsByStatus(nil, model.EvalBlocked) {
					id, _ := model.ParseUUID(e.ID)
					if _, err := tx.MoveEvals([]model.UUID{id}, model.EvalBlocked, model.EvalCancelled, "", r.now.UnixNano()); err != nil {
						return err
					}
				}
				return nil
			})
		},
		steps:  []step{{61 * time.Minute, "1 nodes, job j"}},
		forced: "1 nodes, job j",
	}, {
		name: "an evaluation that waits stays",
		do:   func(r *region) { r.register("j", service, 1, 0, "nowhere"); r.work() },
		steps: []step{
			{59 * time.Minute, "1 nodes, 2 evals of j, job j"},
			{1000 * time.Hour, "1 evals of j, 1 nodes, job j"},
		},
		forced: "1 evals of j, 1 nodes, job j",
	}, {
		name: "a deployment that is over goes after an hour, but for its job's newest",
		do: func(r *region) {
			r.register("j", service, 1, 0, "")
			r.register("k", service, 1, 0, "")
			r.deploy("j", "first", model.DeploymentSuccessful)
			r.deploy("j", "second", model.DeploymentFailed)
			r.deploy("k", "third", model.DeploymentFailed)
			r.deploy("k", "fourth", model.DeploymentRunning)
		},
		steps: []step{
			{59 * time.Minute, "1 evals of j, 1 evals of k, 1 nodes, deployment first, deployment fourth, deployment second, deployment third, job j, job k"},
			{61 * time.Minute, "1 evals of j, 1 evals of k, 1 nodes, deployment fourth, deployment second, job j, job k"},
		},
		forced: "1 evals of j, 1 evals of k, 1 nodes, deployment fourth, deployment second, job j, job k",
	}, {
		name: "a node that is down goes after a day",
		do:   func(r *region) { r.down(r.node()) },
		steps: []step{
			{1439 * time.Minute, "2 nodes"},
			{1441 * time.Minute, "1 nodes"},
		},
		forced: "1 nodes",
	}, {
		name: "one on which something may run does not",
		do: func(r *region) {
			r.register("j", service, 1, 0, "")
			r.work()
			rows, _ := r.store.Snapshot().AllocsOfJob(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "j"})
			for row := range rows {
				r.write(func(tx *state.Txn) error {
					_, err := tx.SetNodeStatus(row.NodeID.String(), model.NodeStatusDown, "", r.now.UnixNano())
					return err
				})
			}
		},
		steps:  []step{{1000 * time.Hour, "1 allocs of j, 1 evals of j, 1 nodes, job j"}},
		forced: "1 allocs of j, 1 evals of j, 1 nodes, job j",
	}} {
		t.Run(c.name, func(t *testing.T) {
			made := func() *region {
				r := newRegion(t, 1)
				r.node()
				c.do(r)
				return r
			}
			r := made()
			done := r.now
			for _, s := range c.steps {
				r.now = done.Add(s.after)
				r.reap(Default)
				if got := r.left(); got != s.want {
					t.Errorf("after %s: %s; want %s", s.after, got, s.want)
				}
			}
			r = made()
			// Forced, not even a clock that is behind keeps anything.
			r.now = r.now.Add(-time.Hour)
			r.reap(none)
			if got := r.left(); got != c.forced {
				t.Errorf("forced: %s; want %s", got, c.forced)
			}
		})
	}
}

func TestTheCollectorPassesByItselfAndWhenForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, 1)
		r.now = time.Now()
		r.down(r.node())
		var failing error
		passes := 0
		c := New(Config{
			Snapshot: r.store.Snapshot, Unneeded: unneeded, Clock: clock.Real, Log: hclog.NewNullLogger(),
			Reap: func(_ context.Context, b *state.Reap) (out *state.Reaped, err error) {
				passes++
				if failing != nil {
					return nil, failing
				}
				r.write(func(tx *state.Txn) (err error) { out, err = tx.Reap(b); return err })
				return out, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		failing = errors.New("no leader")
		if err := c.Force(t.Context()); !errors.Is(err, failing) {
			t.Errorf("forced: %v", err)
		}
		time.Sleep(Default.Nodes - time.Second)
		if passes != 1 {
			t.Errorf("%d passes had something to do before the threshold", passes)
		}
		// Between two passes, so that which of two timers comes first does not
		// count.
		time.Sleep(DefaultInterval + 2*time.Minute) // it fails, and tries again
		passed := passes
		failing = nil
		time.Sleep(DefaultInterval)
		if got := r.left(); got != "0 nodes" || passed < 2 || passes != passed+1 {
			t.Errorf("%s after %d passes", got, passes)
		}
		r.down(r.node())
		if err := c.Force(t.Context()); err != nil {
			t.Error(err)
		}
		if got := r.left(); got != "0 nodes" {
			t.Errorf("forced: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := c.Force(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("forced after the end: %v", err)
		}
	})
}

func TestAJobThatMakesAPassPanicHoldsUpNoOther(t *testing.T) {
	r := newRegion(t, 1)
	r.node()
	for _, id := range []string{"bad", "good"} {
		r.register(id, model.JobTypeService, 2, 0, "")
		r.work()
		r.deploy(id, "of "+id, model.DeploymentSuccessful)
		r.deploy(id, "later of "+id, model.DeploymentSuccessful)
		r.stop(id)
		r.say(id, model.AllocClientComplete)
	}
	r.now = r.now.Add(2 * time.Hour)
	panics := func(snap *state.Snapshot, key model.JobID, old func(*model.AllocRow) bool) []*model.AllocRow {
		if key.ID == "bad" {
			panic("planted")
		}
		return unneeded(snap, key, old)
	}
	items := &aside.Items{Clock: clock.Func(func() time.Time { return r.now }), Log: hclog.NewNullLogger()}
	for _, batch := range choose(r.store.Snapshot(), panics, Default, r.now, items).batches(r.index, 2) {
		r.write(func(tx *state.Txn) error { _, err := tx.Reap(batch); return err })
	}
	if got, want := r.left(), "1 nodes, 2 allocs of bad, 2 evals of bad, 2 evals of good, deployment later of bad, deployment later of good, deployment of bad, job bad, job good"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
