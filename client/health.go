package client

import (
	"time"

	"atoll/model"
)

// health is what a node finds out about one of its allocations: whether it works,
// so that a deployment may go on, or a drain. It is kept on disk, so that a
// restarted agent neither asks again nor grants more time.
//
//	unknown → healthy    its tasks have run for min_healthy_time without a restart
//	        → unhealthy  a task is dead, or healthy_deadline is over
//
// Both are final; another deployment begins anew.
type health struct {
	DeploymentID string
	// Since is when the allocation began to be watched.
	Since  time.Time
	Status *model.AllocDeploymentStatus
}

// healthPolicy is how health is found out; false when the node does not: the
// job's group says nothing of it, or leaves it to the API.
func healthPolicy(a *model.Allocation) (minHealthy, deadline time.Duration, ok bool) {
	g := a.Job.Group(a.TaskGroup)
	switch {
	case g == nil:
	case a.DeploymentID != "" && g.Update != nil:
		return g.Update.MinHealthyTime, g.Update.HealthyDeadline, g.Update.HealthCheck != model.HealthManual
	case a.DeploymentID == "" && g.Migrate != nil:
		return g.Migrate.MinHealthyTime, g.Migrate.HealthyDeadline, g.Migrate.HealthCheck != model.HealthManual
	}
	return 0, 0, false
}

// judge looks at the tasks. It reports whether h changed, and after how long to
// look again if nothing happens before; 0 for never.
func (h *health) judge(a *model.Allocation, tasks map[string]*model.TaskState, now time.Time) (changed bool, again time.Duration) {
	minHealthy, deadline, ok := healthPolicy(a)
	if !ok || a.ServerTerminal() {
		return false, 0
	}
	if h.Since.IsZero() || h.DeploymentID != a.DeploymentID {
		*h, changed = health{DeploymentID: a.DeploymentID, Since: now}, true
	}
	if h.Status != nil {
		return changed, 0
	}
	if s := a.DeploymentStatus; s != nil && s.Healthy != nil && a.DeploymentID != "" {
		return changed, 0 // an operator was first
	}
	steady := h.Since
	running := true
	for _, t := range tasks {
		switch {
		case t.State == model.TaskStateDead:
			return h.set(false, now), 0
		case t.State != model.TaskStateRunning:
			running = false
		case t.StartedAt.After(steady):
			steady = t.StartedAt
		}
	}
	if running && len(tasks) > 0 && now.Sub(steady) >= minHealthy {
		return h.set(true, now), 0
	}
	again = h.Since.Add(deadline).Sub(now)
	if again <= 0 {
		return h.set(false, now), 0
	}
	if running {
		again = min(again, minHealthy-now.Sub(steady))
	}
	return changed, again
}

func (h *health) set(healthy bool, now time.Time) bool {
	h.Status = &model.AllocDeploymentStatus{Healthy: &healthy, Timestamp: now.UTC()}
	return true
}
