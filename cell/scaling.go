package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// JobScale changes the count of a group, or notes an event of one when
// Event.Count is nil. It answers with JobRegistered.
type JobScale struct {
	Key   model.JobID
	Group string
	// Event is what is kept of the scaling.
	Event model.ScalingEvent
	// JobModifyIndex, when not 0, must be the stored job's.
	JobModifyIndex uint64
	// Eval acts on a changed count.
	Eval *model.Evaluation
}

func applyJobScale(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobScale) (*JobRegistered, error) {
	job := snap.Job(nil, c.Key)
	if job == nil {
		return nil, model.NotFound("job", c.Key.ID)
	}
	group := job.Group(c.Group)
	if group == nil {
		return nil, model.Invalidf("Target", "cannot scale job %q: it has no group %q", job.ID, c.Group)
	}
	event := c.Event
	event.PreviousCount = int64(group.Count)
	out := &JobRegistered{JobModifyIndex: job.JobModifyIndex}
	if event.Count != nil {
		var err error
		if out, err = scale(tx, snap, index, job, c); err != nil {
			return nil, err
		}
		if out.EvalID != "" {
			event.EvalID = &out.EvalID
		}
	}
	return out, tx.AddScalingEvent(c.Key, c.Group, event)
}

// scale registers the job with another count. Its refusals begin as clients expect
// that look for them.
func scale(tx *state.Txn, snap *state.Snapshot, index uint64, job *model.Job, c *JobScale) (*JobRegistered, error) {
	if err := admitsJobs(snap); err != nil {
		return nil, err
	}
	scaled, err := job.WithCount(c.Group, *c.Event.Count)
	if err != nil {
		return nil, err
	}
	if d := snap.LatestDeployment(nil, c.Key); d != nil && d.Active() && d.JobCreateIndex == job.CreateIndex {
		return nil, model.Invalidf("Count", "job scaling blocked due to active deployment: deployment %s of version %d of job %q is %s; wait for its end, or fail it", d.ID, d.JobVersion, job.ID, d.Status)
	}
	if c.JobModifyIndex != 0 {
		if err := EnforceIndex(job, job.ID, c.JobModifyIndex); err != nil {
			return nil, err
		}
	}
	if err := inNamespace(snap, job); err != nil {
		return nil, err
	}
	scaled.SubmitTime = int64(c.Event.Time)
	if scaled, err = tx.UpsertJob(scaled); err != nil {
		return nil, err
	}
	eval := *c.Eval
	eval.Type, eval.Priority = job.Type, job.Priority
	return registered(tx, index, scaled, &eval)
}
