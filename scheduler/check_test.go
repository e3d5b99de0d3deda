package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"atoll/model"
)

// proposeOn makes a plan for a job without looking at what Check says of it.
func (w *world) proposeOn(t testing.TB, j *model.Job) *model.Plan {
	t.Helper()
	p, err := Propose(w, w.eval(j, model.TriggerJobRegister), w.opts())
	if err != nil {
		t.Fatal(err)
	}
	return p.Plan
}

func TestTwoPlansThatWereEachValidNeverOversubscribe(t *testing.T) {
	w := newWorld()
	n := w.node("n") // room for ten
	a, b := w.register(job("a", 6)), w.register(job("b", 6))
	first, second := w.proposeOn(t, a), w.proposeOn(t, b)
	accepted, rejected := Check(w, first)
	if len(rejected) != 0 || len(accepted.Place) != 6 {
		t.Fatalf("the first: %d stand, %v refuse", len(accepted.Place), rejected)
	}
	w.apply(accepted)
	accepted, rejected = Check(w, second)
	if len(accepted.Place) != 0 || len(rejected) != 1 || rejected[0] != n {
		t.Fatalf("the second: %d stand, %v refuse", len(accepted.Place), rejected)
	}
	// A node that still has room takes its part.
	w.node("m")
	third := w.proposeOn(t, b)
	w.settle(t, w.register(job("c", 4)))
	accepted, _ = Check(w, third)
	w.apply(accepted)
	notOversubscribed(t, w)
	if len(accepted.Place) == 0 {
		t.Error("nothing of the third plan stands")
	}
}

func TestTwoPlansForOnePort(t *testing.T) {
	w := newWorld()
	w.node("n")
	a, b := w.register(job("a", 1, staticPort(80))), w.register(job("b", 1, staticPort(80)))
	first, second := w.proposeOn(t, a), w.proposeOn(t, b)
	w.apply(first)
	if accepted, rejected := Check(w, second); len(accepted.Place) != 0 || len(rejected) != 1 {
		t.Errorf("%d stand, %v refuse", len(accepted.Place), rejected)
	}
}

