package scheduler

import (
	"fmt"
	"testing"
	"time"

	"atoll/model"
)

// spec changes what the tasks of a job run.
func spec(j *model.Job) { j.TaskGroups[0].Tasks[0].Config["run_for"] = "2h" }

func TestWhatRunsFollowsTheJob(t *testing.T) {
	policy := func(p model.ReschedulePolicy) func(*model.Job) {
		p.UnlimitedGiven = true
		return func(j *model.Job) { j.TaskGroups[0].ReschedulePolicy = &p }
	}
	for _, c := range []struct {
		name   string
		before *model.Job
		// between happens after the first job was placed.
		between func(w *world, rows []*model.AllocRow)
		after   *model.Job // nil: the same job is evaluated again
		want    string     // what the plan does
		numbers string     // of the allocations that are live then
	}{{
		name: "a new job gets its count", before: job("a", 3),
		want: "place 0 stop 0 update 0", numbers: "[0 1 2]",
	}, {
		name: "a higher count adds under the next numbers, and keeps what runs", before: job("a", 2), after: job("a", 4),
		want: "place 2 stop 0 update 2", numbers: "[0 1 2 3]",
	}, {
		name: "a lower count stops the highest numbers", before: job("a", 4), after: job("a", 1),
		want: "place 0 stop 3 update 1", numbers: "[0]",
	}, {
		name: "a count of zero stops all", before: job("a", 2), after: job("a", 0),
		want: "place 0 stop 2 update 0", numbers: "[]",
	}, {
		name: "a changed task replaces all, under the same numbers", before: job("a", 3), after: job("a", 3, spec),
		want: "place 3 stop 3 update 0", numbers: "[0 1 2]",
	}, {
		name: "a changed policy is taken up by what runs", before: job("a", 3),
		after: job("a", 3, policy(model.ReschedulePolicy{Attempts: 1, Interval: time.Hour, DelayFunction: "constant"})),
		want:  "place 0 stop 0 update 3", numbers: "[0 1 2]",
	}, {
		name: "changed job meta replaces, since tasks see it", before: job("a", 1),
		after: job("a", 1, func(j *model.Job) { j.Meta = map[string]string{"k": "v"} }),
		want:  "place 1 stop 1 update 0", numbers: "[0]",
	}, {
		name: "a constraint that the node meets is taken up in place", before: job("a", 2), after: job("a", 2, where("${node.datacenter}", "=", "dc1")),
		want: "place 0 stop 0 update 2", numbers: "[0 1]",
	}, {
		name: "one that it does not meet replaces", before: job("a", 2), after: job("a", 2, where("${node.unique.name}", "=", "spare")),
		between: func(w *world, _ []*model.AllocRow) { w.node("spare") },
		want:    "place 2 stop 2 update 0", numbers: "[0 1]",
	}, {
		name: "so do datacenters that the node is not in", before: job("a", 1), after: job("a", 1, func(j *model.Job) { j.Datacenters = []string{"dc2"} }),
		between: func(w *world, _ []*model.AllocRow) { w.node("spare", inDC("dc2")) },
		want:    "place 1 stop 1 update 0", numbers: "[0]",
	}, {
		name: "more memory replaces", before: job("a", 1),
		after: job("a", 1, func(j *model.Job) { j.TaskGroups[0].Tasks[0].Resources.MemoryMB = 200 }),
		want:  "place 1 stop 1 update 0", numbers: "[0]",
	}, {
		name: "a stopped job stops all and places nothing", before: job("a", 3),
		after: job("a", 3, func(j *model.Job) { j.Stop = true }),
		want:  "place 0 stop 3 update 0", numbers: "[]",
	}, {
		name: "a group that is gone stops", before: job("a", 2),
		after: job("a", 2, func(j *model.Job) { j.TaskGroups[0].Name = "other" }),
		want:  "place 2 stop 2 update 0", numbers: "[0 1]",
	}, {
		name: "a service that ended is started again", before: job("a", 2),
		between: func(w *world, rows []*model.AllocRow) { w.report(rows[0].ID, model.ClientComplete) },
		want:    "place 1 stop 0 update 0", numbers: "[0 1]",
	}, {
		name: "batch work that is done is not done again", before: job("a", 2, batch),
		between: func(w *world, rows []*model.AllocRow) { w.report(rows[0].ID, model.ClientComplete) },
		want:    "place 0 stop 0 update 0", numbers: "[1]",
	}, {
		name: "batch work of which all is done rests", before: job("a", 2, batch),
		between: func(w *world, rows []*model.AllocRow) {
			w.report(rows[0].ID, model.ClientComplete)
			w.report(rows[1].ID, model.ClientComplete)
		},
		want: "place 0 stop 0 update 0", numbers: "[]",
	}, {
		name: "a new version of a batch job runs anew", before: job("a", 1, batch), after: job("a", 1, batch, spec),
		between: func(w *world, rows []*model.AllocRow) { w.report(rows[0].ID, model.ClientComplete) },
		want:    "place 1 stop 0 update 0", numbers: "[0]",
	}, {
		name: "a failed allocation whose delay is over is replaced", before: job("a", 2),
		between: func(w *world, rows []*model.AllocRow) {
			w.report(rows[1].ID, model.ClientFailed)
			w.now = w.now.Add(31 * time.Second)
		},
		want: "place 1 stop 1 update 0", numbers: "[0 1]",
	}, {
		name: "a failed allocation waits for its delay", before: job("a", 2),
		between: func(w *world, rows []*model.AllocRow) { w.report(rows[1].ID, model.ClientFailed) },
		want:    "place 0 stop 0 update 0", numbers: "[0]",
	}, {
		name: "a failed allocation without attempts left stays failed", between: func(w *world, rows []*model.AllocRow) {
			w.report(rows[0].ID, model.ClientFailed)
			w.now = w.now.Add(time.Hour)
		},
		before: job("a", 1, policy(model.ReschedulePolicy{DelayFunction: "constant"})),
		want:   "place 0 stop 0 update 0", numbers: "[]",
	}, {
		name: "a new version forgives failures", before: job("a", 1, policy(model.ReschedulePolicy{DelayFunction: "constant"})), after: job("a", 1, spec),
		between: func(w *world, rows []*model.AllocRow) { w.report(rows[0].ID, model.ClientFailed) },
		want:    "place 1 stop 0 update 0", numbers: "[0]",
	}, {
		name: "what ran on a node that is down is lost and replaced", before: job("a", 3),
		between: func(w *world, rows []*model.AllocRow) {
			w.setStatus(rows[0].NodeID, model.NodeStatusDown)
			w.node("spare", size(5000))
		},
		want: "place 3 stop 3 update 0", numbers: "[0 1 2]",
	}, {
		name: "what ran on a node that is gone is lost and replaced", before: job("a", 1),
		between: func(w *world, rows []*model.AllocRow) { w.nodes = nil; w.node("spare") },
		want:    "place 1 stop 1 update 0", numbers: "[0]",
	}, {
		name: "a disconnected node's work is lost, as its group says nothing else", before: job("a", 2),
		between: func(w *world, rows []*model.AllocRow) {
			w.setStatus(rows[0].NodeID, model.NodeStatusDisconnected)
			w.node("spare")
		},
		want: "place 2 stop 2 update 0", numbers: "[0 1]",
	}, {
		name: "a node without eligibility keeps its work", before: job("a", 2),
		between: func(w *world, rows []*model.AllocRow) {
			w.change(rows[0].NodeID, func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
		},
		want: "place 0 stop 0 update 0", numbers: "[0 1]",
	}, {
		name: "a job purged and registered again replaces the earlier one's work", before: job("a", 2), after: job("a", 2),
		between: func(w *world, _ []*model.AllocRow) { delete(w.jobs, job("a", 1).Key()) },
		want:    "place 2 stop 2 update 0", numbers: "[0 1]",
	}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.node("n1", size(5000))
			p := w.settle(t, w.register(c.before))
			if n := len(p.Plan.Place); n != c.before.TaskGroups[0].Count {
				t.Fatalf("the first plan places %d", n)
			}
			for _, r := range w.live(c.before) {
				w.report(r.ID, model.ClientRunning)
			}
			if c.between != nil {
				c.between(w, w.live(c.before))
			}
			j := c.before
			if c.after != nil {
				j = w.register(c.after)
			}
			if c.after == nil && c.between == nil {
				w.settle(t, j)
				p.Plan.Place = nil
			} else {
				p = w.settle(t, j)
			}
			got := fmt.Sprintf("place %d stop %d update %d", len(p.Plan.Place), len(p.Plan.Stop), len(p.Plan.Update))
			if got != c.want {
				t.Errorf("the plan: %s, want %s", got, c.want)
			}
			if got := w.indexes(j); got != c.numbers {
				t.Errorf("live are %s, want %s", got, c.numbers)
			}
			// What was settled is at rest.
			if again := w.propose(t, j); !again.Plan.NoOp() {
				t.Errorf("evaluated once more: place %d stop %d update %d, want nothing", len(again.Plan.Place), len(again.Plan.Stop), len(again.Plan.Update))
			}
		})
	}
}

