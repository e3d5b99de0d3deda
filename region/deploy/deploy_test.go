package deploy

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// world is a store that the loop writes to, as a cell would.
type world struct {
	t      *testing.T
	store  *state.Store
	index  uint64
	job    *model.Job
	node   model.UUID
	id     string
	allocs []model.UUID
}

func (w *world) write(f func(*state.Txn) error) error {
	w.index++
	return w.store.Write(w.index, f)
}

func (w *world) must(f func(*state.Txn) error) {
	w.t.Helper()
	if err := w.write(f); err != nil {
		w.t.Fatal(err)
	}
}

// newWorld has a job at version 1, whose version 0 was stable, and a deployment
// of two allocations, of which the first may be a canary.
func newWorld(t *testing.T, change func(*model.DeploymentState)) *world {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store, node: model.NewUUID(nil), id: model.NewUUID(nil).String()}
	w.must(func(tx *state.Txn) error {
		return tx.UpsertNode(&model.Node{ID: w.node.String(), Status: model.NodeStatusReady}, 1)
	})
	for _, v := range []string{"old", "new"} {
		j := &model.Job{ID: "j", Meta: map[string]string{"v": v}, TaskGroups: []*model.TaskGroup{{Name: "g", Count: 2, Tasks: []*model.Task{{Name: "t"}}}}}
		j.Canonicalize()
		w.must(func(tx *state.Txn) (err error) { w.job, err = tx.UpsertJob(j); return err })
		if v == "old" {
			w.must(func(tx *state.Txn) error { return tx.SetJobStability(j.Key(), 0, true) })
		}
	}
	s := &model.DeploymentState{DesiredTotal: 2, ProgressDeadline: time.Minute, RequireProgressBy: time.Now().Add(time.Minute)}
	if change != nil {
		change(s)
	}
	depID, _ := model.ParseUUID(w.id)
	p := &model.Plan{
		EvalID: model.NewUUID(nil), JobKey: w.job.Key(), JobVersion: w.job.Version,
		Groups: []model.PlanGroup{{Name: "g", DeploymentID: depID, Resources: w.job.TaskGroups[0].AllocatedResources()}},
		Deployment: &model.Deployment{
			ID: w.id, Namespace: "default", JobID: "j", JobVersion: 1, JobCreateIndex: w.job.CreateIndex, Status: model.DeploymentRunning,
			TaskGroups: map[string]*model.DeploymentState{"g": s},
		},
	}
	for i := range 2 {
		pl := model.Placement{ID: model.NewUUID(nil), NodeID: w.node, Index: uint32(i)}
		if i < s.DesiredCanaries {
			pl.Extra = &model.AllocExtra{DeploymentStatus: &model.AllocDeploymentStatus{Canary: true}}
		}
		w.allocs = append(w.allocs, pl.ID)
		p.Place = append(p.Place, pl)
	}
	w.must(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(p, time.Now().UnixNano()))
		return err
	})
	return w
}

// apply does what the cell's commands do.
func (w *world) apply(_ context.Context, _ cell.Command, body any) error {
	return w.write(func(tx *state.Txn) error {
		switch c := body.(type) {
		case *cell.DeploymentStatus:
			if _, err := tx.SetDeploymentStatus(c.Update, c.Time); err != nil || c.Revert == nil {
				return err
			}
			_, err := tx.RevertJob(c.Revert.Key, c.Revert.Version, c.Time)
			return err
		case *cell.DeploymentPromote:
			_, err := tx.Promote(c.DeploymentID, c.Groups, c.Time)
			return err
		case *cell.AllocReschedule:
			tx.AllowReschedule(c.IDs)
			return tx.UpsertEvals([]*model.Evaluation{c.Eval})
		}
		panic("no such command")
	})
}

func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() {
		done <- Run(ctx, Config{Snapshot: w.store.Snapshot, Apply: w.apply, Clock: clock.Real, Log: hclog.NewNullLogger()})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) report(i int, status string, healthy *bool) {
	w.t.Helper()
	u := &model.AllocUpdate{ID: w.allocs[i].String(), ClientStatus: status, DeploymentID: w.id}
	if healthy != nil {
		u.DeploymentStatus = &model.AllocDeploymentStatus{Healthy: healthy, Timestamp: time.Now().UTC()}
	}
	w.must(func(tx *state.Txn) error {
		_, err := tx.ReportAllocs(w.node, []*model.AllocUpdate{u}, time.Now().UnixNano())
		return err
	})
}

// later lets the loop settle, and time pass.
func later(d time.Duration) {
	synctest.Wait()
	time.Sleep(max(d, 4*pause))
	synctest.Wait()
}

func (w *world) is(status, why string) *model.Deployment {
	w.t.Helper()
	d := w.store.Snapshot().Deployment(nil, w.id)
	if d.Status != status || !strings.Contains(d.StatusDescription, why) {
		w.t.Errorf("the deployment is %s (%s); want %s (…%s…)", d.Status, d.StatusDescription, status, why)
	}
	return d
}

var yes, no = true, false

func TestADeploymentIsDoneWhenAllAreHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.run()()
		w.report(0, model.AllocClientRunning, &yes)
		later(0)
		w.is(model.DeploymentRunning, "")
		w.report(1, model.AllocClientRunning, &yes)
		later(0)
		w.is(model.DeploymentSuccessful, "completed")
		if !w.store.Snapshot().Job(nil, w.job.Key()).Stable {
			t.Error("the version is not stable")
		}
	})
}

func TestAHealthyAllocationThatEndedDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.run()()
		w.report(0, model.AllocClientRunning, &yes)
		w.report(0, model.AllocClientFailed, nil)
		w.report(1, model.AllocClientRunning, &yes)
		later(0)
		w.is(model.DeploymentRunning, "")
	})
}

func TestWithoutProgressADeploymentFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		revert bool
		why    string
		meta   string
	}{
		{"and stays", false, "progress_deadline of 1m0s", "new"},
		{"and the job is reverted", true, "reverting to version 0", "old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(s *model.DeploymentState) { s.AutoRevert = c.revert })
				stop := w.run()
				later(30 * time.Second)
				w.report(0, model.AllocClientRunning, &yes)
				// Another leader has the same deadlines.
				stop()
				defer w.run()()
				later(59 * time.Second)
				w.is(model.DeploymentRunning, "")
				later(2 * time.Second)
				w.is(model.DeploymentFailed, c.why)
				if j := w.store.Snapshot().Job(nil, w.job.Key()); j.Meta["v"] != c.meta {
					t.Errorf("the job is at version %d, %v", j.Version, j.Meta)
				}
			})
		})
	}
}

func TestWithoutADeadlineTheFirstUnhealthyOneFailsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *model.DeploymentState) { s.ProgressDeadline, s.RequireProgressBy = 0, time.Time{} })
		defer w.run()()
		w.report(1, model.AllocClientRunning, &no)
		later(0)
		w.is(model.DeploymentFailed, w.allocs[1].String()[:8])
	})
}

func TestWhatFailedMayBePlacedAnewWhileThereIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.run()()
		w.report(1, model.AllocClientFailed, &no)
		later(0)
		w.is(model.DeploymentRunning, "")
		snap := w.store.Snapshot()
		if !snap.Alloc(nil, w.allocs[1]).Transition().ShouldReschedule() || snap.Alloc(nil, w.allocs[0]).Transition().ShouldReschedule() {
			t.Error("want the failed one alone to be placed anew")
		}
		evals := 0
		for range snap.EvalsOfJob(nil, w.job.Key()) {
			evals++
		}
		if evals != 1 {
			t.Errorf("%d evaluations look at it", evals)
		}
	})
}

func TestCanariesWaitForTheirPromotion(t *testing.T) {
	for _, auto := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(s *model.DeploymentState) { s.DesiredCanaries, s.AutoPromote = 1, auto })
			defer w.run()()
			w.report(0, model.AllocClientRunning, &yes)
			// A deadline is none while an operator is waited for.
			later(50 * time.Second)
			if d := w.is(model.DeploymentRunning, ""); d.TaskGroups["g"].Promoted != auto {
				t.Errorf("auto_promote %t: promoted is %t", auto, d.TaskGroups["g"].Promoted)
			}
			later(time.Hour)
			if auto {
				w.is(model.DeploymentFailed, "progress_deadline")
			} else {
				w.is(model.DeploymentRunning, "")
			}
		})
	}
}

func TestAPausedDeploymentIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.run()()
		set := func(status string) {
			w.must(func(tx *state.Txn) error {
				_, err := tx.SetDeploymentStatus(model.DeploymentUpdate{DeploymentID: w.id, Status: status}, time.Now().UnixNano())
				return err
			})
		}
		set(model.DeploymentPaused)
		later(time.Hour)
		w.is(model.DeploymentPaused, "")
		set(model.DeploymentRunning)
		later(50 * time.Second)
		w.is(model.DeploymentRunning, "")
		later(20 * time.Second)
		w.is(model.DeploymentFailed, "progress_deadline")
	})
}

func TestADeploymentThatMakesTheLoopPanicHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		bad := &model.Job{ID: "bad", TaskGroups: []*model.TaskGroup{{Name: "g", Count: 1, Tasks: []*model.Task{{Name: "t"}}}}}
		bad.Canonicalize()
		w.must(func(tx *state.Txn) (err error) { bad, err = tx.UpsertJob(bad); return err })
		w.must(func(tx *state.Txn) error {
			_, err := tx.ApplyPlan(state.NewPlanCommand(&model.Plan{JobKey: bad.Key(), Deployment: &model.Deployment{
				ID: model.UUID{15: 1}.String(), Namespace: "default", JobID: "bad", JobCreateIndex: bad.CreateIndex, Status: model.DeploymentRunning,
				TaskGroups: map[string]*model.DeploymentState{"g": nil},
			}}, time.Now().UnixNano()))
			return err
		})
		stop := w.run()
		defer stop()
		yes := true
		w.report(0, model.AllocClientRunning, &yes)
		w.report(1, model.AllocClientRunning, &yes)
		later(0)
		if d := w.store.Snapshot().Deployment(nil, w.id); d.Status != model.DeploymentSuccessful {
			t.Errorf("the other deployment is %s", d.Status)
		}
	})
}
