package scheduler

import (
	"fmt"
	"testing"

	"atoll/model"
)

func dynamicPorts(labels ...string) func(*model.Job) {
	return func(j *model.Job) {
		nw := &model.NetworkResource{}
		for _, l := range labels {
			nw.DynamicPorts = append(nw.DynamicPorts, model.Port{Label: l})
		}
		j.TaskGroups[0].Networks = []*model.NetworkResource{nw}
	}
}

func staticPort(port int) func(*model.Job) {
	return func(j *model.Job) {
		j.TaskGroups[0].Networks = []*model.NetworkResource{{ReservedPorts: []model.Port{{Label: "http", Value: port}}}}
	}
}

func portRange(lo, hi int) func(*model.Node) {
	return func(n *model.Node) { n.NodeResources.MinDynamicPort, n.NodeResources.MaxDynamicPort = lo, hi }
}

func reserved(spec string) func(*model.Node) {
	return func(n *model.Node) {
		n.ReservedResources = &model.NodeReservedResources{}
		n.ReservedResources.Networks.ReservedHostPorts = spec
	}
}

func TestPortsAreGivenOnce(t *testing.T) {
	oldForm := func(static int, dynamic ...string) func(*model.Job) {
		return func(j *model.Job) {
			nw := &model.NetworkResource{}
			if static > 0 {
				nw.ReservedPorts = []model.Port{{Label: "fixed", Value: static}}
			}
			for _, l := range dynamic {
				nw.DynamicPorts = append(nw.DynamicPorts, model.Port{Label: l})
			}
			j.TaskGroups[0].Tasks[0].Resources.Networks = []*model.NetworkResource{nw}
		}
	}
	for _, c := range []struct {
		name  string
		nodes func(w *world)
		job   *model.Job
		want  string // live allocations by node name
		fails string // dimensions
	}{{
		name:  "a static port is taken once a node",
		nodes: func(w *world) { w.node("a"); w.node("b") },
		job:   job("j", 3, staticPort(8080)), want: "map[a:1 b:1]", fails: "map[network: reserved port collision http=8080:2]",
	}, {
		name:  "a static port that the operator reserved is not given",
		nodes: func(w *world) { w.node("a", reserved("22, 8000-8100")); w.node("b", reserved("22")) },
		job:   job("j", 2, staticPort(8080)), want: "map[b:1]", fails: "map[network: reserved port collision http=8080:2]",
	}, {
		name:  "a static port may be shared by those that say so",
		nodes: func(w *world) { w.node("a") },
		job: job("j", 3, func(j *model.Job) {
			j.TaskGroups[0].Networks = []*model.NetworkResource{{ReservedPorts: []model.Port{{Label: "http", Value: 80, IgnoreCollision: true}}}}
		}), want: "map[a:3]",
	}, {
		name:  "dynamic ports are as many as the node's range",
		nodes: func(w *world) { w.node("a", portRange(20000, 20004)) },
		job:   job("j", 3, dynamicPorts("http", "admin")), want: "map[a:2]", fails: "map[network: dynamic port selection failed:1]",
	}, {
		name:  "dynamic ports leave out reserved ones",
		nodes: func(w *world) { w.node("a", portRange(20000, 20004), reserved("20001-20003")) },
		job:   job("j", 3, dynamicPorts("http")), want: "map[a:2]", fails: "map[network: dynamic port selection failed:1]",
	}, {
		name:  "dynamic ports leave out the group's own static ones",
		nodes: func(w *world) { w.node("a", portRange(20000, 20001)) },
		job: job("j", 1, func(j *model.Job) {
			j.TaskGroups[0].Networks = []*model.NetworkResource{{
				DynamicPorts: []model.Port{{Label: "x"}}, ReservedPorts: []model.Port{{Label: "y", Value: 20000}},
			}}
		}), want: "map[a:1]",
	}, {
		name:  "the old form, within a task, is given ports too",
		nodes: func(w *world) { w.node("a"); w.node("b") },
		job:   job("j", 3, oldForm(9000, "db")), want: "map[a:1 b:1]", fails: "map[network: reserved port collision fixed=9000:2]",
	}, {
		name:  "both forms take from one range",
		nodes: func(w *world) { w.node("a", portRange(20000, 20002)) },
		job:   job("j", 2, dynamicPorts("http"), oldForm(0, "db")), want: "map[a:1]", fails: "map[network: dynamic port selection failed:1]",
	}, {
		name:  "a range that holds nothing gives nothing",
		nodes: func(w *world) { w.node("a", portRange(20005, 20004)) },
		job:   job("j", 1, dynamicPorts("http")), want: "map[]", fails: "map[network: dynamic port selection failed:1]",
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
				got = fmt.Sprint(m.DimensionExhausted)
			}
			if got != c.fails {
				t.Errorf("failures: %s, want %s", got, c.fails)
			}
			if len(w.live(j)) > 0 && !sharesPorts(c.job) {
				noDoubledPorts(t, w)
			}
		})
	}
}

