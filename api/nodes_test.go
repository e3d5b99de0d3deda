package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"atoll/model"
)

// official is the official client of the surface.
func (s *surface) official() *nomad.Client {
	s.t.Helper()
	c, err := nomad.NewClient(&nomad.Config{Address: s.url, HttpClient: s.web})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func TestTheOfficialClientTakesNodesOutOfUse(t *testing.T) {
	s := newSurface(t, "us")
	n := s.addNode()
	nodes := s.official().Nodes()
	show := func() *nomad.Node {
		t.Helper()
		got, _, err := nodes.Info(n.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	off, err := nodes.ToggleEligibility(n.ID, false, nil)
	if err != nil || off.NodeModifyIndex == 0 || off.LastIndex == 0 {
		t.Fatalf("%+v %v", off, err)
	}
	if got := show(); got.SchedulingEligibility != nomad.NodeSchedulingIneligible || got.ModifyIndex != off.NodeModifyIndex {
		t.Errorf("made ineligible: %s at %d, want %d", got.SchedulingEligibility, got.ModifyIndex, off.NodeModifyIndex)
	}
	if _, err := nodes.ToggleEligibility(n.ID, true, nil); err != nil {
		t.Fatal(err)
	}

	// Something runs there, so that the drain goes on.
	s.register(aJob("web"))
	wait(t, "a placement", func() error {
		allocs, _, err := nodes.Allocations(n.ID, nil)
		if err == nil && len(allocs) == 0 {
			err = context.DeadlineExceeded
		}
		return err
	})
	if eval, _, err := nodes.ForceEvaluate(n.ID, nil); err != nil || eval == "" {
		t.Errorf("evaluated: %q %v", eval, err)
	}
	begun, err := nodes.UpdateDrainOpts(n.ID, &nomad.DrainOptions{DrainSpec: &nomad.DrainSpec{Deadline: time.Hour, IgnoreSystemJobs: true}, Meta: map[string]string{"message": "why"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := show()
	d := got.DrainStrategy
	if !got.Drain || d == nil || d.Deadline != time.Hour || !d.IgnoreSystemJobs || d.ForceDeadline.Sub(d.StartedAt) != time.Hour {
		t.Errorf("draining: %v %+v", got.Drain, d)
	}
	if last := got.LastDrain; last == nil || last.Status != nomad.DrainStatusDraining || last.Meta["message"] != "why" || !last.StartedAt.Equal(d.StartedAt) {
		t.Errorf("last drain: %+v", last)
	}
	if stubs, _, err := nodes.List(nil); err != nil || len(stubs) != 1 || !stubs[0].Drain {
		t.Errorf("listed: %+v %v", stubs, err)
	}
	if _, err := nodes.ToggleEligibility(n.ID, true, nil); err == nil || !strings.Contains(err.Error(), "is draining") {
		t.Errorf("eligible while it drains: %v", err)
	}
	// Its only allocation waits to be healthy; forced, it is stopped, and its
	// node, which is only made up, never says so: it is purged.
	monitor := nodes.MonitorDrain(t.Context(), n.ID, begun.LastIndex, false)
	if _, err := nodes.UpdateDrain(n.ID, &nomad.DrainSpec{Deadline: -1}, false, nil); err != nil {
		t.Fatal(err)
	}
	wait(t, "the stop", func() error {
		allocs, _, err := nodes.Allocations(n.ID, nil)
		if err == nil && (len(allocs) == 0 || allocs[0].DesiredStatus != model.AllocDesiredStop || !allocs[0].DesiredTransition.ShouldMigrate()) {
			err = context.DeadlineExceeded
		}
		return err
	})
	if _, err := nodes.UpdateDrain(n.ID, nil, true, nil); err != nil {
		t.Fatal(err)
	}
	if got := show(); got.DrainStrategy != nil || got.SchedulingEligibility != nomad.NodeSchedulingEligible || got.LastDrain.Status != nomad.DrainStatusCanceled {
		t.Errorf("ended: %+v %s %+v", got.DrainStrategy, got.SchedulingEligibility, got.LastDrain)
	}
	purged, _, err := nodes.Purge(n.ID, nil)
	if err != nil || purged.NodeModifyIndex == 0 {
		t.Errorf("purged: %+v %v", purged, err)
	}
	var told []string
	for m := range monitor {
		told = append(told, m.Message)
	}
	if all := strings.Join(told, "\n"); !strings.Contains(all, "Drain complete for node") {
		t.Errorf("the monitor said:\n%s", all)
	}
	if _, _, err := nodes.Info(n.ID, nil); err == nil {
		t.Error("the purged node is still there")
	}
}

func TestWrongWordsOnNodesAreRefused(t *testing.T) {
	s := newSurface(t, "us")
	n := s.addNode()
	for name, c := range map[string]struct {
		path string
		body any
		code int
		want string
	}{
		"an eligibility that is none": {"/v1/node/" + n.ID + "/eligibility", object{"Eligibility": "perhaps"}, 400, `"perhaps"`},
		"two nodes at once":           {"/v1/node/" + n.ID + "/eligibility", object{"NodeID": "other", "Eligibility": "eligible"}, 400, `"other"`},
		"a drain without end":         {"/v1/node/" + n.ID + "/drain", object{"DrainSpec": object{"Deadline": int64(1) << 62}}, 400, "too long"},
		"a drain without a body":      {"/v1/node/" + n.ID + "/drain", nil, 400, "no body"},
		"a node that is not there":    {"/v1/node/" + model.NewUUID(nil).String() + "/drain", object{}, 404, "not found"},
		"the purge of no node":        {"/v1/node/nobody/purge", nil, 404, "nobody"},
		"an evaluation of no node":    {"/v1/node/nobody/evaluate", nil, 404, "nobody"},
		"the stop of no allocation":   {"/v1/allocation/nothing/stop", nil, 404, "nothing"},
		"a stop with a delay unclear": {"/v1/allocation/x/stop?no_shutdown_delay=perhaps", nil, 400, "no_shutdown_delay"},
	} {
		a := s.do("PUT", c.path, c.body)
		if a.status != c.code || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %q, want %d with %q", name, a.status, a.body, c.code, c.want)
		}
	}
}
