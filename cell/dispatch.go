package cell

import (
	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

// JobDispatch makes a child of a parameterized job, unless there is one for its
// token. It answers with JobLaunched, without an evaluation when the child was
// there.
type JobDispatch struct {
	Key      model.JobID
	Dispatch model.Dispatch
	Eval     *model.Evaluation
	// Again is the request by which the token may be known: that of a dispatch
	// whose outcome its caller was not told, and who was given its id to try
	// again by.
	Again *state.Request
}

func applyJobDispatch(tx *state.Txn, snap *state.Snapshot, index uint64, c *JobDispatch) (*JobLaunched, error) {
	if token := c.Dispatch.Token; token != "" {
		if child := snap.DispatchedFor(c.Key, token); child != nil {
			return &JobLaunched{ChildID: child.ID, JobCreateIndex: child.CreateIndex, Why: "it was dispatched for that token"}, nil
		}
		if kept, err := snap.Recall(c.Again); err == nil && kept != nil {
			out := new(JobLaunched)
			return out, wire.Decode(kept.Answer, out)
		}
	}
	if err := admitsJobs(snap); err != nil {
		return nil, err
	}
	parent := snap.Job(nil, c.Key)
	if parent == nil {
		return nil, model.NotFound("job", c.Key.ID)
	}
	child, err := parent.Dispatch(&c.Dispatch)
	if err != nil {
		return nil, err
	}
	if snap.Job(nil, child.Key()) != nil {
		return nil, model.Errorf(model.KindConflict, "cannot dispatch job %q: there is a job %q already; try again", c.Key.ID, child.ID)
	}
	return launchChild(tx, index, child, c.Eval)
}
