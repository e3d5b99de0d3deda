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
	job := st.Job(plan.JobKey)
	if job.Stopped() || job.Version != plan.JobVersion {
		// The plan was made for a version that is no longer wanted; what it
		// stops is reconciled anew.
		if len(plan.Place) > 0 || len(plan.Update) > 0 {
			out.Stop, out.Update = nil, nil
			return &out, nodesOf(plan)
		}
		return &out, nil
	}
	freed := make(map[model.UUID][]*model.AllocRow)
	for _, s := range plan.Stop {
		if r := st.Alloc(s.ID); r != nil && !r.Terminal() {
			freed[r.NodeID] = append(freed[r.NodeID], r)
		}
	}
	byNode := make(map[model.UUID][]int)
	var order []model.UUID
	for i := range plan.Place {
		id := plan.Place[i].NodeID
		if byNode[id] == nil {
			order = append(order, id)
		}
		byNode[id] = append(byNode[id], i)
	}
	usage := make([]model.Usage, len(plan.Groups))
	for i, g := range plan.Groups {
		usage[i] = g.Resources.Usage()
	}
	refused := make(map[int]bool)
	for _, id := range order {
		if !holds(st, plan, usage, id, byNode[id], freed[id]) {
			rejected = append(rejected, id)
			for _, i := range byNode[id] {
				refused[i] = true
			}
		}
	}
	if len(refused) == 0 {
		out.Place = plan.Place
		return &out, nil
	}
	if plan.AllAtOnce {
		out.Stop, out.Update = nil, nil
		return &out, rejected
	}
	// What was to be replaced by a refused placement goes on.
	orphaned := make(map[model.UUID]bool)
	for i := range plan.Place {
		switch pl := &plan.Place[i]; {
		case !refused[i]:
			out.Place = append(out.Place, *pl)
		case pl.Extra != nil && !pl.Extra.Previous.IsZero():
			orphaned[pl.Extra.Previous] = true
		}
	}
	if len(orphaned) > 0 {
		out.Stop = slices.DeleteFunc(slices.Clone(plan.Stop), func(s model.PlanStop) bool { return orphaned[s.ID] && !s.Lost })
	}
	return &out, rejected
}

// holds reports whether a node can take placements of a plan.
func holds(st State, plan *model.Plan, usage []model.Usage, id model.UUID, place []int, freed []*model.AllocRow) bool {
	n := st.Node(id)
	if n == nil || !n.Ready() {
		return false
	}
	used, ports := st.Load(id)
	for _, r := range freed {
		used = used.Sub(r.Shared.Usage)
	}
	var set *portSet
	for _, i := range place {
		pl := &plan.Place[i]
		used = used.Add(usage[pl.Group])
		if pl.Extra == nil {
			continue
		}
		if set == nil {
			set = usedPorts(n, ports)
			for _, r := range freed {
				r.HostPorts(set.drop)
			}
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
