package method

import (
	"time"

	"atoll/model"
	"atoll/model/diff"
)

// JobPlan is a read: it changes nothing.
var JobPlan = read[JobPlanRequest, JobPlanResponse]("Job.Plan")

type (
	// JobPlanRequest asks what registering Job would do.
	JobPlanRequest struct {
		Query
		Job  *model.Job
		Diff bool
		// Share, unless nil, has a multi-region job planned as one region runs it.
		Share *PlanShare
	}
	// PlanShare is the version that a multi-region job would have, and the
	// region's part of a count that is divided, -1 when none is.
	PlanShare struct {
		Version uint64
		Count   int
	}
	// JobPlanResponse holds for the state of Meta's Index.
	JobPlanResponse struct {
		Meta
		// JobModifyIndex is of the job so far, 0 when there is none: a register
		// can be bound to it.
		JobModifyIndex uint64
		// Diff is nil when it was not asked for.
		Diff        *diff.Job
		Annotations *PlanAnnotations
		// FailedTGAllocs tells, by group, why allocations would find no place.
		FailedTGAllocs map[string]*model.AllocMetric
		// CreatedEvals are those that would go on with what is left to do.
		CreatedEvals []*model.Evaluation
		// NextPeriodicLaunch is zero for a job that is not periodic.
		NextPeriodicLaunch time.Time
		Warnings           string
		// Regions are the plans of all regions of a multi-region job, of which the
		// others are those of the region that was asked.
		Regions []RegionPlan `json:",omitempty"`
	}
	// RegionPlan is what a submit would do in one region; Plan is nil for one that
	// gave none, and Error is why.
	RegionPlan struct {
		Region string
		Plan   *JobPlanResponse
		Error  string `json:",omitempty"`
	}
	// PlanAnnotations count, by group, what would become of allocations.
	PlanAnnotations struct {
		DesiredTGUpdates map[string]*model.DesiredUpdates
		PreemptedAllocs  []*model.AllocStub
	}
)
