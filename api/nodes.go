package api

import (
	"atoll/model"
	"atoll/model/method"
)

func listNodes(r *request) (any, error) {
	full, err := r.flag("resources")
	if err != nil {
		return nil, err
	}
	known := &fallback[model.NodeRow, model.NodeStub]{method.FederationNodes, (*model.NodeRow).Stub}
	if full {
		known = nil
	}
	return listOr(r, method.NodeList, &method.ListRequest{Query: r.read, Full: full},
		func(out *method.NodeListResponse) []*model.NodeStub { return out.Nodes },
		func(row *model.NodeStub, region string) { row.Region = region }, known)
}

// shownNode is a node as clients expect it; they read the old forms of its
// resources too.
type shownNode struct {
	*model.Node
	Drain     bool
	Resources *legacyResources
	Reserved  *legacyResources
}

func readNode(r *request) (any, error) {
	out, err := call(r, method.NodeGet, &method.NodeRequest{Query: r.read, NodeID: r.id}, func(out *method.NodeResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Node == nil {
		return nil, notFound("node", r.id)
	}
	n := *out.Node
	if n.NodeResources == nil {
		n.NodeResources = &model.NodeResources{}
	}
	if n.ReservedResources == nil {
		n.ReservedResources = &model.NodeReservedResources{}
	}
	has, kept := n.NodeResources, n.ReservedResources
	return shownNode{
		Node:      &n,
		Drain:     n.DrainStrategy != nil,
		Resources: &legacyResources{CPU: has.Cpu.CpuShares, MemoryMB: has.Memory.MemoryMB, DiskMB: has.Disk.DiskMB, Networks: has.Networks},
		Reserved:  &legacyResources{CPU: int64(kept.Cpu.CpuShares), MemoryMB: int64(kept.Memory.MemoryMB), DiskMB: int64(kept.Disk.DiskMB)},
	}, nil
}

func nodeAllocations(r *request) (any, error) {
	out, err := call(r, method.NodeAllocs, &method.NodeRequest{Query: r.read, NodeID: r.id}, func(out *method.AllocsResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	shown := []shownAlloc{}
	for _, a := range out.Allocs {
		shown = append(shown, showAlloc(a))
	}
	return shown, nil
}

func changeNode[Q any](r *request, m method.Method[Q, method.NodeChangeResponse], req *Q) (any, error) {
	return write(r, m, req, func(out *method.NodeChangeResponse) uint64 { return out.Index })
}

func setEligibility(r *request) (any, error) {
	var in method.NodeEligibilityRequest
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if err := r.sameNode(in.NodeID); err != nil {
		return nil, err
	}
	in.NodeID = r.id
	return changeNode(r, method.NodeEligibility, &in)
}

// sameNode refuses a body that is about another node than the path.
func (r *request) sameNode(id string) error {
	if id != "" && id != r.id {
		return model.Invalidf("NodeID", "the path names node %q and the body node %q", r.id, id)
	}
	return nil
}

func drainNode(r *request) (any, error) {
	var in method.NodeDrainRequest
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if err := r.sameNode(in.NodeID); err != nil {
		return nil, err
	}
	in.NodeID = r.id
	return changeNode(r, method.NodeDrain, &in)
}

func purgeNode(r *request) (any, error) {
	return changeNode(r, method.NodePurge, &method.NodeIDRequest{NodeID: r.id})
}

func evaluateNode(r *request) (any, error) {
	return changeNode(r, method.NodeEvaluate, &method.NodeIDRequest{NodeID: r.id})
}
