package state

import (
	"iter"
	"reflect"
	"time"

	"atoll/model"
)

// Parent is what is known of a job that runs as its children only: when it was
// last launched, and how its children are. There may be children without their
// parent, whose row is kept for them.
type Parent struct {
	Namespace, ID string
	// Launched is when a periodic job was last launched by its schedule, or was
	// given that schedule if that is later, in Unix nanoseconds: what comes due
	// after it is still to be launched. Launches by force are aside.
	Launched int64
	// Children counts those that are stored, by their status.
	Children    model.JobChildrenSummary
	ModifyIndex uint64
}

// Live reports whether a child is not dead.
func (p *Parent) Live() bool { return p != nil && p.Children.Pending+p.Children.Running > 0 }

// Parent returns what is known of a job's children, nil when there never were
// any.
func (s *Snapshot) Parent(ws Watch, key model.JobID) *Parent {
	return first[*Parent](s.tx, ws, tableParents, key.Namespace, key.ID)
}

// PeriodicJobs yields the jobs that are launched at times.
func (s *Snapshot) PeriodicJobs(ws Watch) iter.Seq[*model.Job] {
	return each[*model.Job](s.tx, ws, tableJobs, byLaunch, isLaunched)
}

// DispatchedFor returns the child that was dispatched for a token, nil when there
// is none.
func (s *Snapshot) DispatchedFor(parent model.JobID, token string) *model.Job {
	for j := range each[*model.Job](s.tx, nil, tableJobs, byToken, parent.Namespace, parent.ID, token) {
		return j
	}
	return nil
}

// isLaunched is under what byLaunch has its rows.
const isLaunched = "periodic"

func launched(j *model.Job) []string {
	if j.IsPeriodicActive() {
		return []string{isLaunched}
	}
	return nil
}

func dispatched(j *model.Job) []string {
	if j.DispatchIdempotencyToken == "" {
		return nil
	}
	return []string{j.Namespace, j.ParentID, j.DispatchIdempotencyToken}
}

// aheadBy is by how much a launch may lie in the future: the clocks of those who
// lead one after the other are not that far apart.
const aheadBy = time.Hour

// LaunchedAhead reports whether a time of launch was written while a clock was
// ahead, seen from now. Both are in Unix nanoseconds.
func LaunchedAhead(launched, now int64) bool { return launched > now+int64(aheadBy) }

// SetLaunched notes, now, that a periodic job was launched for a time, or that what
// came due until then is not to be. The note only moves forward, but for one that
// lies ahead.
func (t *Txn) SetLaunched(key model.JobID, launch time.Time, now int64) error {
	return t.changeParent(key, func(p *Parent) {
		if at := launch.UnixNano(); at > p.Launched || LaunchedAhead(p.Launched, now) {
			p.Launched = at
		}
	})
}

// scheduled begins a schedule at the time of its submit. A job that is registered
// as it was keeps what it has still to launch.
func (t *Txn) scheduled(old, j *model.Job) error {
	if !j.IsPeriodicActive() || old != nil && old.IsPeriodicActive() && reflect.DeepEqual(old.Periodic, j.Periodic) {
		return nil
	}
	return t.changeParent(j.Key(), func(p *Parent) { p.Launched = max(p.Launched, j.SubmitTime) })
}

// countChild keeps the count of a parent's children in step with a change of one,
// of which either side may be nil.
func (t *Txn) countChild(old, j *model.Job) error {
	child, was, is := j, "", ""
	if old != nil {
		child, was = old, old.Status
	}
	if j != nil {
		is = j.Status
	}
	if child.ParentID == "" || was == is {
		return nil
	}
	return t.changeParent(model.JobID{Namespace: child.Namespace, ID: child.ParentID}, func(p *Parent) {
		p.count(was, -1)
		p.count(is, +1)
	})
}

func (p *Parent) count(status string, by int64) {
	switch status {
	case model.JobStatusPending:
		p.Children.Pending += by
	case model.JobStatusRunning:
		p.Children.Running += by
	case model.JobStatusDead:
		p.Children.Dead += by
	}
}

// forgetParent forgets a purged job's launches.
func (t *Txn) forgetParent(j *model.Job) error {
	key := j.Key()
	if first[*Parent](t.tx, nil, tableParents, key.Namespace, key.ID) == nil {
		return nil
	}
	return t.changeParent(key, func(p *Parent) { p.Launched = 0 })
}

// changeParent changes a row by f; one that says nothing any more goes.
func (t *Txn) changeParent(key model.JobID, f func(*Parent)) error {
	p := Parent{Namespace: key.Namespace, ID: key.ID}
	old := first[*Parent](t.tx, nil, tableParents, key.Namespace, key.ID)
	if old != nil {
		p = *old
	}
	f(&p)
	if p.Launched == 0 && p.Children == (model.JobChildrenSummary{}) {
		if old == nil {
			return nil
		}
		return t.delete(tableParents, old)
	}
	p.ModifyIndex = t.index
	return t.insert(tableParents, &p)
}
