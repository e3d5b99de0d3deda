package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"atoll/api"
)

func TestErrorsArePlainSentencesWithTheirStatus(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	job := func(more ...object) object { return object{"Job": aJob("x", more...)} }
	group := func(more object) object {
		g := object{"Name": "g", "Count": 1, "Tasks": []object{{"Name": "t", "Driver": "mock"}}}
		for k, v := range more {
			g[k] = v
		}
		return job(object{"TaskGroups": []object{g}})
	}
	for name, c := range map[string]struct {
		verb, path string
		body       any
		status     int
		want       string
	}{
		"no such job":           {"GET", "/v1/job/nope", nil, 404, `job not found: "nope"`},
		"no such job's summary": {"GET", "/v1/job/nope/summary", nil, 404, `"nope"`},
		"no such job's past":    {"GET", "/v1/job/nope/versions", nil, 404, `"nope"`},
		"no such alloc":         {"GET", "/v1/allocation/nope", nil, 404, `allocation "nope" not found`},
		"no such eval":          {"GET", "/v1/evaluation/nope", nil, 404, `eval not found: "nope"`},
		"no such node":          {"GET", "/v1/node/nope", nil, 404, `node not found: "nope"`},
		"no such node's allocs": {"GET", "/v1/node/nope/allocations", nil, 404, `"nope"`},
		"no such deployment":    {"GET", "/v1/deployment/nope", nil, 404, `deployment not found: "nope"`},
		"stopping no such job":  {"DELETE", "/v1/job/nope", nil, 404, `"nope"`},
		"nothing there":         {"GET", "/v1/nothing", nil, 404, "there is nothing at /v1/nothing"},
		"the root":              {"GET", "/", nil, 404, "there is nothing at /"},

		"an unknown region":          {"GET", "/v1/jobs?region=mars", nil, 500, `No path to region "mars"`},
		"a write for it":             {"PUT", "/v1/jobs?region=mars", job(), 500, `No path to region "mars"`},
		"a body for it":              {"PUT", "/v1/jobs", object{"Job": aJob("x"), "Region": "mars"}, 500, `No path to region "mars"`},
		"all regions, of a job":      {"GET", "/v1/job/web?region=*", nil, 400, `region "*" is for lists`},
		"all regions, for a write":   {"PUT", "/v1/jobs?region=*", job(), 400, `region "*" is for lists`},
		"waiting for all regions":    {"GET", "/v1/jobs?region=*&index=5", nil, 400, "index 5 cannot be waited for"},
		"pages of all regions":       {"GET", "/v1/jobs?region=*&per_page=5", nil, 400, "has no pages"},
		"a filter for all regions":   {"GET", "/v1/jobs?region=*&filter=((", nil, 400, "filter"},
		"a broken query":             {"GET", "/v1/jobs?prefix=%zz", nil, 400, "cannot read the query"},
		"no index":                   {"GET", "/v1/jobs?index=x", nil, 400, "Invalid index"},
		"no wait":                    {"GET", "/v1/jobs?index=1&wait=soon", nil, 400, "Invalid wait time"},
		"a negative wait":            {"GET", "/v1/jobs?index=1&wait=-1s", nil, 400, "Invalid wait time"},
		"no staleness":               {"GET", "/v1/jobs?stale=perhaps", nil, 400, `stale "perhaps"`},
		"no page":                    {"GET", "/v1/jobs?per_page=-1", nil, 400, "per_page"},
		"too large a page":           {"GET", "/v1/jobs?per_page=1000000", nil, 400, "per_page 1000000 is not from 0 to"},
		"no filter":                  {"GET", "/v1/jobs?filter=((", nil, 400, "filter"},
		"a filter of brackets":       {"GET", "/v1/jobs?filter=" + strings.Repeat("(", 40) + "ID==1" + strings.Repeat(")", 40), nil, 400, "filter"},
		"a filter of no field":       {"GET", "/v1/jobs?filter=Nope+==+1", nil, 400, "Nope"},
		"a flag":                     {"GET", "/v1/jobs?meta=perhaps", nil, 400, `meta "perhaps" is neither true nor false`},
		"no body":                    {"PUT", "/v1/jobs", nil, 400, "the request has no body"},
		"broken JSON":                {"PUT", "/v1/jobs", `{"Job": {`, 400, "cannot read the request's body"},
		"more than JSON":             {"PUT", "/v1/jobs", `{"Job": {}} {}`, 400, "more follows the object"},
		"a list":                     {"PUT", "/v1/jobs", `[]`, 400, "where an object is wanted"},
		"no job":                     {"PUT", "/v1/jobs", `{}`, 400, "Job must be specified"},
		"a number for a name":        {"PUT", "/v1/jobs", object{"Job": object{"ID": 5}}, 400, "Job.ID is a JSON number"},
		"a string for a count":       {"PUT", "/v1/jobs", group(object{"Count": "many"}), 400, "where a whole number is wanted"},
		"a negative count":           {"PUT", "/v1/jobs", group(object{"Count": -1}), 400, "count"},
		"no groups":                  {"PUT", "/v1/jobs", job(object{"TaskGroups": nil}), 400, "job.group"},
		"no tasks":                   {"PUT", "/v1/jobs", group(object{"Tasks": nil}), 400, "task"},
		"a null group":               {"PUT", "/v1/jobs", `{"Job": {"ID": "x", "TaskGroups": [null]}}`, 400, "it is null"},
		"a null task":                {"PUT", "/v1/jobs", `{"Job": {"ID": "x", "TaskGroups": [{"Name": "g", "Tasks": [null]}]}}`, 400, "it is null"},
		"a type of none":             {"PUT", "/v1/jobs", job(object{"Type": "daemon"}), 400, `"daemon" is none of`},
		"a priority":                 {"PUT", "/v1/jobs", job(object{"Priority": 101}), 400, "101 is not from 1 to 100"},
		"an id with spaces":          {"PUT", "/v1/jobs", job(object{"ID": "a b"}), 400, "spaces"},
		"another namespace":          {"PUT", "/v1/jobs", job(object{"Namespace": "other"}), 400, `namespace "other" does not exist`},
		"another job's path":         {"PUT", "/v1/job/y", job(), 400, "Job ID does not match"},
		"another region's job":       {"PUT", "/v1/jobs?region=us", job(object{"Region": "eu"}), 400, `it is for region "eu"`},
		"a job that must not exist":  {"PUT", "/v1/jobs", object{"Job": aJob("web"), "EnforceIndex": true, "JobModifyIndex": 0}, 409, "Enforcing job modify index 0"},
		"a job that changed":         {"PUT", "/v1/jobs", object{"Job": aJob("web"), "EnforceIndex": true, "JobModifyIndex": 1}, 409, "Enforcing job modify index 1"},
		"an evaluation's priority":   {"DELETE", "/v1/job/web?eval_priority=500", nil, 400, "eval_priority"},
		"an empty job file":          {"PUT", "/v1/jobs/parse", object{"JobHCL": " "}, 400, "JobHCL is empty"},
		"a broken job file":          {"PUT", "/v1/jobs/parse", object{"JobHCL": "job \"x\" {\n\ngroup {"}, 400, "job.nomad.hcl:3"},
		"an unknown attribute":       {"PUT", "/v1/jobs/parse", object{"JobHCL": "job \"x\" {\n  colour = 1\n}"}, 400, "job.nomad.hcl:2"},
		"a job file that reads":      {"PUT", "/v1/jobs/parse", object{"JobHCL": "job \"x\" {\n  name = file(\"/etc/passwd\")\n}"}, 400, "file"},
		"a job file of the old kind": {"PUT", "/v1/jobs/parse", object{"JobHCL": "x", "HCLv1": true}, 400, "HCL version 1"},
		"no task":                    {"GET", "/v1/client/fs/logs/x?type=stdout", nil, 400, "must provide task name"},
		"no stream":                  {"GET", "/v1/client/fs/logs/x?task=t&type=stdin", nil, 400, `type "stdin" is neither`},
		"no offset":                  {"GET", "/v1/client/fs/logs/x?task=t&type=stdout&offset=-1", nil, 400, "offset"},
		"no such log":                {"GET", "/v1/client/fs/logs/x?task=t&type=stdout", nil, 404, `"x"`},
		"health of neither":          {"GET", "/v1/agent/health?type=both", nil, 400, "neither client nor server"},
		"joining nobody":             {"PUT", "/v1/agent/join", nil, 400, "missing address"},
		"a plan of nothing":          {"PUT", "/v1/job/web/plan", object{}, 400, "Job must be specified"},
		"a plan of another job":      {"PUT", "/v1/job/y/plan", object{"Job": aJob("x")}, 400, "Job ID does not match"},
		"a plan of no groups":        {"PUT", "/v1/job/x/plan", object{"Job": object{"ID": "x"}}, 400, "job.group"},
		"a diff from no version":     {"GET", "/v1/job/web/versions?diffs=true&diff_version=7", nil, 404, "version not found"},
		"a diff from no number":      {"GET", "/v1/job/web/versions?diffs=true&diff_version=x", nil, 400, "is no number"},
		"a diff from no tag":         {"GET", "/v1/job/web/versions?diffs=true&diff_tag=t", nil, 404, "tag not found"},
		"a scale of no group":        {"PUT", "/v1/job/web/scale", object{"Count": 1}, 400, "Target names no Group"},
		"a scale of another job":     {"PUT", "/v1/job/web/scale", object{"Target": object{"Job": "y"}}, 400, "Job ID does not match"},
		"a scale below nothing":      {"PUT", "/v1/job/web/scale", object{"Count": -1, "Target": object{"Group": "g"}}, 400, "-1 is negative"},
		"no scaling policy":          {"GET", "/v1/scaling/policy/x", nil, 404, "scaling policy not found"},
		"no namespace":               {"GET", "/v1/namespace/x", nil, 404, "namespace not found"},
		"a namespace without a name": {"PUT", "/v1/namespace", object{"Name": "a b"}, 400, "is no name of a namespace"},
		"another namespace's path":   {"PUT", "/v1/namespace/a", object{"Name": "b"}, 400, "the path says"},
		"the default namespace":      {"DELETE", "/v1/namespace/default", nil, 400, "it is always there"},

		"an override in a plan": {"PUT", "/v1/job/web/plan", object{"Job": aJob("web"), "PolicyOverride": true}, 501, "PolicyOverride is not supported"},
		"an override":           {"PUT", "/v1/jobs", object{"Job": aJob("web"), "PolicyOverride": true}, 501, "PolicyOverride is not supported"},
		"resources kept":        {"PUT", "/v1/jobs", object{"Job": aJob("web"), "PreserveResources": true}, 501, "PreserveResources"},
		"a namespace's quota":   {"PUT", "/v1/namespace", object{"Name": "team", "Quota": "q"}, 501, "a quota is not supported"},
		"a namespace's pools":   {"PUT", "/v1/namespace/team", object{"NodePoolConfiguration": object{"Allowed": []string{"x"}}}, 501, "node_pool_config"},
		"stopping everywhere":   {"DELETE", "/v1/job/web?global=true", nil, 400, "multi-region"},
		"a client's servers":    {"GET", "/v1/agent/servers", nil, 501, "has no client"},
		"Prometheus, off":       {"GET", "/v1/metrics?format=prometheus", nil, 501, "Prometheus is not enabled"},
		"tokens":                {"GET", "/v1/acl/tokens", nil, 501, "/v1/acl/tokens"},
		"variables":             {"GET", "/v1/vars", nil, 501, "/v1/vars"},
		"a variable":            {"GET", "/v1/var/a/b", nil, 501, "/v1/var/a/b"},
		"events of services":    {"GET", "/v1/event/stream?topic=Service", nil, 501, "Service"},
		"services":              {"GET", "/v1/services", nil, 501, "/v1/services"},
		"search":                {"PUT", "/v1/search", object{}, 501, "/v1/search"},
		"files":                 {"GET", "/v1/client/fs/ls/x", nil, 501, "/v1/client/fs/ls"},
		"statistics":            {"GET", "/v1/client/stats", nil, 501, "/v1/client/stats"},
		"volumes":               {"GET", "/v1/volumes", nil, 501, "/v1/volumes"},
		"web pages":             {"GET", "/ui/jobs", nil, 501, "/ui/jobs"},
		"validation":            {"PUT", "/v1/validate/job", object{}, 501, "/v1/validate/job"},
		"node pools":            {"GET", "/v1/node/pools", nil, 501, "/v1/node/pools"},
		"a node pool":           {"GET", "/v1/node/pool/default", nil, 501, "/v1/node/pool/default"},
	} {
		a := s.do(c.verb, c.path, c.body)
		if a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %q, want %d with %q", name, a.status, a.body, c.status, c.want)
			continue
		}
		if code := a.Get("X-Atoll-Error"); code == "" && c.status != 404 && c.status != 501 || c.status == 400 && code != "invalid" || c.status == 409 && code != "conflict" {
			t.Errorf("%s: the error is %q", name, code)
		}
		if kind := a.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") || strings.Contains(a.body, "\n") || strings.HasPrefix(a.body, "{") {
			t.Errorf("%s: %q as %q, want one plain line", name, a.body, kind)
		}
	}
	// None of it changed anything.
	if jobs, _ := get[[]struct{ ID string }](s, "/v1/jobs"); len(jobs) != 1 || jobs[0].ID != "web" {
		t.Errorf("the region's jobs: %v", jobs)
	}
}

