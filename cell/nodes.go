package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// NodeRegister registers a node.
type NodeRegister struct {
	Node *model.Node
	// Derive makes the evaluations that the change calls for.
	Derive Derive
}

// NodeStatus sets a node's status.
type NodeStatus struct {
	NodeID string
	Status string
	Why    string
	// Unless zero, IfModifyIndex must be the node's: a heartbeat that came
	// meanwhile wins over the expiry of an earlier one.
	IfModifyIndex uint64
	Derive        Derive
}

// NodeEligibility says whether new work may be placed on a node. It answers, as
// the commands below do, with NodeChanged.
type NodeEligibility struct {
	NodeID   string
	Eligible bool
	Derive   Derive
}

// NodePurge forgets a node, and gives what it runs up for lost.
type NodePurge struct {
	NodeID string
	Derive Derive
}

// NodeEvaluate evaluates every job that has to do with a node.
type NodeEvaluate struct {
	NodeID string
	Derive Derive
}

// NodeChanged is a node's index, and the evaluations that were made for it.
type NodeChanged struct {
	NodeModifyIndex uint64
	EvalIDs         []string
}

func applyNodeRegister(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeRegister) (*None, error) {
	old := snap.Node(nil, c.Node.ID)
	if old != nil && old.SecretID != c.Node.SecretID {
		return nil, model.Errorf(model.KindForbidden, "cannot register node %q: its id %s belongs to a node with another secret; remove its data directory to join as a new node", c.Node.Name, c.Node.ID)
	}
	if err := tx.UpsertNode(c.Node, c.Derive.Time); err != nil {
		return nil, err
	}
	if old == nil || old.Status != c.Node.Status {
		_, err := evaluateNode(tx, snap, index, c.Node, c.Derive)
		return &None{}, err
	}
	return &None{}, nil
}

func applyNodeStatus(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeStatus) (*None, error) {
	old := snap.Node(nil, c.NodeID)
	if old == nil {
		return nil, model.NotFound("node", c.NodeID)
	}
	if c.IfModifyIndex != 0 && old.ModifyIndex != c.IfModifyIndex {
		return &None{}, nil
	}
	if _, err := tx.SetNodeStatus(c.NodeID, c.Status, c.Why, c.Derive.Time); err != nil {
		return nil, err
	}
	if old.Status == c.Status {
		return &None{}, nil
	}
	if id, ok := model.ParseUUID(c.NodeID); ok && c.Status == model.NodeStatusDown {
		if err := tx.LoseStopped(id, c.Derive.Time); err != nil {
			return nil, err
		}
	}
	now := *old
	now.Status = c.Status
	_, err := evaluateNode(tx, snap, index, &now, c.Derive)
	return &None{}, err
}

// NodeQuarantine makes a node ineligible that keeps refusing plans.
type NodeQuarantine struct {
	NodeID string
	Why    string
	// Time is the proposer's, in Unix nanoseconds.
	Time int64
}

func applyNodeQuarantine(tx *state.Txn, _ *state.Snapshot, _ uint64, c *NodeQuarantine) (*None, error) {
	return &None{}, tx.QuarantineNode(c.NodeID, c.Why, c.Time)
}

const nodeEligible = "Node marked as eligible for scheduling"

func applyNodeEligibility(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeEligibility) (*NodeChanged, error) {
	old := snap.Node(nil, c.NodeID)
	if old == nil {
		return nil, model.NotFound("node", c.NodeID)
	}
	want, event := model.NodeIneligible, "Node marked as ineligible for scheduling"
	if c.Eligible {
		want, event = model.NodeEligible, nodeEligible
	}
	switch {
	case c.Eligible && old.DrainStrategy != nil:
		return nil, model.Errorf(model.KindConflict, "cannot make node %s eligible: it is draining; end the drain first", c.NodeID)
	case old.SchedulingEligibility == want:
		return &NodeChanged{NodeModifyIndex: old.ModifyIndex}, nil
	}
	n, err := tx.ChangeNode(c.NodeID, state.NodeEvent(model.NodeEventCluster, event, c.Derive.Time), func(n *model.Node) { n.SchedulingEligibility = want })
	if err != nil || !c.Eligible {
		return &NodeChanged{NodeModifyIndex: index}, err
	}
	evals, err := evaluateNode(tx, snap, index, n, c.Derive)
	return &NodeChanged{index, evals}, err
}

func applyNodePurge(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodePurge) (*NodeChanged, error) {
	old := snap.Node(nil, c.NodeID)
	if old == nil {
		return nil, model.NotFound("node", c.NodeID)
	}
	if id, ok := model.ParseUUID(c.NodeID); ok {
		if err := tx.LoseStopped(id, c.Derive.Time); err != nil {
			return nil, err
		}
	}
	if err := tx.DeleteNode(c.NodeID); err != nil {
		return nil, err
	}
	gone := *old
	gone.Status = model.NodeStatusDown
	evals, err := evaluateNode(tx, snap, index, &gone, c.Derive)
	return &NodeChanged{index, evals}, err
}

func applyNodeEvaluate(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeEvaluate) (*NodeChanged, error) {
	n := snap.Node(nil, c.NodeID)
	if n == nil {
		return nil, model.NotFound("node", c.NodeID)
	}
	evals, err := evaluateNode(tx, snap, index, n, c.Derive)
	return &NodeChanged{n.ModifyIndex, evals}, err
}

// evaluateNode makes an evaluation for each job with work on the node, and, when
// the node can take work, for each that wants to run on every node. It returns
// their ids.
func evaluateNode(tx *state.Txn, snap *state.Snapshot, index uint64, n *model.Node, d Derive) ([]string, error) {
	var evals []*model.Evaluation
	var ids []string
	seen := make(map[model.JobID]bool)
	add := func(j *model.Job, key model.JobID) {
		if !seen[key] {
			seen[key] = true
			e := d.eval(j, key, model.TriggerNodeUpdate, n.ID, index)
			evals, ids = append(evals, e), append(ids, e.ID)
		}
	}
	if id, ok := model.ParseUUID(n.ID); ok {
		for r := range snap.AllocsOfNode(nil, id) {
			if key := r.Job().Key(); !r.Terminal() {
				add(snap.Job(nil, key), key)
			}
		}
	}
	if n.Status == model.NodeStatusReady && n.SchedulingEligibility != model.NodeIneligible {
		for _, jobType := range []string{model.JobTypeSystem, model.JobTypeSysBatch} {
			for j := range snap.JobsOfType(nil, jobType) {
				if !j.Stop && !j.IsParent() && j.MatchesDatacenter(n.Datacenter) && j.MatchesPool(n.NodePool) {
					add(j, j.Key())
				}
			}
		}
	}
	return ids, tx.UpsertEvals(evals)
}
