package method

import "atoll/model"

var (
	JobRegister   = write[JobRegisterRequest, JobRegisterResponse]("Job.Register")
	JobDeregister = write[JobDeregisterRequest, JobDeregisterResponse]("Job.Deregister")
	JobDispatch   = write[JobDispatchRequest, JobDispatchResponse]("Job.Dispatch")
	// JobPeriodicForce launches a periodic job now.
	JobPeriodicForce = write[JobPeriodicForceRequest, JobPeriodicForceResponse]("Job.PeriodicForce")

	JobGet         = read[JobRequest, JobResponse]("Job.Get")
	JobList        = read[ListRequest, JobListResponse]("Job.List")
	JobSummary     = read[JobRequest, JobSummaryResponse]("Job.Summary")
	JobVersions    = read[JobRequest, JobVersionsResponse]("Job.Versions")
	JobAllocations = read[JobAllocsRequest, AllocListResponse]("Job.Allocations")
	JobEvaluations = read[JobRequest, EvalListResponse]("Job.Evaluations")
)

type (
	JobRegisterRequest struct {
		Job *model.Job
		// EnforceIndex refuses the write unless the job's JobModifyIndex is
		// as given; 0 means that the job must not exist.
		EnforceIndex   bool
		JobModifyIndex uint64
		EvalPriority   int
		// PreserveCounts keeps the counts that the job's groups have.
		PreserveCounts bool
	}
	JobRegisterResponse struct {
		EvalID          string
		EvalCreateIndex uint64
		JobModifyIndex  uint64
		Warnings        string
		Index           uint64
		// Version is that of a multi-region job, and Regions say which of its
		// regions hold it already.
		Version *uint64         `json:",omitempty"`
		Regions []RolloutHolder `json:",omitempty"`
	}
	JobDeregisterRequest struct {
		Namespace, JobID string
		// Purge forgets the job and its history instead of stopping it.
		Purge bool
		// Global stops a multi-region job in all its regions.
		Global       bool
		EvalPriority int
	}
	JobDeregisterResponse struct {
		EvalID          string
		EvalCreateIndex uint64
		JobModifyIndex  uint64
		Index           uint64
	}
	// JobDispatchRequest makes a child of a parameterized job. IdempotencyToken,
	// unlike the call's request id, stands for the child as long as there is one,
	// whatever else is asked for.
	JobDispatchRequest struct {
		Namespace, JobID string
		Payload          []byte
		Meta             map[string]string
		IdPrefixTemplate string
		Priority         int
		IdempotencyToken string
	}
	// JobDispatchResponse has no evaluation when the child was there already, or
	// is itself launched at times.
	JobDispatchResponse struct {
		DispatchedJobID string
		EvalID          string
		EvalCreateIndex uint64
		JobCreateIndex  uint64
		Index           uint64
	}
	JobPeriodicForceRequest  struct{ Namespace, JobID string }
	JobPeriodicForceResponse struct {
		EvalID          string
		EvalCreateIndex uint64
		Index           uint64
	}
	JobRequest struct {
		Query
		JobID string
	}
	// JobResponse has a nil Job when there is none: a blocking query can wait
	// for one.
	JobResponse struct {
		Meta
		Job *model.Job
	}
	JobListResponse struct {
		Meta
		Jobs []*model.JobStub
	}
	JobSummaryResponse struct {
		Meta
		Summary *model.JobSummary
	}
	JobVersionsResponse struct {
		Meta
		// Versions are newest first.
		Versions []*model.Job
	}
	// ListRequest asks for a list; Full for what its rows may leave out.
	ListRequest struct {
		Query
		Full bool
	}
	// JobAllocsRequest asks for a job's allocations; All includes those of
	// earlier jobs of the same id.
	JobAllocsRequest struct {
		Query
		JobID string
		All   bool
	}
	AllocListResponse struct {
		Meta
		Allocs []*model.AllocStub
	}
	EvalListResponse struct {
		Meta
		Evals []*model.Evaluation
	}
)
