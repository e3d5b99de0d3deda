package method

import "atoll/model"

// The scheduler configuration of a region.
var (
	SchedulerGet = read[Query, SchedulerResponse]("Operator.SchedulerConfiguration")
	SchedulerSet = write[SchedulerSetRequest, SchedulerSetResponse]("Operator.SchedulerSetConfiguration")
)

type (
	SchedulerResponse struct {
		Meta
		Config model.SchedulerConfig
	}
	// SchedulerSetRequest sets nothing when CheckIndex and the stored
	// ModifyIndex is not Config's.
	SchedulerSetRequest struct {
		Config     model.SchedulerConfig
		CheckIndex bool
	}
	SchedulerSetResponse struct {
		Updated bool
		Index   uint64
	}
)
