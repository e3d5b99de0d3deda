package region

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/diff"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// oneNode is a region of one server with one node that stays up without a
// heartbeat for as long as a test takes.
func oneNode(t *testing.T) *testServer {
	t.Helper()
	s := startAt(t, freeport.Addr(t), freeport.Addr(t), Config{
		Name: "s1", Region: "us", DataDir: t.TempDir(), Expect: 1, Heartbeats: heartbeat.Config{MinTTL: 10 * time.Minute},
	})
	n, secret := aNode("dc1")
	wait(t, "a node", func() error {
		_, err := rpc.Call(t.Context(), s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
		return err
	})
	return s
}

// planOf asks what registering a job would do.
func planOf(t *testing.T, s *testServer, job *model.Job) *method.JobPlanResponse {
	t.Helper()
	return call(t, s.RPC(), method.JobPlan, rpc.To{}, &method.JobPlanRequest{Job: job, Diff: true})
}

func TestAPlanTellsWhatARegisterThenDoes(t *testing.T) {
	s := oneNode(t)
	before := s.cell.Snapshot().Index()
	p := planOf(t, s, aJob("web", 12, "dc1"))
	want := &model.DesiredUpdates{Place: 12}
	if got := p.Annotations.DesiredTGUpdates["g"]; *got != *want || p.Diff.Type != diff.Added || p.JobModifyIndex != 0 {
		t.Errorf("a new job: %+v, %s, index %d", got, p.Diff.Type, p.JobModifyIndex)
	}
	// Ten fit the node.
	if m := p.FailedTGAllocs["g"]; m == nil || m.CoalescedFailures != 1 || m.DimensionExhausted["cpu"] != 1 {
		t.Errorf("what finds no place: %+v", m)
	}
	if len(p.CreatedEvals) != 1 || p.CreatedEvals[0].Status != model.EvalBlocked {
		t.Errorf("%d evaluations would be made", len(p.CreatedEvals))
	}
	if now := s.cell.Snapshot(); now.Index() != before || p.Index != before || now.Job(nil, model.JobID{Namespace: "default", ID: "web"}) != nil {
		t.Errorf("the plan of index %d took the state from %d to %d", p.Index, before, now.Index())
	}

	r := register(t, s.RPC(), "", aJob("web", 4, "dc1"))
	wait(t, "placements", func() error { return placed(s.RPC(), "", "web", 4) })
	same := planOf(t, s, aJob("web", 4, "dc1"))
	if same.Diff.Type != diff.None || same.JobModifyIndex != r.JobModifyIndex || *same.Annotations.DesiredTGUpdates["g"] != (model.DesiredUpdates{Ignore: 4}) {
		t.Errorf("the same again: %s, index %d, %+v", same.Diff.Type, same.JobModifyIndex, same.Annotations.DesiredTGUpdates["g"])
	}
	for name, tc := range map[string]struct {
		change func(*model.Job)
		want   model.DesiredUpdates
		task   string
	}{
		"destructive": {func(j *model.Job) { j.TaskGroups[0].Tasks[0].Env = map[string]string{"A": "1"} }, model.DesiredUpdates{DestructiveUpdate: 1, Ignore: 3}, "forces create/destroy update"},
		"in place":    {func(j *model.Job) { j.TaskGroups[0].Tasks[0].RestartPolicy = &model.RestartPolicy{Mode: "delay"} }, model.DesiredUpdates{InPlaceUpdate: 4}, "forces in-place update"},
		"fewer":       {func(j *model.Job) { j.TaskGroups[0].Count = 1 }, model.DesiredUpdates{Stop: 3, InPlaceUpdate: 1}, ""},
	} {
		job := aJob("web", 4, "dc1")
		tc.change(job)
		p := planOf(t, s, job)
		if got := p.Annotations.DesiredTGUpdates["g"]; *got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
		if got := strings.Join(p.Diff.TaskGroups[0].Tasks[0].Annotations, ","); got != tc.task {
			t.Errorf("%s: the task %q, want %q", name, got, tc.task)
		}
	}
	other := aJob("web", 4, "dc1")
	other.TaskGroups[0].Name = "h"
	p = planOf(t, s, other)
	if got := p.Annotations.DesiredTGUpdates; got["g"] == nil || got["g"].Stop != 4 || got["h"].Place != 4 {
		t.Errorf("another group: %+v", got)
	}
	if groups := p.Diff.TaskGroups; groups[0].Type != diff.Deleted || groups[0].Updates["destroy"] != 4 || groups[1].Type != diff.Added {
		t.Errorf("another group: %+v %+v", groups[0], groups[1])
	}

	// A register that is bound to the plan's index passes once.
	bound := func() error {
		_, err := rpc.Call(t.Context(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: other, EnforceIndex: true, JobModifyIndex: p.JobModifyIndex})
		return err
	}
	if err := bound(); err != nil {
		t.Error(err)
	}
	if err := bound(); model.KindOf(err) != model.KindConflict || !strings.HasPrefix(err.Error(), "Enforcing job modify index") {
		t.Errorf("the second: %v", err)
	}
}

func TestAPlanIsRefusedLikeARegister(t *testing.T) {
	s := oneNode(t)
	for name, change := range map[string]func(*model.Job){
		"no group":             func(j *model.Job) { j.TaskGroups = nil },
		"an unknown namespace": func(j *model.Job) { j.Namespace = "elsewhere" },
		"another region":       func(j *model.Job) { j.Region = "mars" },
	} {
		job := aJob("web", 1)
		change(job)
		_, planErr := rpc.Call(t.Context(), s.RPC(), method.JobPlan, rpc.To{}, &method.JobPlanRequest{Job: job})
		_, err := rpc.Call(t.Context(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: job})
		if err == nil || planErr == nil || planErr.Error() != err.Error() {
			t.Errorf("%s: the plan says %v, the register %v", name, planErr, err)
		}
	}
}

func TestAGroupIsScaledOnceAndItsPolicyIsListed(t *testing.T) {
	s := oneNode(t)
	job := aJob("web", 2, "dc1")
	job.Update = &model.UpdateStrategy{Stagger: 1, HealthCheck: "task_states", HealthyDeadline: 2, ProgressDeadline: 3}
	job.TaskGroups[0].Scaling = &model.ScalingPolicy{Min: 1, Max: 6, Enabled: true, Policy: map[string]any{"cooldown": "1m"}}
	first := register(t, s.RPC(), "", job)
	wait(t, "placements", func() error { return placed(s.RPC(), "", "web", 2) })
	scale := func(id string, req method.JobScaleRequest) (*method.JobRegisterResponse, error) {
		req.JobID = cmp.Or(req.JobID, "web")
		return rpc.Call(t.Context(), s.RPC(), method.JobScale, rpc.To{RequestID: id}, &req)
	}
	four, nine := int64(4), int64(9)
	for range 3 {
		r, err := scale("the-one", method.JobScaleRequest{Group: "g", Count: &four, Message: "more", Meta: map[string]any{"load": 7}, JobModifyIndex: first.JobModifyIndex})
		if err != nil || r.EvalID == "" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	wait(t, "placements", func() error { return placed(s.RPC(), "", "web", 4) })
	for name, tc := range map[string]struct {
		req  method.JobScaleRequest
		want string
		kind model.Kind
	}{
		"no group":             {method.JobScaleRequest{Count: &four}, "Target names no Group", model.KindInvalid},
		"an error that counts": {method.JobScaleRequest{Group: "g", Count: &four, Error: true}, "has no Count", model.KindInvalid},
		"too many":             {method.JobScaleRequest{Group: "g", Count: &nine}, "above the maximum", model.KindInvalid},
		"no job":               {method.JobScaleRequest{JobID: "absent", Group: "g", Count: &four}, `job "absent" not found`, model.KindNotFound},
		"an older index":       {method.JobScaleRequest{Group: "g", Count: &four, JobModifyIndex: first.JobModifyIndex}, "Enforcing job modify index", model.KindConflict},
	} {
		if _, err := scale("", tc.req); model.KindOf(err) != tc.kind || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	status := call(t, s.RPC(), method.JobScaleStatus, rpc.To{}, &method.JobRequest{JobID: "web"}).Status
	g := status.TaskGroups["g"]
	if g.Desired != 4 || g.Placed != 4 || len(g.Events) != 1 || g.Events[0].PreviousCount != 2 || *g.Events[0].Count != 4 || g.Events[0].Message != "more" {
		t.Errorf("%+v, events %+v", g, g.Events)
	}
	if none := call(t, s.RPC(), method.JobScaleStatus, rpc.To{}, &method.JobRequest{JobID: "absent"}).Status; none != nil {
		t.Errorf("%+v", none)
	}
	list := func() []*model.ScalingPolicyStub {
		return call(t, s.RPC(), method.ScalingList, rpc.To{}, &method.ScalingListRequest{JobID: "web", Type: model.ScalingTypeHorizontal}).Policies
	}
	policies := list()
	if len(policies) != 1 || policies[0].Target[model.ScalingTargetJob] != "web" || policies[0].ModifyIndex != first.JobModifyIndex {
		t.Fatalf("%+v", policies)
	}
	p := call(t, s.RPC(), method.ScalingGet, rpc.To{}, &method.ScalingRequest{PolicyID: policies[0].ID}).Policy
	if p == nil || p.Min != 1 || p.Max != 6 || p.Policy["cooldown"] != "1m" {
		t.Errorf("%+v", p)
	}
	call(t, s.RPC(), method.JobDeregister, rpc.To{}, &method.JobDeregisterRequest{JobID: "web"})
	if policies := list(); len(policies) != 0 {
		t.Errorf("a stopped job has %d policies", len(policies))
	}
}

func TestNamespacesHoldTheirJobsApart(t *testing.T) {
	s := oneNode(t)
	apply := func(n *model.Namespace) error {
		_, err := rpc.Call(t.Context(), s.RPC(), method.NamespaceUpsert, rpc.To{}, &method.NamespaceUpsertRequest{Namespace: n})
		return err
	}
	in := func(namespace string, job *model.Job) error {
		job.Namespace = namespace
		_, err := rpc.Call(t.Context(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: job})
		return err
	}
	remove := func(name string) error {
		_, err := rpc.Call(t.Context(), s.RPC(), method.NamespaceDelete, rpc.To{}, &method.NamespaceDeleteRequest{Name: name})
		return err
	}
	if err := in("team", aJob("web", 1, "dc1")); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), `namespace "team" does not exist`) {
		t.Errorf("before it is there: %v", err)
	}
	if err := apply(&model.Namespace{Name: "team", Meta: map[string]string{"a": "b"}, Capabilities: &model.NamespaceCapabilities{DisabledTaskDrivers: []string{"docker"}}}); err != nil {
		t.Fatal(err)
	}
	docker := aJob("no", 1)
	docker.TaskGroups[0].Tasks[0].Driver = "docker"
	if err := in("team", docker); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), `use the driver "docker"`) {
		t.Errorf("a driver that is off: %v", err)
	}
	if err := in("team", aJob("web", 1, "dc1")); err != nil {
		t.Fatal(err)
	}
	if err := in("", aJob("web", 3, "dc1")); err != nil {
		t.Fatal(err)
	}
	// A version of before may use no more than one of now.
	if err := in("team", aJob("web", 1, "dc1", "dc2")); err != nil {
		t.Fatal(err)
	}
	if err := apply(&model.Namespace{Name: "team", Capabilities: &model.NamespaceCapabilities{DisabledTaskDrivers: []string{"mock"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rpc.Call(t.Context(), s.RPC(), method.JobRevert, rpc.To{}, &method.JobRevertRequest{Namespace: "team", JobID: "web"}); !strings.Contains(fmt.Sprint(err), `use the driver "mock"`) {
		t.Errorf("back to a driver that is off: %v", err)
	}
	wait(t, "placements in both", func() error {
		n := len(call(t, s.RPC(), method.AllocList, rpc.To{}, &method.ListRequest{Query: method.Query{Namespace: model.AllNamespaces}}).Allocs)
		if n != 4 {
			return fmt.Errorf("%d allocations", n)
		}
		return nil
	})
	// Each list is of one namespace, or of all.
	for namespace, want := range map[string]int{"": 1, "team": 1, model.AllNamespaces: 2, "none": 0} {
		q := method.Query{Namespace: namespace}
		jobs := len(call(t, s.RPC(), method.JobList, rpc.To{}, &method.ListRequest{Query: q}).Jobs)
		evals := make(map[string]bool)
		for _, e := range call(t, s.RPC(), method.EvalList, rpc.To{}, &method.EvalListRequest{Query: q}).Evals {
			evals[e.Namespace] = true
		}
		deployments := make(map[string]bool)
		for _, d := range call(t, s.RPC(), method.DeploymentList, rpc.To{}, &method.ListRequest{Query: q}).Deployments {
			deployments[d.Namespace] = true
		}
		if jobs != want || len(evals) != want || len(deployments) != want {
			t.Errorf("namespace %q: %d jobs, evaluations of %d and deployments of %d namespaces; want %d of each", namespace, jobs, len(evals), len(deployments), want)
		}
	}
	if err := remove("team"); model.KindOf(err) != model.KindConflict || !strings.Contains(err.Error(), `job "web" in it is`) {
		t.Errorf("with a live job: %v", err)
	}
	if err := remove("default"); model.KindOf(err) != model.KindInvalid {
		t.Errorf("the default one: %v", err)
	}
	if err := remove("absent"); model.KindOf(err) != model.KindNotFound {
		t.Errorf("an absent one: %v", err)
	}
	call(t, s.RPC(), method.JobDeregister, rpc.To{}, &method.JobDeregisterRequest{Namespace: "team", JobID: "web"})
	if err := remove("team"); err != nil {
		t.Error(err)
	}
	var names []string
	for _, n := range call(t, s.RPC(), method.NamespaceList, rpc.To{}, &method.ListRequest{}).Namespaces {
		names = append(names, n.Name)
	}
	if !slices.Equal(names, []string{"default"}) {
		t.Errorf("there are %v", names)
	}
	if n := call(t, s.RPC(), method.NamespaceGet, rpc.To{}, &method.NamespaceRequest{Name: "team"}).Namespace; n != nil {
		t.Errorf("%+v", n)
	}
}
