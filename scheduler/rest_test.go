package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"atoll/model"
)

// TestWhateverHappensAJobComesToRest changes a job, its nodes and its
// allocations at random, then lets all be well: what was lost must be replaced
// before any operator does something, then what runs must become what the job
// says, and nothing more be decided.
func TestWhateverHappensAJobComesToRest(t *testing.T) {
	check := func(rt *rapid.T) {
		w := newWorld()
		w.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for i := range rapid.IntRange(1, 4).Draw(rt, "nodes") {
			w.node(fmt.Sprint(i), drawSize(rt))
		}
		jobType := rapid.SampledFrom([]string{model.JobTypeService, model.JobTypeService, model.JobTypeBatch, model.JobTypeSystem, model.JobTypeSysBatch}).Draw(rt, "type")
		j := w.register(drawJob(rt, jobType))
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			j = w.disturb(rt, j)
			w.bounded(rt, j)
		}
		w.heal()
		w.unattended(rt, j)
		quiet := 0
		for range 200 {
			p := w.decide(rt, j)
			w.bounded(rt, j)
			w.now = w.now.Add(time.Hour)
			if w.thrive(j); p.Plan.NoOp() && len(p.Later) == 0 {
				quiet++
			} else {
				quiet = 0
			}
			if quiet == 3 {
				w.atRest(rt, j)
				return
			}
		}
		rt.Fatalf("it does not come to rest:\n%s", w.story(j))
	}
	for range 20 {
		rapid.Check(t, check)
	}
}

// drawSize lets half of the nodes take no more than three allocations.
func drawSize(rt *rapid.T) func(*model.Node) {
	if rapid.Bool().Draw(rt, "tight") {
		return size(300)
	}
	return roomy
}

func drawJob(rt *rapid.T, jobType string) *model.Job {
	return job("a", 0, func(j *model.Job) {
		j.Type = jobType
		g := j.TaskGroups[0]
		g.Tasks[0].Config["run_for"] = fmt.Sprint(rapid.IntRange(1, 3).Draw(rt, "run"))
		if everywhere(j) {
			g.Count = 1
		} else {
			g.Count = rapid.IntRange(0, 5).Draw(rt, "count")
			g.ReschedulePolicy = &model.ReschedulePolicy{Unlimited: true, UnlimitedGiven: true, Delay: 10 * time.Second, DelayFunction: "constant"}
		}
		if (jobType == model.JobTypeService || jobType == model.JobTypeSystem) && rapid.Bool().Draw(rt, "update") {
			u := model.NewUpdateStrategy()
			u.MaxParallel = rapid.IntRange(0, 3).Draw(rt, "max parallel")
			if jobType == model.JobTypeService {
				u.Canary = rapid.IntRange(0, 6).Draw(rt, "canaries")
			}
			g.Update = u
		}
		if rapid.Bool().Draw(rt, "disconnect") {
			g.Disconnect = &model.DisconnectStrategy{
				LostAfter: time.Minute, Replace: rapid.Bool().Draw(rt, "replace"),
				Reconcile: rapid.SampledFrom([]string{model.ReconcileBestScore, model.ReconcileKeepOriginal, model.ReconcileKeepReplacement, model.ReconcileLongestRunning}).Draw(rt, "reconcile"),
			}
		}
	})
}

// disturb does one thing, and has the job evaluated half of the time.
func (w *world) disturb(rt *rapid.T, j *model.Job) *model.Job {
	yes := true
	d := w.LatestDeployment(j.Key())
	row := func() *model.AllocRow {
		live := w.live(j)
		if len(live) == 0 {
			return nil
		}
		return live[w.rng.IntN(len(live))]
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	id := parsed(n.ID)
	switch what := rapid.IntRange(0, 10).Draw(rt, "what"); what {
	case 0:
		j = w.register(drawJob(rt, j.Type))
	case 1, 2:
		w.setStatus(id, rapid.SampledFrom([]string{model.NodeStatusReady, model.NodeStatusDown, model.NodeStatusDisconnected}).Draw(rt, "status"))
	case 3:
		w.change(id, func(n *model.Node) {
			n.SchedulingEligibility = rapid.SampledFrom([]string{model.NodeEligible, model.NodeIneligible}).Draw(rt, "eligibility")
		})
	case 4, 5:
		if r := row(); r != nil && w.reachable(r) {
			w.report(r.ID, rapid.SampledFrom([]model.AllocState{model.ClientRunning, model.ClientFailed, model.ClientComplete}).Draw(rt, "report"))
		}
	case 6:
		if r := row(); r != nil {
			w.extra(r.ID, func(_ *model.AllocRow, x *model.AllocExtra) { x.Transition = &model.DesiredTransition{Migrate: &yes} })
		}
	case 7:
		if r := row(); r != nil && d != nil && r.Shared.DeploymentID.String() == d.ID {
			w.health(r.ID, rapid.Bool().Draw(rt, "healthy"))
		}
	case 8:
		if d != nil && d.Active() {
			status := rapid.SampledFrom([]string{model.DeploymentPaused, model.DeploymentRunning, model.DeploymentFailed}).Draw(rt, "deployment")
			w.deployment(d.ID, func(d *model.Deployment) { d.Status = status })
		}
	case 9:
		if d != nil && d.Active() {
			w.promote(d)
		}
	case 10:
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(rt, "seconds")) * time.Second)
	}
	switch rapid.IntRange(0, 3).Draw(rt, "evaluate") {
	case 0:
		w.decide(rt, j)
	case 1:
		w.decideLate(rt, j)
	}
	return j
}

