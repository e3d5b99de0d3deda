package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"atoll/model"
)

func where(l, op, r string) func(*model.Job) {
	return func(j *model.Job) {
		j.Constraints = append(j.Constraints, &model.Constraint{LTarget: l, Operand: op, RTarget: r})
	}
}

func TestPlacementsAreOnNodesThatMayRunThem(t *testing.T) {
	hosts := func(r string) func(*model.Job) { return where("", model.ConstraintDistinctHosts, r) }
	for _, c := range []struct {
		name  string
		nodes func(w *world)
		job   *model.Job
		want  string // live allocations by node name
		fails string // the metric, when not all are placed
	}{{
		name:  "a datacenter's name chooses its nodes",
		nodes: func(w *world) { w.node("a", inDC("eu-1")); w.node("b", inDC("us-1")) },
		job:   job("j", 3, func(j *model.Job) { j.Datacenters = []string{"us-1"} }), want: "map[b:3]",
	}, {
		name:  "a datacenter's glob chooses those that match",
		nodes: func(w *world) { w.node("a", inDC("eu-1")); w.node("b", inDC("eu-2")); w.node("c", inDC("us-1")) },
		job:   job("j", 2, func(j *model.Job) { j.Datacenters = []string{"eu-?", "ap-*"} }, hosts("")), want: "map[a:1 b:1]",
	}, {
		name:  "no datacenter matches",
		nodes: func(w *world) { w.node("a", inDC("eu-1")) },
		job:   job("j", 2, func(j *model.Job) { j.Datacenters = []string{"us-*"} }), want: "map[]",
		fails: "evaluated 0 filtered 0 exhausted 0 map[] available map[] in pool 1 coalesced 1",
	}, {
		name:  "a job runs in its pool",
		nodes: func(w *world) { w.node("a"); w.node("b", func(n *model.Node) { n.NodePool = "gpu" }) },
		job:   job("j", 2, func(j *model.Job) { j.NodePool = "gpu" }), want: "map[b:2]",
	}, {
		name:  "the default pool is one of them",
		nodes: func(w *world) { w.node("a"); w.node("b", func(n *model.Node) { n.NodePool = "gpu" }) },
		job:   job("j", 2), want: "map[a:2]",
	}, {
		name:  "the pool all is every pool",
		nodes: func(w *world) { w.node("a"); w.node("b", func(n *model.Node) { n.NodePool = "gpu" }) },
		job:   job("j", 2, func(j *model.Job) { j.NodePool = model.NodePoolAll }, hosts("true")), want: "map[a:1 b:1]",
	}, {
		name: "constraints of job, group and task all hold",
		nodes: func(w *world) {
			w.node("a", class("x"), inDC("eu"), func(n *model.Node) { n.Meta["ssd"] = "y" })
			w.node("b", class("x"), inDC("eu"))
			w.node("c", class("x"), func(n *model.Node) { n.Meta["ssd"] = "y" })
			w.node("d", inDC("eu"), func(n *model.Node) { n.Meta["ssd"] = "y" })
		},
		job: job("j", 2, where("${node.class}", "=", "x"), func(j *model.Job) {
			j.TaskGroups[0].Constraints = []*model.Constraint{{LTarget: "${node.datacenter}", Operand: "=", RTarget: "eu"}}
			j.TaskGroups[0].Tasks[0].Constraints = []*model.Constraint{{LTarget: "${meta.ssd}", Operand: model.ConstraintIsSet}}
		}), want: "map[a:2]",
	}, {
		name:  "a constraint on one node's name is not a class's",
		nodes: func(w *world) { w.node("a"); w.node("b"); w.node("c") },
		job:   job("j", 2, where("${node.unique.name}", "=", "b")), want: "map[b:2]",
	}, {
		name:  "what is filtered is counted by constraint",
		nodes: func(w *world) { w.node("a", class("x")); w.node("b"); w.node("c") },
		job:   job("j", 3, where("${node.class}", "=", "z")), want: "map[]",
		fails: "evaluated 3 filtered 3 exhausted 0 map[${node.class} = z:3] available map[dc1:3] in pool 3 coalesced 2",
	}, {
		name: "a driver must be there and healthy",
		nodes: func(w *world) {
			w.node("a", func(n *model.Node) { n.Drivers = nil })
			w.node("b", func(n *model.Node) { n.Drivers["mock"].Healthy = false })
			w.node("c", func(n *model.Node) { n.Drivers["mock"].Detected = false })
			w.node("d")
		},
		job: job("j", 2), want: "map[d:2]",
	}, {
		name:  "a missing driver is counted",
		nodes: func(w *world) { w.node("a", func(n *model.Node) { n.Drivers = nil }) },
		job:   job("j", 1), want: "map[]",
		fails: "evaluated 1 filtered 1 exhausted 0 map[missing drivers:1] available map[dc1:1] in pool 1 coalesced 0",
	}, {
		name: "nodes that are not ready take nothing",
		nodes: func(w *world) {
			w.node("a", func(n *model.Node) { n.Status = model.NodeStatusDown })
			w.node("b", func(n *model.Node) { n.Status = model.NodeStatusInit })
			w.node("c", func(n *model.Node) { n.Status = model.NodeStatusDisconnected })
			w.node("d", func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
		},
		job: job("j", 1), want: "map[]",
		fails: "evaluated 0 filtered 0 exhausted 0 map[] available map[] in pool 4 coalesced 0",
	}, {
		name:  "hosts of its own for each allocation of a job",
		nodes: func(w *world) { w.node("a"); w.node("b"); w.node("c") },
		job:   job("j", 4, hosts("")), want: "map[a:1 b:1 c:1]",
		fails: "evaluated 3 filtered 0 exhausted 3 map[distinct_hosts:3] available map[dc1:3] in pool 3 coalesced 0",
	}, {
		name:  "distinct hosts can be switched off",
		nodes: func(w *world) { w.node("a") },
		job:   job("j", 2, hosts("false")), want: "map[a:2]",
	}, {
		name:  "distinct hosts of a job are over its groups",
		nodes: func(w *world) { w.node("a"); w.node("b"); w.node("c") },
		job: job("j", 1, hosts(""), func(j *model.Job) {
			other := model.Clone(j.TaskGroups[0])
			other.Name, other.Count = "api", 2
			j.TaskGroups = append(j.TaskGroups, other)
		}), want: "map[a:1 b:1 c:1]",
	}, {
		name:  "distinct hosts of a group are its own affair",
		nodes: func(w *world) { w.node("a"); w.node("b") },
		job: job("j", 2, func(j *model.Job) {
			j.TaskGroups[0].Constraints = []*model.Constraint{{Operand: model.ConstraintDistinctHosts}}
			other := model.Clone(j.TaskGroups[0])
			other.Name = "api"
			j.TaskGroups = append(j.TaskGroups, other)
		}), want: "map[a:2 b:2]",
	}, {
		name:  "cpu bounds a node",
		nodes: func(w *world) { w.node("a", size(250)) },
		job:   job("j", 4), want: "map[a:2]",
		fails: "evaluated 1 filtered 0 exhausted 1 map[cpu:1] available map[dc1:1] in pool 1 coalesced 1",
	}, {
		name:  "memory bounds a node",
		nodes: func(w *world) { w.node("a", size(9000)) },
		job:   job("j", 11), want: "map[a:10]",
		fails: "evaluated 1 filtered 0 exhausted 1 map[memory:1] available map[dc1:1] in pool 1 coalesced 0",
	}, {
		name:  "disk bounds a node",
		nodes: func(w *world) { w.node("a") },
		job:   job("j", 3, func(j *model.Job) { j.TaskGroups[0].EphemeralDisk.SizeMB = 4000 }), want: "map[a:2]",
		fails: "evaluated 1 filtered 0 exhausted 1 map[disk:1] available map[dc1:1] in pool 1 coalesced 0",
	}, {
		name: "what is reserved for the machine is not given",
		nodes: func(w *world) {
			w.node("a", func(n *model.Node) {
				n.ReservedResources = &model.NodeReservedResources{}
				n.ReservedResources.Cpu.CpuShares, n.ReservedResources.Memory.MemoryMB, n.ReservedResources.Disk.DiskMB = 700, 10, 10
			})
		},
		job: job("j", 4), want: "map[a:3]",
		fails: "evaluated 1 filtered 0 exhausted 1 map[cpu:1] available map[dc1:1] in pool 1 coalesced 0",
	}, {
		name: "all nodes that are full are counted, also those that filled up before",
		nodes: func(w *world) {
			for i := range 8 {
				w.node(fmt.Sprint(i), size(int64(100*(1+i%2))), class("small"))
			}
		},
		job: job("j", 20), want: "map[0:1 1:2 2:1 3:2 4:1 5:2 6:1 7:2]",
		fails: "evaluated 8 filtered 0 exhausted 8 map[cpu:8] available map[dc1:8] in pool 8 coalesced 7",
	}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			c.nodes(w)
			j := w.register(c.job)
			p := w.settle(t, j)
			if got := fmt.Sprint(w.by(j, nodeName)); got != c.want {
				t.Errorf("placed %s, want %s", got, c.want)
			}
			got := ""
			if m := p.Failed["web"]; m != nil {
				reasons := maps.Clone(m.ConstraintFiltered)
				if reasons == nil {
					reasons = m.DimensionExhausted
				}
				got = fmt.Sprintf("evaluated %d filtered %d exhausted %d %v available %v in pool %d coalesced %d",
					m.NodesEvaluated, m.NodesFiltered, m.NodesExhausted, reasons, m.NodesAvailable, m.NodesInPool, m.CoalescedFailures)
			}
			if got != c.fails {
				t.Errorf("the metric: %s\nwant        %s", got, c.fails)
			}
			if want := c.job.TaskGroups[0].Count - len(slices.Collect(webs(p.Plan))); p.Queued["web"] != want {
				t.Errorf("queued %d, want %d", p.Queued["web"], want)
			}
		})
	}
}