func TestANodeThatIsNoLongerReadyRefuses(t *testing.T) {
	for name, change := range map[string]func(w *world, n model.UUID){
		"down": func(w *world, n model.UUID) { w.setStatus(n, model.NodeStatusDown) },
		"ineligible": func(w *world, n model.UUID) {
			w.change(n, func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
		},
		"gone":    func(w *world, n model.UUID) { w.nodes = nil },
		"smaller": func(w *world, n model.UUID) { w.change(n, size(100)) },
	} {
		w := newWorld()
		n := w.node("n")
		j := w.register(job("a", 2))
		plan := w.proposeOn(t, j)
		change(w, n)
		if accepted, rejected := Check(w, plan); len(accepted.Place) != 0 || len(rejected) != 1 {
			t.Errorf("%s: %d stand, %v refuse", name, len(accepted.Place), rejected)
		}
	}
}

func TestAPlanForAnotherVersionIsRefused(t *testing.T) {
	for name, change := range map[string]func(w *world, j *model.Job){
		"a newer version": func(w *world, j *model.Job) { w.register(j) },
		"stopped":         func(w *world, j *model.Job) { w.register(job(j.ID, 1, func(j *model.Job) { j.Stop = true })) },
		"purged":          func(w *world, j *model.Job) { delete(w.jobs, j.Key()) },
		"purged and registered again": func(w *world, j *model.Job) {
			delete(w.jobs, j.Key())
			w.register(j)
		},
	} {
		w := newWorld()
		w.node("n")
		w.register(job("other", 1)) // so that indexes move
		j := w.register(job("a", 2))
		plan := w.proposeOn(t, j)
		change(w, j)
		if accepted, rejected := Check(w, plan); len(accepted.Place) != 0 || len(rejected) != 1 || !accepted.NoOp() {
			t.Errorf("%s: %d stand, %v refuse", name, len(accepted.Place), rejected)
		}
	}
}

func TestAPlanForADeploymentThatIsOverIsRefused(t *testing.T) {
	w := newWorld()
	w.node("n")
	rolls := func(j *model.Job) { j.TaskGroups[0].Update = model.NewUpdateStrategy() }
	j := w.register(job("a", 2, rolls))
	first := w.settle(t, j).Plan
	if first.Deployment == nil || first.Groups[0].DeploymentID.String() != first.Deployment.ID {
		t.Fatalf("the first plan: %+v", first)
	}
	for _, r := range w.live(j) {
		w.health(r.ID, true)
	}
	j = w.register(job("a", 2, rolls, spec))
	w.settle(t, j)
	w.health(w.live(j)[1].ID, true)
	next := w.proposeOn(t, j)
	if len(next.Place) != 1 || next.Deployment != nil {
		t.Fatalf("the next step: %+v", next)
	}
	if accepted, rejected := Check(w, next); len(accepted.Place) != 1 || len(rejected) != 0 {
		t.Errorf("as long as it goes on: %d stand, %v refuse", len(accepted.Place), rejected)
	}
	w.deployment(w.LatestDeployment(j.Key()).ID, func(d *model.Deployment) { d.Status = model.DeploymentFailed })
	if accepted, rejected := Check(w, next); !accepted.NoOp() || len(rejected) != 1 {
		t.Errorf("once it failed: %+v, %v refuse", accepted, rejected)
	}
}

func TestAPlanThatOnlyTellsStandsOnItsOwn(t *testing.T) {
	w := newWorld()
	n := w.node("n")
	j := w.register(job("a", 1, func(j *model.Job) {
		j.TaskGroups[0].Disconnect = &model.DisconnectStrategy{LostAfter: time.Hour, Replace: true}
	}))
	w.settle(t, j)
	w.report(w.live(j)[0].ID, model.ClientRunning)
	w.setStatus(n, model.NodeStatusDisconnected)
	plan := w.proposeOn(t, j)
	if len(plan.Disconnect) != 1 || plan.NoOp() {
		t.Fatalf("the plan: %+v", plan)
	}
	if accepted, rejected := Check(w, plan); len(accepted.Disconnect) != 1 || len(rejected) != 0 {
		t.Errorf("%+v, %v refuse", accepted, rejected)
	}
}

func TestStopsOfAPurgedJobStand(t *testing.T) {
	w := newWorld()
	w.node("n")
	j := w.register(job("a", 2))
	w.settle(t, j)
	delete(w.jobs, j.Key())
	plan := w.proposeOn(t, j)
	if accepted, rejected := Check(w, plan); len(accepted.Stop) != 2 || len(rejected) != 0 {
		t.Errorf("%d stops stand, %v refuse", len(accepted.Stop), rejected)
	}
}

func TestAllAtOnceIsAllOrNothing(t *testing.T) {
	w := newWorld()
	w.node("n")
	w.node("m")
	j := w.register(job("a", 4, func(j *model.Job) { j.AllAtOnce = true }))
	w.settle(t, j)
	j = w.register(job("a", 4, spec, func(j *model.Job) { j.AllAtOnce = true }))
	plan := w.proposeOn(t, j)
	if len(plan.Place) != 4 || len(plan.Stop) != 4 {
		t.Fatalf("place %d stop %d", len(plan.Place), len(plan.Stop))
	}
	w.setStatus(plan.Place[0].NodeID, model.NodeStatusDown)
	accepted, rejected := Check(w, plan)
	if !accepted.NoOp() || len(rejected) != 1 {
		t.Errorf("place %d stop %d, %v refuse", len(accepted.Place), len(accepted.Stop), rejected)
	}
}

// replacement is a plan by which new allocations at nodes replace old ones, in
// order.
func replacement(w *world, j *model.Job, old []*model.AllocRow, nodes ...model.UUID) *model.Plan {
	g := j.TaskGroups[0]
	p := &model.Plan{JobKey: j.Key(), JobVersion: j.Version, JobModifyIndex: j.JobModifyIndex, Groups: []model.PlanGroup{{Name: g.Name, Resources: g.AllocatedResources()}}}
	for i, n := range nodes {
		p.Stop = append(p.Stop, model.PlanStop{ID: old[i].ID, Description: whyReplaced})
		p.Place = append(p.Place, model.Placement{ID: model.NewUUID(randReader{w.rng}), NodeID: n, Index: old[i].Index, Extra: &model.AllocExtra{Previous: old[i].ID}})
	}
	return p
}

func TestARefusedReplacementKeepsItsPredecessor(t *testing.T) {
	w := newWorld()
	n := w.node("n")
	j := w.register(job("a", 2))
	w.settle(t, j)
	old := w.live(j)
	m := w.node("m")
	j = w.register(job("a", 2, spec))
	plan := replacement(w, j, old, n, m)
	w.setStatus(m, model.NodeStatusDown)
	accepted, rejected := Check(w, plan)
	if len(rejected) != 1 || rejected[0] != m || len(accepted.Place) != 1 || len(accepted.Stop) != 1 || accepted.Stop[0].ID != old[0].ID {
		t.Errorf("%+v, %v refuse", accepted, rejected)
	}
	// What is lost with its node stops, whatever becomes of its replacement.
	plan.Stop[1].Lost = true
	if accepted, _ := Check(w, plan); len(accepted.Stop) != 2 {
		t.Errorf("stops that stand: %+v", accepted.Stop)
	}
}

func TestWhatARefusedReplacementWouldHaveFreedIsNotGiven(t *testing.T) {
	// n is full with two of 500. The plan moves the first to m and puts a new
	// one in its place; m refuses, so that n has no room.
	w := newWorld()
	n := w.node("n")
	half := func(j *model.Job) { j.TaskGroups[0].Tasks[0].Resources.CPU = 500 }
	j := w.register(job("a", 2, half))
	w.settle(t, j)
	m := w.node("m")
	j = w.register(job("a", 3, half, spec))
	plan := replacement(w, j, w.live(j), m)
	plan.Place = append(plan.Place, model.Placement{ID: model.NewUUID(randReader{w.rng}), NodeID: n, Index: 2})
	w.change(m, size(100))
	for name, p := range map[string]*model.Plan{"m first": plan, "n first": reversed(plan)} {
		accepted, rejected := Check(w, p)
		if len(rejected) != 2 || len(accepted.Place) != 0 || len(accepted.Stop) != 0 {
			t.Errorf("%s: place %d stop %d, %v refuse", name, len(accepted.Place), len(accepted.Stop), rejected)
		}
	}
}

func reversed(p *model.Plan) *model.Plan {
	c := *p
	c.Place = nil
	for i := len(p.Place) - 1; i >= 0; i-- {
		c.Place = append(c.Place, p.Place[i])
	}
	return &c
}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// notOversubscribed fails when a node holds more than it has.
func notOversubscribed(t failer, w *world) {
	t.Helper()
	for _, n := range w.nodes {
		id, _ := model.ParseUUID(n.ID)
		if u, _ := w.Load(id); u.Exceeds(n.Capacity()) != "" {
			t.Errorf("node %s holds %+v of %+v", n.Name, u, n.Capacity())
		}
	}
}

// TestNoSequenceOfCheckedPlansOversubscribes lets plans age before they are
// checked, while jobs, nodes and allocations change.
func TestNoSequenceOfCheckedPlansOversubscribes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		w.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for i := range rapid.IntRange(1, 5).Draw(rt, "nodes") {
			w.node(fmt.Sprint(i), size(int64(100*rapid.IntRange(2, 12).Draw(rt, "MHz"))), portRange(20000, 20000+rapid.IntRange(0, 8).Draw(rt, "ports")))
		}
		var made []*model.Plan
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "job")
			key := model.JobID{Namespace: model.DefaultNamespace, ID: id}
			j := w.jobs[key]
			switch what := rapid.IntRange(0, 9).Draw(rt, "what"); {
			case what <= 2 || j == nil:
				w.register(job(id, rapid.IntRange(0, 8).Draw(rt, "count"), func(j *model.Job) {
					j.TaskGroups[0].Tasks[0].Resources.CPU = 100 * rapid.IntRange(1, 4).Draw(rt, "cpu")
					j.AllAtOnce = rapid.Bool().Draw(rt, "all at once")
					switch rapid.IntRange(0, 2).Draw(rt, "form") {
					case 0:
						staticPort(80)(j)
					case 1:
						dynamicPorts("http")(j)
					}
				}))
			case what <= 5:
				made = append(made, w.proposeOn(t, j))
			case what == 6:
				if live := w.live(j); len(live) > 0 {
					w.report(live[w.rng.IntN(len(live))].ID, model.ClientFailed)
					w.now = w.now.Add(time.Minute)
				}
			case what == 7:
				n := w.nodes[w.rng.IntN(len(w.nodes))]
				uuid, _ := model.ParseUUID(n.ID)
				w.setStatus(uuid, rapid.SampledFrom([]string{model.NodeStatusReady, model.NodeStatusDown}).Draw(rt, "status"))
			default:
				if len(made) > 0 {
					at := rapid.IntRange(0, len(made)-1).Draw(rt, "plan")
					accepted, _ := Check(w, made[at])
					made = append(made[:at], made[at+1:]...)
					w.apply(accepted)
					notOversubscribed(rt, w)
					noDoubledPorts(rt, w)
				}
			}
		}
	})
}
