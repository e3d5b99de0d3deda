package state

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"atoll/model"
)

// VersionsKept bounds a job's history. Older versions are dropped but for those
// that have a tag, and the newest stable one when no newer one is stable.
// (Allocations keep the version they were placed of.)
const VersionsKept = 6

// Job returns the newest version of a job, nil when there is none.
func (s *Snapshot) Job(ws Watch, key model.JobID) *model.Job {
	return first[*model.Job](s.tx, ws, tableJobs, key.Namespace, key.ID)
}

// Jobs yields all jobs by namespace and id; prefix selects ids in a namespace
// unless that is "*".
func (s *Snapshot) Jobs(ws Watch, namespace, prefix string) iter.Seq[*model.Job] {
	if namespace == model.AllNamespaces {
		return each[*model.Job](s.tx, ws, tableJobs, byID+"_prefix", "")
	}
	return each[*model.Job](s.tx, ws, tableJobs, byID+"_prefix", namespace, prefix)
}

// JobsOfType yields the jobs of a type.
func (s *Snapshot) JobsOfType(ws Watch, jobType string) iter.Seq[*model.Job] {
	return each[*model.Job](s.tx, ws, tableJobs, byType, jobType)
}

// JobVersions returns a job's kept versions, newest first: the newest as the
// job stands, the others as they were registered.
func (s *Snapshot) JobVersions(ws Watch, key model.JobID) []*model.Job {
	out := s.versions(ws, key)
	if j := s.Job(ws, key); j != nil && len(out) > 0 && out[0].Version == j.Version {
		out[0] = j
	}
	return out
}

func (s *Snapshot) versions(ws Watch, key model.JobID) []*model.Job {
	var out []*model.Job
	for j := range each[*model.Job](s.tx, ws, tableVersions, byID+"_prefix", key.Namespace, key.ID) {
		if j.ID == key.ID {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b *model.Job) int { return cmp.Compare(b.Version, a.Version) })
	return out
}

// SpecsIndex is the index of the last change of any job, its counts left aside.
func (s *Snapshot) SpecsIndex() uint64 { return s.tableIndex(tableJobs) }

// JobsIndex is the index of the last change of any job or of its counts.
func (s *Snapshot) JobsIndex() uint64 { return max(s.tableIndex(tableJobs), s.tableIndex(tableAllocs)) }

// NextVersion is what becomes of a job that is registered at a Raft index, where
// old, nil for none, is the job so far.
func NextVersion(old, job *model.Job, index uint64) *model.Job {
	j := *job
	j.ModifyIndex, j.JobModifyIndex = index, index
	j.StampScaling(old, index)
	if old == nil {
		j.CreateIndex, j.Version = index, 0
	} else {
		j.CreateIndex = old.CreateIndex
		// Whose child it is, and of what, is not for a new version to say.
		j.ParentID, j.Dispatched = old.ParentID, old.Dispatched
		j.DispatchIdempotencyToken, j.Payload = old.DispatchIdempotencyToken, old.Payload
		if model.SameSpec(old, &j) {
			j.Version, j.Stable, j.VersionTag = old.Version, old.Stable, old.VersionTag
		} else {
			j.Version, j.Stable, j.VersionTag = old.Version+1, false, nil
		}
	}
	j.Status = model.JobStatusPending
	if j.Stop {
		j.Status = model.JobStatusDead
	}
	return &j
}

// UpsertJob registers a new version of a job, or the job. Its Version and
// indexes are set here; a job that equals the stored one in all that a user
// writes keeps its version. It returns the stored job.
func (t *Txn) UpsertJob(job *model.Job) (*model.Job, error) {
	old := first[*model.Job](t.tx, nil, tableJobs, job.Namespace, job.ID)
	return t.putVersion(old, *NextVersion(old, job, t.index))
}

// UpsertShare registers a region's share of a multi-region job as a version of a
// number that all regions have, or of a higher one when the region has gone
// beyond it by itself.
func (t *Txn) UpsertShare(job *model.Job, version uint64) (*model.Job, error) {
	old := first[*model.Job](t.tx, nil, tableJobs, job.Namespace, job.ID)
	j := *NextVersion(old, job, t.index)
	if old != nil && j.Version == old.Version {
		j.Version, j.Stable, j.VersionTag = old.Version+1, false, nil
	}
	j.Version = max(j.Version, version)
	return t.putVersion(old, j)
}

