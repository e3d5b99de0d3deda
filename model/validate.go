package model

import (
	"bytes"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Bounds of a job; each is far above what people write and below what would
// hurt a server.
const (
	maxIDLen     = 256
	maxGroups    = 200
	maxTasks     = 100
	maxCount     = 1_000_000
	maxMetaBytes = 64 << 10
)

// Bounds of what is said about a job: how many faults are told, and how much of
// each, since they quote what was submitted.
const (
	maxFaults   = 10
	maxFaultLen = 600
)

// faults collects what is wrong with a job.
type faults struct{ list []*Error }

func (f *faults) add(field, format string, args ...any) {
	f.list = append(f.list, &Error{Kind: KindInvalid, Field: field, Message: field + ": " + fmt.Sprintf(format, args...)})
}

func (f *faults) without(field, what string) {
	f.list = append(f.list, &Error{Kind: KindUnsupported, Field: field, Message: field + ": " + what + " is not supported by this version of Atoll; remove it"})
}

// JoinFaults makes one error of several: of kind Invalid, or Unsupported when all
// are; nil when there are none. The field is the first's.
func JoinFaults(prefix string, faults []*Error) error {
	if len(faults) == 0 {
		return nil
	}
	e := &Error{Kind: KindUnsupported, Field: clip(faults[0].Field)}
	var lines []string
	for _, f := range faults {
		if f.Kind != KindUnsupported {
			e.Kind = KindInvalid
		}
		lines = append(lines, clip(f.Message))
	}
	if n := len(lines) - maxFaults; n > 0 {
		lines = append(lines[:maxFaults], fmt.Sprintf("and %d more", n))
	}
	e.Message = prefix + strings.Join(lines, "; ")
	return e
}

func clip(s string) string {
	if len(s) <= maxFaultLen {
		return s
	}
	return strings.ToValidUTF8(s[:maxFaultLen], "") + "…"
}

// refuse words what is wrong with a job.
func (j *Job) refuse(faults []*Error) error {
	return JoinFaults(fmt.Sprintf("cannot accept job %.*q: ", maxIDLen, j.ID), faults)
}

// CheckTasks asks check of each task, and words what it says in one error.
func (j *Job) CheckTasks(check func(*Task) error) error { return j.refuse(j.TaskFaults(check)) }

// TaskFaults are what check says of each task, with the task's place in the job.
func (j *Job) TaskFaults(check func(*Task) error) (faults []*Error) {
	for _, g := range j.TaskGroups {
		for _, t := range g.Tasks {
			err := check(t)
			if err == nil {
				continue
			}
			at := fmt.Sprintf("group %q > task %q", g.Name, t.Name)
			f := *AsError(err)
			f.Message = at + ": " + f.Message
			if f.Field != "" {
				at += "." + f.Field
			}
			f.Field = at
			faults = append(faults, &f)
		}
	}
	return faults
}

// Validate says what is wrong with a canonical job, in one error. Warnings are
// sentences about what has no effect.
func (j *Job) Validate() (warnings []string, err error) {
	faults, warnings := j.Faults()
	return warnings, j.refuse(faults)
}

// Faults are all that is wrong with a canonical job: each with its field, its
// value and the remedy, of kind Invalid or Unsupported.
func (j *Job) Faults() (list []*Error, warnings []string) {
	f := &faults{}
	checkID(f, "job.id", j.ID)
	if j.Priority < JobMinPriority || j.Priority > JobMaxPriority {
		f.add("job.priority", "%d is not from %d to %d", j.Priority, JobMinPriority, JobMaxPriority)
	}
	switch j.Type {
	case JobTypeService, JobTypeBatch, JobTypeSystem, JobTypeSysBatch:
	default:
		f.add("job.type", "%q is none of service, batch, system, sysbatch", j.Type)
	}
	for _, dc := range j.Datacenters {
		if _, err := path.Match(dc, ""); err != nil || dc == "" {
			f.add("job.datacenters", "%q is no pattern; write a name, or * and ? for parts of it", dc)
		}
	}
	for _, b := range []struct {
		name string
		raw  Opaque
	}{{"affinity", j.Affinities}, {"spread", j.Spreads}} {
		if b.raw != nil {
			f.without("job."+b.name, "the "+b.name+" block")
		}
	}
	if j.Multiregion != nil {
		j.Multiregion.check(f, j)
	}
	checkConstraints(f, "job", j.Constraints)
	checkMeta(f, "job.meta", j.Meta)
	warnings = j.checkPeriodic(f)
	j.checkParameterized(f)
	switch {
	case len(j.TaskGroups) == 0:
		f.add("job.group", "there is none; a job has at least one group")
	case len(j.TaskGroups) > maxGroups:
		f.add("job.group", "%d groups are over the limit of %d", len(j.TaskGroups), maxGroups)
	}
	seen := make(map[string]bool)
	for i, g := range j.TaskGroups {
		if g == nil {
			f.add(fmt.Sprintf("job.group[%d]", i), "it is null")
			continue
		}
		if seen[g.Name] {
			f.add(fmt.Sprintf("group %.*q", maxIDLen, g.Name), "there are two groups of this name")
		}
		seen[g.Name] = true
		warnings = append(warnings, g.validate(f, j.Type)...)
	}
	if total := j.total(0); total > maxCount {
		f.add("group.count", "%d allocations are over the limit of %d for a job", total, maxCount)
	}
	return f.list, warnings
}

func checkID(f *faults, field, id string) {
	switch {
	case id == "":
		f.add(field, "it is empty; give it a name")
	case len(id) > maxIDLen:
		f.add(field, "%d bytes are over the limit of %d", len(id), maxIDLen)
	case strings.IndexFunc(id, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar }) >= 0:
		f.add(field, "%q has spaces or unprintable characters", id)
	}
}

