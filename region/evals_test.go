package region

import (
	"errors"
	"strings"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

func TestAnEvaluationThatFailedIsFollowedByAnother(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	e := newEval(model.JobID{Namespace: model.DefaultNamespace, ID: "j"}, model.JobTypeService, 70, model.TriggerJobRegister, time.Now().UnixNano())
	e.WaitUntil = time.Now().Add(time.Hour) // so that no worker takes it
	if err := s.lead.writeEvals(t.Context(), []*model.Evaluation{e}); err != nil {
		t.Fatal(err)
	}
	stored := s.cell.Snapshot().Eval(nil, e.ID)
	if err := s.lead.failEval(t.Context(), stored, "it is a test"); err != nil {
		t.Fatal(err)
	}
	failed := s.cell.Snapshot().Eval(nil, e.ID)
	next := s.cell.Snapshot().Eval(nil, failed.NextEval)
	if failed.Status != model.EvalFailed || !strings.Contains(failed.StatusDescription, "it is a test; it is tried again at ") {
		t.Errorf("%+v", failed)
	}
	if next == nil || next.Status != model.EvalPending || next.TriggeredBy != model.TriggerFailedFollow || next.PreviousEval != e.ID || next.Priority != 70 {
		t.Fatalf("%+v", next)
	}
	if wait := time.Until(next.WaitUntil); wait < 50*time.Second || wait > time.Minute {
		t.Errorf("it waits %s", wait)
	}
	// The last of them says so.
	last := *next
	last.WaitUntil = time.Unix(0, last.CreateTime).Add(16 * time.Minute)
	if err := s.lead.failEval(t.Context(), &last, "it is a test"); err != nil {
		t.Fatal(err)
	}
	if got := s.cell.Snapshot().Eval(nil, next.ID); got.NextEval != "" || !strings.Contains(got.StatusDescription, "not tried again") {
		t.Errorf("%+v", got)
	}
}

func TestANodeInQuarantineTakesNothingMoreUntilItIsMadeEligible(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	n, secret := aNode("dc1")
	call(t, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
	id, _ := model.ParseUUID(n.ID)
	if err := s.lead.quarantine(t.Context(), id, 15); err != nil {
		t.Fatal(err)
	}
	got := call(t, s.RPC(), method.NodeGet, rpc.To{}, &method.NodeRequest{NodeID: n.ID}).Node
	event := got.Events[len(got.Events)-1]
	if got.SchedulingEligibility != model.NodeIneligible || event.Subsystem != model.NodeEventScheduler || !strings.Contains(event.Message, "refused 15 plans") {
		t.Errorf("%s, %+v", got.SchedulingEligibility, event)
	}
	register(t, s.RPC(), "us", aJob("j", 1, "dc1"))
	blocked := func() error {
		for e := range s.cell.Snapshot().EvalsByStatus(nil, model.EvalBlocked) {
			if e.JobID == "j" {
				return nil
			}
		}
		return errors.New("there is none")
	}
	wait(t, "a blocked evaluation", blocked)
	// The operator's word wakes what it blocked.
	call(t, s.RPC(), method.NodeEligibility, rpc.To{}, &method.NodeEligibilityRequest{NodeID: n.ID, Eligibility: model.NodeEligible})
	wait(t, "an allocation", func() error { return placed(s.RPC(), "us", "j", 1) })
}
