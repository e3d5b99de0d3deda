package model

import (
	"slices"
	"time"
)

// checkStrategies checks what a group says of updates, drains and nodes that
// are out of touch, and which of it a job of its type may say.
func (g *TaskGroup) checkStrategies(f *faults, at, jobType string) {
	only := func(block string, given bool, types ...string) {
		if given && !slices.Contains(types, jobType) {
			f.add(at+"."+block, "a %s job has none; remove the block", jobType)
		}
	}
	only("update", g.Update != nil, JobTypeService, JobTypeSystem)
	only("migrate", g.Migrate != nil, JobTypeService)
	only("reschedule", g.ReschedulePolicy != nil, JobTypeService, JobTypeBatch)
	if jobType == JobTypeSystem && g.Count > 1 {
		f.add(at+".count", "%d: a system job runs once on each node; leave the count out", g.Count)
	}
	if g.Update != nil {
		g.Update.check(f, at+".update", jobType)
	}
	if m := g.Migrate; m != nil {
		checkHealth(f, at+".migrate", m.HealthCheck, m.MinHealthyTime, m.HealthyDeadline)
		if m.MaxParallel < 1 {
			f.add(at+".migrate.max_parallel", "%d is below 1", m.MaxParallel)
		}
	}
	if g.Disconnect != nil {
		g.Disconnect.check(f, at+".disconnect", jobType)
	}
}

func (u *UpdateStrategy) check(f *faults, at, jobType string) {
	checkHealth(f, at, u.HealthCheck, u.MinHealthyTime, u.HealthyDeadline)
	if u.MaxParallel < 0 {
		f.add(at+".max_parallel", "%d is negative", u.MaxParallel)
	}
	switch {
	case u.Canary < 0:
		f.add(at+".canary", "%d is negative", u.Canary)
	case u.Canary == 0 && u.AutoPromote:
		f.add(at+".auto_promote", "there is nothing to promote; give canary, or remove it")
	case u.Canary > 0 && jobType == JobTypeSystem:
		f.without(at+".canary", "canary in a system job")
	}
	switch {
	case u.ProgressDeadline < 0:
		f.add(at+".progress_deadline", "%s is negative", u.ProgressDeadline)
	case u.ProgressDeadline > 0 && u.ProgressDeadline <= u.HealthyDeadline:
		f.add(at+".progress_deadline", "%s is not above healthy_deadline, %s", u.ProgressDeadline, u.HealthyDeadline)
	}
	if u.Stagger <= 0 {
		f.add(at+".stagger", "%s is not above 0", u.Stagger)
	}
}

func checkHealth(f *faults, at, how string, minHealthy, deadline time.Duration) {
	switch how {
	case HealthChecks, HealthTaskStates, HealthManual:
	default:
		f.add(at+".health_check", "%q is none of checks, task_states, manual", how)
	}
	if minHealthy < 0 {
		f.add(at+".min_healthy_time", "%s is negative", minHealthy)
	}
	if deadline <= minHealthy {
		f.add(at+".healthy_deadline", "%s is not above min_healthy_time, %s", deadline, minHealthy)
	}
}

func (d *DisconnectStrategy) check(f *faults, at, jobType string) {
	switch d.Reconcile {
	case ReconcileBestScore, ReconcileKeepOriginal, ReconcileKeepReplacement, ReconcileLongestRunning:
	default:
		f.add(at+".reconcile", "%q is none of best_score, keep_original, keep_replacement, longest_running", d.Reconcile)
	}
	if d.LostAfter < 0 {
		f.add(at+".lost_after", "%s is negative", d.LostAfter)
	}
	if d.StopOnClientAfter < 0 {
		f.add(at+".stop_on_client_after", "%s is negative", d.StopOnClientAfter)
	}
	if d.LostAfter > 0 && d.StopOnClientAfter > 0 {
		f.add(at, "lost_after and stop_on_client_after exclude each other; give one of them")
	}
	if d.StopOnClientAfter > 0 && jobType != JobTypeService && jobType != JobTypeBatch {
		f.add(at+".stop_on_client_after", "a %s job has none", jobType)
	}
}
