package api_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"

	apiclient "atoll/api/client"
	"atoll/model"
)

func TestListsOfNothingAreEmptyAndNoDeploymentIsNull(t *testing.T) {
	s := newSurface(t, "us")
	for _, path := range []string{"/v1/jobs", "/v1/nodes", "/v1/allocations", "/v1/evaluations", "/v1/deployments", "/v1/job/none/allocations", "/v1/job/none/evaluations", "/v1/jobs?region=*"} {
		if a := s.do("GET", path, nil); a.status != 200 || a.body != "[]" {
			t.Errorf("%s: %d %q, want []", path, a.status, a.body)
		}
	}
	s.register(aJob("web"))
	if a := s.do("GET", "/v1/job/web/deployment", nil); a.status != 200 || a.body != "null" {
		t.Errorf("a job's deployment: %d %q, want null", a.status, a.body)
	}
	if a := s.do("GET", "/v1/job/web/deployments", nil); a.status != 200 || a.body != "[]" {
		t.Errorf("a job's deployments: %d %q, want []", a.status, a.body)
	}
}

func TestReadsSayAsOfWhenAndWritesWhatTheyMade(t *testing.T) {
	s := newSurface(t, "us")
	written := s.register(aJob("web"))
	var reply struct{ JobModifyIndex uint64 }
	if err := json.Unmarshal([]byte(written.body), &reply); err != nil || written.index() == 0 || reply.JobModifyIndex != written.index() {
		t.Fatalf("a write's index: header %d, body %s", written.index(), written.body)
	}
	for _, path := range []string{"/v1/jobs", "/v1/job/web", "/v1/nodes", "/v1/allocations", "/v1/evaluations", "/v1/job/web/summary", "/v1/job/web/versions", "/v1/job/web/evaluations", "/v1/job/absent"} {
		a := s.do("GET", path, nil)
		if a.index() == 0 || a.Get("X-Nomad-Knownleader") != "true" || a.Get("X-Nomad-Lastcontact") != "0" {
			t.Errorf("%s: headers %v", path, a.Header)
		}
	}
	if job, a := get[model.Job](s, "/v1/job/web"); job.ModifyIndex != a.index() || a.Get("Content-Type") != "application/json" {
		t.Errorf("the job is of index %d, the header of %d, as %q", job.ModifyIndex, a.index(), a.Get("Content-Type"))
	}
	again := s.do("DELETE", "/v1/job/web?purge=true", nil)
	if again.status != 200 || again.index() <= written.index() {
		t.Errorf("a stop: %d %q, index %d after %d", again.status, again.body, again.index(), written.index())
	}
	// A path may end in a slash, and HEAD asks for headers alone.
	if a := s.do("GET", "/v1/jobs/", nil); a.status != 200 || a.body != "[]" {
		t.Errorf("with a slash: %d %q", a.status, a.body)
	}
	if a := s.do("HEAD", "/v1/jobs", nil); a.status != 200 || a.body != "" || a.index() == 0 {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

func TestAnswersAreCompressedForThoseWhoTakeThat(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web", object{"Meta": object{"k": strings.Repeat("v", 4000)}}))
	plain := s.do("GET", "/v1/job/web", nil)
	zipped := s.do("GET", "/v1/job/web", nil, "Accept-Encoding", "gzip")
	if plain.Get("Content-Encoding") != "" || zipped.Get("Content-Encoding") != "gzip" || len(zipped.body) >= len(plain.body)/2 {
		t.Fatalf("%q of %d bytes, %q of %d", plain.Get("Content-Encoding"), len(plain.body), zipped.Get("Content-Encoding"), len(zipped.body))
	}
	r, err := gzip.NewReader(strings.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != plain.body {
		t.Errorf("unpacked: %v, %d bytes, want %d", err, len(b), len(plain.body))
	}
	for path, status := range map[string]int{"/v1/nodes": 200, "/v1/job/nope": 404} {
		if a := s.do("GET", path, nil, "Accept-Encoding", "gzip"); a.status != status || a.Get("Content-Encoding") != "" || a.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d, %v", path, a.status, a.Header)
		}
	}
}

func TestPrettyIsTheSameWithLines(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	plain, pretty := s.do("GET", "/v1/job/web", nil), s.do("GET", "/v1/job/web?pretty", nil)
	var a, b any
	if err := errors.Join(json.Unmarshal([]byte(plain.body), &a), json.Unmarshal([]byte(pretty.body), &b)); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(a) != fmt.Sprint(b) || strings.Contains(plain.body, "\n") || !strings.Contains(pretty.body, "\n    \"ID\": \"web\",\n") || !strings.HasSuffix(pretty.body, "}\n") {
		t.Errorf("plain %s\npretty %s", plain.body, pretty.body)
	}
}

func TestABlockingQueryWakesByWhatItReads(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	for name, c := range map[string]struct {
		path string
		act  func()
		seen func(body string) bool
	}{
		"a list, by a new job":    {"/v1/jobs", func() { s.register(aJob("second")) }, func(b string) bool { return strings.Contains(b, `"second"`) }},
		"a job, by its change":    {"/v1/job/web", func() { s.register(aJob("web", object{"Priority": 70})) }, func(b string) bool { return strings.Contains(b, `"Priority":70`) }},
		"a job, by its beginning": {"/v1/job/later", func() { s.register(aJob("later")) }, func(b string) bool { return strings.Contains(b, `"ID":"later"`) }},
		"nodes, by a node":        {"/v1/nodes", func() { s.addNode() }, func(b string) bool { return strings.Contains(b, `"n1"`) }},
		"an absent summary":       {"/v1/job/third/summary", func() { s.register(aJob("third")) }, func(b string) bool { return strings.Contains(b, `"JobID":"third"`) }},
	} {
		before := s.do("GET", c.path, nil)
		done := make(chan *answer, 1)
		go func() {
			index := before.index()
			// Other changes of what is read may wake it too.
			for {
				a, err := s.try(t.Context(), "GET", fmt.Sprintf("%s?index=%d&wait=60s", c.path, index), nil)
				if err != nil {
					t.Error(err)
					done <- before
					return
				}
				if a.index() <= index {
					t.Errorf("%s: woken at index %d by %d", name, index, a.index())
				}
				if c.seen(a.body) {
					done <- a
					return
				}
				index = a.index()
			}
		}()
		c.act()
		if a := <-done; a.index() <= before.index() || a.status != http.StatusOK {
			t.Errorf("%s: %d, index %d after %d", name, a.status, a.index(), before.index())
		}
	}
}

func TestABlockingQuerysWaitEndsWithWhatIsThere(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	// What the job is read by changes no more, unlike its evaluation.
	before := s.do("GET", "/v1/job/web", nil)
	for _, wait := range []string{"1ms", "50ms"} {
		a := s.do("GET", fmt.Sprintf("/v1/job/web?index=%d&wait=%s", before.index()+1000, wait), nil)
		if a.status != 200 || a.body != before.body && !strings.Contains(a.body, `"web"`) {
			t.Errorf("after %s: %d %s", wait, a.status, a.body)
		}
	}
	// A client that goes away costs nothing: the leak check would tell.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.try(ctx, "GET", fmt.Sprintf("/v1/job/web?index=%d", before.index()+1000), nil)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPagesFiltersAndOrder(t *testing.T) {
	s := newSurface(t, "us")
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("job-%d", i)
		want = append(want, id)
		s.register(aJob(id, object{"Priority": 10 * (i + 1), "Meta": object{"even": fmt.Sprint(i%2 == 0)}}))
	}
	s.register(aJob("other"))
	type row struct {
		ID   string
		Meta map[string]string
	}
	// pages lists by pages of two.
	pages := func(path string) (ids []string, count int) {
		token := ""
		for {
			rows, a := get[[]row](s, path+"&per_page=2&next_token="+url.QueryEscape(token))
			if len(rows) > 2 {
				t.Fatalf("%s: a page of %d", path, len(rows))
			}
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			count++
			if token = a.Get("X-Nomad-Nexttoken"); token == "" {
				return ids, count
			}
		}
	}
	reversed := slices.Clone(want)
	slices.Reverse(reversed)
	for path, f := range map[string]struct {
		ids   []string
		pages int
	}{
		"/v1/jobs?prefix=job-":              {want, 4},
		"/v1/jobs?prefix=job-&reverse=true": {reversed, 4},
		"/v1/jobs?prefix=job-3":             {[]string{"job-3"}, 1},
		"/v1/jobs?prefix=none":              {nil, 1},
		"/v1/jobs?filter=" + url.QueryEscape(`Meta.even == "true" and ID matches "^job-"`):  {[]string{"job-0", "job-2", "job-4", "job-6"}, 2},
		"/v1/jobs?filter=" + url.QueryEscape(`TaskGroups is empty`):                         {nil, 1},
		"/v1/jobs?reverse=true&filter=" + url.QueryEscape(`Priority == "70"`):               {[]string{"job-6"}, 1},
		"/v1/jobs?filter=" + url.QueryEscape(`(((ID == "job-1")) or "dc9" in Datacenters)`): {[]string{"job-1"}, 1},
		"/v1/jobs?namespace=*&prefix=other":                                                 {[]string{"other"}, 1},
		"/v1/jobs?namespace=elsewhere":                                                      {nil, 1},
	} {
		if ids, n := pages(path); !slices.Equal(ids, f.ids) || n != f.pages {
			t.Errorf("%s: %v in %d pages, want %v in %d", path, ids, n, f.ids, f.pages)
		}
	}
	// Meta is shown when asked for.
	for path, want := range map[string]string{"/v1/jobs?prefix=job-1": "", "/v1/jobs?prefix=job-1&meta=true": "false"} {
		if rows, _ := get[[]row](s, path); rows[0].Meta["even"] != want {
			t.Errorf("%s: meta %v", path, rows[0].Meta)
		}
	}
}

func TestJobsWhoseIDsHaveSlashes(t *testing.T) {
	s := newSurface(t, "us")
	const id = "team/web/periodic-1"
	escaped := "/v1/job/" + url.PathEscape(id)
	if a := s.do("PUT", escaped, object{"Job": aJob(id)}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, base := range []string{escaped, "/v1/job/" + id} {
		if job, _ := get[model.Job](s, base); job.ID != id {
			t.Errorf("%s: %q", base, job.ID)
		}
		if sum, _ := get[model.JobSummary](s, base+"/summary"); sum.JobID != id {
			t.Errorf("%s/summary: %q", base, sum.JobID)
		}
		if evals, _ := get[[]model.Evaluation](s, base+"/evaluations"); len(evals) == 0 || evals[0].JobID != id {
			t.Errorf("%s/evaluations: %v", base, evals)
		}
		if past, _ := get[struct{ Versions []model.Job }](s, base+"/versions"); len(past.Versions) != 1 {
			t.Errorf("%s/versions: %v", base, past)
		}
	}
	if a := s.do("DELETE", escaped+"?purge=1", nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.do("GET", escaped, nil); a.status != 404 {
		t.Errorf("after its purge: %d %s", a.status, a.body)
	}
}

func TestAllocationsAndNodesHaveWhatClientsReadUnasked(t *testing.T) {
	s := newSurface(t, "us")
	n := s.addNode()
	s.register(aJob("web"))
	var rows []model.AllocStub
	wait(t, "an allocation", func() error {
		if rows, _ = get[[]model.AllocStub](s, "/v1/job/web/allocations"); len(rows) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	// The official client, and what its command line does without looking.
	c, err := nomad.NewClient(&nomad.Config{Address: s.url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, _, err := c.Allocations().Info(rows[0].ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *a.Job.Version != 0 || *a.Resources.CPU != 10 || *a.Resources.MemoryMB != 10 || *a.TaskResources["t"].CPU != 10 {
		t.Errorf("an allocation: %+v", a)
	}
	node, _, err := c.Nodes().Info(n.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if node.NodeResources.Cpu.CpuShares != 1000 || node.ReservedResources == nil || *node.Resources.CPU != 1000 || node.Drain || node.Status != "ready" {
		t.Errorf("a node: %+v", node)
	}
	raw := s.do("GET", "/v1/node/"+n.ID, nil)
	if strings.Contains(raw.body, "SecretID\":\"") && !strings.Contains(raw.body, `"SecretID":""`) {
		t.Errorf("a node's secret is shown: %s", raw.body)
	}
	of, _, err := c.Nodes().Allocations(n.ID, nil)
	if err != nil || len(of) != 1 || of[0].ID != rows[0].ID || *of[0].Resources.CPU != 10 {
		t.Errorf("the node's allocations: %v %v", of, err)
	}
	evals, _, err := c.Evaluations().List(nil)
	if err != nil || len(evals) == 0 {
		t.Fatalf("evaluations: %v %v", evals, err)
	}
	from, _, err := c.Evaluations().Allocations(a.EvalID, nil)
	if err != nil || len(from) != 1 {
		t.Errorf("the evaluation's allocations: %v %v", from, err)
	}
	job, err := c.Jobs().ParseHCLOpts(&nomad.JobsParseRequest{JobHCL: "job \"x\" {\n group \"g\" {\n task \"t\" {\n driver = \"mock\"\n }\n }\n }", Canonicalize: true})
	if err != nil || *job.ID != "x" || *job.Priority != 50 || *job.TaskGroups[0].Count != 1 {
		t.Errorf("parse: %+v %v", job, err)
	}
}

func TestWhatTheAgentSaysOfItself(t *testing.T) {
	s := newSurface(t, "us")
	self, _ := get[struct {
		Config object                       `json:"config"`
		Member model.Member                 `json:"member"`
		Stats  map[string]map[string]string `json:"stats"`
	}](s, "/v1/agent/self")
	if self.Config["Region"] != "us" || self.Member.Name != "us-1.us" || self.Member.Status != "alive" || self.Stats["nomad"]["leader"] != "true" {
		t.Errorf("self: %+v", self)
	}
	members, _ := get[struct {
		ServerRegion string
		Members      []model.Member
	}](s, "/v1/agent/members")
	if members.ServerRegion != "us" || len(members.Members) != 1 {
		t.Errorf("members: %+v", members)
	}
	leader, _ := get[string](s, "/v1/status/leader")
	peers, _ := get[[]string](s, "/v1/status/peers")
	if len(peers) != 1 || peers[0] != leader || !strings.HasPrefix(leader, "127.0.0.1:") {
		t.Errorf("leader %q of %q", leader, peers)
	}
	// The command line finds the leader by its member's address and port tag.
	if m := members.Members[0]; m.Addr+":"+m.Tags["port"] != leader {
		t.Errorf("member %s:%s, leader %s", m.Addr, m.Tags["port"], leader)
	}
	if names, _ := get[[]string](s, "/v1/regions"); !slices.Equal(names, []string{"us"}) {
		t.Errorf("regions %v", names)
	}
	if ok, _ := get[object](s, "/v1/agent/health"); fmt.Sprint(ok) != "map[server:map[message:ok ok:true]]" {
		t.Errorf("health %v", ok)
	}
	a := s.do("GET", "/v1/agent/health?type=client", nil)
	if a.status != 500 || !strings.Contains(a.body, `"client":{"ok":false,"message":"client not enabled"}`) {
		t.Errorf("health of no client: %d %s", a.status, a.body)
	}
	if gauges, _ := get[object](s, "/v1/metrics"); gauges["Gauges"] == nil {
		t.Errorf("metrics %v", gauges)
	}
}

func TestAllRegionsInOneAnswer(t *testing.T) {
	us := newSurface(t, "us")
	eu := newSurface(t, "eu", us.serf)
	for _, s := range []*surface{us, eu} {
		wait(t, "two regions", func() error {
			if names, _ := get[[]string](s, "/v1/regions"); !slices.Equal(names, []string{"eu", "us"}) {
				return fmt.Errorf("%v", names)
			}
			return nil
		})
	}
	// Whichever door: to the region that the body, the query or the job names.
	us.register(aJob("a"))
	us.register(aJob("b", object{"Region": "eu"}))
	if a := us.do("PUT", "/v1/jobs?region=eu", object{"Job": aJob("c")}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := eu.do("PUT", "/v1/jobs?region=eu", object{"Job": aJob("d", object{"Region": "global"}), "Region": "us"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	list := func(s *surface) (rows []string, answers []model.RegionAnswer) {
		c := &apiclient.Client{Address: s.url, HTTP: s.web}
		jobs, answers, err := c.Jobs(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			rows = append(rows, j.Region+"/"+j.ID)
		}
		return rows, answers
	}
	for _, s := range []*surface{us, eu} {
		rows, answers := list(s)
		if want := []string{"eu/b", "eu/c", "us/a", "us/d"}; !slices.Equal(rows, want) {
			t.Errorf("rows %v, want %v", rows, want)
		}
		for i, region := range []string{"eu", "us"} {
			if a := answers[i]; a.Region != region || a.Freshness != model.Live || a.Index == 0 {
				t.Errorf("of %s: %+v", region, a)
			}
		}
	}
	// A list of one region names none, as clients know it.
	if a := us.do("GET", "/v1/jobs?region=eu", nil); strings.Contains(a.body, `"Region"`) || a.Get("X-Atoll-Regions") != "" {
		t.Errorf("%s %v", a.body, a.Header)
	}
	c := &apiclient.Client{Address: us.url, HTTP: us.web}
	if _, answers, err := c.Nodes(t.Context(), ""); err != nil || len(answers) != 2 {
		t.Errorf("nodes: %v %v", answers, err)
	}

	// What us knows of eu without asking.
	wait(t, "a summary of eu at us", func() error {
		jobs, page, err := c.FederationJobs(t.Context(), apiclient.Selection{Regions: []string{"eu"}})
		if err != nil || len(jobs) != 2 || page.Regions[0].Freshness != model.Stale {
			return fmt.Errorf("%d jobs, %+v, %v", len(jobs), page, err)
		}
		return nil
	})
	eu.stop()
	rows, answers := list(us)
	if want := []string{"eu/b", "eu/c", "us/a", "us/d"}; !slices.Equal(slices.Sorted(slices.Values(rows)), want) {
		t.Errorf("with eu gone: rows %v, want %v", rows, want)
	}
	if a := answers[0]; a.Region != "eu" || a.Freshness != model.Stale || a.Age < 0 || a.Index == 0 || answers[1].Freshness != model.Live {
		t.Errorf("with eu gone: %+v", answers)
	}
	for path, want := range map[string]string{
		// A summary does not have what these show.
		"/v1/jobs?region=*&meta=true": "eu=unreachable", "/v1/allocations?region=*": "eu=unreachable", "/v1/evaluations?region=*": "eu=unreachable",
		"/v1/deployments?region=*": "eu=unreachable", "/v1/nodes?region=*": "eu=stale", "/v1/nodes?region=*&resources=true": "eu=unreachable",
		"/v1/jobs?region=*&prefix=b": "eu=stale", "/v1/jobs?region=*&filter=" + url.QueryEscape(`ID == "c"`): "eu=stale",
		"/v1/jobs?region=*&filter=" + url.QueryEscape(`TaskGroups is not empty`): "eu=unreachable",
		"/v1/job/b/allocations?region=*":                                         "eu=unreachable", "/v1/job/b/deployments?region=*": "us=live",
	} {
		if a := us.do("GET", path, nil); a.status != 200 || !strings.Contains(a.Get("X-Atoll-Regions"), want) {
			t.Errorf("%s: %d %q, regions %q, want %s", path, a.status, a.body, a.Get("X-Atoll-Regions"), want)
		}
	}
	if a := us.do("GET", "/v1/job/b?region=eu", nil); a.status != http.StatusBadGateway || !strings.Contains(a.body, `region "eu" is unreachable`) || !strings.Contains(a.body, "last contact") {
		t.Errorf("a read of eu: %d %q", a.status, a.body)
	}
	regions, err := c.Regions(t.Context(), apiclient.Selection{})
	if err != nil || len(regions) != 2 || regions[0].Region != "eu" || regions[0].Healthy || regions[0].Jobs["pending"] != 2 || !regions[1].Healthy {
		t.Errorf("regions: %+v %v", regions, err)
	}
}

func TestDeploymentsAndVersionsThatAreNotThere(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	const id = "/4bd2ac26-4dd3-4b9c-8e21-0f0d5c3f3c11"
	for _, c := range []struct {
		verb, path string
		body       any
		status     int
		want       string
	}{
		{"GET", "/v1/deployment" + id, nil, 404, "deployment not found"},
		{"GET", "/v1/deployment/allocations" + id, nil, 200, "[]"},
		{"PUT", "/v1/deployment/promote" + id, object{"All": true}, 404, "deployment"},
		{"PUT", "/v1/deployment/promote" + id, object{"DeploymentID": "other", "All": true}, 400, "the body"},
		{"PUT", "/v1/deployment/fail" + id, nil, 404, "deployment"},
		{"PUT", "/v1/deployment/pause" + id, object{"Pause": true}, 404, "deployment"},
		{"PUT", "/v1/deployment/allocation-health" + id, object{}, 404, "deployment"},
		{"PUT", "/v1/deployment/unblock" + id, object{}, 404, "deployment"},
		{"GET", "/v1/job/none/deployments", nil, 404, "none"},
		{"PUT", "/v1/job/web/revert", object{"JobID": "web", "JobVersion": 0}, 400, "already"},
		{"PUT", "/v1/job/web/revert", object{"JobID": "web", "JobVersion": 7}, 404, "7"},
		{"PUT", "/v1/job/web/stable", object{"JobID": "web", "JobVersion": 7, "Stable": true}, 404, "7"},
		{"DELETE", "/v1/job/web/versions/gold/tag", nil, 404, "gold"},
	} {
		if a := s.do(c.verb, c.path, c.body); a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s %s: %d %q, want %d with %q", c.verb, c.path, a.status, a.body, c.status, c.want)
		}
	}
	if a := s.do("PUT", "/v1/job/web/versions/gold/tag", object{"Version": 0, "Description": "the first"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := s.do("PUT", "/v1/job/web/stable", object{"JobID": "web", "JobVersion": 0, "Stable": true}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	job, _ := get[struct {
		Stable     bool
		Version    uint64
		VersionTag *struct{ Name, Description string }
	}](s, "/v1/job/web")
	if !job.Stable || job.VersionTag == nil || job.VersionTag.Name != "gold" || job.VersionTag.Description != "the first" {
		t.Errorf("the job is %+v", job)
	}
	changed := aJob("web")
	changed["Meta"] = object{"v": "2"}
	s.register(changed)
	if a := s.do("PUT", "/v1/job/web/revert", object{"JobID": "web", "JobVersion": 0, "EnforcePriorVersion": 7}); a.status != 409 {
		t.Errorf("enforcing a version that is not: %d %s", a.status, a.body)
	}
	if a := s.do("PUT", "/v1/job/web/revert", object{"JobID": "web", "JobVersion": 0, "EnforcePriorVersion": 1}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if back, _ := get[struct {
		Version uint64
		Meta    map[string]string
	}](s, "/v1/job/web"); back.Version != 2 || back.Meta["v"] != "" {
		t.Errorf("reverted to %+v", back)
	}
}