func (t *Txn) putVersion(old *model.Job, j model.Job) (*model.Job, error) {
	// The job's entry among the allocations gives those something to watch
	// who wait for its first one.
	if t.before.job(j.Key()) == nil {
		t.rows().ownJob(j.Key())
	}
	// Allocations refer to rows of this table: a version's row stays as it was
	// registered.
	if old == nil || j.Version != old.Version {
		if err := t.insert(tableVersions, &j); err != nil {
			return nil, err
		}
	}
	if err := t.trimVersions(&j); err != nil {
		return nil, err
	}
	if err := t.putJob(&j); err != nil {
		return nil, err
	}
	if err := t.scheduled(old, &j); err != nil {
		return nil, err
	}
	return &j, t.refreshStatus(j.Key())
}

func (t *Txn) trimVersions(j *model.Job) error {
	snap := Snapshot{tx: t.tx}
	versions := snap.versions(nil, j.Key())
	stable := slices.ContainsFunc(versions[:min(len(versions), VersionsKept)], func(v *model.Job) bool { return v.Stable })
	for i := VersionsKept; i < len(versions); i++ {
		if versions[i].VersionTag != nil {
			continue
		}
		if versions[i].Stable && !stable {
			stable = true
			continue
		}
		if err := t.tx.Delete(tableVersions, versions[i]); err != nil {
			return fmt.Errorf("cannot drop version %d of job %q: %w", versions[i].Version, j.ID, err)
		}
	}
	return nil
}

func (t *Txn) putJob(j *model.Job) error {
	if err := t.countChild(first[*model.Job](t.tx, nil, tableJobs, j.Namespace, j.ID), j); err != nil {
		return err
	}
	return t.insert(tableJobs, j)
}

// StopJob marks a job stopped, as a new modification of its newest version; it
// returns nil when there is no such job.
func (t *Txn) StopJob(key model.JobID) (*model.Job, error) {
	old := first[*model.Job](t.tx, nil, tableJobs, key.Namespace, key.ID)
	if old == nil {
		return nil, nil
	}
	j := *old
	j.Stop = true
	return t.UpsertJob(&j)
}

// PurgeJob forgets a job and its versions. Its allocations and evaluations stay
// until they are reaped.
func (t *Txn) PurgeJob(key model.JobID) error {
	snap := Snapshot{tx: t.tx}
	for _, v := range snap.versions(nil, key) {
		if err := t.tx.Delete(tableVersions, v); err != nil {
			return fmt.Errorf("cannot purge job %q: %w", key.ID, err)
		}
	}
	if old := snap.Job(nil, key); old != nil {
		if err := t.delete(tableJobs, old); err != nil {
			return err
		}
		if err := t.countChild(old, nil); err != nil {
			return err
		}
		if err := t.forgetParent(old); err != nil {
			return err
		}
	}
	t.rows().dropJob(key)
	if err := t.purgeScaling(key); err != nil {
		return err
	}
	return t.purgeDeployments(key)
}

// refreshStatus derives a job's status from its allocations and evaluations:
// running as soon as an allocation is not terminal, dead when there is neither
// work nor an open evaluation left, pending before. What runs as its children only
// is running until it is stopped.
func (t *Txn) refreshStatus(key model.JobID) error {
	j := first[*model.Job](t.tx, nil, tableJobs, key.Namespace, key.ID)
	if j == nil {
		return nil
	}
	status := t.deriveStatus(j)
	if status == j.Status {
		return nil
	}
	c := *j
	c.Status, c.ModifyIndex = status, t.index
	return t.putJob(&c)
}

