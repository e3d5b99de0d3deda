package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"

	"atoll/model"
)

// evaluated waits until a job has so many evaluations and none is pending.
func (s *surface) evaluated(job string, want int) (evals []*nomad.Evaluation) {
	s.t.Helper()
	wait(s.t, "the evaluations of "+job, func() (err error) {
		if evals, _, err = s.official().Jobs().Evaluations(job, nil); err != nil {
			return err
		}
		for _, e := range evals {
			if e.Status == nomad.EvalStatusPending {
				return fmt.Errorf("%s is pending", e.ID)
			}
		}
		if len(evals) != want {
			return fmt.Errorf("%d, want %d", len(evals), want)
		}
		return nil
	})
	return evals
}

func TestEvaluationsAreCountedListedAndRelated(t *testing.T) {
	s := newSurface(t, "us")
	evals := s.official().Evaluations()
	for _, id := range []string{"a", "b"} {
		s.do("PUT", "/v1/jobs", object{"Job": aJob(id)})
		s.evaluated(id, 2) // one that is complete, and one blocked, as there are no nodes
	}
	for _, c := range []struct {
		q    nomad.QueryOptions
		want int
	}{
		{nomad.QueryOptions{}, 4},
		{nomad.QueryOptions{Params: map[string]string{"job": "a"}}, 2},
		{nomad.QueryOptions{Params: map[string]string{"status": "blocked"}}, 2},
		{nomad.QueryOptions{Params: map[string]string{"job": "b", "status": "complete"}}, 1},
		{nomad.QueryOptions{Filter: `Status == "blocked" and JobID == "a"`}, 1},
		{nomad.QueryOptions{Namespace: "*", Filter: `TriggeredBy == "queued-allocs"`}, 2},
		{nomad.QueryOptions{Namespace: "other"}, 0},
	} {
		got, _, err := evals.List(&c.q)
		count, _, errCount := evals.Count(&c.q)
		if err != nil || errCount != nil || len(got) != c.want || count.Count != c.want {
			t.Errorf("%+v: %d listed (%v), %+v counted (%v); want %d", c.q, len(got), err, count, errCount, c.want)
		}
	}
	if a := s.do("GET", "/v1/evaluations/count?filter=Nonsense+%3D%3D+1", nil); a.status != http.StatusBadRequest {
		t.Errorf("a filter of nonsense: %d %s", a.status, a.body)
	}
	for _, e := range s.evaluated("a", 2) {
		got, _, err := evals.Info(e.ID, nil)
		if err != nil || len(got.RelatedEvals) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		r := got.RelatedEvals[0]
		if want := e.BlockedEval + e.PreviousEval; r.ID != want || r.JobID != "a" || r.Priority != 50 || r.CreateTime == 0 {
			t.Errorf("related %+v, want %s", r, want)
		}
	}
	plain, _ := get[object](s, "/v1/evaluation/"+s.evaluated("a", 2)[0].ID)
	if _, asked := plain["RelatedEvals"]; asked {
		t.Error("related evaluations were not asked for")
	}
}

func TestEvaluationsAreDeleted(t *testing.T) {
	s := newSurface(t, "us")
	evals := s.official().Evaluations()
	s.addNode()
	s.do("PUT", "/v1/jobs", object{"Job": aJob("runs")})
	needed := s.evaluated("runs", 1)[0].ID
	for _, id := range []string{"a", "b", "c"} {
		s.do("PUT", "/v1/jobs", object{"Job": aJob(id, object{"Datacenters": []string{"none"}})})
		s.evaluated(id, 2)
	}
	of := func(job string) (ids []string) {
		for _, e := range s.evaluated(job, 2) {
			ids = append(ids, e.ID)
		}
		return ids
	}
	for name, c := range map[string]struct {
		body any
		want int
		says string
	}{
		"neither ids nor a filter": {object{}, 400, "either ids or a filter"},
		"both":                     {object{"EvalIDs": []string{needed}, "Filter": "JobID == a"}, 400, "either ids or a filter"},
		"no id":                    {object{"EvalIDs": []string{"x"}}, 400, `"x": this is no id`},
		"one that is not there":    {object{"EvalIDs": []string{of("a")[0], model.NewUUID(nil).String()}}, 404, "not found"},
		"one that is needed":       {object{"EvalIDs": []string{of("a")[0], needed}}, 409, `of job "runs" was placed by it and is not over`},
		"a filter of nonsense":     {object{"Filter": "Nonsense == 1"}, 400, "filter"},
		"too many":                 {object{"EvalIDs": make([]string, 10_001)}, 400, "the limit is 10000"},
	} {
		if a := s.do("DELETE", "/v1/evaluations", c.body); a.status != c.want || !strings.Contains(a.body, c.says) {
			t.Errorf("%s: %d %s; want %d, %q", name, a.status, a.body, c.want, c.says)
		}
	}
	if _, err := evals.Delete(of("a"), nil); err != nil {
		t.Error(err)
	}
	s.evaluated("a", 0)
	// Sent again under one token, it was done once.
	body := object{"EvalIDs": of("b")}
	for range 2 {
		if a := s.do("DELETE", "/v1/evaluations?idempotency_token=t1", body); a.status != 200 || a.body != `{"Count":2}` || a.index() == 0 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	// A filter passes over what is needed.
	out, _, err := evals.DeleteOpts(&nomad.EvalDeleteRequest{Filter: `Priority == 50`}, nil)
	if err != nil || out.Count != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	left, _, err := evals.List(nil)
	if err != nil || len(left) != 1 || left[0].ID != needed {
		t.Errorf("%d are left, %v", len(left), err)
	}
}

func TestTheSystemIsTendedOnDemand(t *testing.T) {
	s := newSurface(t, "us")
	s.addNode()
	s.do("PUT", "/v1/jobs", object{"Job": aJob("stopped", object{"Datacenters": []string{"none"}})})
	s.evaluated("stopped", 2)
	s.do("PUT", "/v1/jobs", object{"Job": aJob("runs")})
	s.evaluated("runs", 1)
	s.do("DELETE", "/v1/job/stopped", nil)
	s.evaluated("stopped", 3)
	if err := s.official().System().GarbageCollect(); err != nil {
		t.Error(err)
	}
	if a := s.do("GET", "/v1/job/stopped", nil); a.status != 404 {
		t.Errorf("the stopped job: %d", a.status)
	}
	s.evaluated("stopped", 0)
	s.evaluated("runs", 1)
	if err := s.official().System().ReconcileSummaries(); err != nil {
		t.Error(err)
	}
	sum, _ := get[object](s, "/v1/job/runs/summary")
	if got := fmt.Sprint(sum["Summary"].(object)["g"].(object)["Starting"]); got != "1" {
		t.Errorf("%s start after a recount", got)
	}
	for _, path := range []string{"/v1/system/gc", "/v1/system/reconcile/summaries"} {
		if a := s.do("PUT", path+"?region=*", nil); a.status != 400 {
			t.Errorf("%s of all regions: %d %s", path, a.status, a.body)
		}
		if a := s.do("PUT", path+"?region=nowhere", nil); a.status != 500 || !strings.Contains(a.body, "No path to region") {
			t.Errorf("%s of an unknown region: %d %s", path, a.status, a.body)
		}
	}
}