// webs yields a plan's placements of group "web".
func webs(p *model.Plan) func(func(model.Placement) bool) {
	return func(yield func(model.Placement) bool) {
		for _, pl := range p.Place {
			if p.Groups[pl.Group].Name == "web" && !yield(pl) {
				return
			}
		}
	}
}

func TestMetricsCountClasses(t *testing.T) {
	w := newWorld()
	w.node("a", class("small"), size(100))
	w.node("b", class("wrong"), inDC("dc2"))
	j := w.register(job("j", 3, where("${node.class}", "!=", "wrong")))
	p := w.settle(t, j)
	m := p.Failed["web"]
	if m == nil || m.ClassExhausted["small"] != 1 || m.ClassFiltered["wrong"] != 1 || m.NodesAvailable["dc2"] != 1 {
		t.Errorf("the failure: %+v", m)
	}
	if m := p.Plan.Groups[0].Metrics; m.NodesEvaluated != 2 || m.NodesFiltered != 1 || m.NodePool != model.NodePoolDefault {
		t.Errorf("what the placements share: %+v", m)
	}
	if got := w.by(j, datacenter); got["dc1"] != 1 || len(got) != 1 {
		t.Errorf("placed %v", got)
	}
}

func TestWorkIsPackedTight(t *testing.T) {
	// Of two empty nodes, the one that will be fuller; jobs of one
	// allocation, so that nothing keeps them apart.
	w := newWorld()
	big, small := w.node("big", size(4000)), w.node("small", size(500))
	for i := range 5 {
		w.settle(t, w.register(job(fmt.Sprint(i), 1)))
	}
	if u, _ := w.Load(small); u.CPU != 500 {
		t.Errorf("the small node holds %+v", u)
	}
	w.settle(t, w.register(job("more", 1)))
	if u, _ := w.Load(big); u.CPU != 100 {
		t.Errorf("the big node holds %+v", u)
	}
	for _, c := range []struct {
		used model.Usage
		want float64
	}{
		{model.Usage{}, 0}, {model.Usage{CPU: 1000, MemoryMB: 1000}, 1}, {model.Usage{CPU: 500, MemoryMB: 500}, (20 - 2*3.1622776601683795) / 18},
	} {
		if got := binpack(model.Usage{CPU: 1000, MemoryMB: 1000}, c.used); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("binpack of %+v is %v, want %v", c.used, got, c.want)
		}
	}
}

