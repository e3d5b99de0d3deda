package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"atoll/model"
)

// TestForgettingWhatIsUnneededChangesNoDecision changes a job, its nodes and its
// allocations at random. Whatever is decided must be decided too by who does not
// know of what Unneeded returns.
func TestForgettingWhatIsUnneededChangesNoDecision(t *testing.T) {
	forgotten, kept := 0, 0
	check := func(rt *rapid.T) {
		w := newWorld()
		w.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for i := range rapid.IntRange(1, 4).Draw(rt, "nodes") {
			w.node(fmt.Sprint(i), drawSize(rt))
		}
		jobType := rapid.SampledFrom([]string{model.JobTypeService, model.JobTypeService, model.JobTypeBatch, model.JobTypeSystem, model.JobTypeSysBatch}).Draw(rt, "type")
		j := w.register(drawJob(rt, jobType))
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			j = w.disturb(rt, j)
			w.disturbMore(rt, j)
			// What is old is drawn too, so that some of a chain stays.
			young := rapid.IntRange(0, 3).Draw(rt, "young")
			unneeded := Unneeded(w, j.Key(), func(r *model.AllocRow) bool { return young == 0 || int(r.ID[0])%4 != young })
			f := w.without(unneeded)
			forgotten += len(unneeded)
			kept += len(f.rows) - len(f.live(j))
			if with, without := w.decisions(j), f.decisions(j); with != without {
				rt.Fatalf("with all allocations:\n%s\nwithout %d that are unneeded:\n%s", with, len(unneeded), without)
			}
			if rapid.IntRange(0, 3).Draw(rt, "forget") == 0 {
				w.rows = f.rows
			}
		}
	}
	for range 10 {
		rapid.Check(t, check)
	}
	if forgotten < 1000 || kept < 1000 {
		t.Errorf("%d were unneeded and %d ended ones needed: the test shows too little", forgotten, kept)
	}
}

// disturbMore does at times what ends for good.
func (w *world) disturbMore(rt *rapid.T, j *model.Job) {
	yes := true
	switch rapid.IntRange(0, 20).Draw(rt, "what more") {
	case 0:
		if len(w.nodes) > 1 {
			at := w.rng.IntN(len(w.nodes))
			w.nodes = slices.Delete(slices.Clone(w.nodes), at, at+1)
			w.decide(rt, j)
		}
	case 1:
		if live := w.live(j); len(live) > 0 {
			w.extra(live[w.rng.IntN(len(live))].ID, func(_ *model.AllocRow, x *model.AllocExtra) {
				x.Transition = &model.DesiredTransition{Migrate: &yes, MigrateDisablePlacement: &yes}
			})
		}
	case 2:
		if d := w.LatestDeployment(j.Key()); d != nil && d.Active() {
			w.promote(d)
			w.deployment(d.ID, func(d *model.Deployment) { d.Status = model.DeploymentSuccessful })
		}
	case 3:
		for _, r := range w.live(j) {
			if w.reachable(r) {
				w.report(r.ID, model.ClientComplete)
			}
		}
	}
}

// without is the world as one knows it who forgot some allocations.
func (w *world) without(rows []*model.AllocRow) *world {
	f := *w
	f.rows = nil
	for _, r := range w.rows {
		if !slices.Contains(rows, r) {
			f.rows = append(f.rows, r)
		}
	}
	return &f
}

// decisions tells what is decided, but for what a new allocation takes over
// from that is over.
func (w *world) decisions(j *model.Job) string {
	d := reconcile(w, j, &model.Evaluation{Namespace: j.Namespace, JobID: j.ID, TriggeredBy: model.TriggerNodeUpdate}, w.now)
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, s := range d.stop {
		add("stop %s lost=%v %s", s.ID, s.Lost, s.Description)
	}
	for _, r := range d.update {
		add("update %s", r.ID)
	}
	for _, r := range d.disconnect {
		add("disconnect %s", r.ID)
	}
	for _, id := range d.reconnect {
		add("reconnect %s", id)
	}
	for g, list := range d.place {
		for _, p := range list {
			how, of := p.how, ""
			switch how {
			case isSuccessor:
				how = isNew
			case isRescheduled, isReplacement, isStandIn, isMigrated:
				of = p.previous.ID.String()
			}
			version := j.Version
			if p.job != nil {
				version = p.job.Version
			}
			add("place %s[%d] v%d canary=%v how=%d of=%s", g, p.index, version, p.canary, how, of)
		}
	}
	for g, e := range d.system {
		for _, n := range w.nodes {
			add("system %s on %s: covered=%v", g, n.Name, e.covered[parsed(n.ID)])
		}
		for _, r := range e.replace {
			add("replace %s", r.ID)
		}
		add("limit %d", e.limit)
	}
	for _, x := range d.waits {
		id := ""
		if x.row != nil {
			id = x.row.ID.String()
		}
		add("wait until %s for %s: %s", x.at, x.trigger, id)
	}
	if d.created {
		add("deploy %+v", d.deployment.TaskGroups["web"])
	}
	for _, c := range d.cancel {
		add("cancel %+v", c)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
