package method

import "atoll/model"

// Allocations and evaluations.
var (
	AllocList  = read[ListRequest, AllocListResponse]("Alloc.List")
	AllocGet   = read[AllocRequest, AllocResponse]("Alloc.Get")
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
