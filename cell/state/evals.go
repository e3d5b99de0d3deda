package state

import (
	"cmp"
	"iter"

	"atoll/model"
)

// Eval returns an evaluation, nil when there is none.
func (s *Snapshot) Eval(ws Watch, id string) *model.Evaluation {
	return first[*model.Evaluation](s.tx, ws, tableEvals, id)
}

// Evals yields all evaluations whose id begins with prefix, by id.
func (s *Snapshot) Evals(ws Watch, prefix string) iter.Seq[*model.Evaluation] {
	return each[*model.Evaluation](s.tx, ws, tableEvals, byID+"_prefix", prefix)
}

// EvalsOfJob yields a job's evaluations.
func (s *Snapshot) EvalsOfJob(ws Watch, key model.JobID) iter.Seq[*model.Evaluation] {
	return each[*model.Evaluation](s.tx, ws, tableEvals, byJob, key.Namespace, key.ID)
}

// EvalsByStatus yields the evaluations of a status.
func (s *Snapshot) EvalsByStatus(ws Watch, status string) iter.Seq[*model.Evaluation] {
	return each[*model.Evaluation](s.tx, ws, tableEvals, byStatus, status)
}

// EvalsIndex is the index of the last change of any evaluation.
func (s *Snapshot) EvalsIndex() uint64 { return s.tableIndex(tableEvals) }

// UpsertEvals writes evaluations. A job has at most one blocked evaluation: a
// new one, and one that completes having placed everything, cancel those that
// were there.
func (t *Txn) UpsertEvals(evals []*model.Evaluation) error {
	for _, given := range evals {
		e := *given
		if old := first[*model.Evaluation](t.tx, nil, tableEvals, e.ID); old != nil {
			e.CreateIndex, e.CreateTime = old.CreateIndex, old.CreateTime
		} else if e.CreateIndex != 0 {
			continue
		} else {
			e.CreateIndex = t.index
		}
		e.ModifyIndex = t.index
		if err := t.insert(tableEvals, &e); err != nil {
			return err
		}
		if e.Status == model.EvalBlocked || e.Status == model.EvalComplete && e.BlockedEval == "" && len(e.FailedTGAllocs) == 0 {
			if err := t.cancelBlocked(&e); err != nil {
				return err
			}
		}
	}
	for _, e := range evals {
		if err := t.refreshStatus(e.JobKey()); err != nil {
			return err
		}
	}
	return nil
}

func (t *Txn) cancelBlocked(by *model.Evaluation) error {
	var superseded []*model.Evaluation
	for e := range each[*model.Evaluation](t.tx, nil, tableEvals, byJob, by.Namespace, by.JobID) {
		if e.Status == model.EvalBlocked && e.ID != by.ID {
			superseded = append(superseded, e)
		}
	}
	for _, e := range superseded {
		c := *e
		c.Status, c.StatusDescription = model.EvalCancelled, "superseded by evaluation "+by.ID
		c.ModifyIndex, c.ModifyTime = t.index, by.ModifyTime
		if err := t.insert(tableEvals, &c); err != nil {
			return err
		}
	}
	return nil
}

// MoveEvals gives a status to those evaluations that have the status from, and
// says how many those were. Whoever chose them did so on an older state.
func (t *Txn) MoveEvals(ids []model.UUID, from, to, why string, now int64) (int, error) {
	moved := 0
	var jobs []model.JobID
	for _, id := range ids {
		e := first[*model.Evaluation](t.tx, nil, tableEvals, id.String())
		if e == nil || e.Status != from {
			continue
		}
		c := *e
		c.Status, c.StatusDescription, c.ModifyIndex, c.ModifyTime = to, why, t.index, now
		if err := t.insert(tableEvals, &c); err != nil {
			return 0, err
		}
		moved++
		if key := c.JobKey(); len(jobs) == 0 || jobs[len(jobs)-1] != key {
			jobs = append(jobs, key)
		}
	}
	for _, key := range jobs {
		if err := t.refreshStatus(key); err != nil {
			return 0, err
		}
	}
	return moved, nil
}

// DeleteEvals deletes evaluations of a namespace ("*" is any) and of any status,
// and says how many. Those that allocations which should run were placed by are
// kept, since they are what these name as their reason. strict makes it a
// conflict that there are any, and an error that one is not there.
func (t *Txn) DeleteEvals(namespace string, ids []model.UUID, strict bool) (int, error) {
	namespace = cmp.Or(namespace, model.DefaultNamespace)
	var evals []*model.Evaluation
	chosen := make(map[model.UUID]bool)
	var jobs []model.JobID
	seen := make(map[model.JobID]bool)
	for _, id := range ids {
		e := first[*model.Evaluation](t.tx, nil, tableEvals, id.String())
		if chosen[id] {
			continue
		}
		if e == nil || namespace != model.AllNamespaces && e.Namespace != namespace {
			if strict {
				return 0, model.NotFound("evaluation", id.String())
			}
			continue
		}
		chosen[id] = true
		evals = append(evals, e)
		if key := e.JobKey(); !seen[key] {
			seen[key] = true
			jobs = append(jobs, key)
		}
	}
	needed := make(map[string]bool)
	table := t.table()
	for _, key := range jobs {
		j := table.job(key)
		if j == nil {
			continue
		}
		for r := range table.at(j.places) {
			if !chosen[r.Shared.EvalID] || r.Terminal() {
				continue
			}
			if strict {
				return 0, model.Errorf(model.KindConflict, "cannot delete evaluation %s: allocation %s of job %q was placed by it and is not over", r.Shared.EvalID, r.ID, key.ID)
			}
			needed[r.Shared.EvalID.String()] = true
		}
	}
	deleted := 0
	for _, e := range evals {
		if !needed[e.ID] {
			if err := t.delete(tableEvals, e); err != nil {
				return 0, err
			}
			deleted++
		}
	}
	for _, key := range jobs {
		if err := t.refreshStatus(key); err != nil {
			return 0, err
		}
	}
	return deleted, nil
}
