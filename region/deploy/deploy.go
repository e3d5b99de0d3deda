// Package deploy watches deployments: it ends those that are done, fails those
// that get nowhere, promotes canaries that may be promoted by themselves, takes
// the job of a failed deployment back to its last stable version, and lets failed
// allocations be placed anew. It is one of the leader's loops, with one
// goroutine.
//
//	running → successful  every group has its count of healthy allocations
//	        → failed      a group's progress deadline is over, or, where it has
//	                      none, one of its allocations is unhealthy
//
// Whatever it does follows from the state alone, which it writes to with commands
// that check their ground again: so nothing is lost by a change of leader. It
// places nothing: the scheduler does, when an evaluation tells it to look.
package deploy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/clock"
	"atoll/model"
)

// Config wires the loop.
type Config struct {
	Snapshot func() *state.Snapshot
	Apply    func(ctx context.Context, cmd cell.Command, body any) error
	Clock    clock.Clock
	Log      hclog.Logger
}

// pause bounds how often deployments are looked at: a large one is reported of a
// hundred times a second.
const pause = 100 * time.Millisecond

// Run watches deployments until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	items := aside.Items{Clock: cfg.Clock, Log: cfg.Log}
	for ctx.Err() == nil {
		ws := make(state.Watch)
		snap := cfg.Snapshot()
		var next time.Time
		acted := false
		for _, d := range snap.ActiveDeployments(ws) {
			var s step
			if until := items.Do("deployment", d.ID, func() { s = decide(snap, ws, d, cfg.Clock.Now()) }); !until.IsZero() {
				s.at = until
			}
			if !s.at.IsZero() && (next.IsZero() || s.at.Before(next)) {
				next = s.at
			}
			if s.body == nil {
				continue
			}
			acted = true
			switch err := cfg.Apply(ctx, s.cmd, s.body); {
			case err == nil:
				cfg.Log.Info(s.what, "deployment", d.ID, "job", d.JobID)
			case ctx.Err() != nil:
				return nil
			case model.KindOf(err) != model.KindConflict:
				cfg.Log.Warn("cannot go on with a deployment; trying again", "deployment", d.ID, "job", d.JobID, "error", err)
			}
		}
		if !acted {
			waitCtx, cancel := ctx, context.CancelFunc(func() {})
			if !next.IsZero() {
				waitCtx, cancel = context.WithTimeout(ctx, next.Sub(cfg.Clock.Now()))
			}
			_ = ws.WatchCtx(waitCtx)
			cancel()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// step is what to do about a deployment: a command, or nothing, and when to look
// again if nothing changes; zero for never.
type step struct {
	cmd  cell.Command
	body any
	what string
	at   time.Time
}

// group is what runs of one of a deployment's groups.
type group struct {
	healthy, canaries int
	// unhealthy is one that was found so, or failed, and was not replaced.
	unhealthy *model.AllocRow
}

// decide says what to do about an active deployment.
func decide(snap *state.Snapshot, ws state.Watch, d *model.Deployment, now time.Time) step {
	job := snap.Job(ws, d.Key())
	// One that was overtaken is the scheduler's to cancel.
	if d.Status != model.DeploymentRunning || job.Stopped() || job.CreateIndex != d.JobCreateIndex || job.Version != d.JobVersion {
		return step{}
	}
	groups, failed := look(snap, ws, d)
	var next time.Time
	done, promote := true, false
	automatic := true
	for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
		s, g := d.TaskGroups[name], groups[name]
		switch {
		case s.ProgressDeadline == 0 && g.unhealthy != nil:
			return failing(snap, d, fmt.Sprintf("failed because allocation %.8s of group %q is unhealthy", g.unhealthy.ID, name), s.AutoRevert, now)
		case s.Canarying() && g.canaries >= s.DesiredCanaries:
			// It waits for its promotion, for as long as that takes.
			promote, done = true, false
			automatic = automatic && s.AutoPromote
			continue
		case !s.Canarying() && g.healthy >= s.DesiredTotal:
			continue
		}
		done = false
		automatic = automatic && !s.Canarying()
		if by := s.RequireProgressBy; !by.IsZero() {
			if !now.Before(by) {
				why := fmt.Sprintf("failed because no allocation of group %q became healthy within its progress_deadline of %s", name, s.ProgressDeadline)
				if g.unhealthy != nil {
					why += fmt.Sprintf(", and allocation %.8s is unhealthy", g.unhealthy.ID)
				}
				return failing(snap, d, why, s.AutoRevert, now)
			}
			if next.IsZero() || by.Before(next) {
				next = by
			}
		}
	}
	switch {
	case done:
		end := model.DeploymentUpdate{DeploymentID: d.ID, Status: model.DeploymentSuccessful, StatusDescription: "deployment completed successfully"}
		if waitsForRegions(snap, ws, d) {
			end.Status, end.StatusDescription = model.DeploymentBlocked, "deployment is complete here, and waits for other regions"
		}
		return step{cmd: cell.CmdDeploymentStatus, what: "a deployment is done", body: &cell.DeploymentStatus{Update: end, Time: now.UnixNano()}}
	case promote && automatic:
		return step{cmd: cell.CmdDeploymentPromote, what: "a deployment's canaries are promoted", body: &cell.DeploymentPromote{
			DeploymentID: d.ID, Eval: NewEval(d, now), Time: now.UnixNano(),
		}}
	case len(failed) > 0:
		return step{cmd: cell.CmdAllocReschedule, what: "failed allocations of a deployment may be placed anew", body: &cell.AllocReschedule{
			IDs: failed, Eval: NewEval(d, now),
		}}
	}
	return step{at: next}
}

// waitsForRegions reports whether a deployment is this region's part of a rollout
// over several.
func waitsForRegions(snap *state.Snapshot, ws state.Watch, d *model.Deployment) bool {
	if !d.IsMultiregion {
		return false
	}
	c := snap.Cell(nil)
	if c == nil {
		return false
	}
	share := snap.Rollout(ws, d.Key()).Share(c.Region)
	return share != nil && share.State == model.ShareRunning && share.JobVersion == d.JobVersion
}

// look counts what runs of a deployment, by group, and finds the failed
// allocations that may not be placed anew yet.
func look(snap *state.Snapshot, ws state.Watch, d *model.Deployment) (map[string]*group, []model.UUID) {
	groups := make(map[string]*group, len(d.TaskGroups))
	for name := range d.TaskGroups {
		groups[name] = &group{}
	}
	id, _ := model.ParseUUID(d.ID)
	var failed []model.UUID
	rows, _ := snap.AllocsOfJob(ws, d.Key())
	for r := range rows {
		g := groups[r.Shared.Group]
		if r.Shared.DeploymentID != id || g == nil || r.ServerTerminal() || r.HasNext() {
			continue
		}
		status := r.DeploymentStatus()
		switch {
		case r.Client == model.ClientFailed || status.IsUnhealthy():
			g.unhealthy = r
			if r.Client == model.ClientFailed && !r.Transition().ShouldReschedule() {
				failed = append(failed, r.ID)
			}
		case r.ClientTerminal():
		case status.IsHealthy():
			g.healthy++
			if status.IsCanary() {
				g.canaries++
			}
		}
	}
	return groups, failed
}

func failing(snap *state.Snapshot, d *model.Deployment, why string, revert bool, now time.Time) step {
	return step{cmd: cell.CmdDeploymentStatus, what: "a deployment failed", body: Fail(snap, d, why, revert, now)}
}

// Fail is the command that fails a deployment and, if its job should and can,
// goes back to the job's last stable version.
func Fail(snap *state.Snapshot, d *model.Deployment, why string, revert bool, now time.Time) *cell.DeploymentStatus {
	c := &cell.DeploymentStatus{
		Update: model.DeploymentUpdate{DeploymentID: d.ID, Status: model.DeploymentFailed, StatusDescription: why},
		Eval:   NewEval(d, now), Time: now.UnixNano(),
	}
	if !revert {
		return c
	}
	job := snap.Job(nil, d.Key())
	stable := snap.StableVersion(d.Key(), d.JobVersion)
	switch {
	case job.Stopped() || job.Version != d.JobVersion:
	case stable == nil:
		c.Update.StatusDescription += "; there is no stable version of the job to revert to"
	case model.SameSpec(stable, job):
		c.Update.StatusDescription += fmt.Sprintf("; not reverting to stable version %d, which is the same", stable.Version)
	default:
		c.Update.StatusDescription += fmt.Sprintf("; reverting to version %d of the job", stable.Version)
		c.Revert = &cell.JobRevert{Key: d.Key(), Version: stable.Version, EnforcePrior: &job.Version, Eval: c.Eval, Time: c.Time}
	}
	return c
}

// NewEval is an evaluation that goes on with a deployment.
func NewEval(d *model.Deployment, now time.Time) *model.Evaluation {
	priority := d.EvalPriority
	if priority == 0 {
		priority = model.JobDefaultPriority
	}
	return &model.Evaluation{
		ID: model.NewUUID(nil).String(), Namespace: d.Namespace, JobID: d.JobID, Type: model.JobTypeService, Priority: priority,
		TriggeredBy: model.TriggerDeployment, DeploymentID: d.ID, Status: model.EvalPending, CreateTime: now.UnixNano(), ModifyTime: now.UnixNano(),
	}
}
