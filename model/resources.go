package model

import "encoding/json"

// Resources is what a task asks for, in the job file's terms.
type Resources struct {
	// CPU is in MHz, 100 when not given; Cores, which excludes it, reserves
	// whole cores and is not supported yet.
	CPU         int
	Cores       int
	MemoryMB    int
	MemoryMaxMB int
	DiskMB      int
	// Networks is the old task-level form: the first counts.
	Networks  []*NetworkResource
	Devices   Opaque
	NUMA      Opaque
	SecretsMB int
	IOPS      int
}

// NewResources has Nomad's defaults.
func NewResources() *Resources { return &Resources{CPU: 100, MemoryMB: 300} }

// UnmarshalJSON decodes over NewResources.
func (r *Resources) UnmarshalJSON(b []byte) error {
	type plain Resources
	v := plain(*NewResources())
	err := json.Unmarshal(b, &v)
	*r = Resources(v)
	return err
}

// NetworkResource is a request for ports (in a job), a node's network (in a
// node) or what was given (in an allocation).
type NetworkResource struct {
	// Mode is "host" or "", which is the same.
	Mode     string
	Device   string
	CIDR     string
	IP       string
	Hostname string
	MBits    int
	DNS      Opaque
	CNI      Opaque

	ReservedPorts []Port
	DynamicPorts  []Port
}

// Port is a labelled port. Value is the port on the host: asked for when
// static, given when allocated. To is the port inside the task's network,
// 0 the same as Value and −1 likewise.
type Port struct {
	Label           string
	Value           int
	To              int
	HostNetwork     string
	IgnoreCollision bool
}

// PortMapping is a group's port as allocated.
type PortMapping struct {
	Label           string
	Value           int
	To              int
	HostIP          string
	IgnoreCollision bool
}

// AllocatedResources is what an allocation holds on its node.
type AllocatedResources struct {
	Tasks  map[string]*AllocatedTaskResources
	Shared AllocatedSharedResources
}

// AllocatedTaskResources is one task's part.
type AllocatedTaskResources struct {
	Cpu      AllocatedCpuResources
	Memory   AllocatedMemoryResources
	Networks []*NetworkResource
}

// AllocatedCpuResources is in MHz.
type AllocatedCpuResources struct {
	CpuShares     int64
	ReservedCores []uint16
}

// AllocatedMemoryResources is in MiB; MemoryMaxMB is 0 when there is no
// higher limit.
type AllocatedMemoryResources struct {
	MemoryMB    int64
	MemoryMaxMB int64
}

// AllocatedSharedResources is what the group's tasks share.
type AllocatedSharedResources struct {
	DiskMB   int64
	Networks []*NetworkResource
	Ports    []PortMapping
}

// Usage is what fits or does not: the sums that the scheduler and the plan
// applier compare. MHz and MiB.
type Usage struct {
	CPU      int64
	MemoryMB int64
	DiskMB   int64
}

// Add returns u plus o.
func (u Usage) Add(o Usage) Usage {
	return Usage{u.CPU + o.CPU, u.MemoryMB + o.MemoryMB, u.DiskMB + o.DiskMB}
}

// Sub returns u less o.
func (u Usage) Sub(o Usage) Usage {
	return Usage{u.CPU - o.CPU, u.MemoryMB - o.MemoryMB, u.DiskMB - o.DiskMB}
}

// Exceeds names the first dimension in which u is more than limit, "" when it
// fits. The names are those of Nomad's metrics.
func (u Usage) Exceeds(limit Usage) string {
	switch {
	case u.CPU > limit.CPU:
		return "cpu"
	case u.MemoryMB > limit.MemoryMB:
		return "memory"
	case u.DiskMB > limit.DiskMB:
		return "disk"
	}
	return ""
}

// Usage sums what r holds.
func (r *AllocatedResources) Usage() Usage {
	if r == nil {
		return Usage{}
	}
	u := Usage{DiskMB: r.Shared.DiskMB}
	for _, t := range r.Tasks {
		u.CPU += t.Cpu.CpuShares
		u.MemoryMB += t.Memory.MemoryMB
	}
	return u
}

// GroupUsage is what one allocation of g will hold.
func (g *TaskGroup) GroupUsage() Usage { return g.AllocatedResources().Usage() }

// AllocatedResources is what one allocation of g will hold, without ports,
// which are given per allocation.
func (g *TaskGroup) AllocatedResources() *AllocatedResources {
	r := &AllocatedResources{Tasks: make(map[string]*AllocatedTaskResources, len(g.Tasks))}
	if g.EphemeralDisk != nil {
		r.Shared.DiskMB = int64(g.EphemeralDisk.SizeMB)
	}
	for _, t := range g.Tasks {
		r.Tasks[t.Name] = &AllocatedTaskResources{
			Cpu:    AllocatedCpuResources{CpuShares: int64(t.Resources.CPU)},
			Memory: AllocatedMemoryResources{MemoryMB: int64(t.Resources.MemoryMB), MemoryMaxMB: int64(t.Resources.MemoryMaxMB)},
		}
	}
	return r
}