func TestStopsSayWhyAndWhetherTheNodeCanHear(t *testing.T) {
	w := newWorld()
	n := w.node("n1")
	j := w.register(job("a", 1))
	w.settle(t, j)
	w.setStatus(n, model.NodeStatusDown)
	p := w.propose(t, j)
	if s := p.Plan.Stop; len(s) != 1 || !s[0].Lost || s[0].Description != whyDown {
		t.Errorf("the stop of a lost allocation: %+v", s)
	}
	w.register(job("a", 1, func(j *model.Job) { j.Stop = true }))
	if s := w.propose(t, j).Plan.Stop; len(s) != 1 || !s[0].Lost || s[0].Description != whyStopped {
		t.Errorf("a stopped job on a node that is down: %+v", s)
	}
	w.setStatus(n, model.NodeStatusReady)
	if s := w.propose(t, j).Plan.Stop; len(s) != 1 || s[0].Lost {
		t.Errorf("a stopped job on a node that is up: %+v", s)
	}
}

func TestAPurgedJobStopsWhatItLeft(t *testing.T) {
	w := newWorld()
	w.node("n1")
	j := w.register(job("a", 2))
	w.settle(t, j)
	delete(w.jobs, j.Key())
	p := w.propose(t, j)
	if len(p.Plan.Stop) != 2 || len(p.Plan.Place) != 0 {
		t.Errorf("stop %d place %d", len(p.Plan.Stop), len(p.Plan.Place))
	}
}

