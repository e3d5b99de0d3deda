package model

import "time"

// Node statuses and eligibilities.
const (
	NodeStatusInit         = "initializing"
	NodeStatusReady        = "ready"
	NodeStatusDown         = "down"
	NodeStatusDisconnected = "disconnected"

	NodeEligible   = "eligible"
	NodeIneligible = "ineligible"
)

// Node is a machine that runs tasks.
type Node struct {
	// ID is a UUID that the node made and keeps.
	ID string
	// SecretID proves that a caller is the node. It stays between the node
	// and the servers of its region.
	SecretID   string `json:"-" codec:"SecretID"`
	Datacenter string
	NodePool   string
	Name       string
	NodeClass  string
	// HTTPAddr is where the node's own HTTP API can be dialled.
	HTTPAddr   string
	TLSEnabled bool
	// Attributes are fingerprinted, Meta is the operator's.
	Attributes            map[string]string
	Meta                  map[string]string
	Links                 map[string]string
	NodeResources         *NodeResources
	ReservedResources     *NodeReservedResources
	Drivers               map[string]*DriverInfo
	Status                string
	StatusDescription     string
	SchedulingEligibility string
	// DrainStrategy is nil unless the node is being emptied.
	DrainStrategy *DrainStrategy
	// LastDrain is of the last drain, the present one too.
	LastDrain *DrainMetadata
	// StatusUpdatedAt is in Unix seconds, as Nomad's is.
	StatusUpdatedAt int64
	// Events are the last NodeEventsKept happenings, oldest first.
	Events []*NodeEvent
	// ComputedClass is a hash of what constraints can see, so that nodes
	// of one class need to be examined once.
	ComputedClass string
	CreateIndex   uint64
	ModifyIndex   uint64
}

// NodeEventsKept bounds Node.Events.
const NodeEventsKept = 10

// Subsystems of node events, spelled as Nomad's.
const (
	NodeEventCluster   = "Cluster"
	NodeEventScheduler = "Scheduler"
	NodeEventDrain     = "Drain"
)

// NodeResources is what the node has.
type NodeResources struct {
	Cpu            NodeCpuResources
	Memory         NodeMemoryResources
	Disk           NodeDiskResources
	Networks       []*NetworkResource
	MinDynamicPort int
	MaxDynamicPort int
}

// Dynamic ports are given from this range, unless the node says otherwise.
const (
	DefaultMinDynamicPort = 20000
	DefaultMaxDynamicPort = 32000
)

// NodeCpuResources is in MHz.
type NodeCpuResources struct {
	CpuShares          int64
	TotalCpuCores      uint16
	ReservableCpuCores []uint16
}

// NodeMemoryResources is in MiB.
type NodeMemoryResources struct{ MemoryMB int64 }

// NodeDiskResources is in MiB.
type NodeDiskResources struct{ DiskMB int64 }

// NodeReservedResources is kept from tasks for the machine itself.
type NodeReservedResources struct {
	Cpu      struct{ CpuShares uint64 }
	Memory   struct{ MemoryMB uint64 }
	Disk     struct{ DiskMB uint64 }
	Networks struct{ ReservedHostPorts string }
}

// DriverInfo is what a node says of one of its drivers.
type DriverInfo struct {
	Attributes        map[string]string
	Detected          bool
	Healthy           bool
	HealthDescription string
	UpdateTime        time.Time
}

// NodeEvent is something that happened to a node.
type NodeEvent struct {
	Message     string
	Subsystem   string
	Details     map[string]string
	Timestamp   time.Time
	CreateIndex uint64
}

// Ready reports whether new work may be placed on the node.
func (n *Node) Ready() bool {
	return n.Status == NodeStatusReady && n.SchedulingEligibility == NodeEligible && n.DrainStrategy == nil
}

// Capacity is what tasks may use: the node's resources less the reserved.
func (n *Node) Capacity() Usage {
	var u Usage
	if r := n.NodeResources; r != nil {
		u = Usage{CPU: r.Cpu.CpuShares, MemoryMB: r.Memory.MemoryMB, DiskMB: r.Disk.DiskMB}
	}
	if r := n.ReservedResources; r != nil {
		u = u.Sub(Usage{CPU: int64(r.Cpu.CpuShares), MemoryMB: int64(r.Memory.MemoryMB), DiskMB: int64(r.Disk.DiskMB)})
	}
	return u
}

// NodeStub is a node's row in a list.
type NodeStub struct {
	// Region is set in answers over several regions.
	Region                string `json:",omitempty"`
	Address               string
	ID                    string
	Attributes            map[string]string `json:",omitempty"`
	Datacenter            string
	Name                  string
	NodeClass             string
	NodePool              string
	Version               string
	Drain                 bool
	SchedulingEligibility string
	Status                string
	StatusDescription     string
	Drivers               map[string]*DriverInfo
	NodeResources         *NodeResources         `json:",omitempty"`
	ReservedResources     *NodeReservedResources `json:",omitempty"`
	CreateIndex           uint64
	ModifyIndex           uint64
}

// Stub is the node's row in a list; withResources adds what the row may leave
// out.
func (n *Node) Stub(withResources bool) *NodeStub {
	s := &NodeStub{
		Address: hostOf(n.HTTPAddr), ID: n.ID, Datacenter: n.Datacenter, Name: n.Name,
		NodeClass: n.NodeClass, NodePool: n.NodePool, Version: n.Attributes["nomad.version"], Drain: n.DrainStrategy != nil,
		SchedulingEligibility: n.SchedulingEligibility, Status: n.Status, StatusDescription: n.StatusDescription,
		Drivers: n.Drivers, CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
	if withResources {
		s.NodeResources, s.ReservedResources = n.NodeResources, n.ReservedResources
	}
	return s
}
