package model

// Allocations are the one table that grows by the million, so they rest and
// travel as hot rows: what siblings share is held once (AllocShared), what few
// have is apart (AllocExtra), and a row is about a hundred bytes. Allocation is
// the view, made by AllocRow.View alone.

// AllocState is a desired or client status in one byte. The numbers are in
// Raft and in snapshots: append only.
type AllocState uint8

// Desired statuses.
const (
	DesiredRun AllocState = iota
	DesiredStop
	DesiredEvict
)

// Client statuses.
const (
	ClientPending AllocState = iota
	ClientRunning
	ClientComplete
	ClientFailed
	ClientLost
	ClientUnknown
)

var (
	desiredNames = [...]string{AllocDesiredRun, AllocDesiredStop, AllocDesiredEvict}
	clientNames  = [...]string{AllocClientPending, AllocClientRunning, AllocClientComplete, AllocClientFailed, AllocClientLost, AllocClientUnknown}
)

// ParseClientStatus returns the number of a client status.
func ParseClientStatus(s string) (AllocState, bool) {
	for i, name := range clientNames {
		if name == s {
			return AllocState(i), true
		}
	}
	return 0, false
}

// AllocRow is an allocation at rest. Rows are immutable: a change makes a new
// one in its place.
type AllocRow struct {
	ID     UUID
	NodeID UUID
	// Shared is what the allocations placed with this one have in common;
	// never nil.
	Shared *AllocShared
	// Extra is nil as long as there is nothing in it.
	Extra *AllocExtra

	// CreateIndex, ModifyIndex and AllocModifyIndex are Raft indexes; see
	// Allocation. The times are in Unix nanoseconds.
	CreateIndex      uint64
	ModifyIndex      uint64
	AllocModifyIndex uint64
	CreateTime       int64
	ModifyTime       int64

	// Index is the number in the allocation's name.
	Index   uint32
	Desired AllocState
	Client  AllocState
}

// AllocShared is what the allocations of one group of one plan share. It is
// immutable.
type AllocShared struct {
	EvalID UUID
	// Job is the version that was placed.
	Job   *Job
	Group string
	// Resources holds no ports: those are each allocation's own.
	Resources *AllocatedResources
	// Usage is Resources summed.
	Usage   Usage
	Metrics *AllocMetric
	// DeploymentID is zero for what belongs to no deployment.
	DeploymentID UUID
}

// AllocExtra is what only some allocations have. It is immutable.
type AllocExtra struct {
	// Ports are the group's ports, TaskNetworks the old form's, by task.
	Ports              []PortMapping
	Networks           []*NetworkResource
	TaskNetworks       map[string]*NetworkResource
	Previous, Next     UUID
	FollowupEval       UUID
	DesiredDescription string
	ClientDescription  string
	// TaskStates is the encoded map of task states (internal/wire).
	TaskStates []byte
	Reschedule *RescheduleTracker
	// DeploymentStatus is nil for what is no canary until its health is
	// known, Transition until something is wanted.
	DeploymentStatus *AllocDeploymentStatus
	Transition       *DesiredTransition
	// Disconnected is since when the allocation was unknown, in Unix
	// nanoseconds; it stays until a plan reconnects the allocation, so that a
	// node's report alone does not make two of one.
	Disconnected int64
}

// ServerTerminal reports whether the server wants the allocation stopped.
func (r *AllocRow) ServerTerminal() bool { return r.Desired != DesiredRun }

// ClientTerminal reports whether the allocation will never run again.
func (r *AllocRow) ClientTerminal() bool {
	return r.Client == ClientComplete || r.Client == ClientFailed || r.Client == ClientLost
}

// Terminal reports whether the allocation stopped or should.
func (r *AllocRow) Terminal() bool { return r.ServerTerminal() || r.ClientTerminal() }

// Ended reports whether the allocation will never run again and nobody will say
// more of it: its node did, or is gone for good.
func (r *AllocRow) Ended(gone func(node UUID) bool) bool {
	return r.ClientTerminal() || r.ServerTerminal() && gone(r.NodeID)
}

