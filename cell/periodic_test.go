package cell

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/cell/state"
	"atoll/model"
)

// second is a moment of the tests, so many seconds in.
func second(n int64) int64 { return 1_700_000_000 + n }

func nanos(n int64) int64 { return second(n) * int64(time.Second) }

func parentJob(id string, submit int64) *model.Job {
	j := testJob(id, 1)
	j.Type, j.SubmitTime = model.JobTypeBatch, submit
	return j
}

func periodicJob(id string, submit int64) *model.Job {
	j := parentJob(id, submit)
	j.Periodic = &model.PeriodicConfig{Enabled: true, Spec: "@hourly", SpecType: model.PeriodicSpecCron, TimeZone: "UTC"}
	return j
}

func anEval() *model.Evaluation {
	return &model.Evaluation{ID: model.NewUUID(nil).String(), Namespace: key.Namespace, JobID: key.ID, Status: model.EvalPending, TriggeredBy: model.TriggerPeriodicJob}
}

var key = model.JobID{Namespace: model.DefaultNamespace, ID: "p"}

func launchOf(at int64, force bool) *PeriodicLaunch {
	return &PeriodicLaunch{Key: key, Launch: second(at), Force: force, Eval: anEval(), Time: nanos(at)}
}

// childrenOf lists a parent's children with their status, by id.
func childrenOf(snap *state.Snapshot) string {
	var out []string
	for j := range snap.Jobs(nil, model.DefaultNamespace, key.ID+"/") {
		out = append(out, strings.TrimPrefix(j.ID, key.ID+"/")+" "+j.Status)
	}
	return strings.Join(out, ", ")
}

func counts(snap *state.Snapshot) model.JobChildrenSummary {
	return *snap.JobSummary(nil, key).Children
}

func TestAPeriodicJobIsLaunchedOnceForATime(t *testing.T) {
	c := openAlone(t, t.TempDir())
	reg := must(t, c, CmdJobRegister, &JobRegister{Job: periodicJob("p", nanos(0)), Eval: anEval()}).(*JobRegistered)
	if j := c.Snapshot().Job(nil, key); reg.EvalID != "" || j.Status != model.JobStatusRunning {
		t.Errorf("the parent is %s, its evaluation %q", j.Status, reg.EvalID)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := map[string]int{}
	for range 50 {
		wg.Go(func() {
			_, v, err := c.Apply(context.Background(), CmdPeriodicLaunch, launchOf(10, false))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				made[err.Error()]++
				return
			}
			made[v.(*JobLaunched).ChildID]++
		})
	}
	wg.Wait()
	if made["p/periodic-1700000010"] != 1 || made[""] != 49 || len(made) != 2 {
		t.Errorf("fifty at once made %v", made)
	}
	snap := c.Snapshot()
	child := snap.Job(nil, model.JobID{Namespace: "default", ID: "p/periodic-1700000010"})
	if child == nil || child.ParentID != "p" || child.Periodic != nil || child.Name != child.ID || child.SubmitTime != nanos(10) || child.Status != model.JobStatusPending {
		t.Fatalf("the child is %+v", child)
	}
	evals := 0
	for e := range snap.EvalsOfJob(nil, child.Key()) {
		if evals++; e.Type != model.JobTypeBatch || e.TriggeredBy != model.TriggerPeriodicJob || e.JobModifyIndex != child.JobModifyIndex {
			t.Errorf("its evaluation is %+v", e)
		}
	}
	if evals != 1 || counts(snap) != (model.JobChildrenSummary{Pending: 1}) {
		t.Errorf("%d evaluations, children %+v", evals, counts(snap))
	}
	for _, past := range []int64{5, 10, 0} {
		if out := must(t, c, CmdPeriodicLaunch, launchOf(past, false)).(*JobLaunched); out.ChildID != "" || out.Why == "" {
			t.Errorf("a time that is over: %+v", out)
		}
	}
	// What was launched is in the snapshot.
	var buf bytes.Buffer
	if err := c.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	other, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	if p := other.Snapshot().Parent(nil, key); p.Launched != nanos(10) || counts(other.Snapshot()).Pending != 1 {
		t.Errorf("restored as %+v", p)
	}
}

