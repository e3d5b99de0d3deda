package model

import (
	"fmt"
	"net"
	"time"
)

// Desired and client statuses of allocations.
const (
	AllocDesiredRun   = "run"
	AllocDesiredStop  = "stop"
	AllocDesiredEvict = "evict"

	AllocClientPending  = "pending"
	AllocClientRunning  = "running"
	AllocClientComplete = "complete"
	AllocClientFailed   = "failed"
	AllocClientLost     = "lost"
	AllocClientUnknown  = "unknown"
)

// Allocation is a placement of a group on a node. In the state store it rests
// as a compact row; this is its view, made on read. The server owns the
// desired side, the node the client side.
type Allocation struct {
	ID        string
	Namespace string
	EvalID    string
	// Name is "job.group[index]".
	Name               string
	NodeID             string
	NodeName           string
	JobID              string
	Job                *Job
	TaskGroup          string
	AllocatedResources *AllocatedResources
	Metrics            *AllocMetric
	DesiredStatus      string
	DesiredDescription string
	DesiredTransition  DesiredTransition
	ClientStatus       string
	ClientDescription  string
	TaskStates         map[string]*TaskState
	DeploymentID       string
	DeploymentStatus   *AllocDeploymentStatus
	FollowupEvalID     string
	PreviousAllocation string
	NextAllocation     string
	RescheduleTracker  *RescheduleTracker
	CreateIndex        uint64
	// ModifyIndex is of the last change from either side, AllocModifyIndex
	// of the last from the server's.
	ModifyIndex      uint64
	AllocModifyIndex uint64
	// CreateTime and ModifyTime are in Unix nanoseconds.
	CreateTime int64
	ModifyTime int64
}

// AllocName is the name of allocation number index of a group.
func AllocName(jobID, group string, index int) string {
	return fmt.Sprintf("%s.%s[%d]", jobID, group, index)
}

// ServerTerminal reports whether the server wants the allocation stopped.
func (a *Allocation) ServerTerminal() bool { return a.DesiredStatus != AllocDesiredRun }

// ClientTerminal reports whether the allocation will never run again.
func (a *Allocation) ClientTerminal() bool { return ClientTerminal(a.ClientStatus) }

// ClientTerminal reports whether a client status is final.
func ClientTerminal(status string) bool {
	switch status {
	case AllocClientComplete, AllocClientFailed, AllocClientLost:
		return true
	}
	return false
}

// Terminal reports whether the allocation stopped or should.
func (a *Allocation) Terminal() bool { return a.ServerTerminal() || a.ClientTerminal() }

// TaskState is how a task fares, as its node tells it.
type TaskState struct {
	State       string
	Failed      bool
	Restarts    uint64
	LastRestart time.Time
	StartedAt   time.Time
	FinishedAt  time.Time
	// Events are the last TaskEventsKept, oldest first.
	Events []*TaskEvent
}

// Task states.
const (
	TaskStatePending = "pending"
	TaskStateRunning = "running"
	TaskStateDead    = "dead"
)

// TaskEventsKept bounds TaskState.Events.
const TaskEventsKept = 10

// TaskEvent types, spelled as Nomad's.
const (
	TaskReceived      = "Received"
	TaskSetup         = "Task Setup"
	TaskDriver        = "Driver"
	TaskDriverFailure = "Driver Failure"
	TaskSetupFailure  = "Setup Failure"
	TaskStarted       = "Started"
	TaskTerminated    = "Terminated"
	TaskRestarting    = "Restarting"
	TaskNotRestarting = "Not Restarting"
	TaskKilling       = "Killing"
	TaskKilled        = "Killed"
	TaskSiblingFailed = "Sibling Task Failed"
	TaskLeaderDead    = "Leader Task Dead"
	TaskRestored      = "Restored"
)

// TaskEvent is something that happened to a task. Time is in Unix nanoseconds.
// Details repeats the facts as strings ("exit_code", "signal",
// "oom_killed", "restart_reason", "start_delay", "kill_timeout", …).
type TaskEvent struct {
	Type           string
	Time           int64
	DisplayMessage string
	Message        string
	Details        map[string]string
	FailsTask      bool
	ExitCode       int
	Signal         int
}

// RescheduleTracker remembers the earlier placements of an allocation.
type RescheduleTracker struct{ Events []*RescheduleEvent }

// RescheduleEvent is one of them. RescheduleTime is in Unix nanoseconds.
type RescheduleEvent struct {
	RescheduleTime int64
	PrevAllocID    string
	PrevNodeID     string
	Delay          time.Duration
}

// AllocMetric tells how a placement was found, or why none was.
type AllocMetric struct {
	NodesEvaluated     int
	NodesFiltered      int
	NodesInPool        int
	NodePool           string
	NodesAvailable     map[string]int
	ClassFiltered      map[string]int
	ConstraintFiltered map[string]int
	NodesExhausted     int
	ClassExhausted     map[string]int
	DimensionExhausted map[string]int
	QuotaExhausted     []string
	AllocationTime     time.Duration
	CoalescedFailures  int
	ScoreMetaData      []*NodeScoreMeta
}

// NodeScoreMeta is how one node scored.
type NodeScoreMeta struct {
	NodeID    string
	Scores    map[string]float64
	NormScore float64
}

// AllocStub is an allocation's row in a list.
type AllocStub struct {
	Region             string `json:",omitempty"`
	ID                 string
	EvalID             string
	Name               string
	Namespace          string
	NodeID             string
	NodeName           string
	JobID              string
	JobType            string
	JobVersion         uint64
	TaskGroup          string
	AllocatedResources *AllocatedResources `json:",omitempty"`
	DesiredStatus      string
	DesiredDescription string
	ClientStatus       string
	ClientDescription  string
	TaskStates         map[string]*TaskState
	DeploymentStatus   *AllocDeploymentStatus
	FollowupEvalID     string
	NextAllocation     string
	RescheduleTracker  *RescheduleTracker
	CreateIndex        uint64
	ModifyIndex        uint64
	CreateTime         int64
	ModifyTime         int64
}

// Stub is the allocation's row in a list.
func (a *Allocation) Stub() *AllocStub {
	s := &AllocStub{
		ID: a.ID, EvalID: a.EvalID, Name: a.Name, Namespace: a.Namespace, NodeID: a.NodeID, NodeName: a.NodeName,
		JobID: a.JobID, TaskGroup: a.TaskGroup, DesiredStatus: a.DesiredStatus, DesiredDescription: a.DesiredDescription,
		ClientStatus: a.ClientStatus, ClientDescription: a.ClientDescription, TaskStates: a.TaskStates,
		DeploymentStatus: a.DeploymentStatus, FollowupEvalID: a.FollowupEvalID, NextAllocation: a.NextAllocation, RescheduleTracker: a.RescheduleTracker,
		CreateIndex: a.CreateIndex, ModifyIndex: a.ModifyIndex, CreateTime: a.CreateTime, ModifyTime: a.ModifyTime,
	}
	if a.Job != nil {
		s.JobType, s.JobVersion = a.Job.Type, a.Job.Version
	}
	return s
}

// AllocUpdate is what a node reports of one of its allocations.
type AllocUpdate struct {
	ID                string
	ClientStatus      string
	ClientDescription string
	TaskStates        map[string]*TaskState
	// DeploymentStatus is nil until the node knows whether the allocation is
	// healthy, in the deployment of DeploymentID or, when that is "", in none.
	DeploymentID     string
	DeploymentStatus *AllocDeploymentStatus
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
