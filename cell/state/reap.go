package state

import (
	"fmt"

	"atoll/model"
)

// Reap is a bounded batch of what nobody needs any more, chosen on an older
// state: what changed since, or is needed by what changed since, stays for a
// later choice.
type Reap struct {
	// SnapshotIndex is of the state that the choice was made on.
	SnapshotIndex uint64
	Allocs        []model.UUID
	Evals         []model.UUID
	Deployments   []model.UUID
	// Jobs and Nodes go only without allocations and without live ones.
	Jobs  []model.JobID
	Nodes []model.UUID
}

// Reaped counts what a Reap deleted.
type Reaped struct{ Allocs, Evals, Deployments, Jobs, Nodes int }

// Len is how many objects the batch names.
func (r *Reap) Len() int {
	return len(r.Allocs) + len(r.Evals) + len(r.Deployments) + len(r.Jobs) + len(r.Nodes)
}

// Reap deletes a batch.
func (t *Txn) Reap(r *Reap) (*Reaped, error) {
	out := &Reaped{}
	var err error
	if out.Allocs, err = t.reapAllocs(r); err != nil {
		return nil, err
	}
	for _, id := range r.Evals {
		e := first[*model.Evaluation](t.tx, nil, tableEvals, id.String())
		if e == nil || !e.Terminal() || e.ModifyIndex > r.SnapshotIndex {
			continue
		}
		if err := t.delete(tableEvals, e); err != nil {
			return nil, err
		}
		out.Evals++
	}
	for _, id := range r.Deployments {
		d := first[*model.Deployment](t.tx, nil, tableDeployments, id.String())
		if d == nil || d.Active() || d.ModifyIndex > r.SnapshotIndex {
			continue
		}
		if err := t.delete(tableDeployments, d); err != nil {
			return nil, err
		}
		out.Deployments++
	}
	for _, key := range r.Jobs {
		if t.mayReapJob(key, r.SnapshotIndex) {
			if err := t.PurgeJob(key); err != nil {
				return nil, err
			}
			out.Jobs++
		}
	}
	for _, id := range r.Nodes {
		n := first[*model.Node](t.tx, nil, tableNodes, id.String())
		if n == nil || n.Status != model.NodeStatusDown || n.ModifyIndex > r.SnapshotIndex || t.hasLive(id) {
			continue
		}
		if err := t.DeleteNode(n.ID); err != nil {
			return nil, err
		}
		out.Nodes++
	}
	return out, nil
}

func (t *Txn) reapAllocs(r *Reap) (int, error) {
	if len(r.Allocs) == 0 {
		return 0, nil
	}
	rows := t.rows()
	gone := func(node model.UUID) bool { return first[*model.Node](t.tx, nil, tableNodes, node.String()) == nil }
	var ids []model.UUID
	for _, id := range r.Allocs {
		row := rows.get(id)
		if row == nil || row.ModifyIndex > r.SnapshotIndex || !row.Ended(gone) {
			continue
		}
		// The job may need a row again that it did not need before.
		key := row.Shared.Job.Key()
		if j := first[*model.Job](t.tx, nil, tableJobs, key.Namespace, key.ID); j != nil && j.JobModifyIndex > r.SnapshotIndex {
			continue
		}
		ids = append(ids, id)
	}
	jobs, nodes := rows.remove(ids)
	for _, j := range jobs {
		if first[*model.Job](t.tx, nil, tableJobs, j.key.Namespace, j.key.ID) == nil {
			rows.dropJob(j.key)
		} else if err := t.refreshStatus(j.key); err != nil {
			// What its node could not say the end of counted as running.
			return 0, err
		}
	}
	for _, n := range nodes {
		if first[*model.Node](t.tx, nil, tableNodes, n.id.String()) == nil {
			rows.dropNode(n.id)
		}
	}
	return len(ids), nil
}

func (t *Txn) mayReapJob(key model.JobID, snapshot uint64) bool {
	j := first[*model.Job](t.tx, nil, tableJobs, key.Namespace, key.ID)
	if j == nil || j.Status != model.JobStatusDead || j.ModifyIndex > snapshot {
		return false
	}
	if e := t.table().job(key); e != nil && len(e.places) > 0 {
		return false
	}
	for range openEvals(t.tx, nil, key) {
		return false
	}
	return true
}

// hasLive reports whether a node has allocations that should run and may.
func (t *Txn) hasLive(id model.UUID) bool {
	table := t.table()
	if n := table.node(id); n != nil {
		for r := range table.at(n.places) {
			if !r.Terminal() {
				return true
			}
		}
	}
	return false
}

func (t *Txn) delete(table string, row any) error {
	t.dirty[table] = true
	if err := t.tx.Delete(table, row); err != nil {
		return fmt.Errorf("cannot write table %s: %w", table, err)
	}
	t.noteGone(table, row)
	t.noteTouched(table, row)
	return nil
}