func TestForcedLaunchesStandAside(t *testing.T) {
	c := openAlone(t, t.TempDir())
	j := periodicJob("p", nanos(0))
	j.Periodic.ProhibitOverlap = true
	must(t, c, CmdJobRegister, &JobRegister{Job: j})
	// Two in one second are two children, over any overlap.
	for _, want := range []string{"p/periodic-1700000010", "p/periodic-1700000011"} {
		if out := must(t, c, CmdPeriodicLaunch, launchOf(10, true)).(*JobLaunched); out.ChildID != want || out.EvalID == "" {
			t.Errorf("%+v, want %s", out, want)
		}
	}
	if p := c.Snapshot().Parent(nil, key); p.Launched != nanos(0) {
		t.Errorf("a launch by force moved the schedule to %d", p.Launched)
	}
	if out := must(t, c, CmdPeriodicLaunch, launchOf(10, false)).(*JobLaunched); out.ChildID != "" || !strings.Contains(out.Why, "by force") {
		t.Errorf("the scheduled launch of a second that has a child: %+v", out)
	}
	for _, w := range []struct {
		change func(*model.Job)
		kind   model.Kind
	}{
		{func(j *model.Job) { j.Periodic.Enabled = false }, model.KindConflict},
		{func(j *model.Job) { j.Stop = true }, model.KindConflict},
	} {
		j := periodicJob("p", nanos(20))
		w.change(j)
		must(t, c, CmdJobRegister, &JobRegister{Job: j})
		for _, force := range []bool{true, false} {
			if _, _, err := c.Apply(context.Background(), CmdPeriodicLaunch, launchOf(30, force)); model.KindOf(err) != w.kind {
				t.Errorf("%+v launched: %v", j.Periodic, err)
			}
		}
	}
	must(t, c, CmdJobRegister, &JobRegister{Job: parentJob("q", 1)})
	for id, kind := range map[string]model.Kind{"q": model.KindInvalid, "nobody": model.KindNotFound} {
		l := launchOf(30, true)
		l.Key.ID = id
		if _, _, err := c.Apply(context.Background(), CmdPeriodicLaunch, l); model.KindOf(err) != kind {
			t.Errorf("%s launched: %v", id, err)
		}
	}
}

func TestAnOverlapIsProhibitedUntilTheChildIsDead(t *testing.T) {
	c := openAlone(t, t.TempDir())
	j := periodicJob("p", nanos(0))
	j.Periodic.ProhibitOverlap = true
	must(t, c, CmdJobRegister, &JobRegister{Job: j})
	launch := func(at int64) string { return must(t, c, CmdPeriodicLaunch, launchOf(at, false)).(*JobLaunched).Why }
	if why := launch(10); why != "" {
		t.Fatal(why)
	}
	if why := launch(20); !strings.Contains(why, "prohibit_overlap") {
		t.Errorf("over a live child: %q", why)
	}
	// The launch was skipped, not put off.
	must(t, c, CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: "p/periodic-1700000010"}})
	if why := launch(20); !strings.Contains(why, "for that time") {
		t.Errorf("the skipped time again: %q", why)
	}
	if why := launch(30); why != "" {
		t.Errorf("after the child was stopped: %q", why)
	}
	if got := childrenOf(c.Snapshot()); got != "periodic-1700000010 dead, periodic-1700000030 pending" {
		t.Errorf("children %s", got)
	}
	// One whose evaluation placed nothing is dead, and in nobody's way.
	for e := range c.Snapshot().EvalsOfJob(nil, model.JobID{Namespace: "default", ID: "p/periodic-1700000030"}) {
		done := *e
		done.Status = model.EvalComplete
		must(t, c, CmdEvals, &Evals{Evals: []*model.Evaluation{&done}})
	}
	if why := launch(40); why != "" || counts(c.Snapshot()) != (model.JobChildrenSummary{Pending: 1, Dead: 2}) {
		t.Errorf("after a child with nothing to do: %q, %+v", why, counts(c.Snapshot()))
	}
}

