package scheduler

import "atoll/model"

// A new version of a service comes by a deployment. The scheduler makes one
// when the version is first placed and holds to its limits:
//
//	canaries     as long as they are not promoted, nothing else of the new
//	             version is placed, and what is lost of the old is placed as
//	             the old
//	max_parallel no more than this many of the deployment's allocations may be
//	             without proof of health; one that is unhealthy holds it up
//	paused       and failed ones place nothing but what replaces the lost
//
// Whether it is healthy, promoted, paused, failed or done is for others to say.

// settleDeployment finds the deployment that goes on, and cancels one that has
// been overtaken.
func (r *reconciler) settleDeployment(key model.JobID) {
	d := r.st.LatestDeployment(key)
	r.latest = d
	if d == nil {
		return
	}
	why := ""
	switch {
	case r.job.Stopped():
		why = "cancelled because the job was stopped"
	case d.JobCreateIndex != r.job.CreateIndex || d.JobVersion != r.job.Version:
		why = "cancelled because of a newer version of the job"
	case d.Active() || d.Status == model.DeploymentFailed:
		r.deployment = d
		return
	}
	if why != "" && d.Active() {
		r.cancel = append(r.cancel, model.DeploymentUpdate{DeploymentID: d.ID, Status: model.DeploymentCancelled, StatusDescription: why})
	}
}

// deploymentID is the running deployment's, and no row's when there is none.
func (r *reconciler) deploymentID() model.UUID {
	if r.deployment != nil {
		if id, ok := model.ParseUUID(r.deployment.ID); ok {
			return id
		}
	}
	return noDeployment
}

// noDeployment is a deployment id that no row has.
var noDeployment = model.UUID{0xff}

func (r *reconciler) deploymentFailed() bool {
	return r.deployment != nil && !r.deployment.Active()
}

// deploymentHeld reports whether the deployment waits for an operator or for
// another region.
func (r *reconciler) deploymentHeld() bool {
	if r.deployment == nil {
		return false
	}
	switch r.deployment.Status {
	case model.DeploymentPaused, model.DeploymentPending, model.DeploymentInitializing:
		return true
	}
	return false
}

// isCanary reports whether a row is a canary of the deployment that goes on.
func (s *groupState) isCanary(row *model.AllocRow) bool {
	return row.DeploymentStatus().IsCanary() && s.state.Canarying() && !s.deploymentFailed() && row.Shared.DeploymentID == s.deploymentID()
}

// promoted reports whether a row was a canary.
func (s *groupState) promoted(row *model.AllocRow) bool {
	return s.latest != nil && row.Shared.DeploymentID.String() == s.latest.ID && s.latest.TaskGroups[s.group.Name] != nil &&
		s.latest.TaskGroups[s.group.Name].Promoted
}

// roll decides how far the new version may go, and what is placed.
func (s *groupState) roll() {
	u := s.group.Update
	state := s.state
	if state == nil && u.Rolls() && s.job.Type == model.JobTypeService {
		state = &model.DeploymentState{
			AutoRevert: u.AutoRevert, AutoPromote: u.AutoPromote, ProgressDeadline: u.ProgressDeadline, DesiredTotal: s.group.Count,
		}
		if len(s.replace) > 0 {
			state.DesiredCanaries = u.Canary
		}
	}
	canarying := state.Canarying()
	open := !canarying && !s.deploymentFailed() && !s.deploymentHeld()
	for _, row := range s.forgiven {
		switch {
		case s.taken.has(row.Index):
		case open:
			s.want = append(s.want, wanted{previous: row, index: row.Index, how: isSuccessor})
		default:
			s.again(row, false)
		}
	}
	if canarying && !s.deploymentFailed() && !s.deploymentHeld() {
		s.placeCanaries(state.DesiredCanaries)
	}
	s.orphans()
	placed := s.chooseWanted(open, canarying)
	limit := 0
	switch {
	case !open:
	case !u.Rolls() || s.job.Type != model.JobTypeService:
		limit = len(s.replace)
	case s.unhealthy == 0:
		limit = max(0, u.MaxParallel-s.unproven-len(placed))
	}
	// Replacements come first: they bring their room with them, and should
	// not wait for what finds none.
	for i, row := range s.replace {
		if i < limit {
			s.placeOne(wanted{previous: row, index: row.Index, how: isReplacement})
			s.did.DestructiveUpdate++
		} else {
			s.did.Ignore++
		}
	}
	if len(placed) > 0 {
		s.place[s.group.Name] = append(s.place[s.group.Name], placed...)
	}
	changes := len(s.replace) > 0 || s.did.InPlaceUpdate > 0
	if s.state == nil && state != nil && state.DesiredTotal > 0 && (s.deployment == nil || s.created) && (changes || !s.ran[s.group.Name]) {
		s.deploy(state)
	}
}