func TestTheSpreadAlgorithmPrefersEmptyNodes(t *testing.T) {
	for algorithm, want := range map[string]string{model.AlgorithmBinpack: "map[big:0 small:2]", model.AlgorithmSpread: "map[big:2 small:0]"} {
		w := newWorld()
		w.algorithm = algorithm
		big, small := w.node("big", size(4000)), w.node("small", size(500))
		// Jobs of one allocation, so that nothing else keeps them apart.
		for i := range 2 {
			w.settle(t, w.register(job(fmt.Sprint(i), 1)))
		}
		onBig, _ := w.Load(big)
		onSmall, _ := w.Load(small)
		if got := fmt.Sprint(map[string]int64{"big": onBig.CPU / 100, "small": onSmall.CPU / 100}); got != want {
			t.Errorf("%s: %s, want %s", algorithm, got, want)
		}
	}
	// Of equal nodes each gets as much.
	w := newWorld()
	w.algorithm = model.AlgorithmSpread
	var nodes []model.UUID
	for i := range 2 {
		nodes = append(nodes, w.node(fmt.Sprint(i)))
	}
	for i := range 8 {
		w.settle(t, w.register(job(fmt.Sprint(i), 1)))
	}
	for i, id := range nodes {
		if u, _ := w.Load(id); u.CPU != 400 {
			t.Errorf("node %d holds %d MHz of 800", i, u.CPU)
		}
	}
}