func TestAScheduleBeginsWithItsSubmit(t *testing.T) {
	c := openAlone(t, t.TempDir())
	launched := func() int64 { return c.Snapshot().Parent(nil, key).Launched }
	register := func(at int64, change func(*model.Job)) {
		t.Helper()
		j := periodicJob("p", nanos(at))
		if change != nil {
			change(j)
		}
		must(t, c, CmdJobRegister, &JobRegister{Job: j})
	}
	tracked := func() (n int) {
		for range c.Snapshot().PeriodicJobs(nil) {
			n++
		}
		return n
	}
	register(0, nil)
	if launched() != nanos(0) || tracked() != 1 {
		t.Errorf("registered: %d", launched())
	}
	// The same schedule keeps what it has still to launch.
	register(100, func(j *model.Job) { j.Meta = map[string]string{"v": "2"} })
	if launched() != nanos(0) {
		t.Errorf("with the same schedule: %d", launched())
	}
	register(200, func(j *model.Job) { j.Periodic.Spec = "@daily" })
	if launched() != nanos(200) {
		t.Errorf("with another schedule: %d", launched())
	}
	must(t, c, CmdJobDeregister, &JobDeregister{Key: key, Eval: anEval()})
	if tracked() != 0 || c.Snapshot().Job(nil, key).Status != model.JobStatusDead {
		t.Error("a stopped one is launched still")
	}
	register(300, func(j *model.Job) { j.Periodic.Spec = "@daily" })
	if launched() != nanos(300) || tracked() != 1 {
		t.Errorf("after its stop: %d", launched())
	}
	if _, _, err := c.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: parentJob("p", nanos(301))}); model.KindOf(err) != model.KindInvalid {
		t.Errorf("made to run itself: %v", err)
	}
	// A clock that is behind does not bring back what was launched.
	must(t, c, CmdPeriodicLaunch, launchOf(400, false))
	register(350, nil)
	if launched() != nanos(400) {
		t.Errorf("by a clock that is behind: %d", launched())
	}
	must(t, c, CmdJobDeregister, &JobDeregister{Key: key, Purge: true, Eval: anEval()})
	if p := c.Snapshot().Parent(nil, key); p == nil || p.Launched != 0 || p.Children.Pending != 1 {
		t.Errorf("of a purged one with a child is left %+v", p)
	}
	must(t, c, CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: "p/periodic-1700000400"}, Purge: true})
	if p := c.Snapshot().Parent(nil, key); p != nil {
		t.Errorf("and without one, %+v", p)
	}
}

func dispatchOf(id, token string, hash byte) *JobDispatch {
	return &JobDispatch{
		Key: key, Dispatch: model.Dispatch{ChildID: "p/dispatch-" + id, Token: token, Meta: map[string]string{"k": id}, Time: nanos(1)}, Eval: anEval(),
		Again: request(token, hash),
	}
}

