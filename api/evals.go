package api

import (
	"atoll/model"
	"atoll/model/method"
)

// evalRow is an evaluation in a list.
type evalRow struct {
	*model.Evaluation
	// Region is set in answers over several regions.
	Region string `json:",omitempty"`
}

func (r *request) evals() *method.EvalListRequest {
	return &method.EvalListRequest{Query: r.read, JobID: r.query.Get("job"), Status: r.query.Get("status")}
}

func listEvals(r *request) (any, error) {
	return list(r, method.EvalList, r.evals(), evalRows, nameEval)
}

func evalRows(out *method.EvalListResponse) []*evalRow {
	rows := make([]*evalRow, len(out.Evals))
	for i, e := range out.Evals {
		rows[i] = &evalRow{Evaluation: e}
	}
	return rows
}

func nameEval(row *evalRow, region string) { row.Region = region }

func countEvals(r *request) (any, error) {
	out, err := call(r, method.EvalCount, r.evals(), func(out *method.EvalCountResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	return map[string]int{"Count": out.Count}, nil
}

func readEval(r *request) (any, error) {
	related, err := r.flag("related")
	if err != nil {
		return nil, err
	}
	out, err := call(r, method.EvalGet, &method.EvalRequest{Query: r.read, EvalID: r.id, Related: related}, func(out *method.EvalResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Eval == nil {
		return nil, notFound("eval", r.id)
	}
	return struct {
		*model.Evaluation
		RelatedEvals []*model.EvaluationStub `json:",omitempty"`
	}{out.Eval, out.Related}, nil
}

func evalAllocations(r *request) (any, error) {
	return show(r, method.EvalAllocs, &method.EvalRequest{Query: r.read, EvalID: r.id})
}

func deleteEvals(r *request) (any, error) {
	var in struct {
		EvalIDs []string
		Filter  string
	}
	if err := r.body(&in); err != nil {
		return nil, err
	}
	out, err := write(r, method.EvalDelete, &method.EvalDeleteRequest{Namespace: r.read.Namespace, EvalIDs: in.EvalIDs, Filter: in.Filter},
		func(out *method.EvalDeleteResponse) uint64 { return out.Index })
	if err != nil {
		return nil, err
	}
	return map[string]int{"Count": out.Count}, nil
}