// deploy adds the group to the deployment that is made with the plan.
func (s *groupState) deploy(state *model.DeploymentState) {
	if s.deployment == nil {
		s.created = true
		s.deployment = &model.Deployment{
			Namespace: s.job.Namespace, JobID: s.job.ID, JobVersion: s.job.Version, JobModifyIndex: s.job.ModifyIndex,
			JobSpecModifyIndex: s.job.JobModifyIndex, JobCreateIndex: s.job.CreateIndex, EvalPriority: s.eval.Priority,
			IsMultiregion: s.job.Multiregional(), Status: model.DeploymentRunning, StatusDescription: "deployment is running",
			TaskGroups: make(map[string]*model.DeploymentState), CreateTime: s.now.UnixNano(), ModifyTime: s.now.UnixNano(),
		}
	}
	if state.ProgressDeadline > 0 {
		state.RequireProgressBy = s.now.Add(state.ProgressDeadline).UTC()
	}
	if state.DesiredCanaries > 0 {
		s.deployment.StatusDescription = "deployment is running, and waits for its canaries to be promoted"
	}
	s.deployment.TaskGroups[s.group.Name] = state
}

// placeCanaries places what is missing of the canaries, under the numbers of
// those that they will replace.
func (s *groupState) placeCanaries(count int) {
	have := newNumbers(s.group.Count)
	for _, row := range s.canaries {
		have.add(row.Index)
	}
	missing := count - len(s.canaries)
	for _, w := range s.want {
		if w.canary {
			have.add(w.index)
			missing--
		}
	}
	add := func(index uint32) {
		if missing > 0 && !have.has(index) {
			have.add(index)
			missing--
			s.placeOne(wanted{index: index, canary: true})
			s.did.Canary++
		}
	}
	for _, row := range s.replace {
		add(row.Index)
	}
	for i := uint32(0); missing > 0; i++ {
		add(i)
	}
}

func (s *groupState) placeOne(w wanted) {
	s.place[s.group.Name] = append(s.place[s.group.Name], w)
}

// slot is a number in a group.
type slot struct {
	group string
	index uint32
}

// noteLost keeps a row that went with its node, or left it, and is told to stop,
// if it is the newest of its number.
func noteLost(lost map[slot]*model.AllocRow, row *model.AllocRow) {
	t := row.Transition()
	if !row.ServerTerminal() || row.DeploymentStatus().IsCanary() || t.ShouldNotPlace() || row.Client != model.ClientLost && !t.ShouldMigrate() {
		return
	}
	at := slot{row.Shared.Group, row.Index}
	if have := lost[at]; have == nil || have.CreateIndex < row.CreateIndex {
		lost[at] = row
	}
}

// orphans wants what takes over from rows that were stopped when their nodes were
// lost or left, and for which there was no room then: that the way is not open is
// no reason to run fewer than before.
func (s *groupState) orphans() {
	for i := range uint32(s.group.Count) {
		if row := s.lost[slot{s.group.Name, i}]; row != nil && !s.taken.has(i) && !replaced(s.st, row) {
			s.want = append(s.want, wanted{previous: row, index: i, how: isSuccessor})
		}
	}
}

// chooseWanted returns what replaces something and, when the way is open, new
// allocations under the lowest free numbers until the group has its count.
func (s *groupState) chooseWanted(open, canarying bool) (placed []wanted) {
	for _, w := range s.want {
		if !w.canary && (int(w.index) >= s.group.Count || s.taken.has(w.index)) {
			if w.how == isRescheduled {
				s.end(w.previous, whySurplus)
			}
			continue
		}
		if !w.canary {
			s.taken.add(w.index)
		}
		if canarying && !w.canary && w.previous.Job().Version != s.job.Version && w.previous.Job().Group(s.group.Name) != nil {
			w.job = w.previous.Job()
		}
		switch w.how {
		case isRescheduled:
			s.did.RescheduleNow++
		case isMigrated: // counted where it was stopped
		default:
			s.did.Place++
		}
		placed = append(placed, w)
	}
	for i := range uint32(s.group.Count) {
		if open && !s.taken.has(i) {
			placed = append(placed, wanted{index: i})
			s.did.Place++
		}
	}
	return placed
}