func TestAPathOfAnotherVerbSaysWhichItTakes(t *testing.T) {
	s := newSurface(t, "us")
	for path, c := range map[string]struct{ verb, allow string }{
		"/v1/jobs":              {"DELETE", "GET, PUT"},
		"/v1/job/x":             {"PATCH", "GET, PUT, DELETE"},
		"/v1/nodes":             {"PUT", "GET"},
		"/v1/jobs/parse":        {"GET", "PUT"},
		"/v1/status/leader":     {"POST", "GET"},
		"/v1/agent/join":        {"GET", "PUT"},
		"/v1/client/fs/logs/x":  {"POST", "GET"},
		"/v1/job/x/allocations": {"PUT", ""},
	} {
		a := s.do(c.verb, path, nil)
		if c.allow == "" {
			// It is also a job of the name "x/allocations".
			if a.status != http.StatusBadRequest {
				t.Errorf("%s %s: %d %q", c.verb, path, a.status, a.body)
			}
			continue
		}
		if a.status != http.StatusMethodNotAllowed || a.Get("Allow") != c.allow || !strings.Contains(a.body, "Invalid method") {
			t.Errorf("%s %s: %d, Allow %q, %q; want 405 and %q", c.verb, path, a.status, a.Get("Allow"), a.body, c.allow)
		}
	}
}

func TestABodyBeyondTheLimitIsRefused(t *testing.T) {
	s := newSurface(t, "us")
	for name, c := range map[string]struct{ verb, path string }{
		"register": {"PUT", "/v1/jobs"}, "update": {"POST", "/v1/job/x"}, "parse": {"PUT", "/v1/jobs/parse"},
	} {
		body := `{"JobHCL": "` + strings.Repeat("x", 10<<20) + `"}`
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, httptest.NewRequest(c.verb, c.path, strings.NewReader(body)))
		if w.Code != http.StatusRequestEntityTooLarge || w.Body.String() != "the request's body is over the limit of 8388608 bytes" {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
	if api.MaxBody != 8388608 {
		t.Errorf("the limit is %d", api.MaxBody)
	}
	if w := httptest.NewRecorder(); true {
		s.api.ServeHTTP(w, httptest.NewRequest("GET", "/v1/jobs", nil))
		if w.Code != http.StatusOK {
			t.Errorf("afterwards: %d %q", w.Code, w.Body)
		}
	}
}
