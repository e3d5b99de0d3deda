package scheduler

import (
	"slices"

	"atoll/model"
)

// Check returns what of a plan still holds on a newer state, and the nodes that
// refused. It costs a little for each placement and nothing for what stands on
// the nodes. Two plans that were each checked on the state that the other left
// never oversubscribe a node between them.
func Check(st State, plan *model.Plan) (accepted *model.Plan, rejected []model.UUID) {
	out := *plan
	out.Place = nil
	if stale(st, plan) {
		// The plan was made for what is no longer wanted; whatever else it
		// does is reconciled anew.
		if len(plan.Place) > 0 || len(plan.Update) > 0 {
			return without(plan), nodesOf(plan)
		}
		return &out, nil
	}
	c := newCheck(st, plan)
	for len(c.todo) > 0 {
		id := c.todo[0]
		c.todo = c.todo[1:]
		if !c.refused[id] && !c.holds(id) {
			rejected = append(rejected, id)
			c.refuse(id)
		}
	}
	if len(rejected) == 0 {
		out.Place = plan.Place
		return &out, nil
	}
	if plan.AllAtOnce {
		return without(plan), rejected
	}
	for i := range plan.Place {
		if !c.refused[plan.Place[i].NodeID] {
			out.Place = append(out.Place, plan.Place[i])
		}
	}
	out.Stop = slices.DeleteFunc(slices.Clone(plan.Stop), func(s model.PlanStop) bool { return c.kept[s.ID] })
	return &out, rejected
}

// without is a plan of which nothing is left.
func without(p *model.Plan) *model.Plan {
	return &model.Plan{
		EvalID: p.EvalID, Priority: p.Priority, JobKey: p.JobKey, JobVersion: p.JobVersion, JobModifyIndex: p.JobModifyIndex,
		SnapshotIndex: p.SnapshotIndex, AllAtOnce: p.AllAtOnce, Groups: p.Groups,
	}
}

// stale reports whether a plan's job, or the deployment that it goes on with,
// is over.
func stale(st State, plan *model.Plan) bool {
	job := st.Job(plan.JobKey)
	if job.Stopped() || job.Version != plan.JobVersion || job.JobModifyIndex != plan.JobModifyIndex {
		return true
	}
	for _, g := range plan.Groups {
		if g.DeploymentID.IsZero() || plan.Deployment != nil && g.DeploymentID.String() == plan.Deployment.ID {
			continue
		}
		if d := st.LatestDeployment(plan.JobKey); d == nil || d.ID != g.DeploymentID.String() || !d.Active() {
			return true
		}
	}
	return false
}

// check is the examination of one plan.
type check struct {
	st    State
	plan  *model.Plan
	usage []model.Usage // of a placement, by group
	// place and freed are by node: placements, and rows that the plan stops.
	place map[model.UUID][]int
	freed map[model.UUID][]*model.AllocRow
	stops map[model.UUID]model.PlanStop
	// todo are the nodes to examine, some of them again.
	todo    []model.UUID
	refused map[model.UUID]bool
	// kept are allocations whose stop is called off.
	kept map[model.UUID]bool
}

func newCheck(st State, plan *model.Plan) *check {
	c := &check{
		st: st, plan: plan, place: make(map[model.UUID][]int), freed: make(map[model.UUID][]*model.AllocRow),
		stops: make(map[model.UUID]model.PlanStop, len(plan.Stop)), refused: make(map[model.UUID]bool), kept: make(map[model.UUID]bool),
	}
	for _, s := range plan.Stop {
		c.stops[s.ID] = s
		if r := st.Alloc(s.ID); r != nil && !r.Terminal() {
			c.freed[r.NodeID] = append(c.freed[r.NodeID], r)
		}
	}
	for i := range plan.Place {
		id := plan.Place[i].NodeID
		if c.place[id] == nil {
			c.todo = append(c.todo, id)
		}
		c.place[id] = append(c.place[id], i)
	}
	for _, g := range plan.Groups {
		c.usage = append(c.usage, g.Resources.Usage())
	}
	return c
}

// refuse takes out a node's placements. What they were to replace goes on, so
// that nodes on which it made room are examined again.
func (c *check) refuse(id model.UUID) {
	c.refused[id] = true
	for _, i := range c.place[id] {
		x := c.plan.Place[i].Extra
		if x == nil {
			continue
		}
		s, stopped := c.stops[x.Previous]
		if !stopped || s.Lost {
			continue
		}
		c.kept[s.ID] = true
		if r := c.st.Alloc(s.ID); r != nil && !r.Terminal() {
			c.freed[r.NodeID] = slices.DeleteFunc(c.freed[r.NodeID], func(o *model.AllocRow) bool { return o.ID == r.ID })
			if c.place[r.NodeID] != nil {
				c.todo = append(c.todo, r.NodeID)
			}
		}
	}
}

// holds reports whether a node can take its placements.
func (c *check) holds(id model.UUID) bool {
	n := c.st.Node(id)
	if n == nil || !n.Ready() {
		return false
	}
	used, ports := c.st.Load(id)
	for _, r := range c.freed[id] {
		used = used.Sub(r.Shared.Usage)
	}
	var set *portSet
	for _, i := range c.place[id] {
		pl := &c.plan.Place[i]
		used = used.Add(c.usage[pl.Group])
		if pl.Extra == nil {
			continue
		}
		if set == nil {
			set = usedPorts(n, ports)
			set.release(ports, c.freed[id], c.freed[id]...)
		}
		row := model.AllocRow{Extra: pl.Extra}
		free := true
		row.HostPorts(func(port int) {
			if port < 0 || port > 65535 || set.has(port) && !ignores(pl.Extra, port) {
				free = false
				return
			}
			set.add(port)
		})
		if !free {
			return false
		}
	}
	return used.Exceeds(n.Capacity()) == ""
}

// ignores reports whether a port was asked for whoever else has it.
func ignores(x *model.AllocExtra, port int) bool {
	return slices.ContainsFunc(x.Ports, func(p model.PortMapping) bool { return p.Value == port && p.IgnoreCollision })
}

func nodesOf(plan *model.Plan) (out []model.UUID) {
	seen := make(map[model.UUID]bool)
	for i := range plan.Place {
		if id := plan.Place[i].NodeID; !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}
