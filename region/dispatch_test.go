package region

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// childrenOf are the children of a job, as a server's own state has them.
func childrenOf(s *testServer, parent string) (out []*model.Job) {
	for j := range s.cell.Snapshot().Jobs(nil, model.DefaultNamespace, parent+"/") {
		out = append(out, j)
	}
	return out
}

// launchesOf counts a job's evaluations of a trigger.
func launchesOf(s *testServer, job, trigger string) (n int) {
	for e := range s.cell.Snapshot().EvalsOfJob(nil, model.JobID{Namespace: model.DefaultNamespace, ID: job}) {
		if e.TriggeredBy == trigger {
			n++
		}
	}
	return n
}

func takes(id string) *model.Job {
	j := aJob(id, 1)
	j.Type, j.ParameterizedJob = model.JobTypeBatch, &model.ParameterizedJobConfig{MetaOptional: []string{"k"}}
	return j
}

// One token, dispatched a hundred times at once through every server of two
// regions, and with another payload each.
func TestATokenThatIsDispatchedAHundredTimesMakesOneChild(t *testing.T) {
	s1 := startServer(t, "s1", "us", t.TempDir(), 3)
	s2 := startServer(t, "s2", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	s3 := startServer(t, "s3", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	eu := startServer(t, "e1", "eu", t.TempDir(), 1, s1.cfg.AdvertiseSerf)
	doors := []*testServer{s1, s2, s3, eu}
	for _, s := range doors {
		wait(t, "the region can be reached", func() error {
			_, err := rpc.Call(t.Context(), s.RPC(), method.JobList, rpc.To{Region: "us"}, &method.ListRequest{})
			return err
		})
	}
	if r := register(t, eu.RPC(), "us", takes("p")); r.EvalID != "" || r.EvalCreateIndex != 0 {
		t.Errorf("the registration has the evaluation %q", r.EvalID)
	}
	dispatch := func(door *testServer, token, payload string) (*method.JobDispatchResponse, error) {
		return rpc.Call(context.Background(), door.RPC(), method.JobDispatch, rpc.To{Region: "us"}, &method.JobDispatchRequest{
			JobID: "p", Payload: []byte(payload), IdempotencyToken: token,
		})
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers, evals := map[string]int{}, map[string]int{}
	for i := range 100 {
		wg.Go(func() {
			r, err := dispatch(doors[i%len(doors)], "tok", fmt.Sprint("payload ", i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answers[err.Error()]++
				return
			}
			answers[r.DispatchedJobID]++
			evals[r.EvalID]++
		})
	}
	wg.Wait()
	if len(answers) != 1 || len(evals) != 2 || evals[""] != 99 {
		t.Errorf("a hundred came to %d answers: %v, with the evaluations %v", len(answers), answers, evals)
	}
	leader := s1
	for _, s := range []*testServer{s2, s3} {
		if s.IsLeader() {
			leader = s
		}
	}
	all := childrenOf(leader, "p")
	if len(all) != 1 || launchesOf(leader, all[0].ID, model.TriggerJobRegister) != 1 {
		t.Fatalf("there are %d children", len(all))
	}
	if p, err := all[0].DispatchedPayload(); err != nil || !strings.HasPrefix(string(p), "payload ") || !all[0].Dispatched || all[0].Region != "us" {
		t.Errorf("the payload is %q, %v; the child %+v", p, err, all[0])
	}
	// Without a token each is one of its own; the same request is one.
	for i := range 2 {
		req := &method.JobDispatchRequest{JobID: "p"}
		a, err := rpc.Call(t.Context(), doors[i].RPC(), method.JobDispatch, rpc.To{Region: "us", RequestID: fmt.Sprint("r", i)}, req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := rpc.Call(t.Context(), eu.RPC(), method.JobDispatch, rpc.To{Region: "us", RequestID: fmt.Sprint("r", i)}, req)
		if err != nil || *a != *b || a.EvalID == "" {
			t.Errorf("the same request again: %+v, %v; first %+v", b, err, a)
		}
	}
	if n := len(childrenOf(leader, "p")); n != 3 {
		t.Errorf("%d children, want 3", n)
	}
	for name, c := range map[string]struct {
		req  method.JobDispatchRequest
		kind model.Kind
	}{
		"too much":       {method.JobDispatchRequest{JobID: "p", Payload: make([]byte, model.MaxDispatchPayload+1)}, model.KindTooLarge},
		"an unknown key": {method.JobDispatchRequest{JobID: "p", Meta: map[string]string{"z": "1"}}, model.KindInvalid},
		"nobody":         {method.JobDispatchRequest{JobID: "q"}, model.KindNotFound},
		"a long token":   {method.JobDispatchRequest{JobID: "p", IdempotencyToken: strings.Repeat("x", 300)}, model.KindInvalid},
	} {
		if _, err := rpc.Call(t.Context(), eu.RPC(), method.JobDispatch, rpc.To{Region: "us"}, &c.req); model.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A leader dies just before a launch is due: its successor launches, once. The one
// after that is launched by a leader whose predecessor lives.
func TestALaunchComesOnceWhoeverLeads(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	at := time.Now().Add(4 * time.Second).UTC().Truncate(time.Second)
	j := aJob("p", 1)
	j.Type = model.JobTypeBatch
	j.Periodic = &model.PeriodicConfig{Enabled: true}
	for _, launch := range []time.Time{at, at.Add(3 * time.Second)} {
		j.Periodic.Specs = append(j.Periodic.Specs, launch.Format("5 4 15 2 1 * 2006"))
	}
	register(t, c.any().RPC(), "", j)
	first := c.leader()
	// 20 ms before the launch: the election takes longer than that.
	timer := time.NewTimer(time.Until(at.Add(-20 * time.Millisecond)))
	defer timer.Stop()
	<-timer.C
	c.kill(first.cfg.Name)
	want := []string{fmt.Sprintf("p/periodic-%d", at.Unix()), fmt.Sprintf("p/periodic-%d", at.Unix()+3)}
	wait(t, "the launch", func() error {
		if n := len(childrenOf(c.leader(), "p")); n != 1 {
			return fmt.Errorf("%d children", n)
		}
		return nil
	})
	// Another change, of which the launch is asked for by both: the one that led
	// is told to hand over.
	second := c.leader()
	c.start(first.cfg.Name, 3, second.cfg.Name)
	timer.Reset(time.Until(at.Add(3*time.Second - 20*time.Millisecond)))
	<-timer.C
	_, _ = rpc.Call(t.Context(), second.RPC(), method.RaftTransfer, rpc.To{}, &method.RaftPeerRequest{})
	wait(t, "the second launch", func() error {
		if n := len(childrenOf(c.leader(), "p")); n != 2 {
			return fmt.Errorf("%d children", n)
		}
		return nil
	})
	for _, s := range c.servers {
		wait(t, "the same everywhere", func() error {
			all := childrenOf(s, "p")
			if len(all) != 2 {
				return fmt.Errorf("%d children", len(all))
			}
			for i, child := range all {
				if child.ID != want[i] || child.Version != 0 || launchesOf(s, child.ID, model.TriggerPeriodicJob) != 1 {
					t.Fatalf("at %s: child %s, version %d, want %s", s.cfg.Name, child.ID, child.Version, want[i])
				}
			}
			return nil
		})
	}
}

// reports plays a node that reports whatever it is given as complete, until ctx
// ends.
func reports(ctx context.Context, s *testServer, n *model.Node, secret string) {
	for ctx.Err() == nil {
		_, _ = rpc.Call(ctx, s.RPC(), method.NodeHeartbeat, rpc.To{}, &method.NodeHeartbeatRequest{NodeID: n.ID, SecretID: secret})
		id, _ := model.ParseUUID(n.ID)
		var done []*model.AllocUpdate
		for r := range s.cell.Snapshot().AllocsOfNode(nil, id) {
			if !r.Terminal() {
				done = append(done, &model.AllocUpdate{ID: r.ID.String(), ClientStatus: model.AllocClientComplete})
			}
		}
		if len(done) > 0 {
			_, _ = rpc.Call(ctx, s.RPC(), method.NodeUpdate, rpc.To{}, &method.NodeUpdateAllocsRequest{NodeID: n.ID, SecretID: secret, Updates: done})
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestSysbatchRunsOnceOnEachNodeAndOnThoseThatCome(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	wait(t, "leader", func() error {
		if !s.IsLeader() {
			return fmt.Errorf("no leader")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var nodes sync.WaitGroup
	defer nodes.Wait()
	defer cancel()
	add := func() {
		n, secret := aNode("dc1")
		call(t, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
		nodes.Go(func() { reports(ctx, s, n, secret) })
	}
	ran := func(id string, want int) {
		t.Helper()
		wait(t, fmt.Sprintf("%s ran %d times", id, want), func() error {
			j := call(t, s.RPC(), method.JobGet, rpc.To{}, &method.JobRequest{JobID: id}).Job
			on := map[string]int{}
			for _, a := range call(t, s.RPC(), method.JobAllocations, rpc.To{}, &method.JobAllocsRequest{JobID: id}).Allocs {
				if a.ClientStatus == model.AllocClientComplete {
					on[a.NodeID]++
				}
			}
			if len(on) != want || j.Status != model.JobStatusDead {
				return fmt.Errorf("it is %s, and ran on %v", j.Status, on)
			}
			for node, n := range on {
				if n != 1 {
					t.Fatalf("it ran %d times on %s", n, node)
				}
			}
			return nil
		})
	}
	add()
	add()
	everywhere := func(id string, change func(*model.Job)) {
		j := aJob(id, 1)
		j.Type = model.JobTypeSysBatch
		change(j)
		register(t, s.RPC(), "", j)
	}
	everywhere("clean", func(*model.Job) {})
	ran("clean", 2)
	everywhere("takes", func(j *model.Job) { j.ParameterizedJob = &model.ParameterizedJobConfig{} })
	dispatched := call(t, s.RPC(), method.JobDispatch, rpc.To{}, &method.JobDispatchRequest{JobID: "takes"}).DispatchedJobID
	ran(dispatched, 2)
	everywhere("times", func(j *model.Job) { j.Periodic = &model.PeriodicConfig{Enabled: true, Spec: "@yearly"} })
	forced := call(t, s.RPC(), method.JobPeriodicForce, rpc.To{}, &method.JobPeriodicForceRequest{JobID: "times"}).EvalID
	e := call(t, s.RPC(), method.EvalGet, rpc.To{}, &method.EvalRequest{EvalID: forced}).Eval
	ran(e.JobID, 2)

	add()
	for _, id := range []string{"clean", dispatched, e.JobID} {
		ran(id, 3)
	}
	for _, id := range []string{"takes", "times"} {
		if err := placed(s.RPC(), "", id, 0); err != nil {
			t.Errorf("the parent %s: %v", id, err)
		}
		sum := call(t, s.RPC(), method.JobSummary, rpc.To{}, &method.JobRequest{JobID: id}).Summary
		if sum.Children.Dead != 1 || sum.Children.Running+sum.Children.Pending != 0 {
			t.Errorf("the children of %s are %+v", id, sum.Children)
		}
	}
}
