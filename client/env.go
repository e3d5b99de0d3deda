package client

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"atoll/drivers"
	"atoll/model"
)

// dirs are an allocation's directories.
type dirs struct{ root string }

func (d dirs) shared() string            { return filepath.Join(d.root, "alloc") }
func (d dirs) logs() string              { return filepath.Join(d.root, "alloc", "logs") }
func (d dirs) private() string           { return filepath.Join(d.root, ".private") }
func (d dirs) task(name string) string   { return filepath.Join(d.root, name) }
func (d dirs) local(name string) string  { return filepath.Join(d.root, name, "local") }
func (d dirs) secret(name string) string { return filepath.Join(d.root, name, "secrets") }

// environment is what a task of an allocation may refer to: its variables, and
// the node's facts.
type environment struct {
	vars map[string]string
	node map[string]string
}

// nodeFacts are the node's, by the names that job files use for them.
func nodeFacts(n *model.Node, region string) map[string]string {
	facts := map[string]string{
		"node.unique.id": n.ID, "node.unique.name": n.Name, "node.datacenter": n.Datacenter, "node.region": region,
		"node.class": n.NodeClass, "node.pool": n.NodePool,
	}
	for k, v := range n.Attributes {
		facts["attr."+k] = v
	}
	for k, v := range n.Meta {
		facts["meta."+k] = v
	}
	return facts
}

// newEnvironment makes the environment of a task, in which the task's own
// variables may refer to the others.
func newEnvironment(a *model.Allocation, t *model.Task, d dirs, ownRoot bool, n *model.Node) *environment {
	e := &environment{vars: make(map[string]string), node: nodeFacts(n, a.Job.Region)}
	set := func(key, value string) { e.vars["NOMAD_"+key] = value }
	if ownRoot {
		set("ALLOC_DIR", "/alloc")
		set("TASK_DIR", "/local")
		set("SECRETS_DIR", "/secrets")
	} else {
		set("ALLOC_DIR", d.shared())
		set("TASK_DIR", d.local(t.Name))
		set("SECRETS_DIR", d.secret(t.Name))
	}
	setMeta := func(key, value string) {
		set("META_"+key, value)
		set("META_"+strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(key)), value)
	}
	set("ALLOC_ID", a.ID)
	set("SHORT_ALLOC_ID", a.ID[:min(8, len(a.ID))])
	set("ALLOC_NAME", a.Name)
	if open := strings.LastIndexByte(a.Name, '['); open >= 0 {
		set("ALLOC_INDEX", strings.TrimSuffix(a.Name[open+1:], "]"))
	}
	set("TASK_NAME", t.Name)
	set("GROUP_NAME", a.TaskGroup)
	set("JOB_ID", a.JobID)
	set("JOB_NAME", a.Job.Name)
	if a.Job.ParentID != "" {
		set("JOB_PARENT_ID", a.Job.ParentID)
	}
	set("DC", n.Datacenter)
	set("REGION", a.Job.Region)
	set("NAMESPACE", a.Namespace)
	if r := allocated(a, t.Name); r != nil {
		set("CPU_LIMIT", strconv.FormatInt(r.Cpu.CpuShares, 10))
		set("MEMORY_LIMIT", strconv.FormatInt(r.Memory.MemoryMB, 10))
		if r.Memory.MemoryMaxMB > 0 {
			set("MEMORY_MAX_LIMIT", strconv.FormatInt(r.Memory.MemoryMaxMB, 10))
		}
	}
	if a.Job.Dispatched && a.Job.ParameterizedJob != nil {
		// A key that a dispatch may give, and did not, is there and empty.
		for _, k := range a.Job.ParameterizedJob.MetaOptional {
			setMeta(k, "")
		}
	}
	for _, m := range []map[string]string{a.Job.Meta, groupMeta(a), t.Meta} {
		for k, v := range m {
			setMeta(k, v)
		}
	}
	inside := drivers.NewSettings("", t.Config).Map("port_map")
	for _, p := range ports(a, t.Name) {
		port := cmp.Or(p.To, p.Value)
		if p.Legacy {
			if mapped, err := strconv.Atoi(inside[p.Label]); err == nil {
				port = mapped
			}
		}
		host := strconv.Itoa(p.Value)
		set("IP_"+p.Label, p.HostIP)
		set("PORT_"+p.Label, strconv.Itoa(port))
		set("ADDR_"+p.Label, net.JoinHostPort(p.HostIP, host))
		set("HOST_IP_"+p.Label, p.HostIP)
		set("HOST_PORT_"+p.Label, host)
		set("HOST_ADDR_"+p.Label, net.JoinHostPort(p.HostIP, host))
		set("ALLOC_PORT_"+p.Label, strconv.Itoa(port))
	}
	own := make(map[string]string, len(t.Env))
	for k, v := range t.Env {
		own[k] = e.fill(v)
	}
	for k, v := range own {
		e.vars[k] = v
	}
	return e
}

