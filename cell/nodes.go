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

func applyNodeRegister(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeRegister) (*None, error) {
	old := snap.Node(nil, c.Node.ID)
	if old != nil && old.SecretID != c.Node.SecretID {
		return nil, model.Errorf(model.KindForbidden, "cannot register node %q: its id %s belongs to a node with another secret; remove its data directory to join as a new node", c.Node.Name, c.Node.ID)
	}
	if err := tx.UpsertNode(c.Node, c.Derive.Time); err != nil {
		return nil, err
	}
	if old != nil && old.Status != c.Node.Status {
		return &None{}, deriveNodeEvals(tx, snap, index, c.Node.ID, c.Derive)
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
	return &None{}, deriveNodeEvals(tx, snap, index, c.NodeID, c.Derive)
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

// deriveNodeEvals makes an evaluation for each job with work on the node.
func deriveNodeEvals(tx *state.Txn, snap *state.Snapshot, index uint64, nodeID string, d Derive) error {
	id, ok := model.ParseUUID(nodeID)
	if !ok {
		return nil
	}
	var evals []*model.Evaluation
	seen := make(map[model.JobID]bool)
	for r := range snap.AllocsOfNode(nil, id) {
		key := r.Job().Key()
		if r.Terminal() || seen[key] {
			continue
		}
		seen[key] = true
		evals = append(evals, d.eval(snap.Job(nil, key), key, model.TriggerNodeUpdate, nodeID, index))
	}
	return tx.UpsertEvals(evals)
}
