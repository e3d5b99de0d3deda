package region

import (
	"context"
	"errors"
	"io"
	"strings"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// allocs serves the Alloc methods.
type allocs struct {
	*reader
	*writer
	// nodes calls a node, through whichever server holds its session.
	nodes rpc.Caller
}

func (s *allocs) bind(r *rpc.Server) {
	rpc.Handle(r, method.AllocList, s.list)
	rpc.Handle(r, method.AllocGet, s.get)
	rpc.Handle(r, method.AllocStop, s.stop)
	rpc.HandleStream(r, method.AllocLogs, s.logs)
}

// allocLister lists rows; full adds what a row may leave out.
func allocLister(snap *state.Snapshot, full bool) lister[*model.AllocRow, *model.AllocStub] {
	return lister[*model.AllocRow, *model.AllocStub]{
		key:    func(r *model.AllocRow) string { return r.ID.String() },
		stored: func(r *model.AllocRow) any { return snap.View(r) },
		stub: func(r *model.AllocRow) *model.AllocStub {
			a := snap.View(r)
			stub := a.Stub()
			if full {
				stub.AllocatedResources = a.AllocatedResources
			}
			return stub
		},
	}
}

func (s *allocs) list(ctx context.Context, c *rpc.Inbound, req *method.ListRequest) (*method.AllocListResponse, error) {
	out := &method.AllocListResponse{}
	var err error
	out.Allocs, err = list(ctx, s.reader, c.Envelope.Method, &req.Query, req.Full, &out.Meta, func(ws state.Watch, snap *state.Snapshot) view[*model.AllocRow, *model.AllocStub] {
		l := allocLister(snap, req.Full)
		l.keep = func(r *model.AllocRow) bool { return inNamespace(&req.Query, r.Job().Namespace) }
		var from model.UUID
		if !req.Reverse {
			from, _ = model.ParseUUID(req.NextToken)
		}
		return view[*model.AllocRow, *model.AllocStub]{snap.Allocs(ws, strings.ToLower(req.Prefix), from), l, snap.AllocsIndex()}
	})
	return out, err
}

func (s *allocs) get(ctx context.Context, _ *rpc.Inbound, req *method.AllocRequest) (*method.AllocResponse, error) {
	id, ok := model.ParseUUID(req.AllocID)
	if !ok {
		return nil, model.NotFound("allocation", req.AllocID)
	}
	out := &method.AllocResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		row := snap.Alloc(ws, id)
		if row == nil {
			out.Alloc = nil
			return snap.AllocsIndex(), nil
		}
		out.Alloc = snap.View(row)
		return row.ModifyIndex, nil
	})
}

func (s *allocs) stop(ctx context.Context, c *rpc.Inbound, req *method.AllocStopRequest) (*method.AllocStopResponse, error) {
	id, ok := model.ParseUUID(req.AllocID)
	if !ok {
		return nil, model.NotFound("allocation", req.AllocID)
	}
	yes := true
	want := model.DesiredTransition{Migrate: &yes}
	if req.NoShutdownDelay {
		want.NoShutdownDelay = &yes
	}
	index, value, err := s.once(ctx, c, "", req, cell.CmdAllocTransition, &cell.AllocTransition{
		Allocs: []model.UUID{id}, Transition: want, Trigger: model.TriggerAllocStop, Derive: cell.NewDerive(s.clock.Now().UnixNano()),
	})
	if err != nil {
		return nil, err
	}
	return &method.AllocStopResponse{EvalID: value.(*cell.AllocTransitioned).EvalIDs[0], Index: index}, nil
}

// logs passes a task's log on from its node.
func (s *allocs) logs(ctx context.Context, _ *rpc.Inbound, req *method.LogsRequest, send func(*method.LogFrame) error) error {
	id, ok := model.ParseUUID(req.AllocID)
	if !ok {
		return model.NotFound("allocation", req.AllocID)
	}
	snap := s.snapshot()
	row := snap.Alloc(nil, id)
	if row == nil {
		return model.NotFound("allocation", req.AllocID)
	}
	if g := row.Job().Group(row.Shared.Group); g == nil || g.Task(req.Task) == nil {
		return model.NotFound("task", req.Task)
	}
	stream, err := rpc.Open(ctx, s.nodes, method.NodeLogs, rpc.To{NodeID: row.NodeID.String()}, req)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(frame); err != nil {
			return err
		}
	}
}
