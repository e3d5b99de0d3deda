package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"atoll/model"
)

func TestParameterizedJobsAreDispatched(t *testing.T) {
	s := newSurface(t, "us")
	jobs := s.official().Jobs()
	body := aJob("p", object{"Type": "batch", "ParameterizedJob": object{"Payload": "required", "MetaRequired": []string{"who"}, "MetaOptional": []string{"size"}}})
	a := s.do("PUT", "/v1/jobs", object{"Job": body})
	if a.status != http.StatusOK || strings.Contains(a.body, `"EvalID":"`+"x") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	opts := &nomad.DispatchOptions{JobID: "p", Meta: map[string]string{"who": "me"}, Payload: []byte("the payload"), IdPrefixTemplate: "big", Priority: 77}
	first, meta, err := jobs.DispatchOpts(opts, &nomad.WriteOptions{IdempotencyToken: "tok"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first.DispatchedJobID, "p/dispatch-big-") || first.EvalID == "" || first.EvalCreateIndex == 0 || first.JobCreateIndex == 0 || meta.LastIndex == 0 {
		t.Errorf("%+v, %+v", first, meta)
	}
	child, _, err := jobs.Info(first.DispatchedJobID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *child.ParentID != "p" || !child.Dispatched || child.IsParameterized() || *child.DispatchIdempotencyToken != "tok" || *child.Priority != 77 || child.Meta["who"] != "me" {
		t.Errorf("the child is %+v", child)
	}
	if got, err := (&model.Job{Payload: child.Payload}).DispatchedPayload(); err != nil || string(got) != "the payload" {
		t.Errorf("its payload is %q, %v", got, err)
	}
	// The token stands for the child, whatever else is asked for.
	opts.Payload = []byte("another")
	again, _, err := jobs.DispatchOpts(opts, &nomad.WriteOptions{IdempotencyToken: "tok"})
	if err != nil || again.DispatchedJobID != first.DispatchedJobID || again.EvalID != "" {
		t.Errorf("again: %+v, %v", again, err)
	}
	for name, c := range map[string]struct {
		path   string
		body   any
		status int
		want   string
	}{
		"no payload":         {"/v1/job/p/dispatch", object{"Meta": object{"who": "x"}}, 400, "it requires a payload"},
		"a missing key":      {"/v1/job/p/dispatch", object{"Payload": "eA=="}, 400, `it requires the metadata "who"`},
		"an unknown key":     {"/v1/job/p/dispatch", object{"Payload": "eA==", "Meta": object{"who": "x", "z": "y"}}, 400, `it takes no metadata "z"`},
		"no base64":          {"/v1/job/p/dispatch", object{"Payload": "!"}, 400, "base64"},
		"too large":          {"/v1/job/p/dispatch", object{"Payload": base64.StdEncoding.EncodeToString(make([]byte, 16385)), "Meta": object{"who": "x"}}, 413, "16385 bytes is over the limit of 16384"},
		"another job's body": {"/v1/job/p/dispatch", object{"JobID": "q"}, 400, "the path says"},
		"nobody":             {"/v1/job/q/dispatch", object{}, 404, `"q"`},
		"a child":            {"/v1/job/" + url.PathEscape(first.DispatchedJobID) + "/dispatch", object{}, 400, "not parameterized"},
		"a raw body":         {"/v1/job/p/dispatch/payload", object{}, 501, "/dispatch/payload"},
		"not a periodic one": {"/v1/job/p/periodic/force", nil, 400, "it is not periodic"},
	} {
		if a := s.do("PUT", c.path, c.body); a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %s, want %d and %s", name, a.status, a.body, c.status, c.want)
		}
	}
	stubs, _, err := jobs.List(nil)
	if err != nil || len(stubs) != 2 || !stubs[0].ParameterizedJob || stubs[0].Periodic || stubs[0].Status != "running" || stubs[1].ParameterizedJob || stubs[1].ParentID != "p" {
		t.Fatalf("listed as %+v, %+v, %v", stubs[0], stubs[1], err)
	}
	if c := stubs[0].JobSummary.Children; c.Pending+c.Running+c.Dead != 1 {
		t.Errorf("its children are %+v", c)
	}
}

func TestPeriodicJobsAreForcedAndCounted(t *testing.T) {
	s := newSurface(t, "us")
	jobs := s.official().Jobs()
	a := s.do("PUT", "/v1/jobs", object{"Job": aJob("p", object{"Type": "batch", "Periodic": object{"Specs": []string{"@yearly"}, "ProhibitOverlap": true}})})
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p, _, err := jobs.Info("p", nil)
	if err != nil || !*p.Periodic.Enabled || *p.Periodic.SpecType != "cron" || *p.Periodic.TimeZone != "UTC" || *p.Status != "running" {
		t.Fatalf("%+v, %v", p.Periodic, err)
	}
	if next, err := p.Periodic.Next(time.Now()); err != nil || next.YearDay() != 1 {
		t.Errorf("the official client says that it comes %s, %v", next, err)
	}
	index := uint64(0)
	for i := 1; i <= 2; i++ {
		evalID, _, err := jobs.PeriodicForce("p", nil)
		if err != nil || evalID == "" {
			t.Fatalf("%q, %v", evalID, err)
		}
		e, _, err := s.official().Evaluations().Info(evalID, nil)
		if err != nil || e.TriggeredBy != "periodic-job" || !strings.HasPrefix(e.JobID, "p/periodic-") {
			t.Errorf("%+v, %v", e, err)
		}
		// Whoever waits for the parent's summary learns of its children.
		sum, meta, err := jobs.Summary("p", &nomad.QueryOptions{WaitIndex: index, WaitTime: 10 * time.Second})
		if err != nil || sum.Children.Sum() != i {
			t.Errorf("after %d: %+v, %v", i, sum.Children, err)
		}
		index = meta.LastIndex
	}
	children, _, err := jobs.PrefixList("p/periodic-")
	if err != nil || len(children) != 2 || children[0].ID == children[1].ID {
		t.Errorf("%+v, %v", children, err)
	}
	if evalID, _, err := jobs.Deregister("p", false, nil); err != nil || evalID == "" {
		t.Errorf("stopped: %q, %v", evalID, err)
	}
	if _, _, err := jobs.PeriodicForce("p", nil); err == nil || !strings.Contains(fmt.Sprint(err), "it is stopped") {
		t.Errorf("forced when stopped: %v", err)
	}
	if sum, _, err := jobs.Summary("p", nil); err != nil || sum.Children.Sum() != 2 {
		t.Errorf("its children: %+v, %v", sum.Children, err)
	}
}
