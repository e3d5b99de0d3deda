package cell

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"atoll/cell/state"
	"atoll/internal/freeport"
	"atoll/model"
)

// trio is a cell of three members over loopback TCP.
type trio struct {
	t     *testing.T
	dir   string
	cells map[string]*Cell
	addrs map[string]string
}

func newTrio(t *testing.T) *trio {
	tr := &trio{t: t, dir: t.TempDir(), cells: map[string]*Cell{}, addrs: map[string]string{}}
	var servers []Server
	for _, id := range []string{"s1", "s2", "s3"} {
		tr.open(id)
		servers = append(servers, Server{id, tr.addrs[id]})
	}
	for _, c := range tr.cells {
		if err := c.Bootstrap(servers); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for id := range tr.cells {
			tr.close(id)
		}
	})
	return tr
}

func (tr *trio) open(id string) {
	tr.t.Helper()
	addr := tr.addrs[id]
	if addr == "" {
		addr = freeport.Addr(tr.t)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.addrs[id] = l.Addr().String()
	c, err := Open(Config{
		ServerID: id, DataDir: filepath.Join(tr.dir, id), Stream: tcpStream{l}, Advertise: l.Addr().String(), SnapshotThreshold: 64,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.cells[id] = c
	go func() { // drained until Close ends Raft and, with it, its notifications
		for {
			select {
			case <-c.Leadership():
			case <-c.Done():
				return
			}
		}
	}()
}

func (tr *trio) close(id string) {
	tr.t.Helper()
	if err := tr.cells[id].Close(); err != nil {
		tr.t.Error(err)
	}
	delete(tr.cells, id)
}

func (tr *trio) leader() (string, *Cell) {
	tr.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for id, c := range tr.cells {
			if c.IsLeader() && c.Barrier(time.Second) == nil {
				return id, c
			}
		}
	}
	tr.t.Fatal("no leader")
	return "", nil
}

func (tr *trio) caughtUp(id string, index uint64) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		ws := make(state.Watch)
		snap := tr.cells[id].Snapshot()
		snap.WatchAny(ws)
		if snap.Index() >= index {
			return
		}
		if ws.WatchCtx(ctx) != nil {
			tr.t.Fatalf("%s is at %d, want %d", id, snap.Index(), index)
		}
	}
}

func TestAckedWritesSurviveTheLeaderAndASnapshotCatchesUpALateMember(t *testing.T) {
	tr := newTrio(t)
	first, c := tr.leader()
	for i := range 20 {
		must(t, c, CmdJobRegister, &JobRegister{Job: testJob(fmt.Sprintf("before-%d", i), 1)})
	}
	tr.close(first)

	second, c := tr.leader()
	if second == first {
		t.Fatal("a closed member leads")
	}
	var last uint64
	for i := range 200 {
		index, _, err := c.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: testJob(fmt.Sprintf("after-%d", i), 1)})
		if err != nil {
			t.Fatal(err)
		}
		last = index
	}
	if err := c.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	tr.open(first)
	tr.caughtUp(first, last)
	for id, c := range tr.cells {
		tr.caughtUp(id, last)
		n := 0
		for range c.Snapshot().Jobs(nil, "*", "") {
			n++
		}
		if n != 220 {
			t.Errorf("%s has %d jobs, want 220", id, n)
		}
	}
}

func TestAFollowerRefusesWrites(t *testing.T) {
	tr := newTrio(t)
	leader, _ := tr.leader()
	for id, c := range tr.cells {
		if id == leader {
			continue
		}
		_, _, err := c.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: testJob("x", 1)})
		if model.KindOf(err) != model.KindNoLeader {
			t.Errorf("%s: %v, want an error of kind no leader", id, err)
		}
	}
}

