package state

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"atoll/model"
)

// DeploymentsKept bounds the deployments of a job: of those that are over, the
// oldest make room for a new one.
const DeploymentsKept = 10

var activeDeployments = []string{
	model.DeploymentInitializing, model.DeploymentPending, model.DeploymentRunning,
	model.DeploymentPaused, model.DeploymentBlocked, model.DeploymentUnblocking,
}

// Deployment returns a deployment, nil when there is none.
func (s *Snapshot) Deployment(ws Watch, id string) *model.Deployment {
	return first[*model.Deployment](s.tx, ws, tableDeployments, id)
}

// Deployments yields the deployments whose id begins with prefix, by id.
func (s *Snapshot) Deployments(ws Watch, prefix string) iter.Seq[*model.Deployment] {
	return each[*model.Deployment](s.tx, ws, tableDeployments, byID+"_prefix", prefix)
}

// ActiveDeployments are those that go on, or may again, in a fixed order.
func (s *Snapshot) ActiveDeployments(ws Watch) (out []*model.Deployment) {
	for _, status := range activeDeployments {
		out = slices.AppendSeq(out, each[*model.Deployment](s.tx, ws, tableDeployments, byStatus, status))
	}
	return out
}

// DeploymentsOfJob returns a job's deployments, those of earlier jobs of the
// same id too, newest first.
func (s *Snapshot) DeploymentsOfJob(ws Watch, key model.JobID) []*model.Deployment {
	return slices.SortedFunc(each[*model.Deployment](s.tx, ws, tableDeployments, byJob, key.Namespace, key.ID), func(a, b *model.Deployment) int {
		return cmp.Or(cmp.Compare(b.CreateIndex, a.CreateIndex), cmp.Compare(a.ID, b.ID))
	})
}

// LatestDeployment is the newest of a job's deployments that have begun; nil when
// it never had any.
func (s *Snapshot) LatestDeployment(ws Watch, key model.JobID) *model.Deployment {
	for _, d := range s.DeploymentsOfJob(ws, key) {
		if d.Begun() {
			return d
		}
	}
	return nil
}

// DeploymentsIndex is the index of the last change of any deployment.
func (s *Snapshot) DeploymentsIndex() uint64 { return s.tableIndex(tableDeployments) }

// StableVersion is the newest version of a job before one of a number that was
// found stable, nil when there is none.
func (s *Snapshot) StableVersion(key model.JobID, before uint64) *model.Job {
	for _, v := range s.JobVersions(nil, key) {
		if v.Version < before && v.Stable && !v.Stop {
			return v
		}
	}
	return nil
}

// addDeployment inserts a deployment, unless it is there already. One that waited
// for its region's turn makes room for it.
func (t *Txn) addDeployment(given *model.Deployment) error {
	if have := first[*model.Deployment](t.tx, nil, tableDeployments, given.ID); have != nil && have.Begun() {
		return nil
	}
	snap := Snapshot{tx: t.tx}
	kept := 1
	for _, old := range snap.DeploymentsOfJob(nil, given.Key()) {
		if old.Awaits() && old.JobVersion <= given.JobVersion {
			if err := t.delete(tableDeployments, old); err != nil {
				return err
			}
			continue
		}
		if kept++; kept > DeploymentsKept && !old.Active() {
			if err := t.delete(tableDeployments, old); err != nil {
				return err
			}
		}
	}
	d := *given
	d.CreateIndex, d.ModifyIndex = t.index, t.index
	return t.insert(tableDeployments, &d)
}

// purgeDeployments forgets a job's deployments.
func (t *Txn) purgeDeployments(key model.JobID) error {
	snap := Snapshot{tx: t.tx}
	for _, d := range snap.DeploymentsOfJob(nil, key) {
		if err := t.delete(tableDeployments, d); err != nil {
			return err
		}
	}
	return nil
}

// SetDeploymentStatus changes the status of a deployment that is not over. One
// that succeeds makes its version of the job stable, and one that goes on after
// a pause has its deadlines anew.
func (t *Txn) SetDeploymentStatus(u model.DeploymentUpdate, now int64) (*model.Deployment, error) {
	old := first[*model.Deployment](t.tx, nil, tableDeployments, u.DeploymentID)
	switch {
	case old == nil:
		return nil, model.NotFound("deployment", u.DeploymentID)
	case !old.Active():
		return nil, model.Errorf(model.KindConflict, "deployment %s is over: it is %s", old.ID, old.Status)
	}
	d := model.Clone(old)
	d.Status, d.StatusDescription, d.ModifyIndex, d.ModifyTime = u.Status, u.StatusDescription, t.index, now
	if old.Status == model.DeploymentPaused && u.Status == model.DeploymentRunning {
		for _, s := range d.TaskGroups {
			s.Progressed(time.Unix(0, now))
		}
	}
	if err := t.insert(tableDeployments, d); err != nil {
		return nil, err
	}
	if u.Status == model.DeploymentSuccessful {
		if j := first[*model.Job](t.tx, nil, tableJobs, d.Namespace, d.JobID); j != nil && j.CreateIndex == d.JobCreateIndex {
			return d, t.SetJobStability(d.Key(), d.JobVersion, true)
		}
	}
	return d, nil
}

