package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// federationRequest reads which rows of which regions a question is about.
func (r *request) federationRequest() (*method.FederationRequest, error) {
	if r.read.MinIndex > 0 {
		return nil, model.Invalidf("index", "index %d cannot be waited for in all regions: each has indexes of its own; ask again, or one region", r.read.MinIndex)
	}
	if r.read.Reverse {
		return nil, model.Invalidf("reverse", "a list of all regions is in one order only: namespace, id, region")
	}
	req := &method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: r.read}, Wait: r.read.MaxWait}
	if r.query.Has("fresh") {
		fresh := true
		if r.query.Get("fresh") != "" {
			var err error
			if fresh, err = r.flag("fresh"); err != nil {
				return nil, err
			}
		}
		req.Fresh = fresh
	}
	// The region is one that the rows are of, whoever answers.
	for _, name := range strings.Split(r.query.Get("region"), ",") {
		switch name {
		case "", model.AllRegions:
		case model.GlobalRegion:
			req.Regions = append(req.Regions, r.api.cfg.Region)
		default:
			req.Regions = append(req.Regions, name)
		}
	}
	return req, nil
}

// doorTime is how long one server of several has to answer from what it holds.
const doorTime = federation.AskTime / 3

// anyDoor asks a server of our own region, and on a node that cannot reach one, or
// only so slowly that nothing can be asked of it in time, those of the others: each
// can answer for all. shut says that those of our own are known not to answer.
func anyDoor[R any](ctx context.Context, r *request, m method.Method[method.FederationRequest, R], req *method.FederationRequest, shut bool) (*R, error) {
	node := r.api.cfg.Node
	if node == nil || r.api.cfg.Server != nil {
		return rpc.Call(ctx, r.api.cfg.Caller, m, rpc.To{Timeout: federation.AskTime}, req)
	}
	ctx, cancel := context.WithTimeout(ctx, federation.AskTime)
	defer cancel()
	to := rpc.To{}
	if !req.Fresh {
		to.Timeout = doorTime
	}
	var last error
	if !shut && !node.Lost() {
		out, err := rpc.Call(ctx, r.api.cfg.Caller, m, to, req)
		if err == nil || !elsewhere(err) {
			return out, err
		}
		last = err
	}
	for _, st := range node.Regions() {
		if st.Name == r.api.cfg.Region {
			continue
		}
		to.Region = st.Name
		out, err := rpc.Call(ctx, r.api.cfg.Caller, m, to, req)
		if err == nil || !elsewhere(err) {
			return out, err
		}
		last = err
	}
	if last == nil {
		last = &model.Error{Kind: model.KindUnreachable, Region: r.api.cfg.Region, Message: "no server answers this node, and it knows of no other region"}
	}
	return nil, last
}

// elsewhere reports whether another server may do better.
func elsewhere(err error) bool {
	switch model.KindOf(err) {
	case model.KindUnreachable, model.KindDeadline, model.KindNoLeader, model.KindBusy:
		return true
	}
	return false
}

// federated answers with a page of rows of many regions, under a name.
func federated[Row any](r *request, m method.Method[method.FederationRequest, method.FederationPage[Row]], name, id string) (any, error) {
	req, err := r.federationRequest()
	if err != nil {
		return nil, err
	}
	req.ID = id
	out, err := anyDoor(r.Context(), r, m, req, false)
	if err != nil {
		return nil, err
	}
	r.response.Header().Set(regionsHeader, federation.FormatHeader(out.Regions))
	body := map[string]any{"Regions": orEmpty(out.Regions), name: orEmpty(out.Rows)}
	if out.NextToken != "" {
		body["NextToken"] = out.NextToken
		r.response.Header().Set("X-Nomad-NextToken", out.NextToken)
	}
	return body, nil
}

func federationJobs(r *request) (any, error) {
	return federated(r, method.FederationJobs, "Jobs", "")
}

// federationJob are all regions' shares of a job, side by side.
func federationJob(r *request) (any, error) {
	return federated(r, method.FederationJobs, "Jobs", r.id)
}

func federationNodes(r *request) (any, error) {
	return federated(r, method.FederationNodes, "Nodes", "")
}

func federationDeployments(r *request) (any, error) {
	return federated(r, method.FederationDeployments, "Deployments", "")
}

// federationRegions tells how every region is.
func federationRegions(r *request) (any, error) {
	req, err := r.federationRequest()
	if err != nil {
		return nil, err
	}
	out, err := anyDoor(r.Context(), r, method.FederationRegions, req, false)
	if err != nil {
		return nil, err
	}
	var answers []model.RegionAnswer
	for _, o := range out.Regions {
		answers = append(answers, o.RegionAnswer)
	}
	r.response.Header().Set(regionsHeader, federation.FormatHeader(answers))
	return map[string]any{"Regions": orEmpty(out.Regions)}, nil
}

// fallbackTime is what is left for it when a question to all regions has had all
// of its time.
const fallbackTime = 150 * time.Millisecond

// fallback is where an ordinary list of all regions finds the rows of those that
// did not answer.
type fallback[Row, Stub any] struct {
	ask  method.Method[method.FederationRequest, method.FederationPage[*Row]]
	stub func(*Row) *Stub
}

// summarized returns what is known of regions that did not answer, and what that
// is worth, by region. Where a summary does not have what the question is about,
// it has nothing.
func (f *fallback[Row, Stub]) summarized(ctx context.Context, r *request, regions []string) (rows []*Stub, answers map[string]model.RegionAnswer) {
	shut := slices.Contains(regions, r.api.cfg.Region)
	query := method.Query{Namespace: r.read.Namespace, Prefix: r.read.Prefix, Filter: r.read.Filter, PerPage: 10_000}
	for {
		req := &method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: query}, Regions: regions}
		page, err := anyDoor(ctx, r, f.ask, req, shut)
		if err != nil || slices.Contains(page.Rows, nil) {
			return nil, nil
		}
		if answers == nil {
			answers = make(map[string]model.RegionAnswer, len(page.Regions))
			for _, a := range page.Regions {
				if a.Freshness != model.Unreachable {
					// It did not answer for itself, whatever a server of it says now.
					a.Freshness = model.Stale
					answers[a.Region] = a
				}
			}
		}
		for _, row := range page.Rows {
			rows = append(rows, f.stub(row))
		}
		if query.NextToken = page.NextToken; query.NextToken == "" {
			return rows, answers
		}
	}
}
