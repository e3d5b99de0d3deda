package method

import "atoll/model"

var (
	JobScale       = write[JobScaleRequest, JobRegisterResponse]("Job.Scale")
	JobScaleStatus = read[JobRequest, JobScaleStatusResponse]("Job.ScaleStatus")
	ScalingList    = read[ScalingListRequest, ScalingListResponse]("Scaling.ListPolicies")
	ScalingGet     = read[ScalingRequest, ScalingResponse]("Scaling.GetPolicy")
)

type (
	// JobScaleRequest changes the count of a group, or keeps what is said of
	// one when Count is nil.
	JobScaleRequest struct {
		Namespace, JobID, Group string
		Count                   *int64
		Message                 string
		Error                   bool
		Meta                    map[string]any
		// JobModifyIndex, when not 0, must be the job's.
		JobModifyIndex uint64
	}
	JobScaleStatusResponse struct {
		Meta
		// Status is nil when there is no such job.
		Status *model.JobScaleStatus
	}
	ScalingListRequest struct {
		Query
		// JobID and Type select; "" takes all.
		JobID string
		Type  string
	}
	ScalingListResponse struct {
		Meta
		Policies []*model.ScalingPolicyStub
	}
	ScalingRequest struct {
		Query
		PolicyID string
	}
	ScalingResponse struct {
		Meta
		Policy *model.ScalingPolicy
	}
)
