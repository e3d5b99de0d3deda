package region

import (
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/namespace"
	"atoll/rpc"
)

// namespaces serves the Namespace methods, and is the door for changes: those are
// of all regions, see namespacechange.go.
type namespaces struct {
	*reader
	*writer
	region string
	calls  rpc.Caller
	// known are the names of all regions, ours among them, in order.
	known func() []string
	// copies is the leader's loop, nil when this server does not lead.
	copies func() *namespace.Copies
	log    hclog.Logger
	// turn is had by one change at a time.
	turn chan struct{}
}

func (s *namespaces) bind(r *rpc.Server) {
	rpc.Handle(r, method.NamespaceList, s.list)
	rpc.Handle(r, method.NamespaceGet, s.get)
	rpc.Handle(r, method.NamespaceUpsert, s.upsert)
	rpc.Handle(r, method.NamespaceDelete, s.delete)
	rpc.Handle(r, method.NamespaceAsk, s.asked)
	rpc.Handle(r, method.NamespaceTell, s.told)
}

func (s *namespaces) list(ctx context.Context, _ *rpc.Inbound, req *method.ListRequest) (*method.NamespaceListResponse, error) {
	out := &method.NamespaceListResponse{}
	err := s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		var err error
		out.Namespaces, out.NextToken, err = lister[*model.Namespace, *model.Namespace]{
			key:  func(n *model.Namespace) string { return n.Name },
			stub: func(n *model.Namespace) *model.Namespace { return n },
		}.page(&req.Query, snap.Namespaces(ws, req.Prefix))
		return snap.NamespacesIndex(), err
	})
	out.Regions = s.ages(&out.Meta)
	return out, err
}

func (s *namespaces) get(ctx context.Context, _ *rpc.Inbound, req *method.NamespaceRequest) (*method.NamespaceResponse, error) {
	out := &method.NamespaceResponse{}
	err := s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		if out.Namespace = snap.Namespace(ws, req.Name); out.Namespace == nil {
			return snap.NamespacesIndex(), nil
		}
		return out.Namespace.ModifyIndex, nil
	})
	out.Regions = s.ages(&out.Meta)
	return out, err
}

// ages says how old the copy is that was read, nil when this server does not know.
func (s *namespaces) ages(meta *method.Meta) []model.RegionAnswer {
	c := s.copies()
	if c == nil {
		return nil
	}
	out := append(c.Heard(), model.RegionAnswer{Region: s.region, Freshness: model.Live, Index: meta.Index})
	slices.SortFunc(out, func(a, b model.RegionAnswer) int { return strings.Compare(a.Region, b.Region) })
	return out
}
