package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// JobRegister registers a job and the evaluation that acts on it. It answers
// with JobRegistered.
type JobRegister struct {
	Job  *model.Job
	Eval *model.Evaluation
	// EnforceIndex refuses unless the stored JobModifyIndex is
	// JobModifyIndex, 0 meaning that there is no such job.
	EnforceIndex   bool
	JobModifyIndex uint64
	// PreserveCounts keeps the counts that the job's groups have.
	PreserveCounts bool
}

// JobRegistered names the evaluation that acts on a job's change. JobModifyIndex
// is the stored job's.
type JobRegistered struct {
	EvalID         string
	JobModifyIndex uint64
}

// JobDeregister stops or purges a job. It answers with JobRegistered or a
// NotFound error.
type JobDeregister struct {
	Key   model.JobID
	Purge bool
	Eval  *model.Evaluation
}

// Recount counts the allocations of all jobs anew. It answers with Recounted.
type Recount struct{}

// Recounted is the number of jobs whose counts changed.
type Recounted struct{ Jobs int }

func applyRecount(tx *state.Txn, _ *state.Snapshot, _ uint64, _ *Recount) (*Recounted, error) {
	return &Recounted{tx.Recount()}, nil
}

func applyJobRegister(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobRegister) (*JobRegistered, error) {
	if err := admitsJobs(snap); err != nil {
		return nil, err
	}
	old := snap.Job(nil, c.Job.Key())
	if own := snap.Cell(nil); own != nil && snap.Rollout(nil, c.Job.Key()).RunsIn(own.Region) {
		return nil, model.Errorf(model.KindConflict, "job %q runs in several regions together; submit it with its multiregion block, or stop it with -global first", c.Job.ID)
	}
	if c.EnforceIndex {
		if err := EnforceIndex(old, c.Job.ID, c.JobModifyIndex); err != nil {
			return nil, err
		}
	}
	if err := inNamespace(snap, c.Job); err != nil {
		return nil, err
	}
	if c.PreserveCounts {
		c.Job.KeepCounts(old)
	}
	if old != nil {
		if err := old.Transition(c.Job); err != nil {
			return nil, err
		}
	}
	job, err := tx.UpsertJob(c.Job)
	if err != nil {
		return nil, err
	}
	return registered(tx, index, job, c.Eval)
}

// registered writes the evaluation that acts on a job's registration. There is
// nothing to do for one that runs as its children only.
func registered(tx *state.Txn, index uint64, job *model.Job, eval *model.Evaluation) (*JobRegistered, error) {
	out := &JobRegistered{JobModifyIndex: job.JobModifyIndex}
	if eval == nil || job.IsParent() {
		return out, nil
	}
	e := *eval
	e.JobModifyIndex = index
	out.EvalID = e.ID
	return out, tx.UpsertEvals([]*model.Evaluation{&e})
}

// EnforceIndex refuses unless the stored job's JobModifyIndex is index, 0 meaning
// that there is none. It words its refusals so that clients which look for their
// beginning find it.
func EnforceIndex(old *model.Job, id string, index uint64) error {
	const head = "Enforcing job modify index"
	switch {
	case index == 0 && old != nil:
		return model.Errorf(model.KindConflict, "%s 0: job %q exists already, at index %d", head, id, old.JobModifyIndex)
	case index != 0 && old == nil:
		return model.Errorf(model.KindConflict, "%s %d: job %q does not exist", head, index, id)
	case old != nil && old.JobModifyIndex != index:
		return model.Errorf(model.KindConflict, "%s %d: job %q is at index %d; plan again", head, index, id, old.JobModifyIndex)
	}
	return nil
}

func applyJobDeregister(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobDeregister) (*JobRegistered, error) {
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
	out := &JobRegistered{JobModifyIndex: job.JobModifyIndex}
	if c.Eval != nil {
		e := *c.Eval
		e.JobModifyIndex = index
		out.EvalID = e.ID
		e.Type, e.Priority = job.Type, max(e.Priority, job.Priority)
		if err := tx.UpsertEvals([]*model.Evaluation{&e}); err != nil {
			return nil, err
		}
	}
	return out, nil
}
