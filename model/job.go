package model

import (
	"encoding/json"
	"math"
	"path"
	"time"
)

// Job types, statuses and fixed names.
const (
	JobTypeService  = "service"
	JobTypeBatch    = "batch"
	JobTypeSystem   = "system"
	JobTypeSysBatch = "sysbatch"

	JobStatusPending = "pending"
	JobStatusRunning = "running"
	JobStatusDead    = "dead"

	DefaultNamespace = "default"
	// GlobalRegion in a job or a request means the region it came to.
	GlobalRegion = "global"
	// AllRegions in a query asks every region; AllNamespaces likewise.
	AllRegions      = "*"
	AllNamespaces   = "*"
	NodePoolDefault = "default"
	// NodePoolAll matches the nodes of every pool.
	NodePoolAll = "all"

	JobDefaultPriority = 50
	JobMinPriority     = 1
	JobMaxPriority     = 100
)

// Unset marks a number that was not given, in types whose default depends on
// something known only later (the job's type). Canonicalize leaves none.
const Unset = math.MinInt32

// UnsetDuration is Unset for durations.
const UnsetDuration = time.Duration(math.MinInt64)

// Job is the specification of work. A registered job is immutable: a change
// makes a new version.
type Job struct {
	// Region is the region the job runs in; "" or "global" in a submit
	// means the region of the request, and the stored job names the real one.
	Region    string
	Namespace string
	ID        string
	ParentID  string
	Name      string
	Type      string
	// Priority is from 1 to 100, higher first.
	Priority  int
	AllAtOnce bool
	// Datacenters are globs, of which a node's must match one.
	Datacenters []string
	NodePool    string
	Constraints []*Constraint
	TaskGroups  []*TaskGroup
	Update      *UpdateStrategy
	Meta        map[string]string
	Multiregion *Multiregion
	// Periodic and ParameterizedJob make the job one that runs as its children
	// only.
	Periodic         *PeriodicConfig
	ParameterizedJob *ParameterizedJobConfig

	// Blocks of Nomad's that this version refuses, kept as they came so
	// that Validate can name them. See Opaque.
	Affinities Opaque
	Spreads    Opaque
	Reschedule *ReschedulePolicy `json:",omitempty"`
	Migrate    *MigrateStrategy
	UI         Opaque

	// What follows is the server's to set.

	// Dispatched says that the job is a child of a parameterized one, made with
	// Payload, which is compressed (see CompressPayload), for the token.
	Dispatched               bool
	DispatchIdempotencyToken string
	Payload                  []byte
	// Stop is true once the job was stopped: nothing of it should run.
	Stop              bool
	Status            string
	StatusDescription string
	// Stable says that the version was deployed whole, so that one which fails
	// may go back to it.
	Stable bool
	// Version counts from 0 the specs registered under this id.
	Version uint64
	// VersionTag is the version's name, nil when it has none.
	VersionTag *JobVersionTag
	// SubmitTime is in Unix nanoseconds.
	SubmitTime int64
	// CreateIndex is the Raft index of the first version, ModifyIndex of the
	// last change of any kind, JobModifyIndex of the last change of the spec.
	CreateIndex    uint64
	ModifyIndex    uint64
	JobModifyIndex uint64
}

// JobVersionTag names a version of a job, which is then kept. TaggedTime is in
// Unix nanoseconds.
type JobVersionTag struct {
	Name        string
	Description string
	TaggedTime  int64
}

// JobID is a job's key: ids are unique in their namespace.
type JobID struct{ Namespace, ID string }

// Key returns the job's key.
func (j *Job) Key() JobID { return JobID{j.Namespace, j.ID} }

