package model

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// ScalingTypeHorizontal changes counts; it is the one type.
const ScalingTypeHorizontal = "horizontal"

// Keys of a scaling target.
const (
	ScalingTargetNamespace = "Namespace"
	ScalingTargetJob       = "Job"
	ScalingTargetGroup     = "Group"
)

// ScalingPolicy bounds a group's count, and tells an autoscaler how to choose it:
// Policy is its own, and nobody else's to read.
type ScalingPolicy struct {
	Type string
	// Min is the group's count when not given; Max must be given.
	Min, Max int64
	Policy   map[string]any
	// Enabled is true when not given. It is for autoscalers: the bounds hold
	// either way.
	Enabled bool

	// What follows is the server's to set. CreateIndex is of the policy, and
	// ModifyIndex of its last change.
	ID          string
	Namespace   string
	Target      map[string]string
	CreateIndex uint64
	ModifyIndex uint64
}

// NewScalingPolicy has nothing given.
func NewScalingPolicy() *ScalingPolicy {
	return &ScalingPolicy{Min: Unset, Max: Unset, Enabled: true}
}

// UnmarshalJSON decodes over NewScalingPolicy.
func (p *ScalingPolicy) UnmarshalJSON(b []byte) error {
	type plain ScalingPolicy
	v := plain(*NewScalingPolicy())
	err := json.Unmarshal(b, &v)
	*p = ScalingPolicy(v)
	return err
}

func (p *ScalingPolicy) canonicalize(count int) {
	if p.Type == "" {
		p.Type = ScalingTypeHorizontal
	}
	if p.Min == Unset {
		p.Min = int64(count)
	}
}

func (p *ScalingPolicy) check(f *faults, at string, count int) {
	switch {
	case p.Type != ScalingTypeHorizontal:
		f.without(at+".type", fmt.Sprintf("the type %q", p.Type))
	case p.Max == Unset:
		f.add(at+".max", "it is missing; give the most allocations that the group may have")
	case p.Min < 0:
		f.add(at+".min", "%d is negative", p.Min)
	case p.Max < p.Min:
		f.add(at+".max", "%d is below min, %d", p.Max, p.Min)
	case int64(count) < p.Min || int64(count) > p.Max:
		f.add(at, "count is %d, and not from min, %d, to max, %d", count, p.Min, p.Max)
	}
	checkNesting(f, at+".policy", p.Policy)
	if b, err := json.Marshal(p.Policy); err != nil || len(b) > maxMetaBytes {
		f.add(at+".policy", "%d bytes are over the limit of %d", len(b), maxMetaBytes)
	}
}

// sameAs reports whether two policies say the same in what a user writes.
func (p *ScalingPolicy) sameAs(o *ScalingPolicy) bool {
	return o != nil && p.Type == o.Type && p.Min == o.Min && p.Max == o.Max && p.Enabled == o.Enabled && sameFree(p.Policy, o.Policy)
}

// sameFree compares what may have come by encodings with other kinds of numbers.
func sameFree(a, b map[string]any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// ScalingPolicies are the job's policies, in the order of its groups; a job that
// is stopped has none.
func (j *Job) ScalingPolicies() (out []*ScalingPolicy) {
	if j.Stopped() {
		return nil
	}
	for _, g := range j.TaskGroups {
		if g.Scaling != nil {
			out = append(out, g.Scaling)
		}
	}
	return out
}

// StampScaling gives the policies of a job what the server sets, at a Raft index:
// one that old has too keeps its id. What j shares with others is copied first.
func (j *Job) StampScaling(old *Job, index uint64) {
	var groups []*TaskGroup
	for i, g := range j.TaskGroups {
		if g.Scaling == nil {
			continue
		}
		p := *g.Scaling
		p.Namespace = j.Namespace
		p.Target = map[string]string{ScalingTargetNamespace: j.Namespace, ScalingTargetJob: j.ID, ScalingTargetGroup: g.Name}
		p.ID, p.CreateIndex, p.ModifyIndex = policyID(j, g.Name, index), index, index
		if was := old.Group(g.Name); was != nil && was.Scaling != nil {
			p.ID, p.CreateIndex = was.Scaling.ID, was.Scaling.CreateIndex
			if p.sameAs(was.Scaling) {
				p.ModifyIndex = was.Scaling.ModifyIndex
			}
		}
		if groups == nil {
			groups = slices.Clone(j.TaskGroups)
		}
		c := *g
		c.Scaling = &p
		groups[i] = &c
	}
	if groups != nil {
		j.TaskGroups = groups
	}
}

// policyID is the same on every server that applies the same entry of the log.
func policyID(j *Job, group string, index uint64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "scaling policy\x00%s\x00%s\x00%s\x00%d", j.Namespace, j.ID, group, index))
	var u UUID
	copy(u[:], sum[:])
	u[6] = u[6]&0x0f | 0x80 // version 8, RFC 9562: made by our own rule
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}