func (t *Txn) deriveStatus(j *model.Job) string {
	placed, live := false, false
	if ja := t.table().job(j.Key()); ja != nil && ja.incarnation == j.CreateIndex {
		for _, c := range ja.counts {
			placed = true
			if c.by[model.ClientPending]+c.by[model.ClientRunning]+c.by[model.ClientUnknown] > 0 {
				live = true
			}
		}
	}
	switch {
	case j.Stop:
		// What still runs is on its way out: for its user the job is dead as
		// soon as it was stopped, as Nomad shows it.
		return model.JobStatusDead
	case live || j.IsParent():
		return model.JobStatusRunning
	}
	open := false
	for range openEvals(t.tx, nil, j.Key()) {
		open = true
		break
	}
	// A child begins with an evaluation: one that found nothing to place leaves it
	// with nothing to come.
	if !open && (placed || j.ParentID != "") {
		return model.JobStatusDead
	}
	return model.JobStatusPending
}

// JobSummary counts a job's allocations; nil when there is no such job.
func (s *Snapshot) JobSummary(ws Watch, key model.JobID) *model.JobSummary {
	j := s.Job(ws, key)
	if j == nil {
		return nil
	}
	return s.Summary(ws, j)
}

// watchedOne is how many rows are watched one by one: a watch of more than 32
// channels costs goroutines.
const watchedOne = 24

// WatchSummaries adds to ws the counts of jobs' allocations: each job's, or when
// those are many the whole table's.
func (s *Snapshot) WatchSummaries(ws Watch, jobs iter.Seq[*model.Job]) {
	if ws == nil {
		return
	}
	few := make(Watch)
	for j := range jobs {
		if s.jobAllocs(few, j.Key()); len(few) > watchedOne {
			s.watchAllocs(ws)
			return
		}
	}
	for c := range few {
		ws.Add(c)
	}
}

// Summary counts the allocations of j.
func (s *Snapshot) Summary(ws Watch, j *model.Job) *model.JobSummary {
	out := &model.JobSummary{
		JobID: j.ID, Namespace: j.Namespace, Summary: make(map[string]model.TaskGroupSummary, len(j.TaskGroups)),
		Children: &model.JobChildrenSummary{}, CreateIndex: j.CreateIndex, ModifyIndex: j.ModifyIndex,
	}
	for _, g := range j.TaskGroups {
		out.Summary[g.Name] = model.TaskGroupSummary{}
	}
	if j.IsParent() {
		if p := s.Parent(ws, j.Key()); p != nil {
			*out.Children, out.ModifyIndex = p.Children, max(out.ModifyIndex, p.ModifyIndex)
		}
	}
	ja := s.jobAllocs(ws, j.Key())
	if ja != nil && ja.incarnation == j.CreateIndex {
		out.ModifyIndex = max(out.ModifyIndex, ja.modified)
		for _, c := range ja.counts {
			out.Summary[c.group] = model.TaskGroupSummary{
				Starting: int(c.by[model.ClientPending]), Running: int(c.by[model.ClientRunning]),
				Complete: int(c.by[model.ClientComplete]), Failed: int(c.by[model.ClientFailed]),
				Lost: int(c.by[model.ClientLost]), Unknown: int(c.by[model.ClientUnknown]),
			}
		}
	}
	// What the newest evaluations could not place yet.
	for e := range openEvals(s.tx, ws, j.Key()) {
		if e.Status != model.EvalBlocked {
			continue
		}
		for group, n := range e.QueuedAllocations {
			g := out.Summary[group]
			g.Queued = n
			out.Summary[group] = g
		}
	}
	return out
}

// Recount counts each job's allocations anew: from then on a summary tells of
// those that are still there. It returns the number of jobs whose counts changed.
func (t *Txn) Recount() int {
	var keys []model.JobID
	t.before.jobs.Ascend(func(j *jobAllocs) bool { keys = append(keys, j.key); return true })
	changed := 0
	for _, key := range keys {
		old := t.table().job(key)
		// A group that was placed once is still known to have been.
		fresh := &jobAllocs{incarnation: old.incarnation, counts: slices.Clone(old.counts)}
		for i := range fresh.counts {
			fresh.counts[i].by = [model.ClientUnknown + 1]int32{}
		}
		for r := range t.table().at(old.places) {
			fresh.count(r, +1)
		}
		if slices.Equal(fresh.counts, old.counts) {
			continue
		}
		j := t.rows().ownJob(key)
		j.counts, j.modified = fresh.counts, t.index
		changed++
	}
	return changed
}