func (w *world) reachable(r *model.AllocRow) bool {
	return w.Node(r.NodeID).Status == model.NodeStatusReady
}

// decide evaluates a job and applies what Check leaves of it.
func (w *world) decide(rt *rapid.T, j *model.Job) *Proposal {
	p := w.proposal(rt, j)
	if accepted, rejected := Check(w, p.Plan); len(rejected) > 0 || len(accepted.Place) != len(p.Plan.Place) {
		rt.Fatalf("Check refuses a plan on the state it was made on: %v", rejected)
	}
	w.apply(p.Plan)
	w.evals = append(w.evals, p.Later...)
	return p
}

// decideLate is decide with a plan that a node refuses, since it is not to be
// placed on any more when the plan is checked.
func (w *world) decideLate(rt *rapid.T, j *model.Job) {
	p := w.proposal(rt, j)
	if len(p.Plan.Place) > 0 {
		refuses := p.Plan.Place[w.rng.IntN(len(p.Plan.Place))].NodeID
		w.change(refuses, func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
	}
	accepted, _ := Check(w, p.Plan)
	w.apply(accepted)
	w.decide(rt, j)
}

func (w *world) proposal(rt *rapid.T, j *model.Job) *Proposal {
	p, err := Propose(w, w.eval(j, model.TriggerNodeUpdate), w.opts())
	if err != nil {
		rt.Fatal(err)
	}
	return p
}

// heal makes all nodes well and roomy, and has them say so.
func (w *world) heal() {
	for _, n := range w.nodes {
		w.change(parsed(n.ID), func(n *model.Node) {
			n.Status, n.SchedulingEligibility = model.NodeStatusReady, model.NodeEligible
			roomy(n)
		})
	}
}

// unattended lets a job be evaluated until nothing changes, with nobody there to
// go on with its deployment: of no number that nothing has may the last have been
// lost.
func (w *world) unattended(rt *rapid.T, j *model.Job) {
	for quiet := 0; quiet < 2; {
		w.now = w.now.Add(time.Hour)
		w.due()
		for _, r := range w.live(j) {
			if r.Client != model.ClientRunning {
				w.report(r.ID, model.ClientRunning)
			}
		}
		if p := w.decide(rt, j); p.Plan.NoOp() && len(p.Later) == 0 {
			quiet++
		} else {
			quiet = 0
		}
	}
	if everywhere(j) {
		return
	}
	newest := make(map[uint32]*model.AllocRow)
	for r := range w.AllocsOfJob(j.Key()) {
		if !r.DeploymentStatus().IsCanary() && r.Job().CreateIndex == j.CreateIndex && int(r.Index) < j.TaskGroups[0].Count {
			newest[r.Index] = r
		}
	}
	for r := range w.AllocsOfJob(j.Key()) {
		if !r.Terminal() || r.Client == model.ClientFailed && !r.ServerTerminal() {
			delete(newest, r.Index) // it runs, or is for the deployment's watcher to let go
		}
	}
	for _, r := range newest {
		switch why := w.why[r.ID]; why {
		case whyDown, whyAway, whyNodeGone, whyExpired, whyMigrated:
			if !r.Transition().ShouldNotPlace() {
				rt.Errorf("nothing takes over from %s %s, which ended since %q:\n%s", r.ID, r.Name(), why, w.story(j))
			}
		}
	}
}

// thrive is an hour in which all that may run does and is well, and operators
// and watchers do what they should.
func (w *world) thrive(j *model.Job) {
	yes := true
	w.due()
	d := w.LatestDeployment(j.Key())
	for _, r := range slices.Collect(w.AllocsOfJob(j.Key())) {
		if r.Client == model.ClientFailed && !r.ServerTerminal() {
			w.extra(r.ID, func(_ *model.AllocRow, x *model.AllocExtra) {
				x.Transition = &model.DesiredTransition{Reschedule: &yes}
			})
		}
		if r.Terminal() {
			continue
		}
		if r.Client != model.ClientRunning {
			w.report(r.ID, model.ClientRunning)
		}
		if d != nil && r.Shared.DeploymentID.String() == d.ID && !r.DeploymentStatus().IsHealthy() {
			w.health(r.ID, true)
		}
	}
	if d == nil || d.JobVersion != j.Version {
		return
	}
	switch d.Status {
	case model.DeploymentPaused:
		w.deployment(d.ID, func(d *model.Deployment) { d.Status = model.DeploymentRunning })
	case model.DeploymentFailed:
		// An operator submits the job again.
		j2 := model.Clone(j)
		j2.TaskGroups[0].Meta = map[string]string{"again": fmt.Sprint(w.index)}
		*j = *w.register(j2)
	case model.DeploymentRunning:
		w.promote(d)
	}
}

// due completes the evaluations whose time has come.
func (w *world) due() {
	for i, e := range w.evals {
		if !e.WaitUntil.After(w.now) {
			c := *e
			c.Status = model.EvalComplete
			w.evals[i] = &c
		}
	}
}

// story tells what a job has and what is next.
func (w *world) story(j *model.Job) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s of %d, version %d\n", j.Type, j.TaskGroups[0].Count, j.Version)
	for r := range w.AllocsOfJob(j.Key()) {
		if !r.ServerTerminal() {
			fmt.Fprintf(&out, "%s %s v%d on %s client %d: %+v\n", r.ID, r.Name(), r.Job().Version, w.Node(r.NodeID).Name, r.Client, r.Extra)
		}
	}
	if d := w.LatestDeployment(j.Key()); d != nil {
		fmt.Fprintf(&out, "deployment %s v%d %s %+v\n", d.ID, d.JobVersion, d.Status, d.TaskGroups["web"])
	}
	if p, err := Propose(w, w.eval(j, model.TriggerNodeUpdate), w.opts()); err == nil {
		fmt.Fprintf(&out, "next: %+v later %+v failed %+v", p.Plan, p.Later, p.Failed)
	}
	return out.String()
}

