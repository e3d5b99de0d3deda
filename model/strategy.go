package model

import (
	"cmp"
	"encoding/json"
	"time"
)

// How a group's allocations are changed: by a new version (UpdateStrategy), by
// a drain (MigrateStrategy), by a node that is out of touch
// (DisconnectStrategy).

// Ways to find out whether an allocation is healthy.
const (
	HealthChecks     = "checks"
	HealthTaskStates = "task_states"
	HealthManual     = "manual"
)

// UpdateStrategy says how a new version replaces the old. Numbers are Unset
// until what the job says for all groups is known.
type UpdateStrategy struct {
	// Stagger is the pause between steps of a system job.
	Stagger time.Duration
	// MaxParallel is how many are replaced at once; 0 replaces all at once,
	// without a deployment.
	MaxParallel     int
	HealthCheck     string
	MinHealthyTime  time.Duration
	HealthyDeadline time.Duration
	// ProgressDeadline of 0 fails a deployment at the first unhealthy
	// allocation.
	ProgressDeadline time.Duration
	// Canary is how many of the new version run beside the old until they
	// are promoted.
	Canary      int
	AutoRevert  bool
	AutoPromote bool
	// The given flags tell false from not given.
	AutoRevertGiven  bool `json:"-" codec:"AutoRevertGiven"`
	AutoPromoteGiven bool `json:"-" codec:"AutoPromoteGiven"`
}

// NewUpdateStrategy has nothing given.
func NewUpdateStrategy() *UpdateStrategy {
	return &UpdateStrategy{
		Stagger: UnsetDuration, MaxParallel: Unset, MinHealthyTime: UnsetDuration, HealthyDeadline: UnsetDuration,
		ProgressDeadline: UnsetDuration, Canary: Unset,
	}
}

// UnmarshalJSON decodes over NewUpdateStrategy.
func (u *UpdateStrategy) UnmarshalJSON(b []byte) error {
	type plain UpdateStrategy
	v := struct {
		*plain
		AutoRevert, AutoPromote *bool
	}{plain: (*plain)(NewUpdateStrategy())}
	err := json.Unmarshal(b, &v)
	*u = UpdateStrategy(*v.plain)
	if v.AutoRevert != nil {
		u.AutoRevert, u.AutoRevertGiven = *v.AutoRevert, true
	}
	if v.AutoPromote != nil {
		u.AutoPromote, u.AutoPromoteGiven = *v.AutoPromote, true
	}
	return err
}

// Rolls reports whether a new version comes step by step; u may be nil.
func (u *UpdateStrategy) Rolls() bool { return u != nil && u.MaxParallel > 0 }

// canonicalize takes what was not given from d.
func (u *UpdateStrategy) canonicalize(d *UpdateStrategy) {
	setUnsetTime(&u.Stagger, d.Stagger)
	setUnset(&u.MaxParallel, d.MaxParallel)
	u.HealthCheck = cmp.Or(u.HealthCheck, d.HealthCheck)
	setUnsetTime(&u.MinHealthyTime, d.MinHealthyTime)
	setUnsetTime(&u.HealthyDeadline, d.HealthyDeadline)
	setUnsetTime(&u.ProgressDeadline, d.ProgressDeadline)
	setUnset(&u.Canary, d.Canary)
	if !u.AutoRevertGiven {
		u.AutoRevert, u.AutoRevertGiven = d.AutoRevert, true
	}
	if !u.AutoPromoteGiven {
		u.AutoPromote, u.AutoPromoteGiven = d.AutoPromote, true
	}
}

// defaultUpdate is Nomad's.
func defaultUpdate() *UpdateStrategy {
	return &UpdateStrategy{
		Stagger: 30 * time.Second, MaxParallel: 1, HealthCheck: HealthChecks,
		MinHealthyTime: 10 * time.Second, HealthyDeadline: 5 * time.Minute, ProgressDeadline: 10 * time.Minute,
	}
}

// MigrateStrategy says how a drain moves a service's allocations. Numbers are
// Unset until what the job says for all groups is known.
type MigrateStrategy struct {
	MaxParallel     int
	HealthCheck     string
	MinHealthyTime  time.Duration
	HealthyDeadline time.Duration
}

// NewMigrateStrategy has nothing given.
func NewMigrateStrategy() *MigrateStrategy {
	return &MigrateStrategy{MaxParallel: Unset, MinHealthyTime: UnsetDuration, HealthyDeadline: UnsetDuration}
}

// UnmarshalJSON decodes over NewMigrateStrategy.
func (m *MigrateStrategy) UnmarshalJSON(b []byte) error {
	type plain MigrateStrategy
	v := plain(*NewMigrateStrategy())
	err := json.Unmarshal(b, &v)
	*m = MigrateStrategy(v)
	return err
}

func (m *MigrateStrategy) canonicalize(d *MigrateStrategy) {
	setUnset(&m.MaxParallel, d.MaxParallel)
	m.HealthCheck = cmp.Or(m.HealthCheck, d.HealthCheck)
	setUnsetTime(&m.MinHealthyTime, d.MinHealthyTime)
	setUnsetTime(&m.HealthyDeadline, d.HealthyDeadline)
}

// defaultMigrate is Nomad's.
func defaultMigrate() *MigrateStrategy {
	return &MigrateStrategy{MaxParallel: 1, HealthCheck: HealthChecks, MinHealthyTime: 10 * time.Second, HealthyDeadline: 5 * time.Minute}
}

// Which allocation goes on when a node is back whose allocations were replaced.
const (
	ReconcileBestScore       = "best_score"
	ReconcileKeepOriginal    = "keep_original"
	ReconcileKeepReplacement = "keep_replacement"
	ReconcileLongestRunning  = "longest_running"
)

// DisconnectStrategy says what becomes of allocations whose node is out of
// touch but may still run them.
type DisconnectStrategy struct {
	// LostAfter is how long they are unknown before they are given up for
	// lost; 0 gives them up at once.
	LostAfter time.Duration
	// StopOnClientAfter is when the node stops them itself; 0 for never.
	StopOnClientAfter time.Duration
	// Replace places others meanwhile; true when not given.
	Replace bool
	// Reconcile chooses between the two once the node is back.
	Reconcile string
}

// NewDisconnectStrategy has Nomad's defaults.
func NewDisconnectStrategy() *DisconnectStrategy {
	return &DisconnectStrategy{Replace: true, Reconcile: ReconcileBestScore}
}

// UnmarshalJSON decodes over NewDisconnectStrategy.
func (d *DisconnectStrategy) UnmarshalJSON(b []byte) error {
	type plain DisconnectStrategy
	v := plain(*NewDisconnectStrategy())
	err := json.Unmarshal(b, &v)
	*d = DisconnectStrategy(v)
	d.Reconcile = cmp.Or(d.Reconcile, ReconcileBestScore)
	return err
}
