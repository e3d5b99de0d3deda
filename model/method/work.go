package method

import "atoll/model"

// Allocations and evaluations.
var (
	AllocList  = read[ListRequest, AllocListResponse]("Alloc.List")
	AllocGet   = read[AllocRequest, AllocResponse]("Alloc.Get")
	AllocStop  = write[AllocStopRequest, AllocStopResponse]("Alloc.Stop")
	EvalList   = read[ListRequest, EvalListResponse]("Eval.List")
	EvalGet    = read[EvalRequest, EvalResponse]("Eval.Get")
	EvalAllocs = read[EvalRequest, AllocListResponse]("Eval.Allocations")
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
	EvalRequest struct {
		Query
		EvalID string
	}
	EvalResponse struct {
		Meta
		Eval *model.Evaluation
	}
)
