package region

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"atoll/cell/state"
	"atoll/federation"
	"atoll/federation/summary"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// summaries serves the Summary methods: what this region tells the others of
// itself.
type summaries struct {
	*reader
	region string
	dir    *federation.Directory
	own    *summary.Own
}

func (s *summaries) bind(r *rpc.Server) {
	rpc.HandleStream(r, method.SummaryPull, s.pull)
	rpc.Handle(r, method.SummaryTotals, s.totals)
	rpc.Handle(r, method.SummaryJobs, ownRows(s, jobRows))
	rpc.Handle(r, method.SummaryNodes, ownRows(s, nodeRows))
	rpc.Handle(r, method.SummaryDeployments, ownRows(s, deploymentRows))
}

func (s *summaries) pull(_ context.Context, _ *rpc.Inbound, req *method.SummaryPullRequest, send func(*method.SummaryFrame) error) error {
	d, err := s.changes(req)
	if err != nil {
		return err
	}
	return summary.Send(d, send)
}

// changes reads what changed since the asker last asked. Its cost grows with the
// changes, unless everything has to be told.
func (s *summaries) changes(req *method.SummaryPullRequest) (*summary.Delta, error) {
	// Before the state is read, so that the answer is no older than it says.
	contact := s.contact()
	snap := s.snapshot()
	if contact < 0 || snap.Name() == "" {
		return nil, &model.Error{Kind: model.KindNoLeader, Region: s.region, Message: "this server has not heard a leader of its region yet; ask another"}
	}
	touched, index, snap, ok := snap.Touched(req.Since)
	// The name of a state that is replaced meanwhile is the new one's.
	d := &summary.Delta{State: snap.Name(), Index: index, LastContact: contact}
	if req.Report {
		d.Report = s.report()
	}
	r := &d.Rows
	if !ok || req.State != d.State {
		d.Full = true
		for j := range snap.Jobs(nil, model.AllNamespaces, "") {
			r.Jobs = append(r.Jobs, jobRow(snap, j))
		}
		for n := range snap.Nodes(nil, "") {
			r.Nodes = append(r.Nodes, nodeRow(snap, n))
		}
		for dep := range snap.Deployments(nil, "") {
			r.Deployments = append(r.Deployments, dep.Row())
		}
		return d, nil
	}
	for _, key := range touched.Jobs {
		if j := snap.Job(nil, key); j != nil {
			r.Jobs = append(r.Jobs, jobRow(snap, j))
		} else {
			r.GoneJobs = append(r.GoneJobs, model.RowKey(key))
		}
	}
	for _, id := range touched.Nodes {
		if n := snap.Node(nil, id.String()); n != nil {
			r.Nodes = append(r.Nodes, nodeRow(snap, n))
		} else {
			r.GoneNodes = append(r.GoneNodes, model.RowKey{ID: id.String()})
		}
	}
	for _, key := range touched.Deployments {
		if dep := snap.Deployment(nil, key.ID); dep != nil {
			r.Deployments = append(r.Deployments, dep.Row())
		} else {
			r.GoneDeployments = append(r.GoneDeployments, model.RowKey(key))
		}
	}
	return d, nil
}

func jobRow(snap *state.Snapshot, j *model.Job) *model.JobRow {
	return j.Row(snap.Summary(nil, j), snap.LatestDeployment(nil, j.Key()))
}

func nodeRow(snap *state.Snapshot, n *model.Node) *model.NodeRow {
	id, _ := model.ParseUUID(n.ID)
	used, _ := snap.Load(id)
	return n.Row(used)
}

// report is what this server says of its region.
func (s *summaries) report() *model.RegionReport {
	r := &model.RegionReport{CellID: s.dir.CellOf(s.region), Leader: s.leader(), RTT: make(map[string]time.Duration)}
	for _, st := range s.dir.Regions() {
		if st.Name == s.region {
			continue
		}
		servers, _ := s.dir.Servers(st.Name)
		for _, p := range servers {
			if best := r.RTT[st.Name]; p.Alive && p.RTT > 0 && (best == 0 || p.RTT < best) {
				r.RTT[st.Name] = p.RTT.Round(time.Microsecond)
			}
		}
	}
	return r
}

