package cell

import (
	"context"
	"slices"
	"testing"

	"atoll/cell/state"
	"atoll/model"
)

// placed registers a job with allocations on a node and returns their ids.
func placed(t testing.TB, c *Cell, job string, node model.UUID, n int) (ids []model.UUID) {
	t.Helper()
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob(job, n)})
	p := &model.Plan{
		JobKey: model.JobID{Namespace: "default", ID: job},
		Groups: []model.PlanGroup{{Name: "web", Resources: &model.AllocatedResources{}}},
	}
	for i := range n {
		ids = append(ids, model.NewUUID(nil))
		p.Place = append(p.Place, model.Placement{ID: ids[i], NodeID: node, Index: uint32(i)})
	}
	must(t, c, CmdPlan, state.NewPlanCommand(p, 1))
	return ids
}

func stopped(t testing.TB, c *Cell, job string, ids ...model.UUID) {
	t.Helper()
	p := &model.Plan{JobKey: model.JobID{Namespace: "default", ID: job}}
	for _, id := range ids {
		p.Stop = append(p.Stop, model.PlanStop{ID: id, Description: "test"})
	}
	must(t, c, CmdPlan, state.NewPlanCommand(p, 1))
}

func pending(c *Cell) (jobs []string) {
	for e := range c.Snapshot().EvalsByStatus(nil, model.EvalPending) {
		jobs = append(jobs, e.JobID)
	}
	slices.Sort(jobs)
	return jobs
}

func lastEvent(t testing.TB, c *Cell, node string) string {
	t.Helper()
	events := c.Snapshot().Node(nil, node).Events
	return events[len(events)-1].Message
}

func TestANodesEligibility(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	everywhere := testJob("everywhere", 1)
	everywhere.Type, everywhere.Datacenters, everywhere.NodePool = model.JobTypeSystem, []string{n.Datacenter}, n.NodePool
	elsewhere := testJob("elsewhere", 1)
	elsewhere.Type, elsewhere.Datacenters, elsewhere.NodePool = model.JobTypeSystem, []string{"mars"}, n.NodePool
	must(t, c, CmdJobRegister, &JobRegister{Job: everywhere})
	must(t, c, CmdJobRegister, &JobRegister{Job: elsewhere})

	done := must(t, c, CmdNodeEligibility, &NodeEligibility{NodeID: n.ID, Derive: NewDerive(2)}).(*NodeChanged)
	got := c.Snapshot().Node(nil, n.ID)
	if got.SchedulingEligibility != model.NodeIneligible || got.ModifyIndex != done.NodeModifyIndex || len(done.EvalIDs) != 0 {
		t.Errorf("made ineligible: %s, %+v", got.SchedulingEligibility, done)
	}
	if e := lastEvent(t, c, n.ID); e != "Node marked as ineligible for scheduling" {
		t.Errorf("the last event is %q", e)
	}
	// What it is already leaves no trace.
	again := must(t, c, CmdNodeEligibility, &NodeEligibility{NodeID: n.ID, Derive: NewDerive(2)}).(*NodeChanged)
	if again.NodeModifyIndex != done.NodeModifyIndex {
		t.Errorf("made ineligible again: %+v, was %+v", again, done)
	}
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(3)})
	if got := c.Snapshot().Node(nil, n.ID); got.SchedulingEligibility != model.NodeIneligible {
		t.Error("registering anew made the node eligible")
	}
	done = must(t, c, CmdNodeEligibility, &NodeEligibility{NodeID: n.ID, Eligible: true, Derive: NewDerive(4)}).(*NodeChanged)
	if jobs := pending(c); !slices.Equal(jobs, []string{"everywhere"}) || len(done.EvalIDs) != 1 {
		t.Errorf("evaluations of %v, %+v", jobs, done)
	}
	if e := lastEvent(t, c, n.ID); e != "Node marked as eligible for scheduling" {
		t.Errorf("the last event is %q", e)
	}
}

func TestWhatANodeTakesWithIt(t *testing.T) {
	down := func(id string) (Command, any) {
		return CmdNodeStatus, &NodeStatus{NodeID: id, Status: model.NodeStatusDown, Why: "test", Derive: NewDerive(5)}
	}
	purge := func(id string) (Command, any) { return CmdNodePurge, &NodePurge{NodeID: id, Derive: NewDerive(5)} }
	for name, goes := range map[string]func(id string) (Command, any){"down": down, "purged": purge} {
		t.Run(name, func(t *testing.T) {
			c := openAlone(t, t.TempDir())
			n := testNode(1)
			id, _ := model.ParseUUID(n.ID)
			must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
			ids := placed(t, c, "a", id, 3)
			stopped(t, c, "a", ids[0])
			if r := c.Snapshot().Alloc(nil, ids[0]); r.Client != model.ClientPending {
				t.Fatalf("a stop that the node must hear of: %+v", r)
			}
			cmd, body := goes(n.ID)
			must(t, c, cmd, body)
			if jobs := pending(c); !slices.Equal(jobs, []string{"a"}) {
				t.Errorf("evaluations of %v", jobs)
			}
			if r := c.Snapshot().Alloc(nil, ids[0]); r.Client != model.ClientLost {
				t.Errorf("what was told to stop is %d, want lost", r.Client)
			}
			// What should run is the scheduler's, which says what takes over.
			if r := c.Snapshot().Alloc(nil, ids[1]); r.Client != model.ClientPending || r.Desired != model.DesiredRun {
				t.Errorf("what should run: %+v", r)
			}
			// A plan that knew the node as ready stops what is lost by now.
			stopped(t, c, "a", ids[1])
			if r := c.Snapshot().Alloc(nil, ids[1]); r.Client != model.ClientLost {
				t.Errorf("stopped after the node went: %+v", r)
			}
			if n := c.Snapshot().Node(nil, n.ID); (n == nil) != (name == "purged") {
				t.Errorf("node: %+v", n)
			}
		})
	}
}

