package cell

import (
	"slices"

	"atoll/cell/state"
	"atoll/model"
)

// DeploymentStatus changes the status of a deployment that is not over, and goes
// back to an earlier version of its job when Revert is given. It answers with
// DeploymentChanged, or a Conflict when the deployment is over or the job has
// changed meanwhile.
type DeploymentStatus struct {
	Update model.DeploymentUpdate
	Revert *JobRevert
	// Eval acts on the change, unless Revert has one; nil for none.
	Eval *model.Evaluation
	// Time is the proposer's, in Unix nanoseconds, here and below.
	Time int64
}

// DeploymentPromote promotes the canaries of the named groups, of all when none
// is named. It answers with DeploymentChanged.
type DeploymentPromote struct {
	DeploymentID string
	Groups       []string
	Eval         *model.Evaluation
	Time         int64
}

// AllocHealth says how allocations of a deployment fare. It answers with
// DeploymentChanged.
type AllocHealth struct {
	DeploymentID       string
	Healthy, Unhealthy []model.UUID
	Eval               *model.Evaluation
	Time               int64
}

// DeploymentChanged names what acts on a deployment's change. Reverted is the
// version of the job that was gone back to, nil for none.
type DeploymentChanged struct {
	EvalID      string
	ModifyIndex uint64
	Reverted    *uint64
}

// AllocReschedule lets failed allocations of a deployment be placed anew.
type AllocReschedule struct {
	IDs  []model.UUID
	Eval *model.Evaluation
}

// JobStability says whether a version of a job may be gone back to.
type JobStability struct {
	Key     model.JobID
	Version uint64
	Stable  bool
}

// JobVersionTag gives a version of a job a name or, when Tag is nil, takes the
// name Untag away.
type JobVersionTag struct {
	Key     model.JobID
	Version uint64
	Tag     *model.JobVersionTag
	Untag   string
}

// JobRevert registers an earlier version of a job anew. It answers with
// JobRegistered.
type JobRevert struct {
	Key     model.JobID
	Version uint64
	// EnforcePrior, when not nil, must be the job's version.
	EnforcePrior *uint64
	Eval         *model.Evaluation
	Time         int64
}

func applyDeploymentStatus(tx *state.Txn, snap *state.Snapshot, index uint64, c *DeploymentStatus) (*DeploymentChanged, error) {
	d, err := tx.SetDeploymentStatus(c.Update, c.Time)
	if err != nil {
		return nil, err
	}
	if c.Revert == nil {
		return changed(tx, snap, index, d, c.Eval)
	}
	done, err := revertJob(tx, snap, index, c.Revert)
	if err != nil {
		return nil, err
	}
	return &DeploymentChanged{EvalID: done.EvalID, ModifyIndex: index, Reverted: &c.Revert.Version}, nil
}

func applyDeploymentPromote(tx *state.Txn, snap *state.Snapshot, index uint64, c *DeploymentPromote) (*DeploymentChanged, error) {
	d, err := tx.Promote(c.DeploymentID, c.Groups, c.Time)
	if err != nil {
		return nil, err
	}
	return changed(tx, snap, index, d, c.Eval)
}

func applyAllocHealth(tx *state.Txn, snap *state.Snapshot, index uint64, c *AllocHealth) (*DeploymentChanged, error) {
	d, err := tx.SetHealth(c.DeploymentID, c.Healthy, c.Unhealthy, c.Time)
	if err != nil {
		return nil, err
	}
	return changed(tx, snap, index, d, c.Eval)
}

// changed writes the evaluation that acts on a deployment's change.
func changed(tx *state.Txn, snap *state.Snapshot, index uint64, d *model.Deployment, eval *model.Evaluation) (*DeploymentChanged, error) {
	out := &DeploymentChanged{ModifyIndex: index}
	if eval == nil {
		return out, nil
	}
	e := *eval
	e.DeploymentID = d.ID
	if j := snap.Job(nil, d.Key()); j != nil {
		e.Type, e.JobModifyIndex = j.Type, j.JobModifyIndex
	}
	out.EvalID = e.ID
	return out, tx.UpsertEvals([]*model.Evaluation{&e})
}

func applyAllocReschedule(tx *state.Txn, _ *state.Snapshot, _ uint64, c *AllocReschedule) (*None, error) {
	tx.AllowReschedule(c.IDs)
	if c.Eval == nil {
		return &None{}, nil
	}
	return &None{}, tx.UpsertEvals([]*model.Evaluation{c.Eval})
}

func applyJobStability(tx *state.Txn, _ *state.Snapshot, _ uint64, c *JobStability) (*None, error) {
	return &None{}, tx.SetJobStability(c.Key, c.Version, c.Stable)
}

func applyJobVersionTag(tx *state.Txn, _ *state.Snapshot, _ uint64, c *JobVersionTag) (*None, error) {
	if c.Tag == nil {
		return &None{}, tx.UntagVersion(c.Key, c.Untag)
	}
	return &None{}, tx.TagVersion(c.Key, c.Version, c.Tag)
}

func applyJobRevert(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobRevert) (*JobRegistered, error) {
	if err := admitsJobs(snap); err != nil {
		return nil, err
	}
	return revertJob(tx, snap, index, c)
}

func revertJob(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobRevert) (*JobRegistered, error) {
	cur := snap.Job(nil, c.Key)
	switch {
	case cur == nil:
		return nil, model.NotFound("job", c.Key.ID)
	case c.EnforcePrior != nil && *c.EnforcePrior != cur.Version:
		return nil, model.Errorf(model.KindConflict, "cannot revert job %q: its version is %d, not %d", c.Key.ID, cur.Version, *c.EnforcePrior)
	case c.Version == cur.Version:
		return nil, model.Invalidf("JobVersion", "cannot revert job %q: %d is its version already", c.Key.ID, c.Version)
	}
	if err := inNamespace(snap, cur); err != nil {
		return nil, err
	}
	job, err := tx.RevertJob(c.Key, c.Version, c.Time)
	if err != nil {
		return nil, err
	}
	return registered(tx, index, job, c.Eval)
}

// provenEvals are the evaluations that go on with deployments of which
// allocations proved healthy, but for those of jobs that have one already.
func provenEvals(snap *state.Snapshot, ids []string, d Derive, have []model.JobID) (out []*model.Evaluation) {
	for _, id := range ids {
		dep := snap.Deployment(nil, id)
		if dep == nil || slices.Contains(have, dep.Key()) {
			continue
		}
		have = append(have, dep.Key())
		e := d.eval(snap.Job(nil, dep.Key()), dep.Key(), model.TriggerDeployment, "", 0)
		e.DeploymentID = id
		out = append(out, e)
	}
	return out
}
