package cell

import (
	"crypto/sha256"
	"fmt"

	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

// Command names a change in the log. The numbers are on disk: append only.
type Command uint8

// The commands; each has a body type of the same name.
const (
	CmdCellInit Command = iota + 1
	CmdJobRegister
	CmdJobDeregister
	CmdPlan
	CmdEvals
	CmdNodeRegister
	CmdNodeStatus
	CmdAllocReports
)

// CellInit names the cell; the first that is applied stands.
type CellInit struct{ Cell state.Cell }

// JobRegister registers a job and the evaluation that acts on it. It answers
// with JobRegistered.
type JobRegister struct {
	Job  *model.Job
	Eval *model.Evaluation
	// EnforceIndex refuses unless the stored JobModifyIndex is
	// JobModifyIndex, 0 meaning that there is no such job.
	EnforceIndex   bool
	JobModifyIndex uint64
}

// JobRegistered is the job as stored.
type JobRegistered struct{ Job *model.Job }

// JobDeregister stops or purges a job. It answers with JobRegistered, the
// stopped job, or a NotFound error.
type JobDeregister struct {
	Key   model.JobID
	Purge bool
	Eval  *model.Evaluation
}

// Evals writes evaluations.
type Evals struct{ Evals []*model.Evaluation }

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

// AllocReports is what nodes report of their allocations.
type AllocReports struct {
	NodeID  model.UUID
	Updates []*model.AllocUpdate
	Derive  Derive
}

// Derive lets the FSM make evaluations for whatever a change concerns at the
// moment it is applied, which the proposer cannot know: each id is a hash of
// Seed and the job.
type Derive struct {
	Seed model.UUID
	// Time is the proposer's, in Unix nanoseconds.
	Time int64
}

// NewDerive draws a seed at a time.
func NewDerive(now int64) Derive { return Derive{model.NewUUID(nil), now} }

func (d Derive) eval(j *model.Job, key model.JobID, trigger, nodeID string, nodeIndex uint64) *model.Evaluation {
	sum := sha256.Sum256([]byte(string(d.Seed[:]) + key.Namespace + "\x00" + key.ID))
	id := model.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8: by hash
	e := &model.Evaluation{
		ID: id.String(), Namespace: key.Namespace, JobID: key.ID, Type: model.JobTypeService,
		Priority: model.JobDefaultPriority, TriggeredBy: trigger, Status: model.EvalPending,
		NodeID: nodeID, NodeModifyIndex: nodeIndex, CreateTime: d.Time, ModifyTime: d.Time,
	}
	if j != nil {
		e.Type, e.Priority, e.JobModifyIndex = j.Type, j.Priority, j.JobModifyIndex
	}
	return e
}

// apply is what a command does in a transaction at a Raft index. Its answer
// goes to the proposer; an error leaves the state as it was.
type apply func(tx *state.Txn, snap *state.Snapshot, index uint64, body []byte) (any, error)

var table = map[Command]apply{
	CmdCellInit:      typed(applyCellInit),
	CmdJobRegister:   typed(applyJobRegister),
	CmdJobDeregister: typed(applyJobDeregister),
	CmdPlan:          typed(applyPlan),
	CmdEvals:         typed(applyEvals),
	CmdNodeRegister:  typed(applyNodeRegister),
	CmdNodeStatus:    typed(applyNodeStatus),
	CmdAllocReports:  typed(applyAllocReports),
}

func typed[T any](f func(*state.Txn, *state.Snapshot, uint64, *T) (any, error)) apply {
	return func(tx *state.Txn, snap *state.Snapshot, index uint64, body []byte) (any, error) {
		v := new(T)
		if err := wire.Decode(body, v); err != nil {
			return nil, err
		}
		return f(tx, snap, index, v)
	}
}

func applyCellInit(tx *state.Txn, _ *state.Snapshot, _ uint64, c *CellInit) (any, error) {
	return tx.SetCell(&c.Cell)
}

func applyJobRegister(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobRegister) (any, error) {
	old := snap.Job(nil, c.Job.Key())
	if c.EnforceIndex {
		if err := enforceIndex(old, c); err != nil {
			return nil, err
		}
	}
	job, err := tx.UpsertJob(c.Job)
	if err != nil {
		return nil, err
	}
	if c.Eval != nil {
		e := *c.Eval
		e.JobModifyIndex = index
		if err := tx.UpsertEvals([]*model.Evaluation{&e}); err != nil {
			return nil, err
		}
	}
	return &JobRegistered{Job: job}, nil
}

// enforceIndex words its refusals so that clients which look for their
// beginning find it.
func enforceIndex(old *model.Job, c *JobRegister) error {
	const head = "Enforcing job modify index"
	switch {
	case c.JobModifyIndex == 0 && old != nil:
		return model.Errorf(model.KindConflict, "%s 0: job %q exists already, at index %d", head, c.Job.ID, old.JobModifyIndex)
	case c.JobModifyIndex != 0 && old == nil:
		return model.Errorf(model.KindConflict, "%s %d: job %q does not exist", head, c.JobModifyIndex, c.Job.ID)
	case old != nil && old.JobModifyIndex != c.JobModifyIndex:
		return model.Errorf(model.KindConflict, "%s %d: job %q is at index %d; plan again", head, c.JobModifyIndex, c.Job.ID, old.JobModifyIndex)
	}
	return nil
}

func applyJobDeregister(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobDeregister) (any, error) {
	job := snap.Job(nil, c.Key)
	if job == nil {
		return nil, model.NotFound("job", c.Key.ID)
	}
	var err error
	if c.Purge {
		err = tx.PurgeJob(c.Key)
	} else {
		job, err = tx.StopJob(c.Key)
	}
	if err != nil {
		return nil, err
	}
	if c.Eval != nil {
		e := *c.Eval
		e.JobModifyIndex = index
		e.Type, e.Priority = job.Type, max(e.Priority, job.Priority)
		if err := tx.UpsertEvals([]*model.Evaluation{&e}); err != nil {
			return nil, err
		}
	}
	return &JobRegistered{Job: job}, nil
}

func applyPlan(tx *state.Txn, _ *state.Snapshot, _ uint64, c *state.PlanCommand) (any, error) {
	return nil, tx.ApplyPlan(c)
}

func applyEvals(tx *state.Txn, _ *state.Snapshot, _ uint64, c *Evals) (any, error) {
	return nil, tx.UpsertEvals(c.Evals)
}

func applyNodeRegister(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeRegister) (any, error) {
	old := snap.Node(nil, c.Node.ID)
	if old != nil && old.SecretID != c.Node.SecretID {
		return nil, model.Errorf(model.KindForbidden, "cannot register node %q: its id %s belongs to a node with another secret; remove its data directory to join as a new node", c.Node.Name, c.Node.ID)
	}
	if err := tx.UpsertNode(c.Node, c.Derive.Time); err != nil {
		return nil, err
	}
	if old != nil && old.Status != c.Node.Status {
		return nil, deriveNodeEvals(tx, snap, index, c.Node.ID, c.Derive)
	}
	return nil, nil
}

func applyNodeStatus(tx *state.Txn, snap *state.Snapshot, index uint64, c *NodeStatus) (any, error) {
	old := snap.Node(nil, c.NodeID)
	if old == nil {
		return nil, model.NotFound("node", c.NodeID)
	}
	if c.IfModifyIndex != 0 && old.ModifyIndex != c.IfModifyIndex {
		return false, nil
	}
	if _, err := tx.SetNodeStatus(c.NodeID, c.Status, c.Why, c.Derive.Time); err != nil {
		return nil, err
	}
	if old.Status == c.Status {
		return true, nil
	}
	return true, deriveNodeEvals(tx, snap, index, c.NodeID, c.Derive)
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

func applyAllocReports(tx *state.Txn, snap *state.Snapshot, _ uint64, c *AllocReports) (any, error) {
	failed, err := tx.ReportAllocs(c.NodeID, c.Updates, c.Derive.Time)
	if err != nil {
		return nil, err
	}
	var evals []*model.Evaluation
	for _, key := range failed {
		if j := snap.Job(nil, key); j != nil && !j.Stop {
			evals = append(evals, c.Derive.eval(j, key, model.TriggerRetryFailed, "", 0))
		}
	}
	return nil, tx.UpsertEvals(evals)
}

// encode makes a log entry.
func encode(cmd Command, body any) ([]byte, error) {
	b, err := wire.Encode(body)
	if err != nil {
		return nil, fmt.Errorf("cannot encode command %d: %w", cmd, err)
	}
	return append([]byte{byte(cmd)}, b...), nil
}
