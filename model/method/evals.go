package method

import "atoll/model"

var (
	EvalList   = read[EvalListRequest, EvalListResponse]("Eval.List")
	EvalCount  = read[EvalListRequest, EvalCountResponse]("Eval.Count")
	EvalGet    = read[EvalRequest, EvalResponse]("Eval.Get")
	EvalAllocs = read[EvalRequest, AllocListResponse]("Eval.Allocations")
	EvalDelete = write[EvalDeleteRequest, EvalDeleteResponse]("Eval.Delete")
)

type (
	EvalListRequest struct {
		Query
		// JobID and Status select; "" takes all.
		JobID  string
		Status string
	}
	EvalCountResponse struct {
		Meta
		Count int
	}
	EvalRequest struct {
		Query
		EvalID string
		// Related asks for those that the evaluation comes from and leads to.
		Related bool
	}
	EvalResponse struct {
		Meta
		Eval    *model.Evaluation
		Related []*model.EvaluationStub
	}
	// EvalDeleteRequest deletes evaluations of any status, by id or by filter.
	// Nothing is to be paused for it: a worker that has one at the time writes
	// nothing of it back.
	EvalDeleteRequest struct {
		Namespace string
		// EvalIDs must all be there, and no allocation that is not over may
		// have been placed by one of them.
		EvalIDs []string
		// Filter is a go-bexpr expression over evaluations. Those that
		// allocations need are kept.
		Filter string
	}
	EvalDeleteResponse struct {
		Count int
		Index uint64
	}
)