// deploying are the deployments that a transaction changes: each is copied and
// written once, however many allocations it counts.
type deploying struct {
	t    *Txn
	now  int64
	open map[model.UUID]*model.Deployment
}

func (t *Txn) deploying(now int64) *deploying {
	return &deploying{t: t, now: now, open: make(map[model.UUID]*model.Deployment)}
}

// get returns a deployment to change, nil when there is none of the id.
func (g *deploying) get(id model.UUID) *model.Deployment {
	if id.IsZero() {
		return nil
	}
	d, opened := g.open[id]
	if !opened {
		if old := first[*model.Deployment](g.t.tx, nil, tableDeployments, id.String()); old != nil {
			d = model.Clone(old)
			d.ModifyIndex, d.ModifyTime = g.t.index, g.now
		}
		g.open[id] = d
	}
	return d
}

// state is a row's group's part of its deployment, nil when it has none.
func (g *deploying) state(r *model.AllocRow) *model.DeploymentState {
	if d := g.get(r.Shared.DeploymentID); d != nil {
		return d.TaskGroups[r.Shared.Group]
	}
	return nil
}

// placed counts a row that joins its deployment.
func (g *deploying) placed(r *model.AllocRow) {
	s := g.state(r)
	if s == nil {
		return
	}
	s.PlacedAllocs++
	if r.DeploymentStatus().IsCanary() {
		s.PlacedCanaries = append(s.PlacedCanaries, r.ID.String())
	}
}

// judge makes a row healthy or not; it returns what its Extra is then.
func (g *deploying) judge(r *model.AllocRow, healthy bool, at time.Time) *model.AllocExtra {
	if s := g.state(r); s != nil {
		old := r.DeploymentStatus()
		switch {
		case old.IsHealthy():
			s.HealthyAllocs--
		case old.IsUnhealthy():
			s.UnhealthyAllocs--
		}
		if healthy {
			s.HealthyAllocs++
			s.Progressed(time.Unix(0, g.now))
		} else {
			s.UnhealthyAllocs++
		}
	}
	return withExtra(r.Extra, func(x *model.AllocExtra) {
		x.DeploymentStatus = &model.AllocDeploymentStatus{
			Healthy: &healthy, Timestamp: at, Canary: x.DeploymentStatus.IsCanary(), ModifyIndex: g.t.index,
		}
	})
}

// write writes what was changed.
func (g *deploying) write() error {
	ids := make([]model.UUID, 0, len(g.open))
	for id, d := range g.open {
		if d != nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b model.UUID) int { return cmp.Compare(string(a[:]), string(b[:])) })
	for _, id := range ids {
		if err := g.t.insert(tableDeployments, g.open[id]); err != nil {
			return err
		}
	}
	return nil
}