// WithCount is the job with another count of a group, or a refusal: of a group that
// there is none of, of a count that the group's policy or the job's type does not
// allow.
func (j *Job) WithCount(group string, count int64) (*Job, error) {
	refuse := func(format string, args ...any) error {
		return Invalidf("Count", "cannot scale group %q of job %q: %s", group, j.ID, fmt.Sprintf(format, args...))
	}
	g := j.Group(group)
	if g == nil {
		return nil, Invalidf("Target", "cannot scale job %q: it has no group %q", j.ID, group)
	}
	total := count
	for _, o := range j.TaskGroups {
		if o != g {
			total += int64(o.Count)
		}
	}
	p := g.Scaling
	switch {
	case count < 0:
		return nil, refuse("the count %d is negative", count)
	case j.everywhere() && count > 1:
		return nil, refuse("a %s job runs once on each node; scale it to 0 or 1", j.Type)
	case p != nil && count < p.Min:
		return nil, refuse("%d is below the minimum of its scaling policy, %d", count, p.Min)
	case p != nil && count > p.Max:
		return nil, refuse("%d is above the maximum of its scaling policy, %d", count, p.Max)
	case count > maxCount || total > maxCount:
		return nil, refuse("%d allocations are over the limit of %d for a job", total, maxCount)
	}
	out := *j
	out.TaskGroups = slices.Clone(j.TaskGroups)
	scaled := *g
	scaled.Count = int(count)
	out.TaskGroups[slices.Index(j.TaskGroups, g)] = &scaled
	return &out, nil
}

// KeepCounts gives groups that old has the count that they have there, as far as
// their policies allow.
func (j *Job) KeepCounts(old *Job) {
	if old == nil {
		return
	}
	groups := slices.Clone(j.TaskGroups)
	for i, g := range groups {
		was := old.Group(g.Name)
		if was == nil {
			continue
		}
		c := *g
		c.Count = was.Count
		if p := g.Scaling; p != nil {
			c.Count = int(min(max(int64(c.Count), p.Min), p.Max))
		}
		groups[i] = &c
	}
	j.TaskGroups = groups
}

// ScalingEvent is a scaling of a group, or what somebody had to say of one.
type ScalingEvent struct {
	// Count is what was asked for, nil for an event that changed nothing.
	Count         *int64
	PreviousCount int64
	Error         bool
	Message       string
	Meta          map[string]any
	EvalID        *string
	// Time is in Unix nanoseconds.
	Time        uint64
	CreateIndex uint64
}

// ScalingEventsKept bounds the events of a group that are kept.
const ScalingEventsKept = 20

// JobScaling is a job's scaling events: by group, newest first.
type JobScaling struct {
	Namespace, JobID string
	Events           map[string][]*ScalingEvent
	ModifyIndex      uint64
}

// With is s and one more event of a group; s may be nil.
func (s *JobScaling) With(key JobID, group string, e *ScalingEvent) *JobScaling {
	out := &JobScaling{Namespace: key.Namespace, JobID: key.ID, ModifyIndex: e.CreateIndex}
	if s != nil {
		out.Events = maps.Clone(s.Events)
	}
	if out.Events == nil {
		out.Events = make(map[string][]*ScalingEvent)
	}
	kept := out.Events[group]
	out.Events[group] = append([]*ScalingEvent{e}, kept[:min(len(kept), ScalingEventsKept-1)]...)
	return out
}

// JobScaleStatus is how a job's groups are scaled.
type JobScaleStatus struct {
	JobID          string
	Namespace      string
	JobCreateIndex uint64
	JobModifyIndex uint64
	JobStopped     bool
	TaskGroups     map[string]*GroupScaleStatus
}

// GroupScaleStatus counts a group's allocations: wanted, not over, running, and
// found healthy or not.
type GroupScaleStatus struct {
	Desired, Placed, Running, Healthy, Unhealthy int
	Events                                       []*ScalingEvent
}

// ScalingPolicyStub is a policy's row in a list.
type ScalingPolicyStub struct {
	Region      string `json:",omitempty"`
	ID          string
	Enabled     bool
	Type        string
	Target      map[string]string
	CreateIndex uint64
	ModifyIndex uint64
}

// Stub is the policy's row in a list.
func (p *ScalingPolicy) Stub() *ScalingPolicyStub {
	return &ScalingPolicyStub{ID: p.ID, Enabled: p.Enabled, Type: p.Type, Target: p.Target, CreateIndex: p.CreateIndex, ModifyIndex: p.ModifyIndex}
}
