package model

import "time"

// Deployment statuses. A deployment begins as running (as pending when it waits
// for another region) and ends as successful, failed or cancelled; the
// scheduler creates and cancels deployments, the deployment watcher and
// operators do the rest.
const (
	DeploymentInitializing = "initializing"
	DeploymentPending      = "pending"
	DeploymentRunning      = "running"
	DeploymentPaused       = "paused"
	DeploymentBlocked      = "blocked"
	DeploymentUnblocking   = "unblocking"
	DeploymentSuccessful   = "successful"
	DeploymentFailed       = "failed"
	DeploymentCancelled    = "cancelled"
)

// Deployment is the replacement of a job's running version by a new one, group
// by group, as fast as allocations prove healthy.
type Deployment struct {
	ID        string
	Namespace string
	JobID     string
	// JobVersion, JobModifyIndex, JobSpecModifyIndex (the job's
	// JobModifyIndex) and JobCreateIndex say which spec is rolled out.
	JobVersion         uint64
	JobModifyIndex     uint64
	JobSpecModifyIndex uint64
	JobCreateIndex     uint64
	IsMultiregion      bool
	// TaskGroups are the groups that roll; one without an update block is
	// not among them.
	TaskGroups        map[string]*DeploymentState
	Status            string
	StatusDescription string
	// EvalPriority is that of evaluations made for the deployment.
	EvalPriority int
	CreateIndex  uint64
	ModifyIndex  uint64
	// CreateTime and ModifyTime are in Unix nanoseconds.
	CreateTime int64
	ModifyTime int64
}

// DeploymentState is how far a group is. The desired numbers are the
// scheduler's; the store counts the others as it applies plans and reports.
type DeploymentState struct {
	AutoRevert  bool
	AutoPromote bool
	// ProgressDeadline is within how long another allocation must become
	// healthy; 0 fails the deployment at the first unhealthy one.
	ProgressDeadline time.Duration
	// RequireProgressBy is when the next must be healthy; zero without a
	// deadline.
	RequireProgressBy time.Time
	// Promoted says that canaries were found good. DesiredCanaries is 0 when
	// there is nothing to promote.
	Promoted        bool
	PlacedCanaries  []string
	DesiredCanaries int
	DesiredTotal    int
	PlacedAllocs    int
	HealthyAllocs   int
	UnhealthyAllocs int
}

// Key is the key of the deployed job.
func (d *Deployment) Key() JobID { return JobID{d.Namespace, d.JobID} }

// Active reports whether the deployment still goes on, or may again.
func (d *Deployment) Active() bool {
	switch d.Status {
	case DeploymentInitializing, DeploymentPending, DeploymentRunning, DeploymentPaused, DeploymentBlocked, DeploymentUnblocking:
		return true
	}
	return false
}

// Awaits reports whether the deployment only stands for one that its region will
// begin when its turn has come: the job is still what it was.
func (d *Deployment) Awaits() bool { return d.IsMultiregion && d.Status == DeploymentPending }

// Begun reports whether a deployment has begun: one that waits for its region's
// turn may end before that comes.
func (d *Deployment) Begun() bool { return !d.IsMultiregion || d.JobModifyIndex > 0 }

// Reverts reports whether the job goes back to its last stable version when the
// deployment fails as a whole: a group says auto_revert.
func (d *Deployment) Reverts() bool {
	for _, g := range d.TaskGroups {
		if g.AutoRevert {
			return true
		}
	}
	return false
}

// RequiresPromotion reports whether canaries of a group wait to be promoted.
func (d *Deployment) RequiresPromotion() bool {
	for _, s := range d.TaskGroups {
		if s.Canarying() {
			return true
		}
	}
	return false
}

// Canarying reports whether the group holds until its canaries are promoted; a
// nil state does not.
func (s *DeploymentState) Canarying() bool {
	return s != nil && s.DesiredCanaries > 0 && !s.Promoted
}

// Progressed gives the group its whole ProgressDeadline from now on.
func (s *DeploymentState) Progressed(now time.Time) {
	if by := now.Add(s.ProgressDeadline).UTC(); s.ProgressDeadline > 0 && by.After(s.RequireProgressBy) {
		s.RequireProgressBy = by
	}
}

// DeploymentUpdate changes a deployment's status.
type DeploymentUpdate struct {
	DeploymentID      string
	Status            string
	StatusDescription string
}

// AllocDeploymentStatus is how an allocation fares in its deployment.
type AllocDeploymentStatus struct {
	// Healthy is nil until it is known; Timestamp is when it was.
	Healthy   *bool
	Timestamp time.Time
	// Canary is true until the canary was promoted.
	Canary      bool
	ModifyIndex uint64
}

// IsHealthy and IsUnhealthy are both false as long as neither is known; s may
// be nil.
func (s *AllocDeploymentStatus) IsHealthy() bool {
	return s != nil && s.Healthy != nil && *s.Healthy
}

// IsUnhealthy reports whether the allocation was found unhealthy.
func (s *AllocDeploymentStatus) IsUnhealthy() bool {
	return s != nil && s.Healthy != nil && !*s.Healthy
}

// IsCanary reports whether the allocation waits to be promoted; s may be nil.
func (s *AllocDeploymentStatus) IsCanary() bool { return s != nil && s.Canary }