// Promote ends the trial of a deployment's canaries, in the named groups or, when
// none is named, in all that have some. Each must have its canaries healthy.
func (t *Txn) Promote(id string, groups []string, now int64) (*model.Deployment, error) {
	uid, _ := model.ParseUUID(id)
	g := t.deploying(now)
	d := g.get(uid)
	switch {
	case d == nil:
		return nil, model.NotFound("deployment", id)
	case !d.Active():
		return nil, model.Errorf(model.KindConflict, "cannot promote deployment %s: it is %s", id, d.Status)
	}
	for _, name := range groups {
		if d.TaskGroups[name] == nil {
			return nil, model.Invalidf("Groups", "cannot promote deployment %s: it has no group %q", id, name)
		}
	}
	rows := t.rows()
	promoted := make(map[string]bool)
	healthy := make(map[string]int)
	var canaries []model.UUID
	for name, s := range d.TaskGroups {
		if s.Canarying() && (len(groups) == 0 || slices.Contains(groups, name)) {
			promoted[name] = true
		}
	}
	if len(promoted) == 0 {
		return nil, model.Errorf(model.KindConflict, "cannot promote deployment %s: it has no canaries to promote", id)
	}
	if j := rows.job(d.Key()); j != nil {
		for r := range rows.at(j.places) {
			if r.Shared.DeploymentID == uid && promoted[r.Shared.Group] && r.DeploymentStatus().IsCanary() {
				canaries = append(canaries, r.ID)
				if !r.Terminal() && r.DeploymentStatus().IsHealthy() {
					healthy[r.Shared.Group]++
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(promoted)) {
		s := d.TaskGroups[name]
		if healthy[name] < s.DesiredCanaries {
			return nil, model.Errorf(model.KindConflict, "cannot promote deployment %s: group %q has %d of %d canaries healthy", id, name, healthy[name], s.DesiredCanaries)
		}
		s.Promoted = true
		s.Progressed(time.Unix(0, now))
	}
	if d.Status == model.DeploymentRunning && !d.RequiresPromotion() {
		d.StatusDescription = "deployment is running"
	}
	for _, id := range canaries {
		rows.update(id, true, func(r *model.AllocRow) {
			r.ModifyTime = now
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) {
				s := *x.DeploymentStatus
				s.Canary, s.ModifyIndex = false, t.index
				x.DeploymentStatus = &s
			})
		})
	}
	return d, g.write()
}

// SetHealth makes allocations of an active deployment healthy and unhealthy, as
// an operator has it.
func (t *Txn) SetHealth(id string, healthy, unhealthy []model.UUID, now int64) (*model.Deployment, error) {
	uid, _ := model.ParseUUID(id)
	g := t.deploying(now)
	d := g.get(uid)
	switch {
	case d == nil:
		return nil, model.NotFound("deployment", id)
	case !d.Active():
		return nil, model.Errorf(model.KindConflict, "cannot set the health of allocations of deployment %s: it is %s", id, d.Status)
	}
	rows := t.rows()
	for i, alloc := range slices.Concat(healthy, unhealthy) {
		row := rows.get(alloc)
		if row == nil {
			return nil, model.NotFound("allocation", alloc.String())
		}
		if row.Shared.DeploymentID != uid {
			return nil, model.Invalidf("HealthyAllocationIDs", "cannot set the health of allocation %s: it is not of deployment %s", alloc, id)
		}
		rows.update(alloc, false, func(r *model.AllocRow) {
			r.Extra = g.judge(r, i < len(healthy), time.Unix(0, now).UTC())
		})
	}
	return d, g.write()
}

// AllowReschedule lets failed allocations of a deployment be placed anew.
func (t *Txn) AllowReschedule(ids []model.UUID) {
	rows := t.rows()
	yes := true
	for _, id := range ids {
		// The delay is counted from ModifyTime, which stays.
		rows.update(id, false, func(r *model.AllocRow) {
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) {
				var tr model.DesiredTransition
				if x.Transition != nil {
					tr = *x.Transition
				}
				tr.Reschedule = &yes
				x.Transition = &tr
			})
		})
	}
}

// SetJobStability says of a version of a job whether it may be gone back to.
func (t *Txn) SetJobStability(key model.JobID, version uint64, stable bool) error {
	return t.changeVersion(key, version, func(j *model.Job) { j.Stable = stable })
}

// changeVersion changes what stands beside a version's spec. Allocations go on
// to refer to the row as it was when they were placed.
func (t *Txn) changeVersion(key model.JobID, version uint64, f func(*model.Job)) error {
	old := first[*model.Job](t.tx, nil, tableVersions, key.Namespace, key.ID, version)
	if old == nil {
		return model.NotFound("version", fmt.Sprintf("%d of job %q", version, key.ID))
	}
	v := *old
	f(&v)
	v.ModifyIndex = t.index
	if err := t.insert(tableVersions, &v); err != nil {
		return err
	}
	if j := first[*model.Job](t.tx, nil, tableJobs, key.Namespace, key.ID); j != nil && j.Version == version {
		c := *j
		f(&c)
		c.ModifyIndex = t.index
		return t.putJob(&c)
	}
	return nil
}

// TagVersion names a version of a job, so that it is kept; a name is of one
// version.
func (t *Txn) TagVersion(key model.JobID, version uint64, tag *model.JobVersionTag) error {
	snap := Snapshot{tx: t.tx}
	for _, v := range snap.versions(nil, key) {
		if v.VersionTag != nil && v.VersionTag.Name == tag.Name && v.Version != version {
			return model.Errorf(model.KindConflict, "cannot tag version %d of job %q: version %d has the tag %q", version, key.ID, v.Version, tag.Name)
		}
	}
	return t.changeVersion(key, version, func(j *model.Job) { j.VersionTag = tag })
}

// UntagVersion takes a tag away.
func (t *Txn) UntagVersion(key model.JobID, name string) error {
	snap := Snapshot{tx: t.tx}
	for _, v := range snap.versions(nil, key) {
		if v.VersionTag != nil && v.VersionTag.Name == name {
			return t.changeVersion(key, v.Version, func(j *model.Job) { j.VersionTag = nil })
		}
	}
	return model.NotFound("tag", fmt.Sprintf("%q of job %q", name, key.ID))
}

// RevertJob registers an earlier version of a job anew. It returns the stored
// job.
func (t *Txn) RevertJob(key model.JobID, version uint64, now int64) (*model.Job, error) {
	old := first[*model.Job](t.tx, nil, tableVersions, key.Namespace, key.ID, version)
	if old == nil {
		return nil, model.NotFound("version", fmt.Sprintf("%d of job %q", version, key.ID))
	}
	j := *old
	j.Stop, j.Stable, j.VersionTag, j.SubmitTime = false, false, nil, now
	return t.UpsertJob(&j)
}