func TestANodeIsEvaluatedOnDemand(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	id, _ := model.ParseUUID(n.ID)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	placed(t, c, "a", id, 2)
	placed(t, c, "b", id, 1)
	done := must(t, c, CmdNodeEvaluate, &NodeEvaluate{NodeID: n.ID, Derive: NewDerive(2)}).(*NodeChanged)
	if jobs := pending(c); len(done.EvalIDs) != 2 || !slices.Equal(jobs, []string{"a", "b"}) {
		t.Errorf("%+v, evaluations of %v", done, jobs)
	}
	for _, cmd := range []Command{CmdNodeEligibility, CmdNodePurge, CmdNodeEvaluate} {
		_, _, err := c.Apply(context.Background(), cmd, &NodePurge{NodeID: "nobody"})
		if model.KindOf(err) != model.KindNotFound {
			t.Errorf("command %d on a node that does not exist: %v", cmd, err)
		}
	}
}

func TestAnAllocationIsStoppedOnce(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	id, _ := model.ParseUUID(n.ID)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	alloc := placed(t, c, "a", id, 1)[0]
	stop := func(why string, lost bool) *model.AllocRow {
		p := &model.Plan{JobKey: model.JobID{Namespace: "default", ID: "a"}, Stop: []model.PlanStop{{ID: alloc, Description: why, Lost: lost, Evict: why == "second"}}}
		must(t, c, CmdPlan, state.NewPlanCommand(p, 1))
		return c.Snapshot().Alloc(nil, alloc)
	}
	first := stop("first", false)
	if first.Desired != model.DesiredStop || first.Extra.DesiredDescription != "first" {
		t.Fatalf("%+v", first)
	}
	if second := stop("second", false); second.AllocModifyIndex != first.AllocModifyIndex || second.Desired != model.DesiredStop || second.Extra.DesiredDescription != "first" {
		t.Errorf("stopped again: %+v %+v", second, second.Extra)
	}
	if third := stop("third", true); third.Client != model.ClientLost || third.Extra.DesiredDescription != "first" {
		t.Errorf("lost: %+v %+v", third, third.Extra)
	}
}

func TestAReportAfterSilenceIsEvaluated(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	id, _ := model.ParseUUID(n.ID)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	alloc := placed(t, c, "a", id, 1)[0]
	report := func() {
		must(t, c, CmdAllocReports, &AllocReports{NodeID: id, Updates: []*model.AllocUpdate{{ID: alloc.String(), ClientStatus: model.AllocClientRunning}}, Derive: NewDerive(2)})
	}
	report()
	if jobs := pending(c); len(jobs) != 0 {
		t.Fatalf("evaluations of %v for a first report", jobs)
	}
	must(t, c, CmdNodeStatus, &NodeStatus{NodeID: n.ID, Status: model.NodeStatusDisconnected, Derive: NewDerive(3)})
	for e := range c.Snapshot().EvalsByStatus(nil, model.EvalPending) {
		done := *e
		done.Status = model.EvalComplete
		must(t, c, CmdEvals, &Evals{Evals: []*model.Evaluation{&done}})
	}
	p := &model.Plan{JobKey: model.JobID{Namespace: "default", ID: "a"}, Disconnect: []model.PlanDisconnect{{ID: alloc}}}
	must(t, c, CmdPlan, state.NewPlanCommand(p, 1))
	if r := c.Snapshot().Alloc(nil, alloc); r.Client != model.ClientUnknown {
		t.Fatalf("%+v", r)
	}
	report()
	if jobs := pending(c); !slices.Equal(jobs, []string{"a"}) {
		t.Errorf("evaluations of %v", jobs)
	}
	for e := range c.Snapshot().EvalsByStatus(nil, model.EvalPending) {
		if e.TriggeredBy != model.TriggerReconnect {
			t.Errorf("triggered by %s", e.TriggeredBy)
		}
	}
}

func TestADrainIsNotCompleteWhileSomethingIsLeft(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	id, _ := model.ParseUUID(n.ID)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	must(t, c, CmdNodeDrain, &NodeDrain{NodeID: n.ID, Spec: &model.DrainSpec{}, Derive: NewDerive(2)})
	// Its plan was checked before the drain began.
	alloc := placed(t, c, "a", id, 1)[0]
	complete := func() *model.Node {
		index := c.Snapshot().Node(nil, n.ID).ModifyIndex
		must(t, c, CmdNodeDrain, &NodeDrain{NodeID: n.ID, Complete: true, IfModifyIndex: index, Derive: NewDerive(3)})
		return c.Snapshot().Node(nil, n.ID)
	}
	if now := complete(); now.DrainStrategy == nil || now.LastDrain.Status != model.DrainDraining {
		t.Errorf("with an allocation on its way: %+v", now.LastDrain)
	}
	stopped(t, c, "a", alloc)
	if now := complete(); now.DrainStrategy == nil {
		t.Error("what was told to stop runs still")
	}
	must(t, c, CmdAllocReports, &AllocReports{NodeID: id, Updates: []*model.AllocUpdate{{ID: alloc.String(), ClientStatus: model.AllocClientComplete}}, Derive: NewDerive(4)})
	if now := complete(); now.DrainStrategy != nil || now.LastDrain.Status != model.DrainComplete {
		t.Errorf("once it is empty: %+v", now.LastDrain)
	}
}