func groupMeta(a *model.Allocation) map[string]string {
	if g := a.Job.Group(a.TaskGroup); g != nil {
		return g.Meta
	}
	return nil
}

func allocated(a *model.Allocation, task string) *model.AllocatedTaskResources {
	if a.AllocatedResources == nil {
		return nil
	}
	return a.AllocatedResources.Tasks[task]
}

// ports are those of the group, and those that the task asked for itself.
func ports(a *model.Allocation, task string) []drivers.Port {
	var out []drivers.Port
	if a.AllocatedResources == nil {
		return nil
	}
	for _, p := range a.AllocatedResources.Shared.Ports {
		out = append(out, drivers.Port{Label: p.Label, HostIP: p.HostIP, Value: p.Value, To: max(p.To, 0)})
	}
	if r := allocated(a, task); r != nil {
		for _, nw := range r.Networks {
			for _, list := range [][]model.Port{nw.ReservedPorts, nw.DynamicPorts} {
				for _, p := range list {
					out = append(out, drivers.Port{Label: p.Label, HostIP: nw.IP, Value: p.Value, To: max(p.To, 0), Legacy: true})
				}
			}
		}
	}
	return out
}

var reference = regexp.MustCompile(`\$\{[^${}]+\}`)

// fill replaces each ${name} that is known; one that is not stays as it is. A
// name is looked for among the variables, also as env["NAME"], then among the
// node's facts.
func (e *environment) fill(s string) string {
	if !strings.Contains(s, "${") {
		return s
	}
	return reference.ReplaceAllStringFunc(s, func(ref string) string {
		name := strings.TrimSpace(ref[2 : len(ref)-1])
		if inner, ok := strings.CutPrefix(name, "env["); ok {
			name = strings.Trim(strings.TrimSuffix(inner, "]"), `"`)
		}
		if v, ok := e.vars[name]; ok {
			return v
		}
		if v, ok := e.node[name]; ok {
			return v
		}
		return ref
	})
}

// fillAny fills every text within v, which is of a driver's configuration.
func (e *environment) fillAny(v any) any {
	switch v := v.(type) {
	case string:
		return e.fill(v)
	case []any:
		out := make([]any, len(v))
		for i, el := range v {
			out[i] = e.fillAny(el)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, el := range v {
			out[e.fill(k)] = e.fillAny(el)
		}
		return out
	}
	return v
}

// driverTask is the attempt'th start of a task, in its driver's terms.
func driverTask(a *model.Allocation, t *model.Task, d dirs, ownRoot bool, n *model.Node, attempt int) *drivers.Task {
	env := newEnvironment(a, t, d, ownRoot, n)
	out := &drivers.Task{
		ID: fmt.Sprintf("%s.%s.%d", a.ID, t.Name, attempt), AllocID: a.ID, JobID: a.JobID, Group: a.TaskGroup, Name: t.Name,
		Namespace: a.Namespace, Region: a.Job.Region, NodeName: n.Name, Driver: t.Driver, User: env.fill(t.User),
		Env: env.vars, Ports: ports(a, t.Name), KillSignal: t.KillSignal, KillTimeout: t.KillTimeout,
		Dir: d.task(t.Name), AllocDir: d.shared(), LogDir: d.logs(), PrivateDir: d.private(),
	}
	if t.Config != nil {
		out.Config = env.fillAny(t.Config).(map[string]any)
	}
	if r := allocated(a, t.Name); r != nil {
		out.CPU, out.MemoryMB, out.MemoryMaxMB = r.Cpu.CpuShares, r.Memory.MemoryMB, r.Memory.MemoryMaxMB
	}
	if l := t.LogConfig; l == nil || !l.Disabled {
		if l == nil {
			l = model.NewLogConfig()
		}
		out.Logs = logLimits(l)
	}
	return out
}
