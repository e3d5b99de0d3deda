package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	apiclient "atoll/api/client"
	"atoll/federation"
	"atoll/model"
)

// officialJob is aJob as the official client has it.
func officialJob(id string, count int) *nomad.Job {
	j := nomad.NewServiceJob(id, id, "global", 50).AddDatacenter("dc1")
	task := nomad.NewTask("t", "mock").Require(&nomad.Resources{CPU: new(10), MemoryMB: new(10)})
	task.LogConfig = &nomad.LogConfig{MaxFiles: new(1), MaxFileSizeMB: new(1)}
	return j.AddTaskGroup(nomad.NewTaskGroup("g", count).AddTask(task))
}

func TestTheOfficialClientPlansAndCompares(t *testing.T) {
	s := newSurface(t, "us")
	s.addNode()
	jobs := s.official().Jobs()
	plan, info, err := jobs.Plan(officialJob("web", 3), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Diff.Type != "Added" || plan.Annotations.DesiredTGUpdates["g"].Place != 3 || plan.JobModifyIndex != 0 || info.LastIndex == 0 || plan.FailedTGAllocs != nil {
		t.Errorf("%+v %+v at %d", plan.Diff, plan.Annotations.DesiredTGUpdates["g"], info.LastIndex)
	}
	if !plan.NextPeriodicLaunch.Equal(time.Time{}) {
		t.Errorf("a service has the next launch %s", plan.NextPeriodicLaunch)
	}
	for i := 1; i <= 3; i++ {
		if _, _, err := jobs.EnforceRegister(officialJob("web", i), plan.JobModifyIndex, nil); err != nil {
			t.Fatal(err)
		}
		if plan, _, err = jobs.Plan(officialJob("web", i), i != 2, nil); err != nil {
			t.Fatal(err)
		}
		if (plan.Diff == nil) != (i == 2) || plan.Diff != nil && plan.Diff.Type != "None" {
			t.Errorf("a plan of the same: %+v", plan.Diff)
		}
	}
	if _, err := jobs.TagVersion("web", 0, "first", "", nil); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		opts nomad.VersionsOptions
		want []string
	}{
		"without":        {nomad.VersionsOptions{}, nil},
		"each":           {nomad.VersionsOptions{Diffs: true}, []string{"2 3", "1 2"}},
		"from a version": {nomad.VersionsOptions{Diffs: true, DiffVersion: new(uint64(1))}, []string{"2 3", "", "2 1"}},
		"from a tag":     {nomad.VersionsOptions{Diffs: true, DiffTag: "first"}, []string{"1 3", "1 2", ""}},
	} {
		versions, diffs, _, err := jobs.VersionsOpts("web", &tc.opts, nil)
		if err != nil || len(versions) != 3 || len(diffs) != len(tc.want) {
			t.Errorf("%s: %d versions, %d diffs, %v", name, len(versions), len(diffs), err)
			continue
		}
		for i, want := range tc.want {
			got := ""
			if d := diffs[i]; d.Type == "Edited" {
				f := d.TaskGroups[0].Fields[0]
				got = f.Old + " " + f.New
			}
			if got != want {
				t.Errorf("%s: diff %d is of counts %q, want %q", name, i, got, want)
			}
		}
	}
}

func TestTheOfficialClientScales(t *testing.T) {
	s := newSurface(t, "us")
	s.addNode()
	c := s.official()
	job := officialJob("web", 2)
	job.Update = &nomad.UpdateStrategy{MaxParallel: new(0)}
	job.TaskGroups[0].Scaling = &nomad.ScalingPolicy{Max: new(int64(9)), Policy: map[string]any{"check": []any{map[string]any{"load": 1}}}}
	if _, _, err := c.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	out, info, err := c.Jobs().Scale("web", "g", new(5), "why", false, map[string]any{"a": 1}, nil)
	if err != nil || out.EvalID == "" || info.LastIndex == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	var status *nomad.JobScaleStatusResponse
	// An autoscaler waits for changes.
	wait(t, "what the job has", func() error {
		opts := &nomad.QueryOptions{WaitIndex: 1, WaitTime: time.Second}
		for {
			var meta *nomad.QueryMeta
			if status, meta, err = c.Jobs().ScaleStatus("web", opts); err != nil || status.TaskGroups["g"].Placed == 5 {
				return err
			}
			opts.WaitIndex = meta.LastIndex
		}
	})
	g := status.TaskGroups["g"]
	if g.Desired != 5 || len(g.Events) != 1 || g.Events[0].PreviousCount != 2 || *g.Events[0].Count != 5 || g.Events[0].EvalID == nil || *g.Events[0].EvalID != out.EvalID || g.Events[0].Meta["a"] != 1.0 {
		t.Errorf("%+v", g)
	}
	policies, _, err := c.Scaling().ListPolicies(nil)
	if err != nil || len(policies) != 1 || policies[0].Target["Group"] != "g" || !policies[0].Enabled {
		t.Fatalf("%+v, %v", policies, err)
	}
	p, _, err := c.Scaling().GetPolicy(policies[0].ID, nil)
	if err != nil || *p.Min != 2 || *p.Max != 9 || p.Type != "horizontal" || p.Policy["check"] == nil {
		t.Errorf("%+v, %v", p, err)
	}
	// The job read back and registered again is the same job, scaled.
	back, _, err := c.Jobs().Info("web", nil)
	if err != nil || back.TaskGroups[0].Scaling.ID != p.ID {
		t.Fatalf("%+v, %v", back, err)
	}
	if _, _, err := c.Jobs().Register(back, nil); err != nil {
		t.Fatal(err)
	}
	if again, _, err := c.Jobs().Info("web", nil); err != nil || *again.Version != *back.Version {
		t.Errorf("version %d became %d, %v", *back.Version, *again.Version, err)
	}
}

