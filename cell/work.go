package cell

import (
	"crypto/sha256"

	"atoll/cell/state"
	"atoll/model"
)

// Evals writes evaluations.
type Evals struct{ Evals []*model.Evaluation }

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

// applyPlan leaves an evaluation for placements on a node that went down between
// the check of the plan and now: when the node did, they were not yet there.
func applyPlan(tx *state.Txn, snap *state.Snapshot, index uint64, c *state.PlanCommand) (*None, error) {
	down, err := tx.ApplyPlan(c)
	if err != nil || len(down) == 0 {
		return &None{}, err
	}
	key := c.Plan.JobKey
	d := Derive{Seed: c.Plan.EvalID, Time: c.Time}
	e := d.eval(snap.Job(nil, key), key, model.TriggerNodeUpdate, down[0].String(), index)
	return &None{}, tx.UpsertEvals([]*model.Evaluation{e})
}

func applyEvals(tx *state.Txn, _ *state.Snapshot, _ uint64, c *Evals) (*None, error) {
	return &None{}, tx.UpsertEvals(c.Evals)
}

func applyAllocReports(tx *state.Txn, snap *state.Snapshot, _ uint64, c *AllocReports) (*None, error) {
	done, err := tx.ReportAllocs(c.NodeID, c.Updates, c.Derive.Time)
	if err != nil {
		return nil, err
	}
	evals := reconnected(snap, c)
	for _, key := range done.Ended {
		if j := snap.Job(nil, key); j != nil && !j.Stop {
			evals = append(evals, c.Derive.eval(j, key, model.TriggerRetryFailed, "", 0))
		}
	}
	evals = append(evals, provenEvals(snap, done.Healthy, c.Derive, done.Ended)...)
	return &None{}, tx.UpsertEvals(evals)
}

// reconnected makes evaluations for the jobs of allocations that were unknown and
// of which their node says again how they are: they or those that stood in for
// them go on.
func reconnected(snap *state.Snapshot, c *AllocReports) (evals []*model.Evaluation) {
	seen := make(map[model.JobID]bool)
	for _, u := range c.Updates {
		id, _ := model.ParseUUID(u.ID)
		row := snap.Alloc(nil, id)
		if row == nil || row.NodeID != c.NodeID || row.Client != model.ClientUnknown || row.ServerTerminal() || u.ClientStatus == model.AllocClientUnknown {
			continue
		}
		if key := row.Job().Key(); !seen[key] {
			seen[key] = true
			evals = append(evals, c.Derive.eval(snap.Job(nil, key), key, model.TriggerReconnect, c.NodeID.String(), 0))
		}
	}
	return evals
}
