package scheduler

import (
	"slices"

	"atoll/model"
)

// WithPending is a state in which plans that are on their way into it hold
// already what they place. What they stop is not counted as free: a plan that
// relied on it could be applied without them. A plan that the state holds by now
// counts once.
func WithPending(st State, plans []*model.Plan) State {
	p := &pendingState{State: st, held: make(map[model.UUID]*pendingLoad)}
	for _, plan := range plans {
		if len(plan.Place) == 0 || st.Alloc(plan.Place[0].ID) != nil {
			continue
		}
		p.add(plan)
	}
	if len(p.held) == 0 {
		return st
	}
	return p
}

type pendingState struct {
	State
	held map[model.UUID]*pendingLoad
}

type pendingLoad struct {
	usage model.Usage
	ports []uint16
}

func (p *pendingState) add(plan *model.Plan) {
	usage := make([]model.Usage, len(plan.Groups))
	for i, g := range plan.Groups {
		usage[i] = g.Resources.Usage()
	}
	for i := range plan.Place {
		pl := &plan.Place[i]
		l := p.held[pl.NodeID]
		if l == nil {
			l = &pendingLoad{}
			p.held[pl.NodeID] = l
		}
		l.usage = l.usage.Add(usage[pl.Group])
		row := model.AllocRow{Extra: pl.Extra}
		row.HostPorts(func(port int) { l.ports = append(l.ports, uint16(port)) })
	}
}

// Load adds what the pending plans place on the node.
func (p *pendingState) Load(id model.UUID) (model.Usage, []uint16) {
	used, ports := p.State.Load(id)
	l := p.held[id]
	if l == nil {
		return used, ports
	}
	if len(l.ports) > 0 {
		ports = slices.Concat(ports, l.ports)
		slices.Sort(ports)
	}
	return used.Add(l.usage), ports
}