func TestATokenStandsForOneChildAsLongAsThereIsOne(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir)
	j := parentJob("p", nanos(0))
	j.ParameterizedJob = &model.ParameterizedJobConfig{Payload: model.DispatchPayloadOptional, MetaOptional: []string{"k"}}
	must(t, c, CmdJobRegister, &JobRegister{Job: j, Eval: anEval()})
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers, evals := map[string]int{}, 0
	for i := range 100 {
		wg.Go(func() {
			_, v, err := c.ApplyOnce(context.Background(), CmdJobDispatch, request(fmt.Sprint("r", i), byte(i)), dispatchOf(fmt.Sprint(i), "tok", byte(i)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answers[err.Error()]++
				return
			}
			out := v.(*JobLaunched)
			answers[out.ChildID]++
			if out.EvalID != "" {
				evals++
			}
		})
	}
	wg.Wait()
	if len(answers) != 1 || evals != 1 || counts(c.Snapshot()) != (model.JobChildrenSummary{Pending: 1}) {
		t.Fatalf("a hundred gave %v, %d evaluations, children %+v", answers, evals, counts(c.Snapshot()))
	}
	dispatch := func(c *Cell, id, token string) string {
		t.Helper()
		return must(t, c, CmdJobDispatch, dispatchOf(id, token, 200)).(*JobLaunched).ChildID
	}
	var first string
	for first = range answers {
	}
	if other := dispatch(c, "other", "another"); other == first {
		t.Error("another token gave the same child")
	}
	if again := dispatch(c, "x", ""); again != "p/dispatch-x" {
		t.Errorf("without a token: %s", again)
	}
	if again := dispatch(c, "y", "tok"); again != first {
		t.Errorf("later: %s, want %s", again, first)
	}
	// It is the child that counts: a restarted server has it, too.
	_ = c.Close()
	c = openAlone(t, dir)
	if again := dispatch(c, "z", "tok"); again != first {
		t.Errorf("after a restart: %s, want %s", again, first)
	}
	must(t, c, CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: first}, Purge: true})
	if again := dispatch(c, "new", "tok"); again != "p/dispatch-new" {
		t.Errorf("when the child is gone: %s", again)
	}
}

// A caller whose dispatch had no token, and who was not told what became of it,
// tries again by the id of the request.
func TestADispatchOfUnknownOutcomeIsFoundByItsRequest(t *testing.T) {
	c := openAlone(t, t.TempDir())
	j := parentJob("p", nanos(0))
	j.ParameterizedJob = &model.ParameterizedJobConfig{Payload: model.DispatchPayloadOptional, MetaOptional: []string{"k"}}
	must(t, c, CmdJobRegister, &JobRegister{Job: j})
	_, v, err := c.ApplyOnce(context.Background(), CmdJobDispatch, request("r1", 7), dispatchOf("1", "", 7))
	if err != nil {
		t.Fatal(err)
	}
	first := *v.(*JobLaunched)
	again := func(req, token string, hash byte) JobLaunched {
		t.Helper()
		_, v, err := c.ApplyOnce(context.Background(), CmdJobDispatch, request(req, hash), dispatchOf(req, token, hash))
		if err != nil {
			t.Fatal(err)
		}
		return *v.(*JobLaunched)
	}
	if got := again("r2", "r1", 7); got != first {
		t.Errorf("by the request's id: %+v, want %+v", got, first)
	}
	if got := again("r3", "r1", 8); got.ChildID != "p/dispatch-r3" {
		t.Errorf("something else by the same id: %+v", got)
	}
	if got := counts(c.Snapshot()); got != (model.JobChildrenSummary{Pending: 2}) {
		t.Errorf("children %+v", got)
	}
}

func TestADispatchOfAPeriodicJobMakesOneThatIsLaunched(t *testing.T) {
	c := openAlone(t, t.TempDir())
	j := periodicJob("p", nanos(0))
	j.ParameterizedJob = &model.ParameterizedJobConfig{Payload: model.DispatchPayloadOptional, MetaOptional: []string{"k"}}
	must(t, c, CmdJobRegister, &JobRegister{Job: j, Eval: anEval()})
	if _, _, err := c.Apply(context.Background(), CmdPeriodicLaunch, launchOf(5, true)); model.KindOf(err) != model.KindInvalid {
		t.Errorf("launched before it was dispatched: %v", err)
	}
	out := must(t, c, CmdJobDispatch, dispatchOf("a", "", 0)).(*JobLaunched)
	if out.EvalID != "" || counts(c.Snapshot()) != (model.JobChildrenSummary{Running: 1}) {
		t.Errorf("%+v, children %+v", out, counts(c.Snapshot()))
	}
	l := launchOf(10, false)
	l.Key.ID = out.ChildID
	grandchild := must(t, c, CmdPeriodicLaunch, l).(*JobLaunched)
	got := c.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: grandchild.ChildID})
	if got == nil || got.ParentID != out.ChildID || got.IsParent() || got.Meta["k"] != "a" {
		t.Errorf("%+v", got)
	}
	must(t, c, CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: out.ChildID}, Eval: anEval()})
	if counts(c.Snapshot()) != (model.JobChildrenSummary{Dead: 1}) {
		t.Errorf("stopped: %+v", counts(c.Snapshot()))
	}
}