func TestNamespacesSayHowOldTheirCopyIs(t *testing.T) {
	us := newSurface(t, "us")
	eu := newSurface(t, "eu", us.serf)
	wait(t, "us and eu to meet", func() error {
		if a := us.do("GET", "/v1/nodes?region=eu", nil); a.status != 200 {
			return errors.New(a.body)
		}
		return nil
	})
	if a := us.do("PUT", "/v1/namespace/team?region=eu", object{"Description": "ours"}); a.status != 200 {
		t.Fatal(a.body)
	}
	for _, path := range []string{"/v1/namespaces", "/v1/namespace/team"} {
		wait(t, path+" of us is as old as its last word from eu", func() error {
			a := us.do("GET", path, nil)
			if a.status != 200 || !strings.Contains(a.body, `"Description":"ours"`) {
				return errors.New(a.body)
			}
			answers, err := federation.ParseHeader(a.Get("X-Atoll-Regions"))
			if err != nil || len(answers) != 2 || answers[1].Region != "us" || answers[1].Freshness != model.Live || answers[1].Index == 0 {
				t.Fatalf("%+v, %v", answers, err)
			}
			if e := answers[0]; e.Region != "eu" || e.Freshness != model.Stale || e.Age < 0 || e.Age > time.Minute || e.Index == 0 {
				return fmt.Errorf("%+v", e)
			}
			return nil
		})
	}
	c := &apiclient.Client{Address: us.url, HTTP: us.web}
	if ages, err := c.NamespaceAges(t.Context(), "eu"); err != nil || len(ages) != 2 || ages[0].Freshness != model.Live || ages[1].Freshness == model.Live {
		t.Errorf("%+v, %v", ages, err)
	}
	eu.stop()
	if a := us.do("PUT", "/v1/namespace/team", object{"Description": "mine"}); a.status != http.StatusBadGateway || !strings.Contains(a.body, `region "eu" is unreachable`) || !strings.Contains(a.body, "nothing was changed") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestTheOfficialClientKeepsNamespaces(t *testing.T) {
	s := newSurface(t, "us")
	c := s.official()
	spaces := c.Namespaces()
	team := &nomad.Namespace{
		Name: "team", Description: "ours", Meta: map[string]string{"a": "b"},
		Capabilities:          &nomad.NamespaceCapabilities{EnabledTaskDrivers: []string{"mock"}},
		NodePoolConfiguration: &nomad.NamespaceNodePoolConfiguration{Default: "default"},
	}
	if info, err := spaces.Register(team, nil); err != nil || info.LastIndex == 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	got, _, err := spaces.Info("team", nil)
	if err != nil || got.Description != "ours" || got.Meta["a"] != "b" || got.Capabilities.EnabledTaskDrivers[0] != "mock" || got.ModifyIndex == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if all, _, err := spaces.List(nil); err != nil || len(all) != 2 {
		t.Errorf("%d namespaces, %v", len(all), err)
	}
	if some, _, err := spaces.PrefixList("te", nil); err != nil || len(some) != 1 {
		t.Errorf("%d namespaces of te, %v", len(some), err)
	}
	job := officialJob("web", 1)
	job.Namespace = new("team")
	if _, _, err := c.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := spaces.Delete("team", nil); err == nil {
		t.Error("a namespace with a live job was deleted")
	}
	if _, _, err := c.Jobs().Deregister("web", true, &nomad.WriteOptions{Namespace: "team"}); err != nil {
		t.Fatal(err)
	}
	if _, err := spaces.Delete("team", nil); err != nil {
		t.Error(err)
	}
}
