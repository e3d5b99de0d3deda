package method

import "atoll/model"

// Deployments, and the versions of jobs that they roll out.
var (
	DeploymentList    = read[ListRequest, DeploymentListResponse]("Deployment.List")
	DeploymentGet     = read[DeploymentRequest, DeploymentResponse]("Deployment.Get")
	DeploymentAllocs  = read[DeploymentRequest, AllocListResponse]("Deployment.Allocations")
	DeploymentPromote = write[DeploymentPromoteRequest, DeploymentUpdateResponse]("Deployment.Promote")
	DeploymentFail    = write[DeploymentFailRequest, DeploymentUpdateResponse]("Deployment.Fail")
	DeploymentPause   = write[DeploymentPauseRequest, DeploymentUpdateResponse]("Deployment.Pause")
	DeploymentHealth  = write[DeploymentHealthRequest, DeploymentUpdateResponse]("Deployment.SetAllocHealth")
	JobDeployments    = read[JobRequest, DeploymentListResponse]("Job.Deployments")
	JobRevert         = write[JobRevertRequest, JobRegisterResponse]("Job.Revert")
	JobStable         = write[JobStableRequest, JobStableResponse]("Job.Stable")
	JobTag            = write[JobTagRequest, JobStableResponse]("Job.TagVersion")
)

type (
	DeploymentRequest struct {
		Query
		DeploymentID string
	}
	DeploymentResponse struct {
		Meta
		Deployment *model.Deployment
	}
	DeploymentListResponse struct {
		Meta
		// Deployments of a job are newest first.
		Deployments []*model.Deployment
	}
	// DeploymentPromoteRequest promotes the canaries of Groups, or All.
	DeploymentPromoteRequest struct {
		DeploymentID string
		All          bool
		Groups       []string
	}
	DeploymentFailRequest struct{ DeploymentID string }
	// DeploymentPauseRequest pauses, or goes on.
	DeploymentPauseRequest struct {
		DeploymentID string
		Pause        bool
	}
	DeploymentHealthRequest struct {
		DeploymentID           string
		HealthyAllocationIDs   []string
		UnhealthyAllocationIDs []string
	}
	// DeploymentUpdateResponse has a RevertedJobVersion when the job was taken
	// back to it.
	DeploymentUpdateResponse struct {
		EvalID                string
		EvalCreateIndex       uint64
		DeploymentModifyIndex uint64
		RevertedJobVersion    *uint64
		Index                 uint64
	}
	JobRevertRequest struct {
		Namespace, JobID string
		JobVersion       uint64
		// EnforcePriorVersion, when not nil, must be the job's version.
		EnforcePriorVersion *uint64
	}
	JobStableRequest struct {
		Namespace, JobID string
		JobVersion       uint64
		Stable           bool
	}
	JobStableResponse struct {
		JobModifyIndex uint64
		Index          uint64
	}
	// JobTagRequest names a version, the newest when Latest; Untag takes the
	// name away.
	JobTagRequest struct {
		Namespace, JobID  string
		Name, Description string
		Version           uint64
		Latest, Untag     bool
	}
)