func TestAReplacementKnowsWhatItReplaces(t *testing.T) {
	w := newWorld()
	first := w.node("n1")
	j := w.register(job("a", 1))
	w.settle(t, j)
	failed := w.live(j)[0]
	w.report(failed.ID, model.ClientFailed)
	w.now = w.now.Add(time.Minute)
	second := w.node("n2")
	p := w.settle(t, j)
	if len(p.Plan.Place) != 1 {
		t.Fatalf("place %d", len(p.Plan.Place))
	}
	pl := p.Plan.Place[0]
	if pl.NodeID != second {
		t.Errorf("it was placed on the node where it failed, %s", w.Node(first).Name)
	}
	if pl.Extra == nil || pl.Extra.Previous != failed.ID || pl.Extra.Reschedule == nil || len(pl.Extra.Reschedule.Events) != 1 {
		t.Fatalf("its extra: %+v", pl.Extra)
	}
	e := pl.Extra.Reschedule.Events[0]
	if e.PrevAllocID != failed.ID.String() || e.PrevNodeID != first.String() || e.RescheduleTime != w.now.UnixNano() || e.Delay != 30*time.Second {
		t.Errorf("the event: %+v", e)
	}
}

func TestFailuresAreRetriedAsThePolicySays(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy model.ReschedulePolicy
		lives  time.Duration   // how long each runs before it fails
		delays []time.Duration // before each attempt; then no more
		more   bool            // there is no end
	}{
		{"constant, twice in an hour", model.ReschedulePolicy{Attempts: 2, Interval: time.Hour, Delay: 10 * time.Second, DelayFunction: "constant", MaxDelay: time.Second}, 0, []time.Duration{10 * time.Second, 10 * time.Second}, false},
		{"attempts are counted within the interval", model.ReschedulePolicy{Attempts: 1, Interval: 5 * time.Second, Delay: 10 * time.Second, DelayFunction: "constant"}, 6 * time.Second, []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second}, true},
		{"exponential up to a bound", model.ReschedulePolicy{Unlimited: true, Delay: 30 * time.Second, DelayFunction: "exponential", MaxDelay: 3 * time.Minute}, 0, []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute, 3 * time.Minute}, true},
		{"fibonacci up to a bound", model.ReschedulePolicy{Unlimited: true, Delay: 10 * time.Second, DelayFunction: "fibonacci", MaxDelay: time.Minute}, 0, []time.Duration{10 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, 50 * time.Second, time.Minute}, true},
		{"never", model.ReschedulePolicy{DelayFunction: "constant"}, 0, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.node("n1")
			j := w.register(job("a", 1, func(j *model.Job) {
				c.policy.UnlimitedGiven = true
				j.TaskGroups[0].ReschedulePolicy = &c.policy
			}))
			w.settle(t, j)
			for i, delay := range c.delays {
				w.now = w.now.Add(c.lives)
				w.report(w.live(j)[0].ID, model.ClientFailed)
				p := w.propose(t, j)
				if len(p.Later) != 1 || !p.Later[0].WaitUntil.Equal(w.now.Add(delay)) {
					t.Fatalf("attempt %d: later %+v, want %s after %s", i, p.Later, delay, w.now)
				}
				w.now = w.now.Add(delay)
				if n := len(w.settle(t, j).Plan.Place); n != 1 {
					t.Fatalf("attempt %d: %d placed after %s", i, n, delay)
				}
			}
			w.now = w.now.Add(c.lives)
			w.report(w.live(j)[0].ID, model.ClientFailed)
			if p := w.propose(t, j); (len(p.Later) > 0) != c.more {
				t.Errorf("after the last: later %+v", p.Later)
			}
		})
	}
}