// Job is the version of the job that was placed.
func (r *AllocRow) Job() *Job { return r.Shared.Job }

// Name is the allocation's name.
func (r *AllocRow) Name() string {
	return AllocName(r.Shared.Job.ID, r.Shared.Group, int(r.Index))
}

// DeploymentStatus is nil when nothing is known.
func (r *AllocRow) DeploymentStatus() *AllocDeploymentStatus {
	if r.Extra == nil {
		return nil
	}
	return r.Extra.DeploymentStatus
}

// Transition is nil when nothing is wanted.
func (r *AllocRow) Transition() *DesiredTransition {
	if r.Extra == nil {
		return nil
	}
	return r.Extra.Transition
}

// Disconnected is Extra.Disconnected, 0 when it was never unknown.
func (r *AllocRow) Disconnected() int64 {
	if r.Extra == nil {
		return 0
	}
	return r.Extra.Disconnected
}

// HasNext reports whether the allocation was replaced.
func (r *AllocRow) HasNext() bool { return r.Extra != nil && !r.Extra.Next.IsZero() }

// HostPorts calls f with each port that the allocation holds on its node.
func (r *AllocRow) HostPorts(f func(port int)) { r.Extra.hostPorts(f) }

func (x *AllocExtra) hostPorts(f func(port int)) {
	if x == nil {
		return
	}
	for _, p := range x.Ports {
		f(p.Value)
	}
	for _, n := range x.TaskNetworks {
		for _, p := range n.ReservedPorts {
			f(p.Value)
		}
		for _, p := range n.DynamicPorts {
			f(p.Value)
		}
	}
}

// View makes the Allocation that the row stands for. decodeStates turns
// Extra.TaskStates into task states; nodeName is the node's.
func (r *AllocRow) View(nodeName string, decodeStates func([]byte) map[string]*TaskState) *Allocation {
	s := r.Shared
	a := &Allocation{
		ID: r.ID.String(), Namespace: s.Job.Namespace, EvalID: s.EvalID.String(), Name: r.Name(),
		NodeID: r.NodeID.String(), NodeName: nodeName, JobID: s.Job.ID, Job: s.Job, TaskGroup: s.Group,
		AllocatedResources: s.Resources, Metrics: s.Metrics, DeploymentID: s.DeploymentID.String(),
		DesiredStatus: desiredNames[r.Desired], ClientStatus: clientNames[r.Client],
		CreateIndex: r.CreateIndex, ModifyIndex: r.ModifyIndex, AllocModifyIndex: r.AllocModifyIndex,
		CreateTime: r.CreateTime, ModifyTime: r.ModifyTime,
	}
	x := r.Extra
	if x == nil {
		return a
	}
	a.DesiredDescription, a.ClientDescription = x.DesiredDescription, x.ClientDescription
	a.PreviousAllocation, a.NextAllocation = x.Previous.String(), x.Next.String()
	a.FollowupEvalID = x.FollowupEval.String()
	a.RescheduleTracker, a.DeploymentStatus = x.Reschedule, x.DeploymentStatus
	if x.Transition != nil {
		a.DesiredTransition = *x.Transition
	}
	if len(x.TaskStates) > 0 {
		a.TaskStates = decodeStates(x.TaskStates)
	}
	if len(x.Ports) > 0 || len(x.Networks) > 0 || len(x.TaskNetworks) > 0 {
		a.AllocatedResources = s.Resources.withPorts(x)
	}
	return a
}

func (r *AllocatedResources) withPorts(x *AllocExtra) *AllocatedResources {
	out := &AllocatedResources{Tasks: r.Tasks, Shared: r.Shared}
	out.Shared.Ports = x.Ports
	out.Shared.Networks = x.Networks
	if len(x.TaskNetworks) > 0 {
		out.Tasks = make(map[string]*AllocatedTaskResources, len(r.Tasks))
		for name, t := range r.Tasks {
			if n := x.TaskNetworks[name]; n != nil {
				withNet := *t
				withNet.Networks = []*NetworkResource{n}
				t = &withNet
			}
			out.Tasks[name] = t
		}
	}
	return out
}