// Group returns the group called name, or nil.
func (j *Job) Group(name string) *TaskGroup {
	if j == nil {
		return nil
	}
	for _, g := range j.TaskGroups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Stopped reports whether nothing of the job should run: it was stopped, or runs
// as its children only.
func (j *Job) Stopped() bool { return j == nil || j.Stop || j.IsParent() }

// MatchesDatacenter reports whether dc matches one of the job's globs.
// Patterns follow path.Match; Validate refused malformed ones.
func (j *Job) MatchesDatacenter(dc string) bool {
	for _, glob := range j.Datacenters {
		if ok, err := path.Match(glob, dc); err == nil && ok {
			return true
		}
	}
	return false
}

// MatchesPool reports whether a node of the pool may run the job.
func (j *Job) MatchesPool(pool string) bool {
	return j.NodePool == NodePoolAll || j.NodePool == pool
}

// TaskGroup is a set of tasks that are placed together on one node.
type TaskGroup struct {
	Name string
	// Count is how many allocations should run; 1 when not given.
	Count            int
	Constraints      []*Constraint
	Tasks            []*Task
	RestartPolicy    *RestartPolicy
	ReschedulePolicy *ReschedulePolicy
	EphemeralDisk    *EphemeralDisk
	Update           *UpdateStrategy
	Networks         []*NetworkResource
	Meta             map[string]string
	Services         []*Service
	// ShutdownDelay is waited between deregistering and stopping.
	ShutdownDelay time.Duration

	Affinities     Opaque
	Spreads        Opaque
	Volumes        Opaque
	Disconnect     *DisconnectStrategy
	Migrate        *MigrateStrategy
	Scaling        *ScalingPolicy
	Consul         Opaque
	MaxRunDuration Opaque
	// Old forms that Nomad accepts and ignores with a warning.
	StopAfterClientDisconnect Opaque
	MaxClientDisconnect       Opaque
	PreventRescheduleOnLost   Opaque
}

// Task returns the task called name, or nil.
func (g *TaskGroup) Task(name string) *Task {
	for _, t := range g.Tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Task is one command or container.
type Task struct {
	Name   string
	Driver string
	User   string
	// Config is the driver's own; its shape is checked by the driver.
	Config        map[string]any
	Constraints   []*Constraint
	Env           map[string]string
	Services      []*Service
	Resources     *Resources
	RestartPolicy *RestartPolicy
	Meta          map[string]string
	// KillTimeout is between the kill signal and SIGKILL; 5 s when not
	// given.
	KillTimeout   time.Duration
	LogConfig     *LogConfig
	Leader        bool
	ShutdownDelay time.Duration
	// KillSignal is a name such as SIGTERM; "" is the driver's default.
	KillSignal string

	Kind            string
	Affinities      Opaque
	Lifecycle       Opaque
	Artifacts       Opaque
	Vault           Opaque
	Consul          Opaque
	Templates       Opaque
	DispatchPayload *DispatchPayloadConfig
	VolumeMounts    Opaque
	CSIPluginConfig Opaque `json:",omitempty"`
	ScalingPolicies Opaque
	Secrets         Opaque
	Identity        Opaque
	Identities      Opaque
	Actions         Opaque
	Schedule        Opaque
}

// Opaque holds a part of Nomad's job specification that this version does not
// act on, as it came. It is nil when absent, null or empty.
type Opaque []byte

// MarshalJSON returns the part as it came, null when absent.
func (o Opaque) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// UnmarshalJSON keeps b unless it says nothing.
func (o *Opaque) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null", "[]", "{}", `""`:
		*o = nil
	default:
		*o = append(Opaque(nil), b...)
	}
	return nil
}

// Constraint restricts the nodes that may be chosen: LTarget Operand RTarget.
type Constraint struct {
	LTarget string
	RTarget string
	Operand string
}

// Constraint operands; the comparison signs are themselves.
const (
	ConstraintVersion        = "version"
	ConstraintSemver         = "semver"
	ConstraintRegexp         = "regexp"
	ConstraintSetContains    = "set_contains"
	ConstraintSetContainsAll = "set_contains_all"
	ConstraintSetContainsAny = "set_contains_any"
	ConstraintIsSet          = "is_set"
	ConstraintIsNotSet       = "is_not_set"
	ConstraintDistinctHosts  = "distinct_hosts"
	ConstraintDistinctProp   = "distinct_property"
)

// String is the constraint as users and metrics name it.
func (c *Constraint) String() string {
	return c.LTarget + " " + c.Operand + " " + c.RTarget
}

// RestartPolicy says how often a node restarts a failed task before it gives
// the allocation up. Numbers are Unset until the job's type is known.
type RestartPolicy struct {
	Attempts        int
	Interval        time.Duration
	Delay           time.Duration
	Mode            string
	RenderTemplates bool
}

// Restart modes.
const (
	RestartModeFail  = "fail"
	RestartModeDelay = "delay"
)

// NewRestartPolicy has nothing given.
func NewRestartPolicy() *RestartPolicy {
	return &RestartPolicy{Attempts: Unset, Interval: UnsetDuration, Delay: UnsetDuration}
}

// UnmarshalJSON decodes over NewRestartPolicy.
func (p *RestartPolicy) UnmarshalJSON(b []byte) error {
	type plain RestartPolicy
	v := plain(*NewRestartPolicy())
	err := json.Unmarshal(b, &v)
	*p = RestartPolicy(v)
	return err
}

