package api

import (
	"atoll/model"
	"atoll/model/method"
)

func listAllocs(r *request) (any, error) {
	full, err := r.flag("resources")
	if err != nil {
		return nil, err
	}
	return list(r, method.AllocList, &method.ListRequest{Query: r.read, Full: full},
		func(out *method.AllocListResponse) []*model.AllocStub { return out.Allocs },
		func(row *model.AllocStub, region string) { row.Region = region })
}

// legacyResources is how resources were shown before AllocatedResources.
// Clients still read it without looking whether it is there.
type legacyResources struct {
	CPU      int64
	MemoryMB int64
	DiskMB   int64
	Networks []*model.NetworkResource
}

// shownAlloc is an allocation as clients expect it.
type shownAlloc struct {
	*model.Allocation
	Resources     *legacyResources
	TaskResources map[string]*legacyResources
}

func showAlloc(a *model.Allocation) shownAlloc {
	out := shownAlloc{Allocation: a, Resources: &legacyResources{}, TaskResources: make(map[string]*legacyResources)}
	if r := a.AllocatedResources; r != nil {
		out.Resources.DiskMB = r.Shared.DiskMB
		out.Resources.Networks = r.Shared.Networks
		for name, t := range r.Tasks {
			out.TaskResources[name] = &legacyResources{CPU: t.Cpu.CpuShares, MemoryMB: t.Memory.MemoryMB, Networks: t.Networks}
			out.Resources.CPU += t.Cpu.CpuShares
			out.Resources.MemoryMB += t.Memory.MemoryMB
		}
	}
	return out
}

func readAlloc(r *request) (any, error) {
	out, err := call(r, method.AllocGet, &method.AllocRequest{Query: r.read, AllocID: r.id}, func(out *method.AllocResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Alloc == nil {
		return nil, notFound("alloc", r.id)
	}
	return showAlloc(out.Alloc), nil
}

func stopAlloc(r *request) (any, error) {
	noDelay, err := r.flag("no_shutdown_delay")
	if err != nil {
		return nil, err
	}
	return write(r, method.AllocStop, &method.AllocStopRequest{AllocID: r.id, NoShutdownDelay: noDelay}, func(out *method.AllocStopResponse) uint64 { return out.Index })
}
