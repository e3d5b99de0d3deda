package region

import (
	"context"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// namespaces serves the Namespace methods.
type namespaces struct {
	*reader
	*writer
}

func (s *namespaces) bind(r *rpc.Server) {
	rpc.Handle(r, method.NamespaceList, s.list)
	rpc.Handle(r, method.NamespaceGet, s.get)
	rpc.Handle(r, method.NamespaceUpsert, s.upsert)
	rpc.Handle(r, method.NamespaceDelete, s.delete)
}

func (s *namespaces) list(ctx context.Context, _ *rpc.Inbound, req *method.ListRequest) (*method.NamespaceListResponse, error) {
	out := &method.NamespaceListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		var err error
		out.Namespaces, out.NextToken, err = lister[*model.Namespace, *model.Namespace]{
			key:  func(n *model.Namespace) string { return n.Name },
			stub: func(n *model.Namespace) *model.Namespace { return n },
		}.page(&req.Query, snap.Namespaces(ws, req.Prefix))
		return snap.NamespacesIndex(), err
	})
}

func (s *namespaces) get(ctx context.Context, _ *rpc.Inbound, req *method.NamespaceRequest) (*method.NamespaceResponse, error) {
	out := &method.NamespaceResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		if out.Namespace = snap.Namespace(ws, req.Name); out.Namespace == nil {
			return snap.NamespacesIndex(), nil
		}
		return out.Namespace.ModifyIndex, nil
	})
}

func (s *namespaces) upsert(ctx context.Context, c *rpc.Inbound, req *method.NamespaceUpsertRequest) (*method.NamespaceChangeResponse, error) {
	if req.Namespace == nil {
		return nil, model.Invalidf("Namespace", "cannot apply a namespace: the request holds none")
	}
	n := model.Clone(req.Namespace)
	n.Canonicalize()
	if err := n.Validate(); err != nil {
		return nil, err
	}
	asks := &method.NamespaceUpsertRequest{Namespace: n}
	index, _, err := s.once(ctx, c, "", asks, cell.CmdNamespaceUpsert, &cell.NamespaceUpsert{Namespace: n})
	if err != nil {
		return nil, err
	}
	return &method.NamespaceChangeResponse{Index: index}, nil
}

func (s *namespaces) delete(ctx context.Context, c *rpc.Inbound, req *method.NamespaceDeleteRequest) (*method.NamespaceChangeResponse, error) {
	index, _, err := s.once(ctx, c, "", req, cell.CmdNamespaceDelete, &cell.NamespaceDelete{Name: req.Name})
	if err != nil {
		return nil, err
	}
	return &method.NamespaceChangeResponse{Index: index}, nil
}
