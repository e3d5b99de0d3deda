package state

import (
	"fmt"
	"iter"

	"atoll/model"
)

// Rollout returns what the region knows of a multi-region job, nil for any other.
func (s *Snapshot) Rollout(ws Watch, key model.JobID) *model.Rollout {
	return first[*model.Rollout](s.tx, ws, tableRollouts, key.Namespace, key.ID)
}

// Rollouts yields all, by namespace and id.
func (s *Snapshot) Rollouts(ws Watch) iter.Seq[*model.Rollout] {
	return each[*model.Rollout](s.tx, ws, tableRollouts, byID+"_prefix", "")
}

// RolloutsIndex is the index of the last change of any rollout.
func (s *Snapshot) RolloutsIndex() uint64 { return s.tableIndex(tableRollouts) }

// PutRollout writes a rollout as it is given.
func (t *Txn) PutRollout(r *model.Rollout) error {
	c := *r
	c.CreateIndex, c.ModifyIndex = t.index, t.index
	if have := first[*model.Rollout](t.tx, nil, tableRollouts, r.Namespace, r.JobID); have != nil {
		c.CreateIndex = have.CreateIndex
	}
	return t.insert(tableRollouts, &c)
}

// ForgetRollout deletes a rollout, if there is one.
func (t *Txn) ForgetRollout(key model.JobID) error {
	if have := first[*model.Rollout](t.tx, nil, tableRollouts, key.Namespace, key.ID); have != nil {
		return t.delete(tableRollouts, have)
	}
	return nil
}

// Await notes a deployment that waits for its region's turn, as pending, in the
// place of any other that the job has.
func (t *Txn) Await(d *model.Deployment) error {
	if err := t.CancelAwaited(d.Key(), fmt.Sprintf("cancelled because version %d of the job has been submitted", d.JobVersion), d.CreateTime); err != nil {
		return err
	}
	c := *d
	c.Status, c.IsMultiregion, c.CreateIndex, c.ModifyIndex = model.DeploymentPending, true, t.index, t.index
	return t.insert(tableDeployments, &c)
}

// CancelAwaited cancels what waits for the region's turn of a job's.
func (t *Txn) CancelAwaited(key model.JobID, why string, now int64) error {
	return t.endAwaited(key, model.DeploymentCancelled, why, now)
}

// FailAwaited fails it.
func (t *Txn) FailAwaited(key model.JobID, why string, now int64) error {
	return t.endAwaited(key, model.DeploymentFailed, why, now)
}

func (t *Txn) endAwaited(key model.JobID, status, why string, now int64) error {
	snap := Snapshot{tx: t.tx}
	for _, d := range snap.DeploymentsOfJob(nil, key) {
		if !d.Awaits() {
			continue
		}
		c := *d
		c.Status, c.StatusDescription, c.ModifyIndex, c.ModifyTime = status, why, t.index, now
		if err := t.insert(tableDeployments, &c); err != nil {
			return err
		}
	}
	return nil
}
