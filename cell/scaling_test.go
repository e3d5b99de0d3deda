package cell

import (
	"strings"
	"testing"

	"atoll/cell/state"
	"atoll/model"
)

// applied is a store to which commands are applied, one index after another.
type applied struct {
	t     *testing.T
	store *state.Store
	index uint64
}

func newApplied(t *testing.T) *applied {
	s, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	return &applied{t: t, store: s}
}

// do applies a command; want is a part of its error, "" for none.
func do[T, R any](a *applied, f func(*state.Txn, *state.Snapshot, uint64, *T) (*R, error), body *T, want string) (out *R) {
	a.t.Helper()
	a.index++
	snap := a.store.Snapshot()
	err := a.store.Write(a.index, func(tx *state.Txn) (err error) {
		out, err = f(tx, snap, a.index, body)
		return err
	})
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		a.t.Errorf("%T: %v, want %q", body, err, want)
	}
	return out
}

func scalableJob(namespace string) *model.Job {
	j := &model.Job{ID: "web", Namespace: namespace, TaskGroups: []*model.TaskGroup{{
		Name: "g", Count: 2, Scaling: &model.ScalingPolicy{Min: 1, Max: 5}, Tasks: []*model.Task{{Name: "t", Driver: "mock"}},
	}}}
	j.Canonicalize()
	return j
}

func newTestEval() *model.Evaluation {
	return &model.Evaluation{ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "web", Status: model.EvalPending}
}

func TestAScaleChangesTheCountAndIsKept(t *testing.T) {
	a := newApplied(t)
	key := model.JobID{Namespace: "default", ID: "web"}
	scale := func(count int64, index uint64, want string) *JobRegistered {
		t.Helper()
		return do(a, applyJobScale, &JobScale{
			Key: key, Group: "g", JobModifyIndex: index, Eval: newTestEval(), Event: model.ScalingEvent{Count: &count, Time: 7},
		}, want)
	}
	scale(3, 0, `job "web" not found`)
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("default")}, "")
	registered := a.index
	scale(6, 0, "above the maximum of its scaling policy, 5")
	scale(0, 0, "below the minimum of its scaling policy, 1")
	scale(3, registered+1, "Enforcing job modify index")
	do(a, applyJobScale, &JobScale{Key: key, Group: "absent"}, `it has no group "absent"`)
	if s := a.store.Snapshot(); s.JobScaling(nil, key) != nil || s.Job(nil, key).Version != 0 {
		t.Error("a refused scale left something")
	}
	out := scale(3, registered, "")
	snap := a.store.Snapshot()
	job, eval := snap.Job(nil, key), snap.Eval(nil, out.EvalID)
	if job.TaskGroups[0].Count != 3 || job.Version != 1 || job.SubmitTime != 7 || out.JobModifyIndex != a.index {
		t.Errorf("the job is %+v", job)
	}
	if eval == nil || eval.Type != model.JobTypeService || eval.JobModifyIndex != a.index {
		t.Errorf("the evaluation is %+v", eval)
	}
	// Something to say changes nothing.
	said := do(a, applyJobScale, &JobScale{Key: key, Group: "g", Event: model.ScalingEvent{Error: true, Message: "no metrics"}}, "")
	if said.EvalID != "" || said.JobModifyIndex != job.JobModifyIndex {
		t.Errorf("%+v", said)
	}
	events := a.store.Snapshot().JobScaling(nil, key).Events["g"]
	if len(events) != 2 || !events[0].Error || events[0].PreviousCount != 3 || events[1].PreviousCount != 2 || *events[1].EvalID != out.EvalID {
		t.Errorf("%+v %+v", events[0], events[1])
	}
	do(a, applyJobDeregister, &JobDeregister{Key: key, Purge: true}, "")
	if a.store.Snapshot().JobScaling(nil, key) != nil {
		t.Error("a purged job's events are there still")
	}
}

func TestNoScaleWhileADeploymentGoesOn(t *testing.T) {
	a := newApplied(t)
	key := model.JobID{Namespace: "default", ID: "web"}
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("default")}, "")
	job := a.store.Snapshot().Job(nil, key)
	d := &model.Deployment{
		ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "web", JobCreateIndex: job.CreateIndex, Status: model.DeploymentRunning,
		TaskGroups: map[string]*model.DeploymentState{"g": {DesiredTotal: 2}},
	}
	do(a, applyPlan, state.NewPlanCommand(&model.Plan{JobKey: key, JobVersion: job.Version, JobModifyIndex: job.JobModifyIndex, Deployment: d}, 1), "")
	count := int64(4)
	again := &JobScale{Key: key, Group: "g", Eval: newTestEval(), Event: model.ScalingEvent{Count: &count}}
	do(a, applyJobScale, again, "job scaling blocked due to active deployment: deployment "+d.ID)
	do(a, applyDeploymentStatus, &DeploymentStatus{Update: model.DeploymentUpdate{DeploymentID: d.ID, Status: model.DeploymentSuccessful}}, "")
	do(a, applyJobScale, again, "")
}

func TestANamespaceIsKeptWhileItHasLiveJobs(t *testing.T) {
	a := newApplied(t)
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("team")}, `namespace "team" does not exist`)
	do(a, applyNamespaceUpsert, &NamespaceUpsert{&model.Namespace{Name: "team"}}, "")
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("team")}, "")
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "team"}, `job "web" in it is pending`)
	key := model.JobID{Namespace: "team", ID: "web"}
	do(a, applyJobDeregister, &JobDeregister{Key: key}, "")
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "team"}, "")
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "team"}, `namespace "team" not found`)
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "default"}, "it is always there")
	// What is left there does not come to life again.
	count := int64(3)
	do(a, applyJobScale, &JobScale{Key: key, Group: "g", Eval: newTestEval(), Event: model.ScalingEvent{Count: &count}}, `namespace "team" does not exist`)
}

func TestARegisterCanKeepCounts(t *testing.T) {
	a := newApplied(t)
	key := model.JobID{Namespace: "default", ID: "web"}
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("default")}, "")
	count := int64(5)
	do(a, applyJobScale, &JobScale{Key: key, Group: "g", Eval: newTestEval(), Event: model.ScalingEvent{Count: &count}}, "")
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("default"), PreserveCounts: true}, "")
	if n := a.store.Snapshot().Job(nil, key).TaskGroups[0].Count; n != 5 {
		t.Errorf("the count is %d", n)
	}
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("default")}, "")
	if n := a.store.Snapshot().Job(nil, key).TaskGroups[0].Count; n != 2 {
		t.Errorf("the count is %d", n)
	}
}