// bounded is what holds at any time.
func (w *world) bounded(rt *rapid.T, j *model.Job) {
	notOversubscribed(rt, w)
	limit := 2*j.TaskGroups[0].Count + 6 + len(w.nodes)
	known := 0
	for _, r := range w.live(j) {
		if r.Client != model.ClientUnknown && r.Disconnected() == 0 {
			known++
		}
	}
	if before := 2*5 + 6 + len(w.nodes); known > max(limit, before) {
		rt.Fatalf("%d run of a job of %d", known, j.TaskGroups[0].Count)
	}
}

// atRest fails unless what runs is what the job says.
func (w *world) atRest(rt *rapid.T, j *model.Job) {
	live := w.live(j)
	seen := make(map[string]bool)
	for _, r := range live {
		at := fmt.Sprint(r.Index)
		if everywhere(j) {
			at = r.NodeID.String()
		}
		if seen[at] {
			rt.Errorf("two run as %s", at)
		}
		seen[at] = true
		if r.Job().Version != j.Version {
			rt.Errorf("%s is still version %d of %d", r.Name(), r.Job().Version, j.Version)
		}
		if r.DeploymentStatus().IsCanary() || r.Disconnected() != 0 || r.Client != model.ClientRunning {
			rt.Errorf("%s is at rest as %+v %+v", r.Name(), r, r.Extra)
		}
	}
	want := j.TaskGroups[0].Count
	switch {
	case everywhere(j):
		want = len(w.nodes)
	case j.Type == model.JobTypeBatch:
		// Some of it may be done.
		for r := range w.AllocsOfJob(j.Key()) {
			if r.Client == model.ClientComplete && r.Job().Version == j.Version && !r.ServerTerminal() && !seen[fmt.Sprint(r.Index)] && int(r.Index) < want {
				seen[fmt.Sprint(r.Index)] = true
			}
		}
	}
	if j.Type == model.JobTypeSysBatch {
		for r := range w.AllocsOfJob(j.Key()) {
			if r.Client != model.ClientLost && r.ClientTerminal() && r.Job().Version == j.Version {
				seen[r.NodeID.String()] = true
			}
		}
	}
	if len(seen) != want {
		rt.Errorf("%d run or are done, of %d", len(seen), want)
	}
}
