package client

import (
	"testing"
	"time"

	"atoll/model"
)

func deployedAlloc(how string) *model.Allocation {
	j := &model.Job{ID: "j", TaskGroups: []*model.TaskGroup{{
		Name: "g", Tasks: []*model.Task{{Name: "t"}},
		Update: &model.UpdateStrategy{MaxParallel: 1, HealthCheck: how, MinHealthyTime: 10 * time.Second, HealthyDeadline: time.Minute},
	}}}
	return &model.Allocation{ID: "a", Job: j, TaskGroup: "g", DeploymentID: "d", DesiredStatus: model.AllocDesiredRun}
}

func TestHealthIsFoundOutByTaskStates(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	pending := &model.TaskState{State: model.TaskStatePending}
	running := func(s int) *model.TaskState {
		return &model.TaskState{State: model.TaskStateRunning, StartedAt: at(s)}
	}
	type step struct {
		at    int
		task  *model.TaskState
		want  string // "", "healthy" or "unhealthy"
		again int
	}
	for name, c := range map[string]struct {
		how   string
		steps []step
	}{
		"steady":               {model.HealthTaskStates, []step{{0, pending, "", 60}, {1, running(1), "", 10}, {10, running(1), "", 1}, {11, running(1), "healthy", 0}, {12, pending, "healthy", 0}}},
		"a restart":            {model.HealthChecks, []step{{0, running(0), "", 10}, {5, pending, "", 55}, {6, running(6), "", 10}, {15, running(6), "", 1}, {16, running(6), "healthy", 0}}},
		"never up":             {model.HealthTaskStates, []step{{0, pending, "", 60}, {59, pending, "", 1}, {60, pending, "unhealthy", 0}}},
		"too late":             {model.HealthTaskStates, []step{{0, pending, "", 60}, {55, running(55), "", 5}, {60, running(55), "unhealthy", 0}}},
		"dead":                 {model.HealthTaskStates, []step{{0, running(0), "", 10}, {1, &model.TaskState{State: model.TaskStateDead, Failed: true}, "unhealthy", 0}}},
		"an operator's to say": {model.HealthManual, []step{{0, running(0), "", 0}, {100, running(0), "", 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			var h health
			for _, s := range c.steps {
				_, again := h.judge(deployedAlloc(c.how), map[string]*model.TaskState{"t": s.task}, at(s.at))
				got := ""
				switch {
				case h.Status.IsHealthy():
					got = "healthy"
				case h.Status.IsUnhealthy():
					got = "unhealthy"
				}
				if got != s.want || again != time.Duration(s.again)*time.Second {
					t.Errorf("after %ds: %q, to look again in %s; want %q, in %ds", s.at, got, again, s.want, s.again)
				}
			}
		})
	}
}

func TestAnotherDeploymentBeginsAnew(t *testing.T) {
	a := deployedAlloc(model.HealthTaskStates)
	tasks := map[string]*model.TaskState{"t": {State: model.TaskStateRunning, StartedAt: time.Unix(0, 0)}}
	var h health
	h.judge(a, tasks, time.Unix(100, 0))
	h.judge(a, tasks, time.Unix(110, 0))
	if !h.Status.IsHealthy() {
		t.Fatal("the first deployment did not find it healthy")
	}
	a.DeploymentID = "next"
	if h.judge(a, tasks, time.Unix(200, 0)); h.Status != nil {
		t.Error("the next deployment has the first one's word")
	}
	if h.judge(a, tasks, time.Unix(210, 0)); !h.Status.IsHealthy() || h.DeploymentID != "next" {
		t.Errorf("after min_healthy_time: %+v", h)
	}
}

func TestHealthOutlivesTheAgent(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := deployedAlloc(model.HealthTaskStates)
	h := health{DeploymentID: "d", Since: time.Unix(5, 0).UTC()}
	h.set(true, time.Unix(15, 0))
	if err := s.putAlloc(a); err != nil {
		t.Fatal(err)
	}
	if err := s.putHealth(a.ID, h); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	recs, err := s.allocs()
	if err != nil || len(recs) != 1 {
		t.Fatalf("%d allocations, %v", len(recs), err)
	}
	if back := recs[0].Health; !back.Status.IsHealthy() || back.DeploymentID != "d" || !back.Since.Equal(h.Since) {
		t.Errorf("kept %+v", back)
	}
}