// A new version of a child is a child still, with what it was dispatched with.
func TestAChildStaysWhatItIs(t *testing.T) {
	c := openAlone(t, t.TempDir())
	j := parentJob("p", nanos(0))
	j.ParameterizedJob = &model.ParameterizedJobConfig{Payload: model.DispatchPayloadOptional, MetaOptional: []string{"k"}}
	must(t, c, CmdJobRegister, &JobRegister{Job: j})
	d := dispatchOf("a", "tok", 0)
	d.Dispatch.Payload = []byte("packed")
	must(t, c, CmdJobDispatch, d)
	again := parentJob("p/dispatch-a", nanos(9))
	again.ParameterizedJob, again.Meta = j.ParameterizedJob, map[string]string{"k": "new"}
	must(t, c, CmdJobRegister, &JobRegister{Job: again, Eval: anEval()})
	got := c.Snapshot().Job(nil, again.Key())
	if got.Version != 1 || got.ParentID != "p" || !got.Dispatched || got.DispatchIdempotencyToken != "tok" || string(got.Payload) != "packed" || got.Meta["k"] != "new" {
		t.Errorf("%+v", got)
	}
}

func TestNodesDoNotWakeParents(t *testing.T) {
	c := openAlone(t, t.TempDir())
	for id, change := range map[string]func(*model.Job){
		"plain": func(*model.Job) {}, "times": func(j *model.Job) { j.Periodic = &model.PeriodicConfig{Enabled: true, Spec: "@daily", TimeZone: "UTC"} },
		"takes": func(j *model.Job) { j.ParameterizedJob = &model.ParameterizedJobConfig{} },
	} {
		j := parentJob(id, nanos(0))
		j.Type = model.JobTypeSysBatch
		change(j)
		must(t, c, CmdJobRegister, &JobRegister{Job: j})
	}
	n := testNode(1)
	n.NodePool = model.NodePoolDefault
	must(t, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	if got := fmt.Sprint(pending(c)); got != "[plain]" {
		t.Errorf("a new node evaluates %s", got)
	}
}

func TestALaunchByAClockThatWasYearsAheadHoldsUpNoLaterOne(t *testing.T) {
	c := openAlone(t, t.TempDir())
	must(t, c, CmdJobRegister, &JobRegister{Job: periodicJob("p", nanos(0)), Eval: anEval()})
	launch := func(at int64) *JobLaunched { return must(t, c, CmdPeriodicLaunch, launchOf(at, false)).(*JobLaunched) }
	const years = 2 * 365 * 24 * 3600
	if done := launch(years); done.ChildID == "" {
		t.Fatalf("the launch of the clock that was ahead: %+v", done)
	}
	for _, at := range []int64{100, 200} {
		if done := launch(at); done.ChildID == "" {
			t.Errorf("a launch after %d seconds: %+v", at, done)
		}
		if done := launch(at); done.ChildID != "" {
			t.Errorf("a second launch after %d seconds: %+v", at, done)
		}
	}
	// Clocks of servers may be minutes apart.
	launch(900)
	early := launchOf(300, false)
	if done := must(t, c, CmdPeriodicLaunch, early).(*JobLaunched); done.ChildID != "" {
		t.Errorf("a launch for a time that is over: %+v", done)
	}
}
