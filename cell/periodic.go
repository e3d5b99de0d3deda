package cell

import (
	"time"

	"atoll/cell/state"
	"atoll/model"
)

// PeriodicLaunch launches a child of a periodic job for a time, once however often
// it is asked to: what was launched is written in the same step. It answers with
// JobLaunched.
type PeriodicLaunch struct {
	Key model.JobID
	// Launch is in Unix seconds.
	Launch int64
	// Force launches aside from the schedule, over an earlier child too. A time
	// that has a child already is put off to the next one that has none.
	Force bool
	// Eval is the child's, which the state machine makes of the parent as it is
	// then.
	Eval *model.Evaluation
	// Time is the proposer's, in Unix nanoseconds.
	Time int64
}

// JobLaunched names a child and its evaluation, which a child that runs as children
// itself has none of. Without a child, Why says why there is none.
type JobLaunched struct {
	ChildID, EvalID string
	JobCreateIndex  uint64
	Why             string
}

func applyPeriodicLaunch(tx *state.Txn, snap *state.Snapshot, index uint64, c *PeriodicLaunch) (*JobLaunched, error) {
	job := snap.Job(nil, c.Key)
	switch {
	case job == nil:
		return nil, model.NotFound("job", c.Key.ID)
	case !job.IsPeriodic():
		return nil, model.Invalidf("JobID", "cannot launch job %q: it is not periodic", c.Key.ID)
	case job.IsParameterized():
		return nil, model.Invalidf("JobID", "cannot launch job %q: it is parameterized; launch one of its dispatched children", c.Key.ID)
	case !job.IsPeriodicActive():
		return nil, model.Errorf(model.KindConflict, "cannot launch job %q: it is stopped, or its periodic block is not enabled", c.Key.ID)
	}
	launch := time.Unix(c.Launch, 0)
	taken := func() bool {
		return snap.Job(nil, model.JobID{Namespace: c.Key.Namespace, ID: model.PeriodicChildID(c.Key.ID, launch)}) != nil
	}
	if c.Force {
		for taken() {
			launch = launch.Add(time.Second)
		}
	} else {
		p := snap.Parent(nil, c.Key)
		if p != nil && launch.UnixNano() <= p.Launched && !state.LaunchedAhead(p.Launched, c.Time) {
			return &JobLaunched{Why: "it was launched for that time"}, nil
		}
		if err := tx.SetLaunched(c.Key, launch, c.Time); err != nil {
			return nil, err
		}
		switch {
		case taken():
			return &JobLaunched{Why: "it was launched for that time by force"}, nil
		case job.Periodic.ProhibitOverlap && p.Live():
			return &JobLaunched{Why: "an earlier child is not dead, and prohibit_overlap is set"}, nil
		}
	}
	return launchChild(tx, index, job.LaunchedAt(launch, c.Time), c.Eval)
}

// launchChild registers a child with its evaluation.
func launchChild(tx *state.Txn, index uint64, child *model.Job, eval *model.Evaluation) (*JobLaunched, error) {
	job, err := tx.UpsertJob(child)
	if err != nil {
		return nil, err
	}
	e := *eval
	e.Namespace, e.JobID, e.Type, e.Priority = job.Namespace, job.ID, job.Type, job.Priority
	done, err := registered(tx, index, job, &e)
	if err != nil {
		return nil, err
	}
	return &JobLaunched{ChildID: job.ID, EvalID: done.EvalID, JobCreateIndex: job.CreateIndex}, nil
}
