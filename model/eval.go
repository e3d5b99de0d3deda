package model

import "time"

// A failed evaluation is followed by another, after a delay that doubles each
// time, and no more once it would be longer than the longest.
const (
	failedFollowDelay    = time.Minute
	maxFailedFollowDelay = 16 * time.Minute
)

// Evaluation statuses (Nomad spells canceled with one l here) and triggers.
const (
	EvalPending   = "pending"
	EvalComplete  = "complete"
	EvalFailed    = "failed"
	EvalBlocked   = "blocked"
	EvalCancelled = "canceled"

	TriggerJobRegister   = "job-register"
	TriggerJobDeregister = "job-deregister"
	TriggerNodeUpdate    = "node-update"
	TriggerQueued        = "queued-allocs"
	TriggerMaxPlans      = "max-plan-attempts"
	TriggerRetryFailed   = "alloc-failure"
	TriggerFailedFollow  = "failed-follow-up"
	TriggerDeployment    = "deployment-watcher"
	TriggerRolling       = "rolling-update"
	TriggerDisconnect    = "max-disconnect-timeout"
	TriggerReconnect     = "reconnect"
	TriggerPeriodicJob   = "periodic-job"
	TriggerNodeDrain     = "node-drain"
	TriggerAllocStop     = "alloc-stop"
	TriggerScaling       = "job-scaling"
)

// Evaluation is a request to make what runs match a job.
type Evaluation struct {
	ID             string
	Priority       int
	Type           string
	TriggeredBy    string
	Namespace      string
	JobID          string
	JobModifyIndex uint64
	NodeID         string
	// NodeModifyIndex is the node's index that triggered it.
	NodeModifyIndex   uint64
	DeploymentID      string
	Status            string
	StatusDescription string
	// WaitUntil delays the evaluation; the zero time does not.
	WaitUntil    time.Time
	NextEval     string
	PreviousEval string
	BlockedEval  string
	// FailedTGAllocs tells, by group, why no place was found.
	FailedTGAllocs map[string]*AllocMetric
	// ClassEligibility says which computed classes could take a blocked
	// evaluation's groups, had they room; classes not in it were not seen.
	ClassEligibility map[string]bool
	// EscapedComputedClass says that not every node of an eligible class
	// could, since constraints look at single nodes.
	EscapedComputedClass bool
	// QueuedAllocations counts, by group, what is still to be placed.
	QueuedAllocations map[string]int
	// SnapshotIndex is of the state that the evaluation was processed on.
	SnapshotIndex uint64
	CreateIndex   uint64
	ModifyIndex   uint64
	CreateTime    int64
	ModifyTime    int64
}

// EvaluationStub is what an evaluation says of one that is related to it.
type EvaluationStub struct {
	ID                string
	Priority          int
	Type              string
	TriggeredBy       string
	Namespace         string
	JobID             string
	NodeID            string
	DeploymentID      string
	Status            string
	StatusDescription string
	WaitUntil         time.Time
	NextEval          string
	PreviousEval      string
	BlockedEval       string
	CreateIndex       uint64
	ModifyIndex       uint64
	CreateTime        int64
	ModifyTime        int64
}

// Stub is the evaluation as a related one.
func (e *Evaluation) Stub() *EvaluationStub {
	return &EvaluationStub{
		ID: e.ID, Priority: e.Priority, Type: e.Type, TriggeredBy: e.TriggeredBy, Namespace: e.Namespace, JobID: e.JobID,
		NodeID: e.NodeID, DeploymentID: e.DeploymentID, Status: e.Status, StatusDescription: e.StatusDescription,
		WaitUntil: e.WaitUntil, NextEval: e.NextEval, PreviousEval: e.PreviousEval, BlockedEval: e.BlockedEval,
		CreateIndex: e.CreateIndex, ModifyIndex: e.ModifyIndex, CreateTime: e.CreateTime, ModifyTime: e.ModifyTime,
	}
}

// Terminal reports whether the evaluation's status is final.
func (e *Evaluation) Terminal() bool {
	switch e.Status {
	case EvalComplete, EvalFailed, EvalCancelled:
		return true
	}
	return false
}

// FollowFailed is the evaluation, of a new id, that later tries again what e
// failed to do; nil when e was the last such attempt. What then is left undone
// waits for whatever else makes an evaluation of the job.
func (e *Evaluation) FollowFailed(id string, now time.Time) *Evaluation {
	delay := failedFollowDelay
	if e.TriggeredBy == TriggerFailedFollow {
		delay = 2 * e.WaitUntil.Sub(time.Unix(0, e.CreateTime)).Round(time.Second)
	}
	if delay > maxFailedFollowDelay {
		return nil
	}
	return &Evaluation{
		ID: id, Namespace: e.Namespace, JobID: e.JobID, Type: e.Type, Priority: e.Priority, JobModifyIndex: e.JobModifyIndex,
		TriggeredBy: TriggerFailedFollow, Status: EvalPending, PreviousEval: e.ID, WaitUntil: now.Add(delay).UTC(),
		CreateTime: now.UnixNano(), ModifyTime: now.UnixNano(),
	}
}

// JobKey is the evaluated job's key.
func (e *Evaluation) JobKey() JobID { return JobID{e.Namespace, e.JobID} }
