package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

func TestTheOfficialClientConfiguresTheSchedulers(t *testing.T) {
	s := newSurface(t, "us")
	op := s.official().Operator()
	got, meta, err := op.SchedulerGetConfiguration(nil)
	if err != nil || *got.SchedulerConfig != (nomad.SchedulerConfiguration{SchedulerAlgorithm: "binpack"}) || !meta.KnownLeader {
		t.Fatalf("the default is %+v, %v", got, err)
	}
	conf := got.SchedulerConfig
	conf.SchedulerAlgorithm = nomad.SchedulerAlgorithmSpread
	if set, meta, err := op.SchedulerCASConfiguration(conf, nil); err != nil || !set.Updated || meta.LastIndex == 0 {
		t.Fatalf("%+v, %v", set, err)
	}
	if set, _, err := op.SchedulerCASConfiguration(conf, nil); err != nil || set.Updated {
		t.Errorf("an old index was set: %+v, %v", set, err)
	}
	got, _, err = op.SchedulerGetConfiguration(nil)
	if err != nil || got.SchedulerConfig.SchedulerAlgorithm != "spread" || got.SchedulerConfig.ModifyIndex == 0 {
		t.Errorf("%+v, %v", got.SchedulerConfig, err)
	}
	if set, _, err := op.SchedulerSetConfiguration(&nomad.SchedulerConfiguration{}, nil); err != nil || !set.Updated {
		t.Errorf("%+v, %v", set, err)
	}
	if got, _, err = op.SchedulerGetConfiguration(nil); err != nil || got.SchedulerConfig.SchedulerAlgorithm != "binpack" {
		t.Errorf("%+v, %v", got, err)
	}
	for body, want := range map[string]int{
		`{"SchedulerAlgorithm":"best"}`:                              400,
		`{"MemoryOversubscriptionEnabled":true}`:                     501,
		`{"PreemptionConfig":{"SystemSchedulerEnabled":true}}`:       501,
		`{"SchedulerAlgorithm":7}`:                                   400,
		`{"PreemptionConfig":{"ServiceSchedulerEnabled":false}}`:     200,
		`{"NodeLimitForFeasibilityChecks":5,"PauseEvalBroker":true}`: 501,
	} {
		if a := s.do("PUT", "/v1/operator/scheduler/configuration", body); a.status != want {
			t.Errorf("%s: %d %s, want %d", body, a.status, a.body, want)
		}
	}
	if a := s.do("PUT", "/v1/operator/scheduler/configuration?cas=x", `{}`); a.status != 400 {
		t.Errorf("cas=x: %d %s", a.status, a.body)
	}
}

// configure sets the scheduler configuration.
func (s *surface) configure(conf object) {
	s.t.Helper()
	if a := s.do("PUT", "/v1/operator/scheduler/configuration", conf); a.status != http.StatusOK {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
}

func TestJobsAreRefusedWhileTheConfigurationSaysSo(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	s.register(aJob("web", object{"Priority": 60}))
	accepted := s.do("PUT", "/v1/jobs?idempotency_token=t1", object{"Job": aJob("db")})
	s.configure(object{"RejectJobRegistration": true})
	for path, body := range map[string]object{
		"/v1/jobs": {"Job": aJob("new")}, "/v1/job/web": {"Job": aJob("web")}, "/v1/job/web/revert": {"JobID": "web", "JobVersion": 0},
	} {
		if a := s.do("PUT", path, body); a.status != http.StatusForbidden || !strings.Contains(a.body, "RejectJobRegistration") {
			t.Errorf("%s: %d %s, want 403", path, a.status, a.body)
		}
	}
	// What was accepted before stays so.
	if a := s.do("PUT", "/v1/jobs?idempotency_token=t1", object{"Job": aJob("db")}); a.status != 200 || a.body != accepted.body {
		t.Errorf("the same request again: %d %s, want %s", a.status, a.body, accepted.body)
	}
	if a := s.do("DELETE", "/v1/job/web", nil); a.status != 200 {
		t.Errorf("a job cannot be stopped: %d %s", a.status, a.body)
	}
	s.configure(object{})
	s.register(aJob("new"))
}

func TestAPausedBrokerPlacesNothingUntilItGoesOn(t *testing.T) {
	s := newSurface(t, "us")
	s.addNode()
	s.configure(object{"PauseEvalBroker": true})
	var made struct{ EvalID string }
	if err := json.Unmarshal([]byte(s.register(aJob("web")).body), &made); err != nil {
		t.Fatal(err)
	}
	evals := s.official().Evaluations()
	_, meta, err := evals.Info(made.EvalID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e, _, err := evals.Info(made.EvalID, &nomad.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 300 * time.Millisecond}); err != nil || e.Status != "pending" {
		t.Errorf("during the pause the evaluation became %+v, %v", e, err)
	}
	s.configure(object{"PauseEvalBroker": false})
	s.evaluated("web", 1)
}