func (s *summaries) totals(context.Context, *rpc.Inbound, *method.Empty) (*method.SummaryTotalsResponse, error) {
	c, err := s.own.Now()
	if err != nil {
		return nil, err
	}
	out := &method.SummaryTotalsResponse{Report: *s.report(), Nodes: maps.Clone(c.Nodes.Counts()), Jobs: maps.Clone(c.Jobs.Counts()), Deployments: maps.Clone(c.Deployments.Counts())}
	return out, s.describe(&out.Meta, c.Index)
}

// table is one of the three that summaries have.
type table[R summary.Row] struct {
	of func(*summary.Copy) *summary.Table[R]
	// ask is how a region is asked for its own rows.
	ask method.Method[method.SummaryRequest, method.SummaryPage[R]]
	// namespaced is false for rows that are in no namespace, lower true for ids
	// that are UUIDs.
	namespaced, lower bool
}

var (
	jobRows        = table[*model.JobRow]{of: func(c *summary.Copy) *summary.Table[*model.JobRow] { return c.Jobs }, ask: method.SummaryJobs, namespaced: true}
	nodeRows       = table[*model.NodeRow]{of: func(c *summary.Copy) *summary.Table[*model.NodeRow] { return c.Nodes }, ask: method.SummaryNodes, lower: true}
	deploymentRows = table[*model.DeploymentRow]{of: func(c *summary.Copy) *summary.Table[*model.DeploymentRow] { return c.Deployments }, ask: method.SummaryDeployments, namespaced: true, lower: true}
)

// defaultPage is the rows of a page whose asker does not say how many: unlike
// ordinary lists these are new, and nobody expects them to be whole.
const defaultPage = 1000

// selection reads what a request asks for, and how many rows at the most.
func (t table[R]) selection(ctx context.Context, req *method.SummaryRequest) (*summary.Selection[R], int, error) {
	if req.PerPage < 0 || req.PerPage > maxPage {
		return nil, 0, model.Invalidf("per_page", "cannot list: per_page %d is not from 0 to %d", req.PerPage, maxPage)
	}
	limit := cmp.Or(req.PerPage, defaultPage)
	sel := &summary.Selection[R]{Prefix: req.Prefix, ID: req.ID}
	if t.namespaced {
		sel.Namespace = cmp.Or(req.Namespace, model.DefaultNamespace)
	}
	if t.lower {
		sel.Prefix, sel.ID = strings.ToLower(sel.Prefix), strings.ToLower(sel.ID)
	}
	var err error
	if sel.After, err = summary.ParseToken(req.NextToken); err != nil {
		return nil, 0, err
	}
	filter, err := newFilter(req.Filter)
	if err != nil {
		return nil, 0, err
	}
	if filter != nil {
		// A filter that few rows pass is asked for all of them: nobody waits for
		// that for longer than the call.
		seen := 0
		sel.Keep = func(row R) (bool, error) {
			if seen++; seen%256 == 0 && ctx.Err() != nil {
				return false, ctx.Err()
			}
			return filter.passes(row)
		}
	}
	return sel, limit, nil
}

// ownRows serves a page of this region's own rows.
func ownRows[R summary.Row](s *summaries, t table[R]) func(context.Context, *rpc.Inbound, *method.SummaryRequest) (*method.SummaryPage[R], error) {
	return func(ctx context.Context, _ *rpc.Inbound, req *method.SummaryRequest) (*method.SummaryPage[R], error) {
		sel, limit, err := t.selection(ctx, req)
		if err != nil {
			return nil, err
		}
		c, err := s.own.Now()
		if err != nil {
			return nil, err
		}
		out := &method.SummaryPage[R]{}
		// One more than the answer will have tells whether there are more.
		if out.Rows, err = summary.Take(t.of(c).Select(s.region, sel), limit+1); err != nil {
			return nil, err
		}
		return out, s.describe(&out.Meta, c.Index)
	}
}

// sortedRegions are the names of regions that a request wants, all that are known
// unless it says which.
func sortedRegions(known []model.RegionStatus, want []string) ([]model.RegionStatus, error) {
	out := slices.Clone(known)
	if len(want) > 0 {
		byName := make(map[string]model.RegionStatus, len(known))
		for _, st := range known {
			byName[st.Name] = st
		}
		out = nil
		for _, name := range slices.Compact(slices.Sorted(slices.Values(want))) {
			st, ok := byName[name]
			if !ok {
				return nil, &model.Error{
					Kind: model.KindUnknownRegion, Region: name,
					Message: "region \"" + name + "\" is not in this agent's directory, which has " + strings.Join(slices.Sorted(maps.Keys(byName)), ", "),
				}
			}
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b model.RegionStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