func TestAGroupsAllocationsKeepApart(t *testing.T) {
	w := newWorld()
	for i := range 4 {
		w.node(fmt.Sprint(i))
	}
	j := w.register(job("j", 4))
	w.settle(t, j)
	if got := fmt.Sprint(w.by(j, nodeName)); got != "map[0:1 1:1 2:1 3:1]" {
		t.Errorf("placed %s", got)
	}
}

func TestAFailedAllocationAvoidsAllNodesThatItFailedOn(t *testing.T) {
	w := newWorld()
	w.node("a")
	w.node("b")
	w.node("c", size(4000)) // the emptiest, so the last to be chosen
	j := w.register(job("j", 1, func(j *model.Job) {
		j.TaskGroups[0].ReschedulePolicy = &model.ReschedulePolicy{Unlimited: true, UnlimitedGiven: true, DelayFunction: "constant"}
	}))
	w.settle(t, j)
	seen := make(map[string]bool)
	for range 3 {
		r := w.live(j)[0]
		name := w.Node(r.NodeID).Name
		if seen[name] {
			t.Fatalf("placed again on %s, after %v", name, seen)
		}
		seen[name] = true
		w.report(r.ID, model.ClientFailed)
		w.settle(t, j)
	}
}

func TestReplacementsMakeRoomForThemselvesAlone(t *testing.T) {
	// Four of 250 MHz fill the node; as 400 MHz each, the first takes the
	// room of its predecessor and finds that it is not enough.
	w := newWorld()
	w.node("n")
	cpu := func(mhz int) func(*model.Job) {
		return func(j *model.Job) { j.TaskGroups[0].Tasks[0].Resources.CPU = mhz }
	}
	j := w.register(job("j", 4, cpu(250)))
	w.settle(t, j)
	j = w.register(job("j", 4, cpu(400)))
	p := w.settle(t, j)
	if len(p.Plan.Place) != 0 || len(p.Plan.Stop) != 0 || p.Queued["web"] != 4 {
		t.Errorf("place %d stop %d queued %v", len(p.Plan.Place), len(p.Plan.Stop), p.Queued)
	}
	// Smaller ones fit one after another.
	j = w.register(job("j", 4, cpu(200)))
	p = w.settle(t, j)
	if len(p.Plan.Place) != 4 || len(p.Plan.Stop) != 4 {
		t.Errorf("smaller: place %d stop %d", len(p.Plan.Place), len(p.Plan.Stop))
	}
}

