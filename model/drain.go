package model

import "time"

// DrainStrategy is how a node is emptied.
type DrainStrategy struct {
	DrainSpec
	// ForceDeadline is when what is left is stopped regardless; zero for
	// never.
	ForceDeadline time.Time
	StartedAt     time.Time
}

// DrainSpec is what the operator asked for.
type DrainSpec struct {
	// Deadline is how long allocations may take to leave: 0 for as long as
	// they need, negative to stop them at once.
	Deadline time.Duration
	// IgnoreSystemJobs leaves system jobs where they are.
	IgnoreSystemJobs bool
}

// Forced reports whether what is left is to be stopped regardless.
func (d *DrainStrategy) Forced(now time.Time) bool {
	return d.Deadline < 0 || !d.ForceDeadline.IsZero() && !now.Before(d.ForceDeadline)
}

// DrainMetadata tells of a node's last drain, also after its end.
type DrainMetadata struct {
	StartedAt time.Time
	UpdatedAt time.Time
	Status    string
	// AccessorID is of the token that asked for it.
	AccessorID string
	// Meta is what the operator said of it.
	Meta map[string]string
}

// Statuses of a drain.
const (
	DrainDraining = "draining"
	DrainComplete = "complete"
	DrainCanceled = "canceled"
)

// DesiredTransition is what the server wants to happen to an allocation at the
// next evaluation of its job. A nil flag says nothing.
type DesiredTransition struct {
	// Migrate stops the allocation and places it elsewhere.
	Migrate *bool
	// Reschedule lets a failed allocation of a deployment be replaced,
	// ForceReschedule whatever its policy says.
	Reschedule      *bool
	ForceReschedule *bool
	// NoShutdownDelay stops without waiting shutdown_delay.
	NoShutdownDelay *bool
	// MigrateDisablePlacement makes Migrate stop only.
	MigrateDisablePlacement *bool
}

// ShouldMigrate reports whether the allocation is to leave its node; t may be
// nil, here and below.
func (t *DesiredTransition) ShouldMigrate() bool { return t != nil && isTrue(t.Migrate) }

// ShouldNotPlace reports whether the allocation is not to be placed elsewhere.
func (t *DesiredTransition) ShouldNotPlace() bool {
	return t != nil && isTrue(t.MigrateDisablePlacement)
}

// ShouldReschedule reports whether the allocation may be replaced within its
// deployment.
func (t *DesiredTransition) ShouldReschedule() bool {
	return t != nil && (isTrue(t.Reschedule) || isTrue(t.ForceReschedule))
}

// ShouldForceReschedule reports whether the allocation must be replaced.
func (t *DesiredTransition) ShouldForceReschedule() bool {
	return t != nil && isTrue(t.ForceReschedule)
}

func isTrue(b *bool) bool { return b != nil && *b }

// Merge returns t with what o says; t may be nil.
func (t *DesiredTransition) Merge(o *DesiredTransition) *DesiredTransition {
	var out DesiredTransition
	if t != nil {
		out = *t
	}
	for _, f := range []struct{ to, from **bool }{
		{&out.Migrate, &o.Migrate}, {&out.Reschedule, &o.Reschedule}, {&out.ForceReschedule, &o.ForceReschedule},
		{&out.NoShutdownDelay, &o.NoShutdownDelay}, {&out.MigrateDisablePlacement, &o.MigrateDisablePlacement},
	} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	return &out
}
