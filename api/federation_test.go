package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	apiclient "atoll/api/client"
	"atoll/model"
)

// twoRegions are us and eu, each with a summary of the other.
func twoRegions(t *testing.T) (us, eu *surface) {
	t.Helper()
	us = newSurface(t, "us")
	eu = newSurface(t, "eu", us.serf)
	for _, s := range []*surface{us, eu} {
		c := &apiclient.Client{Address: s.url, HTTP: s.web}
		wait(t, "a summary of the other region", func() error {
			regions, err := c.Regions(t.Context(), apiclient.Selection{})
			if err == nil && (len(regions) != 2 || regions[0].Freshness == model.Unreachable || regions[1].Freshness == model.Unreachable) {
				err = fmt.Errorf("%+v", regions)
			}
			return err
		})
	}
	return us, eu
}

func TestPagesOfAllRegions(t *testing.T) {
	us, eu := twoRegions(t)
	for i := range 3 {
		us.register(aJob(fmt.Sprintf("job-%d", i)))
		eu.register(aJob(fmt.Sprintf("job-%d", i)))
	}
	n := eu.addNode()
	c := &apiclient.Client{Address: us.url, HTTP: us.web}
	var all []string
	sel := apiclient.Selection{PerPage: 4, Fresh: true, Wait: time.Second}
	for {
		jobs, page, err := c.FederationJobs(t.Context(), sel)
		if err != nil || len(page.Regions) != 2 {
			t.Fatal(page, err)
		}
		for _, j := range jobs {
			all = append(all, j.ID+"@"+j.Region)
		}
		if sel.NextToken = page.NextToken; sel.NextToken == "" {
			break
		}
	}
	if want := []string{"job-0@eu", "job-0@us", "job-1@eu", "job-1@us", "job-2@eu", "job-2@us"}; !slices.Equal(all, want) {
		t.Errorf("the pages have %v, want %v", all, want)
	}
	if jobs, _, err := c.FederationJob(t.Context(), "job-1", apiclient.Selection{Fresh: true, Regions: []string{"eu"}}); err != nil || len(jobs) != 1 || jobs[0].Region != "eu" {
		t.Errorf("one region's share: %+v, %v", jobs, err)
	}
	if nodes, _, err := c.FederationNodes(t.Context(), apiclient.Selection{Fresh: true, Filter: `Status == "ready"`}); err != nil || len(nodes) != 1 || nodes[0].ID != n.ID || nodes[0].Region != "eu" {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	if rows, page, err := c.FederationDeployments(t.Context(), apiclient.Selection{}); err != nil || len(page.Regions) != 2 {
		t.Errorf("deployments: %+v, %+v, %v", rows, page, err)
	}
	a := us.do("GET", "/v1/federation/jobs?per_page=2&fresh", nil)
	if h := a.Get("X-Atoll-Regions"); a.status != 200 || strings.Count(h, "=live") != 2 || a.Get("X-Nomad-NextToken") == "" {
		t.Errorf("%d, regions %q, next %q", a.status, h, a.Get("X-Nomad-NextToken"))
	}
	if a := us.do("GET", "/v1/federation/jobs?namespace=none", nil); a.status != 200 || !strings.Contains(a.body, `"Jobs":[]`) {
		t.Errorf("no rows: %d %s", a.status, a.body)
	}
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/v1/federation/jobs?index=7":                  {400, "cannot be waited for"},
		"/v1/federation/jobs?reverse=true":             {400, "one order"},
		"/v1/federation/jobs?fresh=maybe":              {400, "fresh"},
		"/v1/federation/jobs?next_token=x":             {400, "next_token"},
		"/v1/federation/nodes?region=mars":             {500, `"mars" is not in this agent's directory`},
		"/v1/federation/event/stream?index=us":         {400, "us:120,eu:97"},
		"/v1/federation/event/stream?index=us:1,eu:-3": {400, "eu:-3"},
		"/v1/federation/event/stream?index=us:1:x":     {400, "us:1:x"},
		"/v1/federation/event/stream?index=mars:1":     {500, "mars"},
		"/v1/federation/event/stream?topic=Weather":    {400, "Weather"},
		"/v1/federation/event/stream?region=mars":      {500, "mars"},
	} {
		if a := us.do("GET", path, nil); a.status != want.status || !strings.Contains(a.body, want.text) {
			t.Errorf("%s: %d %q, want %d and %q", path, a.status, a.body, want.status, want.text)
		}
	}
}

func TestOneStreamOfTheEventsOfAllRegions(t *testing.T) {
	us, eu := twoRegions(t)
	us.register(aJob("first"))
	eu.register(aJob("first"))
	open := func(index string) (<-chan *model.RegionEvents, context.CancelFunc) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", us.url+"/v1/federation/event/stream?topic=Job&index="+index, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := us.web.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		lines, done := make(chan *model.RegionEvents, 100), make(chan struct{})
		go func() {
			defer close(done)
			in := bufio.NewReader(resp.Body)
			for {
				b, err := in.ReadBytes('\n')
				if err != nil {
					return
				}
				e := new(model.RegionEvents)
				if err := json.Unmarshal(b, e); err != nil {
					t.Errorf("%s: %v", b, err)
				}
				lines <- e
			}
		}()
		return lines, func() {
			cancel()
			<-done
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	// await returns the first line that find accepts.
	await := func(lines <-chan *model.RegionEvents, what string, find func(*model.RegionEvents) bool) *model.RegionEvents {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case e := <-lines:
				if find(e) {
					return e
				}
			case <-late:
				t.Fatalf("no line: %s", what)
			}
		}
	}
	job := func(region, id string) func(*model.RegionEvents) bool {
		return func(e *model.RegionEvents) bool {
			return e.Region == region && slices.ContainsFunc(e.Events, func(ev *model.Event) bool { return ev.Key == id && ev.Index == e.Index })
		}
	}
	lines, end := open("")
	seen, states := map[string]uint64{}, map[string]string{}
	for range 2 {
		e := await(lines, "the first jobs", func(e *model.RegionEvents) bool {
			if e.State != "" {
				states[e.Region] = e.State
			}
			return job("us", "first")(e) || job("eu", "first")(e)
		})
		seen[e.Region] = e.Index
	}
	end()
	// Taken up again, from where it was.
	lines, end = open(fmt.Sprintf("us:%d,eu:%d:%s", seen["us"]+1, seen["eu"]+1, states["eu"]))
	defer func() { end() }()
	if e := await(lines, "that eu is there", func(e *model.RegionEvents) bool { return e.Region == "eu" }); e.Gap != nil || e.Freshness != model.Live || e.State != states["eu"] || e.State == "" {
		t.Errorf("taken up again: %+v", e)
	}
	eu.register(aJob("second"))
	await(lines, "the second job", func(e *model.RegionEvents) bool {
		for _, ev := range e.Events {
			if ev.Index <= seen[e.Region] {
				t.Errorf("an event of index %d of %s is told again after %d", ev.Index, e.Region, seen[e.Region])
			}
		}
		return job("eu", "second")(e)
	})
	eu.stop()
	if e := await(lines, "that eu is gone", func(e *model.RegionEvents) bool { return e.Freshness == model.Unreachable }); e.Region != "eu" || e.Error == "" || e.Age < 0 {
		t.Errorf("%+v", e)
	}
	us.register(aJob("after"))
	await(lines, "that us goes on", job("us", "after"))
}