func TestAReplacementWithoutAPlaceIsTriedAgainAsOne(t *testing.T) {
	w := newWorld()
	n := w.node("n")
	j := w.register(job("j", 1))
	w.settle(t, j)
	failed := w.live(j)[0].ID
	w.report(failed, model.ClientFailed)
	w.now = w.now.Add(time.Minute)
	w.change(n, func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
	if p := w.settle(t, j); len(p.Plan.Stop) != 0 || p.Queued["web"] != 1 {
		t.Fatalf("without room: stop %d queued %v", len(p.Plan.Stop), p.Queued)
	}
	w.change(n, func(n *model.Node) { n.SchedulingEligibility = model.NodeEligible })
	p := w.settle(t, j)
	if len(p.Plan.Place) != 1 || p.Plan.Place[0].Extra == nil || p.Plan.Place[0].Extra.Reschedule == nil || len(p.Plan.Stop) != 1 {
		t.Errorf("with room: %+v", p.Plan)
	}
}

func TestTheSameSeedMakesTheSamePlan(t *testing.T) {
	w := newWorld()
	for i := range 50 {
		w.node(fmt.Sprint(i), size(int64(500+10*i)))
	}
	j := w.register(job("j", 60, dynamicPorts("http", "admin")))
	e := w.eval(j, model.TriggerJobRegister)
	plan := func(seed uint64) *Proposal {
		p, err := Propose(w, e, Options{Now: w.now, Rand: rand.New(rand.NewPCG(seed, 7))})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := plan(1)
	if len(first.Plan.Place) != 60 {
		t.Fatalf("%d placed", len(first.Plan.Place))
	}
	for range 3 {
		if again := plan(1); !reflect.DeepEqual(first, again) {
			t.Fatal("two proposals of one seed differ")
		}
	}
	if other := plan(2); reflect.DeepEqual(first.Plan.Place, other.Plan.Place) {
		t.Error("another seed makes the same plan: nothing is drawn from it")
	}
}

func TestABlockedEvaluationSaysWhichClassesCouldHelp(t *testing.T) {
	w := newWorld()
	// What each class is like, and what should be said of it.
	want := make(map[string]bool)
	add := func(name string, helps bool, change ...func(*model.Node)) {
		want[w.Node(w.node(name, change...)).ComputedClass] = helps
	}
	add("full", true, class("x"), size(100))
	add("single node refused", true, class("y"), size(5000))
	add("infeasible", false, class("z"))
	add("elsewhere", false, class("x"), inDC("dc2"))
	add("another pool", false, class("x"), func(n *model.Node) { n.NodePool = "gpu" })
	down := w.node("down", class("down"))
	w.setStatus(down, model.NodeStatusDown)
	j := w.register(job("j", 3, where("${node.class}", "!=", "z"), func(j *model.Job) {
		j.Datacenters = []string{"dc1"}
		j.TaskGroups[0].Constraints = []*model.Constraint{{LTarget: "${node.unique.name}", Operand: "!=", RTarget: "single node refused"}}
	}))
	p := w.settle(t, j)
	evals := p.Conclude(w.eval(j, model.TriggerJobRegister), w.opts())
	if len(evals) != 2 || evals[0].ClassEligibility != nil || evals[0].EscapedComputedClass {
		t.Fatalf("%d evaluations, the first %+v", len(evals), evals[0])
	}
	blocked := evals[1]
	if !maps.Equal(blocked.ClassEligibility, want) || !blocked.EscapedComputedClass {
		t.Errorf("eligibility %v, escaped %v; want %v and true", blocked.ClassEligibility, blocked.EscapedComputedClass, want)
	}
	// When it is tried again and blocks again it says so of itself; when it
	// completes it says nothing.
	again := p.Conclude(blocked, w.opts())
	if len(again) != 1 || again[0].Status != model.EvalBlocked || !maps.Equal(again[0].ClassEligibility, want) {
		t.Errorf("blocked again: %+v", again[0])
	}
	w.node("room", class("room"))
	if done := w.settle(t, j).Conclude(blocked, w.opts()); len(done) != 1 || done[0].Status != model.EvalComplete || done[0].ClassEligibility != nil || done[0].EscapedComputedClass {
		t.Errorf("completed: %+v", done[0])
	}
}
