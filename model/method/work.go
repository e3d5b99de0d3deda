package method

import "atoll/model"

var (
	AllocList = read[ListRequest, AllocListResponse]("Alloc.List")
	AllocGet  = read[AllocRequest, AllocResponse]("Alloc.Get")
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
)
