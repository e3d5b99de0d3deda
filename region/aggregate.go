package region

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"atoll/federation"
	"atoll/federation/summary"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// aggregates serves the Federation methods: questions about all regions. Its own
// region it asks for what is, its leader if that is another server; of the others
// it has copies, or asks them too when the question says fresh.
type aggregates struct {
	region string
	dir    *federation.Directory
	own    *summary.Own
	copies *summary.Copies
	calls  *rpc.Server
	leads  func() bool
	leader func() string
	clock  clock.Clock
}

func (s *aggregates) bind(r *rpc.Server) {
	rpc.Handle(r, method.FederationRegions, s.overview)
	rpc.Handle(r, method.FederationJobs, allRows(s, jobRows))
	rpc.Handle(r, method.FederationNodes, allRows(s, nodeRows))
	rpc.Handle(r, method.FederationDeployments, allRows(s, deploymentRows))
}

// ownTime bounds the question to our own leader: without an answer what this
// server has is told instead, as stale.
const ownTime = 400 * time.Millisecond

// freshTime bounds the question to all regions. It is less than AskTime, within
// which whoever asked this server must have heard.
const freshTime = federation.AskTime - 200*time.Millisecond

// allRows serves a page of the rows of many regions.
func allRows[R summary.Row](s *aggregates, t table[R]) func(context.Context, *rpc.Inbound, *method.FederationRequest) (*method.FederationPage[R], error) {
	return func(ctx context.Context, _ *rpc.Inbound, req *method.FederationRequest) (*method.FederationPage[R], error) {
		sel, limit, err := t.selection(ctx, &req.SummaryRequest)
		if err != nil {
			return nil, err
		}
		regions, err := sortedRegions(s.dir.Regions(), req.Regions)
		if err != nil {
			return nil, err
		}
		live := ask(ctx, s, req, regions, t.ask, &req.SummaryRequest, func(r *method.SummaryPage[R]) *method.Meta { return &r.Meta })
		out := &method.FederationPage[R]{Regions: make([]model.RegionAnswer, len(regions))}
		var parts []summary.Part[R]
		for i, st := range regions {
			p, asked := live[st.Name]
			if p.Reply != nil {
				if err := summary.Check(p.Reply.Rows, st.Name, sel.After); err != nil {
					p.Refuse(err.Error())
				}
			}
			switch {
			case asked && p.Reply != nil:
				out.Regions[i] = p.RegionAnswer
				parts = append(parts, summary.Part[R]{Region: st.Name, Rows: summary.Rows(p.Reply.Rows)})
				for _, row := range p.Reply.Rows {
					// It came from that region, or is a row of our own copy, which
					// says so.
					if st.Name != s.region {
						row.OfRegion(st.Name)
					}
				}
				continue
			case asked && model.KindOf(p.Err) == model.KindInvalid:
				// What one region cannot read none can.
				return nil, p.Err
			}
			c, answer := s.copyOf(st, p.Err)
			out.Regions[i] = answer
			if c != nil {
				parts = append(parts, summary.Part[R]{Region: st.Name, Rows: t.of(c).Select(st.Name, sel)})
			}
		}
		out.Rows, out.NextToken, err = summary.Merge(parts, limit)
		return out, err
	}
}

// ask asks those regions themselves that have to be: our own, and the others when
// the question says fresh.
func ask[Q, R any](ctx context.Context, s *aggregates, req *method.FederationRequest, regions []model.RegionStatus, m method.Method[Q, R], q *Q, meta func(*R) *method.Meta) map[string]federation.Part[R] {
	out := make(map[string]federation.Part[R])
	bound := freshTime
	if req.Wait > 0 {
		bound = min(bound, req.Wait)
	}
	whom := regions
	if !req.Fresh {
		bound = ownTime
		whom = slices.DeleteFunc(slices.Clone(regions), func(st model.RegionStatus) bool { return st.Name != s.region })
		// An election is not waited for when what is here will do.
		if !s.leads() && s.leader() == "" {
			return out
		}
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for _, p := range federation.Ask(ctx, s.calls, whom, m, q, meta) {
		out[p.Region] = p
	}
	return out
}

// copyOf is what is known of a region that was not asked, or did not answer, and
// what that is worth. failed is why it did not, nil when it was not asked.
func (s *aggregates) copyOf(st model.RegionStatus, failed error) (*summary.Copy, model.RegionAnswer) {
	answer := model.RegionAnswer{Region: st.Name, Freshness: model.Unreachable, Age: st.LastContact}
	if st.Name != s.region && failed == nil {
		if down := s.dir.Down(st.Name); down != nil {
			failed = down
		}
	}
	if failed != nil {
		answer.Error = failed.Error()
	}
	c := s.copies.Of(st.Name)
	if st.Name == s.region {
		var err error
		if c, err = s.own.Now(); err != nil {
			answer.Age, answer.Error = -1, err.Error()
			return nil, answer
		}
	}
	if c == nil {
		if answer.Error == "" {
			answer.Error = fmt.Sprintf("this server has no summary of region %q yet; ask again, or ask fresh", st.Name)
		}
		return nil, answer
	}
	answer.Freshness, answer.Age, answer.Index = model.Stale, c.Age(s.clock.Now()), c.Index
	if c.Dropped > 0 {
		answer.Error = strings.TrimPrefix(fmt.Sprintf("%s; %d rows are left out: this server keeps no more of a region; ask fresh", answer.Error, c.Dropped), "; ")
	}
	return c, answer
}

// overview answers how every region is.
func (s *aggregates) overview(ctx context.Context, _ *rpc.Inbound, req *method.FederationRequest) (*method.FederationRegionsResponse, error) {
	regions, err := sortedRegions(s.dir.Regions(), req.Regions)
	if err != nil {
		return nil, err
	}
	live := ask(ctx, s, req, regions, method.SummaryTotals, &method.Empty{}, func(r *method.SummaryTotalsResponse) *method.Meta { return &r.Meta })
	out := &method.FederationRegionsResponse{}
	for _, st := range regions {
		o := &model.RegionOverview{Healthy: st.Healthy, LastContact: st.LastContact, CellID: st.CellID, Quarantined: st.Quarantined, Refused: st.Refused}
		var report *model.RegionReport
		if p := live[st.Name]; p.Reply != nil {
			o.RegionAnswer, report = p.RegionAnswer, &p.Reply.Report
			o.Nodes, o.Jobs, o.Deployments = p.Reply.Nodes, p.Reply.Jobs, p.Reply.Deployments
		} else {
			var c *summary.Copy
			if c, o.RegionAnswer = s.copyOf(st, p.Err); c != nil {
				report = c.Report
				o.Nodes, o.Jobs, o.Deployments = c.Nodes.Counts(), c.Jobs.Counts(), c.Deployments.Counts()
			}
		}
		if report != nil {
			o.Leader, o.RTT = report.Leader, report.RTT
		}
		o.Servers = s.servers(st.Name, o.Leader)
		out.Regions = append(out.Regions, o)
	}
	return out, nil
}

// servers are a region's as this server sees them.
func (s *aggregates) servers(region, leader string) []model.RegionServer {
	out := []model.RegionServer{}
	for _, p := range s.dir.Members(region) {
		out = append(out, model.RegionServer{
			Name: p.Name, Address: p.RPC, Alive: p.Alive, Leader: p.RPC == leader, RTT: p.RTT, Build: p.Build, ProtocolMin: p.ProtocolMin, ProtocolMax: p.ProtocolMax,
		})
	}
	return out
}
