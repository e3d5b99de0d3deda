package model

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func decodeJob(t *testing.T, text string) *Job {
	t.Helper()
	j := &Job{}
	if err := json.Unmarshal([]byte(text), j); err != nil {
		t.Fatal(err)
	}
	j.Canonicalize()
	before := Clone(j)
	j.Canonicalize()
	if !SameSpec(before, j) {
		t.Error("canonicalizing twice is not as once")
	}
	return j
}

func TestWhatAJobSaysForAllGroupsFillsWhatAGroupLeavesOut(t *testing.T) {
	j := decodeJob(t, `{"ID": "a", "Update": {"MaxParallel": 3, "AutoRevert": true, "Canary": 1}, "Migrate": {"MaxParallel": 2},
		"Reschedule": {"Delay": 7000000000},
		"TaskGroups": [{"Name": "none"}, {"Name": "some", "Update": {"Canary": 0, "AutoRevert": false}, "Migrate": {"HealthCheck": "task_states"}, "ReschedulePolicy": {"MaxDelay": 9000000000}}]}`)
	none, some := j.TaskGroups[0], j.TaskGroups[1]
	if u := none.Update; u.MaxParallel != 3 || !u.AutoRevert || u.Canary != 1 || u.MinHealthyTime != 10*time.Second || u.Stagger != 30*time.Second {
		t.Errorf("inherited: %+v", u)
	}
	if u := some.Update; u.MaxParallel != 3 || u.AutoRevert || u.Canary != 0 || u.HealthCheck != HealthChecks {
		t.Errorf("merged: %+v", u)
	}
	if m := none.Migrate; m.MaxParallel != 2 || m.HealthCheck != HealthChecks || m.HealthyDeadline != 5*time.Minute {
		t.Errorf("inherited: %+v", m)
	}
	if m := some.Migrate; m.MaxParallel != 2 || m.HealthCheck != HealthTaskStates {
		t.Errorf("merged: %+v", m)
	}
	if p := some.ReschedulePolicy; p.Delay != 7*time.Second || p.MaxDelay != 9*time.Second || !p.Unlimited {
		t.Errorf("merged: %+v", p)
	}
	if j.Reschedule.MaxDelay != time.Hour {
		t.Errorf("the job's own: %+v", j.Reschedule)
	}
}

func TestBlocksAreForJobsOfTheirTypes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`"Type": "service"`, ""},
		{`"Type": "system"`, ""},
		{`"Type": "sysbatch"`, ""},
		{`"Type": "batch", "Update": {}`, "update: a batch job has none"},
		{`"Type": "batch", "Migrate": {}`, "migrate: a batch job has none"},
		{`"Type": "system", "Reschedule": {}`, "reschedule: a system job has none"},
		{`"Type": "sysbatch", "Update": {}`, "update: a sysbatch job has none"},
		{`"Type": "system", "Update": {"Canary": 1}`, "canary in a system job is not supported"},
		{`"Update": {"AutoPromote": true}`, "nothing to promote"},
		{`"Update": {"MaxParallel": -1}`, "max_parallel: -1 is negative"},
		{`"Update": {"Canary": -1}`, "canary: -1 is negative"},
		{`"Update": {"Stagger": 0}`, "stagger: 0s is not above 0"},
		{`"Update": {"HealthCheck": "hope"}`, `"hope" is none of`},
		{`"Update": {"HealthyDeadline": 1000000000}`, "healthy_deadline: 1s is not above min_healthy_time, 10s"},
		{`"Update": {"ProgressDeadline": 60000000000}`, "progress_deadline: 1m0s is not above healthy_deadline, 5m0s"},
		{`"Update": {"ProgressDeadline": 0}`, ""},
		{`"Migrate": {"MaxParallel": 0}`, "max_parallel: 0 is below 1"},
	} {
		t.Run(c.text, func(t *testing.T) { validates(t, `{"ID": "a", `+c.text+`, "TaskGroups": [`+group("")+`]}`, c.want) })
	}
}

func TestDisconnectSaysOneThing(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{}`, ""},
		{`{"LostAfter": 5000000000, "Replace": false, "Reconcile": "keep_original"}`, ""},
		{`{"StopOnClientAfter": 5000000000}`, ""},
		{`{"LostAfter": 1, "StopOnClientAfter": 1}`, "exclude each other"},
		{`{"LostAfter": -1}`, "lost_after: -1ns is negative"},
		{`{"StopOnClientAfter": -1}`, "stop_on_client_after: -1ns is negative"},
		{`{"Reconcile": "both"}`, `"both" is none of`},
	} {
		t.Run(c.text, func(t *testing.T) {
			validates(t, `{"ID": "a", "TaskGroups": [`+group(`, "Disconnect": `+c.text)+`]}`, c.want)
		})
	}
	d := decodeJob(t, `{"ID": "a", "TaskGroups": [{"Name": "g", "Disconnect": {}}]}`).TaskGroups[0].Disconnect
	if !d.Replace || d.Reconcile != ReconcileBestScore || d.LostAfter != 0 {
		t.Errorf("nothing given: %+v", d)
	}
}

func group(more string) string {
	return `{"Name": "g", "Tasks": [{"Name": "t", "Driver": "mock"}]` + more + `}`
}

func validates(t *testing.T, text, want string) {
	t.Helper()
	_, err := decodeJob(t, text).Validate()
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%v, want %q", err, want)
	}
}

func TestAStateOfNothingIsNotCanarying(t *testing.T) {
	var s *DeploymentState
	if s.Canarying() || (&DeploymentState{DesiredCanaries: 1, Promoted: true}).Canarying() || !(&DeploymentState{DesiredCanaries: 1}).Canarying() {
		t.Error("Canarying")
	}
	for _, status := range []string{DeploymentInitializing, DeploymentPending, DeploymentRunning, DeploymentPaused, DeploymentBlocked, DeploymentUnblocking} {
		if d := (&Deployment{Status: status}); !d.Active() {
			t.Errorf("%s is not active", status)
		}
	}
	for _, status := range []string{DeploymentSuccessful, DeploymentFailed, DeploymentCancelled} {
		if d := (&Deployment{Status: status}); d.Active() {
			t.Errorf("%s is active", status)
		}
	}
	var tr *DesiredTransition
	if tr.ShouldMigrate() || tr.ShouldReschedule() || tr.ShouldForceReschedule() || tr.ShouldNotPlace() {
		t.Error("no transition asks for something")
	}
	yes := true
	if tr = (&DesiredTransition{ForceReschedule: &yes}); !tr.ShouldReschedule() || !tr.ShouldForceReschedule() || tr.ShouldMigrate() {
		t.Errorf("a forced one: %+v", tr)
	}
}
