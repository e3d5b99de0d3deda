package method

import "atoll/model"

var (
	AllocList = read[ListRequest, AllocListResponse]("Alloc.List")
	AllocGet  = read[AllocRequest, AllocResponse]("Alloc.Get")
	AllocStop = write[AllocStopRequest, AllocStopResponse]("Alloc.Stop")
)

type (
	AllocRequest struct {
		Query
		AllocID string
	}
	AllocResponse struct {
		Meta
		Alloc *model.Allocation
	}
	// AllocStopRequest stops an allocation, for another to be placed.
	AllocStopRequest struct {
		AllocID         string
		NoShutdownDelay bool
	}
	AllocStopResponse struct {
		EvalID string
		Index  uint64
	}
	AllocsResponse struct {
		Meta
		Allocs []*model.Allocation
	}
)