// ReschedulePolicy says how a failed allocation is placed anew.
type ReschedulePolicy struct {
	Attempts      int
	Interval      time.Duration
	Delay         time.Duration
	DelayFunction string
	MaxDelay      time.Duration
	Unlimited     bool
	// unlimitedGiven is kept apart, since false is a meaningful value.
	UnlimitedGiven bool `json:"-" codec:"UnlimitedGiven"`
}

// NewReschedulePolicy has nothing given.
func NewReschedulePolicy() *ReschedulePolicy {
	return &ReschedulePolicy{Attempts: Unset, Interval: UnsetDuration, Delay: UnsetDuration, MaxDelay: UnsetDuration}
}

// UnmarshalJSON decodes over NewReschedulePolicy.
func (p *ReschedulePolicy) UnmarshalJSON(b []byte) error {
	type plain ReschedulePolicy
	v := struct {
		*plain
		Unlimited *bool
	}{plain: (*plain)(NewReschedulePolicy())}
	err := json.Unmarshal(b, &v)
	*p = ReschedulePolicy(*v.plain)
	if v.Unlimited != nil {
		p.Unlimited, p.UnlimitedGiven = *v.Unlimited, true
	}
	return err
}

// EphemeralDisk is the scratch space that an allocation's tasks share.
type EphemeralDisk struct {
	Sticky  bool
	Migrate bool
	// SizeMB is 300 when not given.
	SizeMB int
}

// NewEphemeralDisk has Nomad's defaults.
func NewEphemeralDisk() *EphemeralDisk { return &EphemeralDisk{SizeMB: 300} }

// UnmarshalJSON decodes over NewEphemeralDisk.
func (d *EphemeralDisk) UnmarshalJSON(b []byte) error {
	type plain EphemeralDisk
	v := plain(*NewEphemeralDisk())
	err := json.Unmarshal(b, &v)
	*d = EphemeralDisk(v)
	return err
}

// LogConfig bounds a task's logs: MaxFiles files of MaxFileSizeMB each, per
// stream.
type LogConfig struct {
	MaxFiles      int
	MaxFileSizeMB int
	Disabled      bool
}

// NewLogConfig has Nomad's defaults.
func NewLogConfig() *LogConfig { return &LogConfig{MaxFiles: 10, MaxFileSizeMB: 10} }

// UnmarshalJSON decodes over NewLogConfig; Enabled is the old inverse of
// Disabled.
func (l *LogConfig) UnmarshalJSON(b []byte) error {
	type plain LogConfig
	v := struct {
		*plain
		Enabled *bool
	}{plain: (*plain)(NewLogConfig())}
	err := json.Unmarshal(b, &v)
	*l = LogConfig(*v.plain)
	if v.Enabled != nil && !*v.Enabled {
		l.Disabled = true
	}
	return err
}

// Service is a named endpoint of a group or task. It is kept with the job;
// this version registers it nowhere, and says so in a warning.
type Service struct {
	Name        string
	PortLabel   string
	Provider    string
	Tags        []string
	CanaryTags  []string
	AddressMode string
	Address     string
	TaskName    string
	OnUpdate    string
	Meta        map[string]string
	CanaryMeta  map[string]string

	EnableTagOverride bool
	Checks            Opaque
	CheckRestart      Opaque
	Connect           Opaque
	TaggedAddresses   Opaque
	Identity          Opaque
	Weights           Opaque
	Cluster           string
	Kind              string
}

// UnmarshalJSON sets the group's defaults before decoding.
func (g *TaskGroup) UnmarshalJSON(b []byte) error {
	type plain TaskGroup
	v := plain(TaskGroup{Count: Unset})
	err := json.Unmarshal(b, &v)
	*g = TaskGroup(v)
	g.DefaultCount()
	return err
}

// DefaultCount sets a count that was not given: the least that the group may be
// scaled to, else 1.
func (g *TaskGroup) DefaultCount() {
	if g.Count == Unset {
		g.Count = 1
		if g.Scaling != nil && g.Scaling.Min != Unset {
			g.Count = int(g.Scaling.Min)
		}
	}
}

// UnmarshalJSON sets the task's defaults before decoding.
func (t *Task) UnmarshalJSON(b []byte) error {
	type plain Task
	v := plain(Task{KillTimeout: DefaultKillTimeout})
	err := json.Unmarshal(b, &v)
	*t = Task(v)
	return err
}

// DefaultKillTimeout is between a task's kill signal and SIGKILL.
const DefaultKillTimeout = 5 * time.Second

// UnmarshalJSON sets the job's defaults before decoding.
func (j *Job) UnmarshalJSON(b []byte) error {
	type plain Job
	v := plain(Job{Priority: JobDefaultPriority})
	err := json.Unmarshal(b, &v)
	*j = Job(v)
	return err
}
