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
		n.StatusUpdatedAt = old.StatusUpdatedAt
		if old.Status != n.Status {
			n.StatusUpdatedAt = now / int64(time.Second)
			if old.Status == model.NodeStatusDown {
				n.Events = t.event(old, "Node re-registered", now)
			}
		}
	} else {
		n.CreateIndex, n.StatusUpdatedAt = t.index, now/int64(time.Second)
		if n.SchedulingEligibility == "" {
			n.SchedulingEligibility = model.NodeEligible
		}
		n.Events = t.event(&n, "Node registered", now)
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
	n := *old
	n.Status, n.StatusDescription = status, why
	n.StatusUpdatedAt, n.ModifyIndex = now/int64(time.Second), t.index
	if old.Status != status {
		n.Events = t.event(old, why, now)
	}
	return true, t.insert(tableNodes, &n)
}

// QuarantineNode makes a node ineligible that keeps refusing plans, and says so
// among its events. It does nothing for a node that is ineligible, or gone.
func (t *Txn) QuarantineNode(id, why string, now int64) error {
	old := first[*model.Node](t.tx, nil, tableNodes, id)
	if old == nil || old.SchedulingEligibility == model.NodeIneligible {
		return nil
	}
	n := *old
	n.SchedulingEligibility, n.ModifyIndex = model.NodeIneligible, t.index
	n.Events = t.event(old, why, now)
	n.Events[len(n.Events)-1].Subsystem = "Scheduler"
	return t.insert(tableNodes, &n)
}

func (t *Txn) event(n *model.Node, message string, now int64) []*model.NodeEvent {
	events := append(slices.Clone(n.Events), &model.NodeEvent{
		Message: message, Subsystem: "Cluster", Timestamp: time.Unix(0, now).UTC(), CreateIndex: t.index,
	})
	return events[max(0, len(events)-model.NodeEventsKept):]
}