// checkName is for names that become parts of file names.
func checkName(f *faults, field, name string) {
	checkID(f, field, name)
	if strings.ContainsAny(name, `/\`) || name == "." || name == ".." {
		f.add(field, "%q cannot be part of a file name; use letters, digits, dashes, underscores and dots", name)
	}
}

func checkMeta(f *faults, field string, meta map[string]string) {
	size := 0
	for k, v := range meta {
		size += len(k) + len(v)
		if k == "" || strings.ContainsRune(k, 0) || strings.ContainsRune(v, 0) {
			f.add(field, "the key %q is empty or holds a zero byte", k)
		}
	}
	if size > maxMetaBytes {
		f.add(field, "%d bytes are over the limit of %d", size, maxMetaBytes)
	}
}

func (g *TaskGroup) validate(f *faults, jobType string) (warnings []string) {
	// A name over the limit is refused, and not quoted whole in every field.
	at := fmt.Sprintf("group %.*q", maxIDLen, g.Name)
	checkName(f, at+".name", g.Name)
	if g.Count < 0 {
		f.add(at+".count", "%d is negative; give 0 or more", g.Count)
	}
	for _, b := range []struct {
		name string
		raw  Opaque
	}{{"affinity", g.Affinities}, {"spread", g.Spreads}, {"volume", g.Volumes}, {"consul", g.Consul}} {
		if b.raw != nil {
			f.without(at+"."+b.name, "the "+b.name+" block")
		}
	}
	if nonZero(g.MaxRunDuration) {
		f.without(at+".max_run_duration", "it")
	}
	for _, b := range []struct {
		name string
		raw  Opaque
	}{{"stop_after_client_disconnect", g.StopAfterClientDisconnect}, {"max_client_disconnect", g.MaxClientDisconnect}, {"prevent_reschedule_on_lost", g.PreventRescheduleOnLost}} {
		if nonZero(b.raw) {
			warnings = append(warnings, at+": "+b.name+" is an old form without effect")
		}
	}
	checkConstraints(f, at, g.Constraints)
	checkMeta(f, at+".meta", g.Meta)
	checkRestart(f, at+".restart", g.RestartPolicy)
	checkReschedule(f, at+".reschedule", g.ReschedulePolicy)
	g.checkStrategies(f, at, jobType)
	if g.Scaling != nil {
		g.Scaling.check(f, at+".scaling", g.Count)
	}
	if g.EphemeralDisk != nil && g.EphemeralDisk.SizeMB < 0 {
		f.add(at+".ephemeral_disk.size", "%d MB is negative", g.EphemeralDisk.SizeMB)
	}
	if g.ShutdownDelay < 0 {
		f.add(at+".shutdown_delay", "%s is negative", g.ShutdownDelay)
	}
	warnings = append(warnings, checkServices(f, at, g.Services)...)
	if g.Update != nil && g.Update.HealthCheck == HealthChecks && g.hasChecks() {
		warnings = append(warnings, at+": this version runs no checks of services, so that health_check = \"checks\" looks at the states of tasks only")
	}
	ports := make(map[string]bool)
	checkNetworks(f, at+".network", g.Networks, ports)
	switch {
	case len(g.Tasks) == 0:
		f.add(at+".task", "there is none; a group has at least one task")
	case len(g.Tasks) > maxTasks:
		f.add(at+".task", "%d tasks are over the limit of %d", len(g.Tasks), maxTasks)
	}
	seen := make(map[string]bool)
	leaders, logsMB := 0, 0
	for i, t := range g.Tasks {
		if t == nil {
			f.add(fmt.Sprintf("%s.task[%d]", at, i), "it is null")
			continue
		}
		if seen[t.Name] {
			f.add(fmt.Sprintf("%s > task %.*q", at, maxIDLen, t.Name), "there are two tasks of this name")
		}
		seen[t.Name] = true
		if t.Leader {
			leaders++
		}
		if t.LogConfig != nil && !t.LogConfig.Disabled {
			logsMB += t.LogConfig.MaxFiles * t.LogConfig.MaxFileSizeMB
		}
		warnings = append(warnings, t.validate(f, at)...)
	}
	if leaders > 1 {
		f.add(at+".task.leader", "%d tasks are leaders; at most one can be", leaders)
	}
	if g.EphemeralDisk != nil && logsMB > g.EphemeralDisk.SizeMB {
		f.add(at+".ephemeral_disk.size", "%d MB cannot hold the %d MB that the logs of its tasks may grow to; raise it or lower logs.max_files", g.EphemeralDisk.SizeMB, logsMB)
	}
	return warnings
}

func nonZero(o Opaque) bool {
	return o != nil && !bytes.Equal(o, []byte("0")) && !bytes.Equal(o, []byte("false"))
}

// maxNesting bounds lists and maps within each other in what is free: more than any
// driver or autoscaler has use for, and far less than can be written down.
const maxNesting = 32

func checkNesting(f *faults, field string, v map[string]any) {
	if TooNested(v) {
		f.add(field, "its lists and maps are nested more than %d deep", maxNesting)
	}
}

// TooNested reports whether lists and maps are nested deeper than may be kept.
func TooNested(v map[string]any) bool { return nested(reflect.ValueOf(v), maxNesting) }

func nested(v reflect.Value, left int) bool {
	for v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Map:
		for i := v.MapRange(); i.Next(); {
			if left == 0 || nested(i.Value(), left-1) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		for i := range v.Len() {
			if left == 0 || nested(v.Index(i), left-1) {
				return true
			}
		}
	}
	return false
}

var signalName = regexp.MustCompile(`^(SIG)?[A-Z0-9+]+$`)

func (t *Task) validate(f *faults, group string) (warnings []string) {
	at := fmt.Sprintf("%s > task %.*q", group, maxIDLen, t.Name)
	checkName(f, at+".name", t.Name)
	if t.Driver == "" {
		f.add(at+".driver", "it is empty; name one, such as \"docker\" or \"raw_exec\"")
	}
	for _, b := range []struct {
		name string
		raw  Opaque
	}{
		{"affinity", t.Affinities}, {"lifecycle", t.Lifecycle}, {"artifact", t.Artifacts}, {"vault", t.Vault}, {"template", t.Templates},
		{"volume_mount", t.VolumeMounts}, {"csi_plugin", t.CSIPluginConfig},
		{"scaling", t.ScalingPolicies}, {"secret", t.Secrets}, {"action", t.Actions}, {"schedule", t.Schedule}, {"identity", t.Identities},
		{"identity", t.Identity}, {"consul", t.Consul},
	} {
		if b.raw != nil {
			f.without(at+"."+b.name, "the "+b.name+" block")
		}
	}
	t.DispatchPayload.validate(f, at+".dispatch_payload")
	checkConstraints(f, at, t.Constraints)
	checkMeta(f, at+".meta", t.Meta)
	checkMeta(f, at+".env", t.Env)
	checkNesting(f, at+".config", t.Config)
	checkRestart(f, at+".restart", t.RestartPolicy)
	if t.KillTimeout < 0 {
		f.add(at+".kill_timeout", "%s is negative", t.KillTimeout)
	}
	if t.ShutdownDelay < 0 {
		f.add(at+".shutdown_delay", "%s is negative", t.ShutdownDelay)
	}
	if t.KillSignal != "" && !signalName.MatchString(t.KillSignal) {
		f.add(at+".kill_signal", "%q is no signal; write one such as SIGTERM", t.KillSignal)
	}
	if l := t.LogConfig; l != nil && !l.Disabled && (l.MaxFiles < 1 || l.MaxFileSizeMB < 1) {
		f.add(at+".logs", "%d files of %d MB: both must be at least 1", l.MaxFiles, l.MaxFileSizeMB)
	}
	warnings = append(warnings, checkServices(f, at, t.Services)...)
	r := t.Resources
	if r == nil {
		f.add(at+".resources", "they are missing")
		return warnings
	}
	if r.CPU < 1 {
		f.add(at+".resources.cpu", "%d is below 1; give MHz", r.CPU)
	}
	if r.MemoryMB < 1 {
		f.add(at+".resources.memory", "%d is below 1; give MB", r.MemoryMB)
	}
	if r.MemoryMaxMB < 0 || r.MemoryMaxMB > 0 && r.MemoryMaxMB < r.MemoryMB {
		f.add(at+".resources.memory_max", "%d MB is below memory, %d MB", r.MemoryMaxMB, r.MemoryMB)
	}
	if r.Cores != 0 {
		f.without(at+".resources.cores", "it")
	}
	for _, b := range []struct {
		name string
		raw  Opaque
	}{{"device", r.Devices}, {"numa", r.NUMA}} {
		if b.raw != nil {
			f.without(at+".resources."+b.name, "the "+b.name+" block")
		}
	}
	if len(r.Networks) > 0 {
		warnings = append(warnings, at+": a network within resources is an old form; write it in the group")
		checkNetworks(f, at+".resources.network", r.Networks, make(map[string]bool))
	}
	return warnings
}

// hasChecks reports whether any service of the group has checks.
func (g *TaskGroup) hasChecks() bool {
	has := func(s *Service) bool { return s != nil && nonZero(s.Checks) }
	return slices.ContainsFunc(g.Services, has) || slices.ContainsFunc(g.Tasks, func(t *Task) bool { return t != nil && slices.ContainsFunc(t.Services, has) })
}

func checkServices(f *faults, at string, list []*Service) (warnings []string) {
	for i, s := range list {
		field := fmt.Sprintf("%s.service[%d]", at, i)
		if s == nil {
			f.add(field, "it is null")
			continue
		}
		if s.Connect != nil {
			f.without(field+".connect", "the connect block")
		}
		if s.Identity != nil {
			f.without(field+".identity", "the identity block")
		}
	}
	if len(list) > 0 {
		warnings = append(warnings, at+": services are kept with the job, and this version registers them nowhere")
	}
	return warnings
}

func checkRestart(f *faults, at string, p *RestartPolicy) {
	if p == nil {
		return
	}
	if p.Mode != RestartModeFail && p.Mode != RestartModeDelay {
		f.add(at+".mode", "%q is neither fail nor delay", p.Mode)
	}
	if p.Attempts < 0 {
		f.add(at+".attempts", "%d is negative", p.Attempts)
	}
	if p.Delay < 0 {
		f.add(at+".delay", "%s is negative", p.Delay)
	}
	if p.Interval < 0 {
		f.add(at+".interval", "%s is negative", p.Interval)
	}
}

func checkReschedule(f *faults, at string, p *ReschedulePolicy) {
	if p == nil {
		return
	}
	switch p.DelayFunction {
	case "constant", "exponential", "fibonacci":
	default:
		f.add(at+".delay_function", "%q is none of constant, exponential, fibonacci", p.DelayFunction)
	}
	if p.Attempts < 0 || p.Delay < 0 || p.Interval < 0 || p.MaxDelay < 0 {
		f.add(at, "no number in it may be negative")
	}
	if !p.Unlimited && p.Attempts > 0 && p.Interval == 0 {
		f.add(at+".interval", "%d attempts need an interval to be counted in", p.Attempts)
	}
}

func checkConstraints(f *faults, at string, list []*Constraint) {
	for i, c := range list {
		field := fmt.Sprintf("%s.constraint[%d]", at, i)
		if c == nil {
			f.add(field, "it is null")
			continue
		}
		switch c.Operand {
		case "", "=", "==", "is", "!=", "not", "<", "<=", ">", ">=", ConstraintSetContains, ConstraintSetContainsAll, ConstraintSetContainsAny,
			ConstraintIsSet, ConstraintIsNotSet, ConstraintDistinctHosts, ConstraintVersion, ConstraintSemver:
		case ConstraintRegexp:
			if _, err := regexp.Compile(c.RTarget); err != nil {
				f.add(field, "%q is no regular expression: %v", c.RTarget, err)
			}
		case ConstraintDistinctProp:
			f.without(field, "the operator distinct_property")
		default:
			f.add(field, "%q is no operator", c.Operand)
		}
		if c.LTarget == "" && c.Operand != ConstraintDistinctHosts {
			f.add(field, "attribute is empty; write one such as \"${attr.kernel.name}\"")
		}
	}
}

func checkNetworks(f *faults, at string, list []*NetworkResource, labels map[string]bool) {
	if len(list) > 1 {
		f.add(at, "there are %d; only one is allowed", len(list))
	}
	values := make(map[int]string)
	for _, n := range list {
		if n == nil {
			f.add(at, "it is null")
			continue
		}
		if n.CNI != nil {
			f.without(at+".cni", "the cni block")
		}
		if n.DNS != nil {
			f.without(at+".dns", "the dns block")
		}
		if n.Mode != "" && n.Mode != "host" {
			f.without(at+".mode", fmt.Sprintf("the mode %q", n.Mode))
		}
		for _, ports := range [][]Port{n.ReservedPorts, n.DynamicPorts} {
			for _, p := range ports {
				field := fmt.Sprintf("%s.port %q", at, p.Label)
				if p.Label == "" {
					f.add(field, "it has no label")
				}
				if labels[p.Label] {
					f.add(field, "there are two ports of this label")
				}
				labels[p.Label] = true
				if p.Value < 0 || p.Value > 65535 || p.To < -1 || p.To > 65535 {
					f.add(field, "static %d, to %d: ports are from 1 to 65535", p.Value, p.To)
				}
				if p.HostNetwork != "" && p.HostNetwork != "default" {
					f.without(field+".host_network", "it")
				}
			}
		}
		for _, p := range n.ReservedPorts {
			if p.Value == 0 {
				f.add(fmt.Sprintf("%s.port %q.static", at, p.Label), "it is 0; give a port from 1 to 65535")
			} else if other, twice := values[p.Value]; twice && !p.IgnoreCollision {
				f.add(fmt.Sprintf("%s.port %q.static", at, p.Label), "%d is also port %q", p.Value, other)
			}
			values[p.Value] = p.Label
		}
	}
}
