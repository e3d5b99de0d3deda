package scheduler

import (
	"slices"

	"atoll/model"
)

// Unneeded returns those of a job's allocations that have ended, are old, and
// that no later reconciliation of the job would decide otherwise without: they
// may be forgotten. It errs on the side of keeping. What reconciliation looks at
// of ended allocations must be kept here; a test holds the two against each
// other.
func Unneeded(st State, key model.JobID, old func(*model.AllocRow) bool) []*model.AllocRow {
	u := &unneeded{st: st, job: st.Job(key), kept: make(map[model.UUID]bool), ran: make(map[string]*model.AllocRow), lost: make(map[slot]*model.AllocRow)}
	if d := st.LatestDeployment(key); d != nil && d.Active() {
		u.deployment = d.ID
	}
	var ended []*model.AllocRow
	for row := range st.AllocsOfJob(key) {
		stays := !row.Ended(u.gone) || u.needs(row) || !old(row)
		if stays {
			u.keepNext(row)
		} else {
			ended = append(ended, row)
		}
		u.remember(row, stays)
	}
	for _, row := range u.ran {
		if row != nil {
			u.keep(row)
		}
	}
	for _, row := range u.lost {
		if !replaced(st, row) {
			u.keep(row)
		}
	}
	return slices.DeleteFunc(ended, func(row *model.AllocRow) bool { return u.kept[row.ID] })
}

type unneeded struct {
	st  State
	job *model.Job
	// deployment is the id of the job's deployment that goes on, "" for none.
	deployment string
	// kept are ended rows that stay although they are not needed themselves.
	kept map[model.UUID]bool
	// ran are the groups of which the job's version was placed, so that it is
	// not deployed again: by some row that stays (nil), else by this one.
	ran map[string]*model.AllocRow
	// lost are the rows that something may still have to take over from.
	lost map[slot]*model.AllocRow
}

// remember notes that a row tells of its version's having been placed, or of a
// loss.
func (u *unneeded) remember(row *model.AllocRow, stays bool) {
	group := row.Shared.Group
	if u.job.Stopped() || row.Job().CreateIndex != u.job.CreateIndex {
		return
	}
	g := u.job.Group(group)
	if g != nil && u.job.Type == model.JobTypeService && int(row.Index) < g.Count {
		noteLost(u.lost, row)
	}
	if g == nil || row.Job().Version != u.job.Version {
		return
	}
	known, seen := u.ran[group]
	switch {
	case stays:
		u.ran[group] = nil
	case !seen || known != nil:
		u.ran[group] = row
	}
}

func (u *unneeded) gone(node model.UUID) bool { return u.st.Node(node) == nil }

func (u *unneeded) keep(row *model.AllocRow) {
	u.kept[row.ID] = true
	u.keepNext(row)
}

// keepNext keeps all that took over from a row that stays: whether it was
// replaced is read off the last of these.
func (u *unneeded) keepNext(row *model.AllocRow) {
	for row != nil && row.HasNext() && !u.kept[row.Extra.Next] {
		u.kept[row.Extra.Next] = true
		row = u.st.Alloc(row.Extra.Next)
	}
}

// needs reports whether reconciliation looks at an ended row.
func (u *unneeded) needs(row *model.AllocRow) bool {
	group := row.Shared.Group
	if u.job.Stopped() || row.Job().CreateIndex != u.job.CreateIndex || u.job.Group(group) == nil {
		return false
	}
	current := row.Job().Version == u.job.Version
	switch {
	case u.deployment != "" && row.Shared.DeploymentID.String() == u.deployment:
		return true
	case row.ServerTerminal():
		// Batch work that a drain ended for good.
		return u.job.Type == model.JobTypeBatch && current && row.Transition().ShouldNotPlace()
	case everywhere(u.job):
		// Done on its node, if the node is still there.
		return u.job.Type == model.JobTypeSysBatch && current && row.Client != model.ClientLost && !row.HasNext() && !u.gone(row.NodeID)
	case row.Client == model.ClientComplete:
		return u.job.Type == model.JobTypeBatch && current
	case row.Client == model.ClientFailed:
		// Its policy may place it again, or no more. What took over from it
		// and was sent away gives it another turn.
		last := row
		for last.HasNext() {
			if last = u.st.Alloc(last.Extra.Next); last == nil {
				return false
			}
		}
		return last == row || last.ServerTerminal()
	}
	return false
}