func TestWhatWaitsIsEvaluatedOnceAndInTime(t *testing.T) {
	w := newWorld()
	w.node("n1")
	j := w.register(job("a", 2))
	w.settle(t, j)
	w.report(w.live(j)[0].ID, model.ClientFailed)
	p := w.propose(t, j)
	if len(p.Later) != 1 {
		t.Fatalf("later: %+v", p.Later)
	}
	e := p.Later[0]
	if e.Status != model.EvalPending || e.TriggeredBy != model.TriggerRetryFailed || e.JobID != "a" {
		t.Errorf("the evaluation for later: %+v", e)
	}
	w.evals = append(w.evals, e)
	if p := w.propose(t, j); len(p.Later) != 0 {
		t.Error("a second evaluation was made for the same time")
	}
	// One that waits for something later does not do.
	later := *e
	later.WaitUntil = e.WaitUntil.Add(time.Hour)
	w.evals = []*model.Evaluation{&later}
	if p := w.propose(t, j); len(p.Later) != 1 || !p.Later[0].WaitUntil.Equal(e.WaitUntil) {
		t.Errorf("an evaluation in an hour is taken for one in 30 s: %+v", p.Later)
	}
	// One whose time has come already is the one that asks.
	earlier := *e
	earlier.WaitUntil = w.now
	w.evals = []*model.Evaluation{&earlier}
	if p := w.propose(t, j); len(p.Later) != 1 {
		t.Errorf("the evaluation at hand is taken for a later one: %+v", p.Later)
	}
}

func TestConcludeWritesWhatIsLeft(t *testing.T) {
	w := newWorld()
	w.node("n1")
	j := w.register(job("a", 12))
	e := w.eval(j, model.TriggerJobRegister)
	p, err := Propose(w, e, w.opts())
	if err != nil {
		t.Fatal(err)
	}
	evals := p.Conclude(e, w.opts())
	if len(evals) != 2 {
		t.Fatalf("%d evaluations", len(evals))
	}
	done, blocked := evals[0], evals[1]
	if done.ID != e.ID || done.Status != model.EvalComplete || done.BlockedEval != blocked.ID || done.QueuedAllocations["web"] != 2 || done.FailedTGAllocs["web"] == nil {
		t.Errorf("the evaluation: %+v", done)
	}
	if blocked.Status != model.EvalBlocked || blocked.TriggeredBy != model.TriggerQueued || blocked.PreviousEval != e.ID || blocked.QueuedAllocations["web"] != 2 {
		t.Errorf("the blocked one: %+v", blocked)
	}
	if e.Status != model.EvalPending {
		t.Error("the evaluation that was read was changed")
	}
	// Blocked once, it blocks again under its own id.
	if again := p.Conclude(blocked, w.opts()); len(again) != 1 || again[0].ID != blocked.ID || again[0].Status != model.EvalBlocked {
		t.Errorf("blocked again: %+v", again)
	}
}

