package model

import (
	"cmp"
	"time"
)

// Canonicalize gives whatever was not given its default, of which some depend
// on the job's type. It may be called again and changes nothing then. Region is
// left to the server that takes the job.
func (j *Job) Canonicalize() {
	j.Name = cmp.Or(j.Name, j.ID)
	j.Namespace = cmp.Or(j.Namespace, DefaultNamespace)
	j.Type = cmp.Or(j.Type, JobTypeService)
	if j.Priority == 0 {
		j.Priority = JobDefaultPriority
	}
	if len(j.Datacenters) == 0 {
		j.Datacenters = []string{"*"}
	}
	j.NodePool = cmp.Or(j.NodePool, NodePoolDefault)
	if j.Multiregion != nil {
		j.Multiregion.canonicalize()
	}
	if j.Update == nil && j.Type == JobTypeService {
		j.Update = NewUpdateStrategy()
	}
	if j.Update != nil {
		j.Update.canonicalize(defaultUpdate())
	}
	if j.Migrate != nil {
		j.Migrate.canonicalize(defaultMigrate())
	}
	if j.Reschedule != nil {
		j.Reschedule.canonicalize(defaultReschedule(j.Type))
	}
	if j.Periodic != nil {
		j.Periodic.canonicalize()
	}
	if j.ParameterizedJob != nil {
		j.ParameterizedJob.canonicalize()
	}
	for _, g := range j.TaskGroups {
		if g != nil {
			g.canonicalize(j)
		}
	}
}

func (g *TaskGroup) canonicalize(j *Job) {
	if g.RestartPolicy == nil {
		g.RestartPolicy = NewRestartPolicy()
	}
	g.RestartPolicy.canonicalize(defaultRestart(j.Type))
	// Allocations of system jobs are bound to their nodes: they have no policy
	// unless one was written, which Validate refuses.
	if g.ReschedulePolicy == nil && (j.Reschedule != nil || !j.everywhere()) {
		g.ReschedulePolicy = NewReschedulePolicy()
	}
	if g.ReschedulePolicy != nil {
		g.ReschedulePolicy.canonicalize(orElse(j.Reschedule, defaultReschedule(j.Type)))
	}
	if g.EphemeralDisk == nil {
		g.EphemeralDisk = NewEphemeralDisk()
	}
	if g.Update == nil && j.Update != nil {
		g.Update = NewUpdateStrategy()
	}
	if g.Update != nil {
		g.Update.canonicalize(orElse(j.Update, defaultUpdate()))
	}
	if g.Migrate == nil && (j.Migrate != nil || j.Type == JobTypeService) {
		g.Migrate = NewMigrateStrategy()
	}
	if g.Migrate != nil {
		g.Migrate.canonicalize(orElse(j.Migrate, defaultMigrate()))
	}
	if g.Disconnect != nil {
		g.Disconnect.Reconcile = cmp.Or(g.Disconnect.Reconcile, ReconcileBestScore)
	}
	if g.Scaling != nil {
		g.Scaling.canonicalize(g.Count)
	}
	for _, t := range g.Tasks {
		if t != nil {
			t.canonicalize(g)
		}
	}
}

func (t *Task) canonicalize(g *TaskGroup) {
	if t.Resources == nil {
		t.Resources = NewResources()
	}
	if t.LogConfig == nil {
		t.LogConfig = NewLogConfig()
	}
	if t.RestartPolicy == nil {
		p := *g.RestartPolicy
		t.RestartPolicy = &p
	}
	t.RestartPolicy.canonicalize(g.RestartPolicy)
}

// defaultRestart is the restart policy of a job's type.
func defaultRestart(jobType string) *RestartPolicy {
	if jobType == JobTypeBatch || jobType == JobTypeSysBatch {
		return &RestartPolicy{Attempts: 3, Interval: 24 * time.Hour, Delay: 15 * time.Second, Mode: RestartModeFail}
	}
	return &RestartPolicy{Attempts: 2, Interval: 30 * time.Minute, Delay: 15 * time.Second, Mode: RestartModeFail}
}

func (p *RestartPolicy) canonicalize(d *RestartPolicy) {
	setUnset(&p.Attempts, d.Attempts)
	setUnsetTime(&p.Interval, d.Interval)
	setUnsetTime(&p.Delay, d.Delay)
	p.Mode = cmp.Or(p.Mode, d.Mode)
}

// defaultReschedule is the reschedule policy of a job's type.
func defaultReschedule(jobType string) *ReschedulePolicy {
	if jobType == JobTypeBatch {
		return &ReschedulePolicy{Attempts: 1, Interval: 24 * time.Hour, Delay: 5 * time.Second, DelayFunction: "constant"}
	}
	return &ReschedulePolicy{Delay: 30 * time.Second, DelayFunction: "exponential", MaxDelay: time.Hour, Unlimited: true}
}

func (p *ReschedulePolicy) canonicalize(d *ReschedulePolicy) {
	// Attempts without a word on unlimited mean a limit.
	if !p.UnlimitedGiven {
		p.Unlimited = d.Unlimited && p.Attempts <= 0
		p.UnlimitedGiven = true
	}
	setUnset(&p.Attempts, d.Attempts)
	setUnsetTime(&p.Interval, d.Interval)
	setUnsetTime(&p.Delay, d.Delay)
	setUnsetTime(&p.MaxDelay, d.MaxDelay)
	p.DelayFunction = cmp.Or(p.DelayFunction, d.DelayFunction)
}

// orElse is v, or d when there is none.
func orElse[T any](v, d *T) *T {
	if v != nil {
		return v
	}
	return d
}

// everywhere reports whether the job runs on every node that it may.
func (j *Job) everywhere() bool { return j.Type == JobTypeSystem || j.Type == JobTypeSysBatch }

func setUnset(v *int, d int) {
	if *v == Unset {
		*v = d
	}
}

func setUnsetTime(v *time.Duration, d time.Duration) {
	if *v == UnsetDuration {
		*v = d
	}
}
