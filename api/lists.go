package api

import (
	"context"
	"slices"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// regionsHeader says what each region's rows are worth, in the form of
// federation.FormatHeader; of what all regions hold alike, when the region that
// answers last heard from each.
const regionsHeader = "X-Atoll-Regions"

// list answers a list of one region, or of all: then each row names its region,
// and the header says what each region's rows are worth.
func list[Q, R, Row any, A answer[R]](r *request, m method.Method[Q, R], req *Q, rows func(*R) []*Row, name func(*Row, string)) (any, error) {
	return listOr[Q, R, Row, any, A](r, m, req, rows, name, nil)
}

// listOr is list, with what is known of regions that do not answer; nil for
// nothing.
func listOr[Q, R, Row, Sum any, A answer[R]](r *request, m method.Method[Q, R], req *Q, rowsOf func(*R) []*Row, name func(*Row, string), known *fallback[Sum, Row]) (any, error) {
	if !r.allRegions() {
		return show[Q, R, A](r, m, req)
	}
	if r.read.MinIndex > 0 {
		return nil, model.Invalidf("index", "index %d cannot be waited for in all regions: each has indexes of its own; ask again, or one region", r.read.MinIndex)
	}
	if r.read.PerPage > 0 || r.read.NextToken != "" {
		return nil, model.Invalidf("per_page", "a list of all regions has no pages in this version; narrow it by prefix or filter")
	}
	whole, cancel := context.WithTimeout(r.Context(), federation.AskTime+fallbackTime)
	defer cancel()
	ctx, cancel := context.WithTimeout(whole, federation.AskTime)
	defer cancel()
	regions, err := r.regions(ctx)
	if err != nil {
		return nil, err
	}
	rows := []*Row{}
	var answers []model.RegionAnswer
	meta := method.Meta{Index: 1, KnownLeader: true}
	var bad error
	var silent []string
	for _, p := range federation.Ask(ctx, r.api.cfg.Caller, regions, m, req, func(out *R) *method.Meta { return A(out).About() }) {
		if p.Reply == nil && model.KindOf(p.Err) == model.KindNotFound {
			// That there is none is an answer.
			p.RegionAnswer = model.RegionAnswer{Region: p.Region, Freshness: model.Live, Index: 1}
			answers = append(answers, p.RegionAnswer)
			continue
		}
		if p.Reply != nil && slices.Contains(rowsOf(p.Reply), nil) {
			p.Refuse("a row is missing")
		}
		answers = append(answers, p.RegionAnswer)
		if p.Reply == nil {
			// A filter that one region cannot read no region can.
			if model.KindOf(p.Err) == model.KindInvalid {
				bad = p.Err
			}
			silent = append(silent, p.Region)
			continue
		}
		for _, row := range rowsOf(p.Reply) {
			// A region served by this process shares its rows with us.
			own := *row
			name(&own, p.Region)
			rows = append(rows, &own)
		}
		of := A(p.Reply).About()
		meta.LastContact = max(meta.LastContact, of.LastContact)
		meta.KnownLeader = meta.KnownLeader && of.KnownLeader
	}
	if bad != nil {
		return nil, bad
	}
	if known != nil && len(silent) > 0 {
		old, of := known.summarized(whole, r, silent)
		rows = append(rows, old...)
		for i, a := range answers {
			if s, ok := of[a.Region]; ok {
				answers[i] = s
				answers[i].Error = a.Error
			}
		}
	}
	r.meta(&meta)
	r.response.Header().Set(regionsHeader, federation.FormatHeader(answers))
	return rows, nil
}

// regions are all regions that this agent knows. A node whose servers are gone
// goes by what it last heard, and finds out soon enough to ask them all in time.
func (r *request) regions(ctx context.Context) ([]model.RegionStatus, error) {
	var known []model.RegionStatus
	to := rpc.To{}
	if node := r.api.cfg.Node; node != nil && r.api.cfg.Server == nil {
		known, to.Timeout = node.Regions(), federation.AskTime/3
		if node.Lost() && len(known) > 0 {
			return known, nil
		}
	}
	out, err := rpc.Call(ctx, r.api.cfg.Caller, method.RegionList, to, &method.Empty{})
	switch {
	case err == nil:
		return out.Regions, nil
	case len(known) > 0:
		return known, nil
	}
	return nil, err
}