func TestWhatIsBlockedTellsWhichClassesCouldHelp(t *testing.T) {
	w := newWorld()
	w.node("full", class("good"), size(100))
	w.node("wrong", class("bad"))
	good, bad := w.nodes[0], w.nodes[1]
	if good.NodeClass != "good" {
		good, bad = bad, good
	}
	for name, c := range map[string]struct {
		more    func(*model.Job)
		escaped bool
	}{
		"a service": {func(*model.Job) {}, false},
		"a system job": {func(j *model.Job) {
			j.Type, j.TaskGroups[0].Count = model.JobTypeSystem, 1
			j.TaskGroups[0].Tasks[0].Resources.CPU = 200
		}, false},
		"what looks at one node": {where("${node.unique.name}", "!=", "n9"), true},
	} {
		t.Run(name, func(t *testing.T) {
			j := w.register(job(name[:3], 2, where("${node.class}", "=", "good"), c.more))
			e := w.eval(j, model.TriggerJobRegister)
			p, err := Propose(w, e, w.opts())
			if err != nil {
				t.Fatal(err)
			}
			evals := p.Conclude(e, w.opts())
			if len(evals) != 2 {
				t.Fatalf("%d evaluations: %+v", len(evals), p)
			}
			b := evals[1]
			if !b.ClassEligibility[good.ComputedClass] || b.ClassEligibility[bad.ComputedClass] || len(b.ClassEligibility) != 2 || b.EscapedComputedClass != c.escaped {
				t.Errorf("blocked: %v, escaped %v", b.ClassEligibility, b.EscapedComputedClass)
			}
		})
	}
}

func TestAnEvaluationNamesItsDeployment(t *testing.T) {
	w := newWorld()
	w.node("n1")
	j := w.register(job("a", 1, func(j *model.Job) { j.TaskGroups[0].Update = model.NewUpdateStrategy() }))
	e := w.eval(j, model.TriggerJobRegister)
	p, err := Propose(w, e, w.opts())
	if err != nil {
		t.Fatal(err)
	}
	d := p.Plan.Deployment
	if d == nil || p.Conclude(e, w.opts())[0].DeploymentID != d.ID {
		t.Fatalf("the deployment: %+v", d)
	}
	s := d.TaskGroups["web"]
	if d.JobSpecModifyIndex != j.JobModifyIndex || d.JobCreateIndex != j.CreateIndex || d.EvalPriority != 50 || !s.RequireProgressBy.Equal(w.now.Add(10*time.Minute)) {
		t.Errorf("the deployment: %+v %+v", d, s)
	}
	w.apply(p.Plan)
	if again := w.propose(t, j); again.Plan.Deployment != nil || again.Conclude(e, w.opts())[0].DeploymentID != d.ID {
		t.Errorf("the next evaluation: %+v", again.Plan.Deployment)
	}
}

func TestAProposalCountsWhatItDoes(t *testing.T) {
	w := newWorld()
	w.node("n1", roomy)
	j := w.register(job("a", 4))
	w.settle(t, j)
	rows := w.live(j)
	for _, r := range rows {
		w.report(r.ID, model.ClientRunning)
	}
	w.report(rows[0].ID, model.ClientFailed)
	yes := true
	w.extra(rows[1].ID, func(_ *model.AllocRow, x *model.AllocExtra) { x.Transition = &model.DesiredTransition{Migrate: &yes} })
	got := *w.propose(t, j).Desired["web"]
	if want := (model.DesiredUpdates{Ignore: 3, Migrate: 1, RescheduleLater: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	w.now = w.now.Add(time.Hour)
	j = w.register(job("a", 5, spec))
	got = *w.propose(t, j).Desired["web"]
	if want := (model.DesiredUpdates{Place: 2, Migrate: 1, DestructiveUpdate: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWhatCannotBeScheduledIsRefused(t *testing.T) {
	w := newWorld()
	e := w.eval(w.register(job("b", 1)), "")
	e.ID = "x"
	if _, err := Propose(w, e, w.opts()); err == nil {
		t.Error("an evaluation without a UUID was accepted")
	}
}
