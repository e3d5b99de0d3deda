package drain

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/model"
)

// step is what can be done now for all nodes that are being emptied.
type step struct {
	// mark are allocations that are to leave, done the nodes that are empty.
	mark []model.UUID
	done []*model.Node
	// again is when time alone may allow more; zero for never.
	again time.Time
}

// groupKey names a group of a job.
type groupKey struct {
	job   model.JobID
	group string
}

// decide looks at all draining nodes, but for what is set aside. What it depends on
// is added to ws.
func decide(snap *state.Snapshot, ws state.Watch, now time.Time, items *aside.Items) *step {
	s := &step{}
	leaving := make(map[groupKey][]*model.AllocRow)
	jobs := make(map[model.JobID]bool)
	for n := range snap.Nodes(ws, "") {
		id, ok := model.ParseUUID(n.ID)
		if n.DrainStrategy == nil || !ok {
			continue
		}
		var rows []*model.AllocRow
		for r := range snap.AllocsOfNode(ws, id) {
			if !r.ClientTerminal() {
				rows = append(rows, r)
				jobs[r.Job().Key()] = true
			}
		}
		s.unless(items.Do("node", n.ID, func() { s.node(n, rows, leaving, now) }))
	}
	for key := range jobs {
		// A node's own reports wake those who watch the job.
		_, _ = snap.AllocsOfJob(ws, key)
		snap.Job(ws, key)
	}
	for key, rows := range leaving {
		s.unless(items.Do("group", fmt.Sprintf("%s/%s/%s", key.job.Namespace, key.job.ID, key.group), func() { s.group(snap, key, rows, now) }))
	}
	slices.SortFunc(s.mark, func(a, b model.UUID) int { return slices.Compare(a[:], b[:]) })
	return s
}

// node decides on a node's rows that may still run. Those of services, which have
// to leave in turn with their siblings on other nodes, are added to leaving.
func (s *step) node(n *model.Node, rows []*model.AllocRow, leaving map[groupKey][]*model.AllocRow, now time.Time) {
	d := n.DrainStrategy
	forced := d.Forced(now)
	if !forced && !d.ForceDeadline.IsZero() {
		s.wake(d.ForceDeadline)
	}
	left, last := 0, []*model.AllocRow(nil)
	for _, r := range rows {
		if r.Job().Type == model.JobTypeSystem {
			if !d.IgnoreSystemJobs {
				last = append(last, r)
			}
			continue
		}
		left++
		switch jobType := r.Job().Type; {
		case goes(r):
		case forced:
			s.mark = append(s.mark, r.ID)
		case jobType == model.JobTypeService:
			key := groupKey{r.Job().Key(), r.Shared.Group}
			leaving[key] = append(leaving[key], r)
		}
		// Batch work runs to its end, unless the deadline comes first.
	}
	// What serves the others on the node goes last.
	for _, r := range last {
		if (forced || left == 0) && !goes(r) {
			s.mark = append(s.mark, r.ID)
		}
	}
	if left == 0 && len(last) == 0 {
		s.done = append(s.done, n)
	}
}

// goes reports whether a row is on its way already.
func goes(r *model.AllocRow) bool { return r.ServerTerminal() || r.Transition().ShouldMigrate() }

// group lets as many of a group's rows go as leave no more than
// migrate.max_parallel of its count without a healthy allocation. Rows that are
// unhealthy where they are go first, and only as fast: they may be about to
// become healthy.
func (s *step) group(snap *state.Snapshot, key groupKey, rows []*model.AllocRow, now time.Time) {
	job := snap.Job(nil, key.job)
	g := job.Group(key.group)
	if job.Stopped() || g == nil {
		return // the scheduler stops them
	}
	migrate := g.Migrate
	if migrate == nil {
		migrate = &model.MigrateStrategy{MaxParallel: 1}
	}
	healthy := make(map[model.UUID]bool)
	all, _ := snap.AllocsOfJob(nil, key.job)
	for r := range all {
		if r.Shared.Group != key.group || r.Job().CreateIndex != job.CreateIndex || r.Terminal() || goes(r) {
			continue
		}
		since, ok := healthySince(r, migrate.MinHealthyTime)
		switch {
		case ok && !since.After(now):
			healthy[r.ID] = true
		case ok:
			s.wake(since)
		}
	}
	rows = slices.DeleteFunc(rows, func(r *model.AllocRow) bool { return r.Job().CreateIndex != job.CreateIndex })
	slices.SortStableFunc(rows, func(a, b *model.AllocRow) int {
		if healthy[a.ID] != healthy[b.ID] {
			if healthy[a.ID] {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.Index, b.Index), slices.Compare(a.ID[:], b.ID[:]))
	})
	served := len(healthy)
	for _, r := range rows {
		if !healthy[r.ID] {
			served++
		}
	}
	allowed := migrate.MaxParallel - max(0, g.Count-served)
	for _, r := range rows[:max(0, min(allowed, len(rows)))] {
		s.mark = append(s.mark, r.ID)
	}
}

// healthySince is from when on a row counts as healthy, if it stays as it is;
// false when it must change for that. Its deployment's word counts; without one,
// it must run for a while without a change. That is counted on the servers'
// clock, from when they heard of the last change.
func healthySince(r *model.AllocRow, minimum time.Duration) (time.Time, bool) {
	d := r.DeploymentStatus()
	switch {
	case r.Client != model.ClientRunning || d.IsUnhealthy():
		return time.Time{}, false
	case d.IsHealthy():
		return time.Time{}, true
	}
	return time.Unix(0, r.ModifyTime).Add(minimum), true
}

// unless comes back when something is set aside no more.
func (s *step) unless(aside time.Time) {
	if !aside.IsZero() {
		s.wake(aside)
	}
}

func (s *step) wake(at time.Time) {
	if s.again.IsZero() || at.Before(s.again) {
		s.again = at
	}
}
