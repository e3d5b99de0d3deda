package region

import (
	"context"
	"iter"
	"slices"
	"strings"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// evals serves the Eval methods.
type evals struct {
	*reader
	*writer
}

func (s *evals) bind(r *rpc.Server) {
	rpc.Handle(r, method.EvalList, s.list)
	rpc.Handle(r, method.EvalCount, s.count)
	rpc.Handle(r, method.EvalGet, s.get)
	rpc.Handle(r, method.EvalAllocs, s.allocations)
	rpc.Handle(r, method.EvalDelete, s.delete)
}

// evalsOf returns the evaluations that a request selects, and how to list them.
func evalsOf(snap *state.Snapshot, ws state.Watch, req *method.EvalListRequest) (iter.Seq[*model.Evaluation], lister[*model.Evaluation, *model.Evaluation]) {
	prefix := strings.ToLower(req.Prefix)
	l := lister[*model.Evaluation, *model.Evaluation]{
		key: func(e *model.Evaluation) string { return e.ID },
		keep: func(e *model.Evaluation) bool {
			return inNamespace(&req.Query, e.Namespace) && (req.JobID == "" || e.JobID == req.JobID) && (req.Status == "" || e.Status == req.Status)
		},
		stub: func(e *model.Evaluation) *model.Evaluation { return e },
	}
	return snap.Evals(ws, prefix), l
}

func (s *evals) list(ctx context.Context, c *rpc.Inbound, req *method.EvalListRequest) (*method.EvalListResponse, error) {
	out := &method.EvalListResponse{}
	var err error
	asks := [2]string{req.JobID, req.Status}
	out.Evals, err = list(ctx, s.reader, c.Envelope.Method, &req.Query, asks, &out.Meta, func(ws state.Watch, snap *state.Snapshot) view[*model.Evaluation, *model.Evaluation] {
		rows, l := evalsOf(snap, ws, req)
		return view[*model.Evaluation, *model.Evaluation]{rows, l, snap.EvalsIndex()}
	})
	return out, err
}

func (s *evals) count(ctx context.Context, _ *rpc.Inbound, req *method.EvalListRequest) (*method.EvalCountResponse, error) {
	out := &method.EvalCountResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		rows, l := evalsOf(snap, ws, req)
		found, _, err := l.page(&method.Query{Filter: req.Filter}, rows)
		out.Count = len(found)
		return snap.EvalsIndex(), err
	})
}

func (s *evals) get(ctx context.Context, _ *rpc.Inbound, req *method.EvalRequest) (*method.EvalResponse, error) {
	out := &method.EvalResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Related = nil
		if out.Eval = snap.Eval(ws, req.EvalID); out.Eval == nil {
			return snap.EvalsIndex(), nil
		}
		if req.Related {
			out.Related = related(snap, out.Eval)
		}
		return out.Eval.ModifyIndex, nil
	})
}

// maxRelated bounds a chain of evaluations, which a job that fails for ever
// makes as long as their threshold.
const maxRelated = 100

// related returns the evaluations that e comes from and leads to, and those of
// these, the nearest first.
func related(snap *state.Snapshot, e *model.Evaluation) []*model.EvaluationStub {
	seen := map[string]bool{"": true, e.ID: true}
	var out []*model.EvaluationStub
	todo := []*model.Evaluation{e}
	for len(todo) > 0 && len(out) < maxRelated {
		at := todo[0]
		todo = todo[1:]
		for _, id := range []string{at.NextEval, at.PreviousEval, at.BlockedEval} {
			if seen[id] {
				continue
			}
			seen[id] = true
			if other := snap.Eval(nil, id); other != nil {
				out, todo = append(out, other.Stub()), append(todo, other)
			}
		}
	}
	return out
}

func (s *evals) allocations(ctx context.Context, _ *rpc.Inbound, req *method.EvalRequest) (*method.AllocListResponse, error) {
	out := &method.AllocListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Allocs = []*model.AllocStub{}
		e := snap.Eval(ws, req.EvalID)
		if e == nil {
			return snap.AllocsIndex(), nil
		}
		id, _ := model.ParseUUID(e.ID)
		rows, index := snap.AllocsOfJob(ws, e.JobKey())
		l := allocLister(snap, false)
		l.keep = func(r *model.AllocRow) bool { return r.Shared.EvalID == id }
		var err error
		out.Allocs, _, err = l.page(&method.Query{}, rows)
		return max(index, e.ModifyIndex), err
	})
}

// Bounds of a deletion: what one request may name, and what one write deletes
// (the state machine takes about 12 ms for it).
const (
	maxDelete   = 10_000
	deleteBatch = 512
)

func (s *evals) delete(ctx context.Context, c *rpc.Inbound, req *method.EvalDeleteRequest) (*method.EvalDeleteResponse, error) {
	if (len(req.EvalIDs) == 0) == (req.Filter == "") {
		return nil, model.Invalidf("EvalIDs", "cannot delete evaluations: name them by either ids or a filter")
	}
	if len(req.EvalIDs) > maxDelete {
		return nil, model.Invalidf("EvalIDs", "cannot delete %d evaluations at once: the limit is %d", len(req.EvalIDs), maxDelete)
	}
	cmd := cell.EvalDelete{Namespace: req.Namespace, Strict: req.Filter == ""}
	ids := req.EvalIDs
	if req.Filter != "" {
		var err error
		if ids, err = s.matching(req); err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		u, ok := model.ParseUUID(id)
		if !ok {
			return nil, model.Invalidf("EvalIDs", "cannot delete evaluation %q: this is no id", id)
		}
		cmd.IDs = append(cmd.IDs, u)
	}
	// What a filter finds may be too much for one write. The last one answers
	// for all.
	for !cmd.Strict && len(cmd.IDs) > deleteBatch {
		part := cmd
		part.IDs = cmd.IDs[:deleteBatch]
		_, value, err := s.Apply(ctx, cell.CmdEvalDelete, &part)
		if err != nil {
			return nil, err
		}
		cmd.Before, cmd.IDs = value.(*cell.EvalsDeleted).Count, cmd.IDs[deleteBatch:]
	}
	index, value, err := s.once(ctx, c, req.Namespace, req, cell.CmdEvalDelete, &cmd)
	if err != nil {
		return nil, err
	}
	return &method.EvalDeleteResponse{Count: value.(*cell.EvalsDeleted).Count, Index: index}, nil
}

// matching are the ids of the evaluations that a deletion's filter finds.
func (s *evals) matching(req *method.EvalDeleteRequest) ([]string, error) {
	q := method.Query{Namespace: req.Namespace, Filter: req.Filter}
	rows, l := evalsOf(s.snapshot(), nil, &method.EvalListRequest{Query: q})
	found, _, err := l.page(&q, rows)
	var ids []string
	for _, e := range found {
		ids = append(ids, e.ID)
	}
	return slices.Clip(ids), err
}
