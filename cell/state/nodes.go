package state

import (
	"iter"
	"slices"
	"time"

	"atoll/model"
)

// Node returns a node, nil when there is none.
func (s *Snapshot) Node(ws Watch, id string) *model.Node {
	return first[*model.Node](s.tx, ws, tableNodes, id)
}

// Nodes yields the nodes whose id begins with prefix, by id.
func (s *Snapshot) Nodes(ws Watch, prefix string) iter.Seq[*model.Node] {
	return each[*model.Node](s.tx, ws, tableNodes, byID+"_prefix", prefix)
}

// NodesIndex is the index of the last change of any node.
func (s *Snapshot) NodesIndex() uint64 { return s.tableIndex(tableNodes) }

// UpsertNode registers a node, new or again. What the node does not own (its
// eligibility, its history) is kept. now is in Unix nanoseconds. A node id
// under another secret is refused by the caller.
func (t *Txn) UpsertNode(node *model.Node, now int64) error {
	id, ok := model.ParseUUID(node.ID)
	if !ok {
		return model.Invalidf("Node.ID", "cannot register node: id %q is not a UUID", node.ID)
	}
	n := *node
	old := first[*model.Node](t.tx, nil, tableNodes, n.ID)
	n.ModifyIndex = t.index
	if old != nil {
		n.CreateIndex, n.SchedulingEligibility, n.Events = old.CreateIndex, old.SchedulingEligibility, old.Events
		n.DrainStrategy, n.LastDrain = old.DrainStrategy, old.LastDrain
		n.StatusUpdatedAt = old.StatusUpdatedAt
		if old.Status != n.Status {
			n.StatusUpdatedAt = now / int64(time.Second)
			if old.Status == model.NodeStatusDown {
				n.Events = t.event(old, NodeEvent(model.NodeEventCluster, "Node re-registered", now))
			}
		}
	} else {
		n.CreateIndex, n.StatusUpdatedAt = t.index, now/int64(time.Second)
		if n.SchedulingEligibility == "" {
			n.SchedulingEligibility = model.NodeEligible
		}
		n.Events = t.event(&n, NodeEvent(model.NodeEventCluster, "Node registered", now))
	}
	rows := t.rows()
	if e := rows.node(id); e == nil || e.name != n.Name {
		// The node's entry among the allocations gives the node something of
		// its own to watch before it has any.
		rows.ownNode(id).name = n.Name
	}
	return t.insert(tableNodes, &n)
}

// SetNodeStatus changes a node's status; it reports whether there is such a
// node.
func (t *Txn) SetNodeStatus(id, status, why string, now int64) (bool, error) {
	old := first[*model.Node](t.tx, nil, tableNodes, id)
	if old == nil {
		return false, nil
	}
	var e *model.NodeEvent
	if old.Status != status {
		e = NodeEvent(model.NodeEventCluster, why, now)
	}
	_, err := t.ChangeNode(id, e, func(n *model.Node) {
		n.Status, n.StatusDescription, n.StatusUpdatedAt = status, why, now/int64(time.Second)
	})
	return true, err
}

// ChangeNode changes a node by f, and notes the event in its history unless that
// is nil. It returns the changed node, nil when there is none.
func (t *Txn) ChangeNode(id string, e *model.NodeEvent, f func(*model.Node)) (*model.Node, error) {
	old := first[*model.Node](t.tx, nil, tableNodes, id)
	if old == nil {
		return nil, nil
	}
	n := *old
	f(&n)
	n.ModifyIndex = t.index
	if e != nil {
		n.Events = t.event(&n, e)
	}
	return &n, t.insert(tableNodes, &n)
}

// QuarantineNode makes a node ineligible that keeps refusing plans. It does
// nothing for a node that is ineligible, or gone.
func (t *Txn) QuarantineNode(id, why string, now int64) error {
	old := first[*model.Node](t.tx, nil, tableNodes, id)
	if old == nil || old.SchedulingEligibility == model.NodeIneligible {
		return nil
	}
	_, err := t.ChangeNode(id, NodeEvent(model.NodeEventScheduler, why, now), func(n *model.Node) { n.SchedulingEligibility = model.NodeIneligible })
	return err
}

// DeleteNode forgets a node; what it ran stays among the allocations, and keeps
// its entry there.
func (t *Txn) DeleteNode(id string) error {
	old := first[*model.Node](t.tx, nil, tableNodes, id)
	if old == nil {
		return nil
	}
	if err := t.nodeChanged(old, nil); err != nil {
		return err
	}
	if u, ok := model.ParseUUID(id); ok {
		t.rows().dropNode(u)
	}
	return t.delete(tableNodes, old)
}

// NodeEvent is something that happens to a node now, in Unix nanoseconds.
func NodeEvent(subsystem, message string, now int64) *model.NodeEvent {
	return &model.NodeEvent{Message: message, Subsystem: subsystem, Timestamp: time.Unix(0, now).UTC()}
}

func (t *Txn) event(n *model.Node, e *model.NodeEvent) []*model.NodeEvent {
	noted := *e
	noted.CreateIndex = t.index
	events := append(slices.Clone(n.Events), &noted)
	return events[max(0, len(events)-model.NodeEventsKept):]
}