func sharesPorts(j *model.Job) bool {
	n := j.TaskGroups[0].Networks
	return len(n) > 0 && len(n[0].ReservedPorts) > 0 && n[0].ReservedPorts[0].IgnoreCollision
}

// noDoubledPorts fails when two live rows of a node hold one port.
func noDoubledPorts(t failer, w *world) {
	t.Helper()
	held := make(map[string]model.UUID)
	for _, r := range w.rows {
		if r.Terminal() {
			continue
		}
		r.HostPorts(func(port int) {
			at := fmt.Sprintf("%s:%d", r.NodeID, port)
			if other, twice := held[at]; twice {
				t.Errorf("port %s is held by %s and %s", at, other, r.ID)
			}
			held[at] = r.ID
		})
	}
}

func TestAllocationsAreToldTheirPorts(t *testing.T) {
	w := newWorld()
	w.node("a")
	j := w.register(job("j", 1, func(j *model.Job) {
		g := j.TaskGroups[0]
		g.Networks = []*model.NetworkResource{{
			Mode: "host", ReservedPorts: []model.Port{{Label: "http", Value: 80, To: 8080}},
			DynamicPorts: []model.Port{{Label: "admin", To: -1}, {Label: "rpc", To: 4647}},
		}}
		g.Tasks[0].Resources.Networks = []*model.NetworkResource{{DynamicPorts: []model.Port{{Label: "db"}}}}
	}))
	w.settle(t, j)
	x := w.live(j)[0].Extra
	ports := make(map[string]model.PortMapping)
	for _, p := range x.Ports {
		if p.HostIP != "10.0.0.1" {
			t.Errorf("port %s is on %q", p.Label, p.HostIP)
		}
		ports[p.Label] = p
	}
	admin, rpc := ports["admin"].Value, ports["rpc"].Value
	if ports["http"].Value != 80 || ports["http"].To != 8080 || admin < 20000 || admin > 32000 || ports["admin"].To != admin || rpc == admin || ports["rpc"].To != 4647 {
		t.Errorf("group ports: %+v", x.Ports)
	}
	if len(x.Networks) != 1 || x.Networks[0].Mode != "host" || x.Networks[0].DynamicPorts[0].Value != admin {
		t.Errorf("group networks: %+v", x.Networks)
	}
	db := x.TaskNetworks["main"]
	if db == nil || len(db.DynamicPorts) != 1 || db.DynamicPorts[0].Value < 20000 || db.IP != "10.0.0.1" {
		t.Errorf("the task's network: %+v", db)
	}
	// The spec is shared by all: nothing given may be written into it.
	if j.TaskGroups[0].Networks[0].DynamicPorts[0].Value != 0 || j.TaskGroups[0].Tasks[0].Resources.Networks[0].DynamicPorts[0].Value != 0 {
		t.Error("given ports were written into the job")
	}
}

func TestAReplacementMayTakeThePortOfItsPredecessor(t *testing.T) {
	w := newWorld()
	w.node("a")
	j := w.register(job("j", 1, staticPort(80)))
	w.settle(t, j)
	j = w.register(job("j", 1, staticPort(80), spec))
	if p := w.settle(t, j); len(p.Plan.Place) != 1 || len(p.Plan.Stop) != 1 {
		t.Errorf("place %d stop %d: %v", len(p.Plan.Place), len(p.Plan.Stop), p.Failed["web"])
	}
}

func TestAPortThatTwoHoldIsFreeOnceBothAreGone(t *testing.T) {
	w := newWorld()
	n := w.node("a")
	shared := func(j *model.Job) {
		staticPort(80)(j)
		j.TaskGroups[0].Networks[0].ReservedPorts[0].IgnoreCollision = true
		j.TaskGroups[0].Update = model.NewUpdateStrategy() // one by one
	}
	j := w.register(job("j", 2, shared))
	w.settle(t, j)
	old := w.live(j)
	for _, r := range old {
		w.health(r.ID, true)
	}
	// The next version wants the port for itself.
	j = w.register(job("j", 2, shared, spec, func(j *model.Job) { j.TaskGroups[0].Networks[0].ReservedPorts[0].IgnoreCollision = false }))
	if p := w.proposeOn(t, j); len(p.Place) != 0 || len(p.Stop) != 0 {
		t.Errorf("place %d stop %d", len(p.Place), len(p.Stop))
	}
	plan := replacement(w, j, old, n)
	plan.Place[0].Extra.Ports = []model.PortMapping{{Label: "http", Value: 80}}
	if accepted, rejected := Check(w, plan); len(accepted.Place) != 0 || len(rejected) != 1 {
		t.Errorf("with the other there: %d stand, %v refuse", len(accepted.Place), rejected)
	}
	plan.Stop = append(plan.Stop, model.PlanStop{ID: old[1].ID})
	if accepted, rejected := Check(w, plan); len(accepted.Place) != 1 || len(rejected) != 0 {
		t.Errorf("with both gone: %d stand, %v refuse", len(accepted.Place), rejected)
	}
}