func TestARestartFindsEverything(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir)
	var last uint64
	for i := range 30 {
		index, _, err := c.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: testJob(fmt.Sprint(i), 1)})
		if err != nil {
			t.Fatal(err)
		}
		last = index
		if i == 15 {
			if err := c.TakeSnapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openAlone(t, dir)
	if got := c.Snapshot().Index(); got != last {
		t.Errorf("state is at index %d, want %d", got, last)
	}
	n := 0
	for range c.Snapshot().Jobs(nil, "*", "") {
		n++
	}
	if n != 30 {
		t.Errorf("%d jobs, want 30", n)
	}
}

func TestCommandsRefuseByTheirKind(t *testing.T) {
	c := openAlone(t, t.TempDir())
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	node := testNode(1)
	node.SecretID = "one"
	must(t, c, CmdNodeRegister, &NodeRegister{Node: node, Derive: NewDerive(1)})
	thief := *node
	thief.SecretID = "two"
	for name, tc := range map[string]struct {
		cmd  Command
		body any
		want model.Kind
	}{
		"check-and-set on a job that exists":     {CmdJobRegister, &JobRegister{Job: testJob("a", 1), EnforceIndex: true}, model.KindConflict},
		"check-and-set on a job that does not":   {CmdJobRegister, &JobRegister{Job: testJob("b", 1), EnforceIndex: true, JobModifyIndex: 9}, model.KindConflict},
		"stop of a job that does not exist":      {CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: "b"}}, model.KindNotFound},
		"status of a node that does not exist":   {CmdNodeStatus, &NodeStatus{NodeID: "nobody", Status: "down"}, model.KindNotFound},
		"a node's id with another secret":        {CmdNodeRegister, &NodeRegister{Node: &thief, Derive: NewDerive(1)}, model.KindForbidden},
		"a plan for a version that is not there": {CmdPlan, &state.PlanCommand{Plan: model.Plan{JobKey: model.JobID{Namespace: "default", ID: "a"}, JobVersion: 7, Groups: []model.PlanGroup{{Name: "web"}}}, Rows: model.Placements{}.Pack()}, model.KindConflict},
		"a report with a status that is not one": {CmdAllocReports, &AllocReports{Updates: []*model.AllocUpdate{{ID: model.NewUUID(nil).String(), ClientStatus: "fine"}}}, model.KindInvalid},
	} {
		_, _, err := c.Apply(context.Background(), tc.cmd, tc.body)
		if model.KindOf(err) != tc.want || err == nil {
			t.Errorf("%s: %v, want kind %s", name, err, tc.want)
		}
	}
}

func TestANodeThatGoesDownLeavesAnEvaluationForEachOfItsJobs(t *testing.T) {
	c := openAlone(t, t.TempDir())
	n := testNode(1)
	id, _ := model.ParseUUID(n.ID)
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	for _, name := range []string{"a", "b"} {
		must(t, c, CmdJobRegister, &JobRegister{Job: testJob(name, 1)})
		p := &model.Plan{
			JobKey: model.JobID{Namespace: "default", ID: name},
			Groups: []model.PlanGroup{{Name: "web", Resources: &model.AllocatedResources{}}},
			Place:  model.Placements{{ID: model.NewUUID(nil), NodeID: id}, {ID: model.NewUUID(nil), NodeID: id}},
		}
		must(t, c, CmdPlan, state.NewPlanCommand(p, 1))
	}
	d := NewDerive(5)
	must(t, c, CmdNodeStatus, &NodeStatus{NodeID: n.ID, Status: model.NodeStatusDown, Why: "test", Derive: d})
	jobs := map[string]int{}
	for e := range c.Snapshot().EvalsByStatus(nil, model.EvalPending) {
		jobs[e.JobID]++
		if e.TriggeredBy != model.TriggerNodeUpdate || e.NodeID != n.ID {
			t.Errorf("evaluation %+v", e)
		}
	}
	if len(jobs) != 2 || jobs["a"] != 1 || jobs["b"] != 1 {
		t.Errorf("evaluations by job: %v, want one for a and one for b", jobs)
	}
}
