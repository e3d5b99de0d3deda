package cell

import (
	"maps"
	"time"

	"atoll/cell/state"
	"atoll/model"
)

// NodeDrain begins to empty a node, changes how, or ends it. It answers with
// NodeChanged.
type NodeDrain struct {
	NodeID string
	// Spec is nil to end a drain.
	Spec *model.DrainSpec
	// MarkEligible lets new work onto the node again when a drain ends.
	MarkEligible bool
	// Complete says that nothing is left, and does nothing where something is:
	// a plan that was checked before the drain began may have come meanwhile.
	// Otherwise a drain that ends was given up.
	Complete bool
	// Meta is what the operator says of it.
	Meta map[string]string
	// Unless zero, IfModifyIndex must be the node's.
	IfModifyIndex uint64
	Derive        Derive
}

// AllocTransition says what is to happen to allocations, and evaluates their
// jobs. It answers with AllocTransitioned, or a NotFound error when there is none
// of them.
type AllocTransition struct {
	Allocs     []model.UUID
	Transition model.DesiredTransition
	// Trigger is why.
	Trigger string
	Derive  Derive
}

// AllocTransitioned names the evaluations that act on a transition.
type AllocTransitioned struct{ EvalIDs []string }

func applyNodeDrain(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeDrain) (*NodeChanged, error) {
	old := snap.Node(nil, c.NodeID)
	switch {
	case old == nil:
		return nil, model.NotFound("node", c.NodeID)
	case c.IfModifyIndex != 0 && old.ModifyIndex != c.IfModifyIndex:
		return &NodeChanged{NodeModifyIndex: old.ModifyIndex}, nil
	case c.Spec != nil:
		_, err := tx.ChangeNode(c.NodeID, state.NodeEvent(model.NodeEventDrain, "Node drain strategy set", c.Derive.Time), func(n *model.Node) { c.begin(n) })
		return &NodeChanged{NodeModifyIndex: index}, err
	}
	if c.Complete && old.DrainStrategy != nil && leaves(snap, old) {
		return &NodeChanged{NodeModifyIndex: old.ModifyIndex}, nil
	}
	opens := c.MarkEligible && old.SchedulingEligibility != model.NodeEligible
	if old.DrainStrategy == nil && !opens {
		return &NodeChanged{NodeModifyIndex: old.ModifyIndex}, nil
	}
	event := state.NodeEvent(model.NodeEventDrain, "Node drain disabled", c.Derive.Time)
	switch {
	case old.DrainStrategy == nil:
		event = state.NodeEvent(model.NodeEventCluster, nodeEligible, c.Derive.Time)
	case c.Complete:
		event = state.NodeEvent(model.NodeEventDrain, "Node drain complete", c.Derive.Time)
	}
	n, err := tx.ChangeNode(c.NodeID, event, func(n *model.Node) {
		c.end(n)
		if opens {
			n.SchedulingEligibility = model.NodeEligible
		}
	})
	if err != nil || !opens {
		return &NodeChanged{NodeModifyIndex: index}, err
	}
	evals, err := evaluateNode(tx, snap, index, n, c.Derive)
	return &NodeChanged{index, evals}, err
}

// leaves reports whether something has still to leave a node that drains.
func leaves(snap *state.Snapshot, n *model.Node) bool {
	id, _ := model.ParseUUID(n.ID)
	for r := range snap.AllocsOfNode(nil, id) {
		if !r.ClientTerminal() && !(n.DrainStrategy.IgnoreSystemJobs && r.Job().Type == model.JobTypeSystem) {
			return true
		}
	}
	return false
}

// begin makes a node drain, or drain in another way.
func (c *NodeDrain) begin(n *model.Node) {
	now := time.Unix(0, c.Derive.Time).UTC()
	s := &model.DrainStrategy{DrainSpec: *c.Spec, StartedAt: now}
	if c.Spec.Deadline > 0 {
		s.ForceDeadline = now.Add(c.Spec.Deadline)
	}
	last := &model.DrainMetadata{StartedAt: now, UpdatedAt: now, Status: model.DrainDraining, Meta: maps.Clone(c.Meta)}
	if n.DrainStrategy != nil {
		s.StartedAt, last.StartedAt = n.DrainStrategy.StartedAt, n.DrainStrategy.StartedAt
		if len(c.Meta) == 0 && n.LastDrain != nil {
			last.Meta = n.LastDrain.Meta
		}
	}
	n.DrainStrategy, n.LastDrain, n.SchedulingEligibility = s, last, model.NodeIneligible
}

// end ends a node's drain, if there is one.
func (c *NodeDrain) end(n *model.Node) {
	if n.DrainStrategy == nil {
		return
	}
	n.DrainStrategy = nil
	if n.LastDrain == nil {
		return
	}
	last := *n.LastDrain
	last.UpdatedAt, last.Status = time.Unix(0, c.Derive.Time).UTC(), model.DrainCanceled
	if c.Complete {
		last.Status = model.DrainComplete
	}
	if len(c.Meta) > 0 {
		last.Meta = maps.Clone(c.Meta)
	}
	n.LastDrain = &last
}

func applyAllocTransition(tx *state.Txn, snap *state.Snapshot, index uint64, c *AllocTransition) (*AllocTransitioned, error) {
	found := false
	out := &AllocTransitioned{}
	var evals []*model.Evaluation
	seen := make(map[model.JobID]bool)
	for _, id := range c.Allocs {
		row := snap.Alloc(nil, id)
		if row == nil {
			continue
		}
		found = true
		tx.TransitionAlloc(id, &c.Transition)
		if key := row.Job().Key(); !seen[key] {
			seen[key] = true
			e := c.Derive.eval(snap.Job(nil, key), key, c.Trigger, row.NodeID.String(), index)
			evals, out.EvalIDs = append(evals, e), append(out.EvalIDs, e.ID)
		}
	}
	if !found && len(c.Allocs) > 0 {
		return nil, model.NotFound("allocation", c.Allocs[0].String())
	}
	return out, tx.UpsertEvals(evals)
}
