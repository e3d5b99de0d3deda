package region

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/federation"
	"atoll/federation/summary"
	"atoll/internal/clock"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// rowsOf is everything that a copy holds, by table and key.
func rowsOf(t testing.TB, c *summary.Copy) map[string]any {
	t.Helper()
	out := make(map[string]any)
	collect(t, "job", c.Region, c.Jobs, out)
	collect(t, "node", c.Region, c.Nodes, out)
	collect(t, "deployment", c.Region, c.Deployments, out)
	return out
}

func collect[R summary.Row](t testing.TB, kind, region string, table *summary.Table[R], out map[string]any) {
	t.Helper()
	rows, err := summary.Take(table.Select(region, &summary.Selection[R]{Namespace: model.AllNamespaces}), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		out[fmt.Sprintf("%s %v", kind, r.Key())] = r
	}
}

// sameRows checks a copy against all that the state of its region holds.
func sameRows(t testing.TB, c *summary.Copy, s *testServer) error {
	t.Helper()
	if c == nil {
		return errors.New("there is no copy")
	}
	source := &summaries{reader: &reader{snapshot: s.cell.Snapshot, contact: s.cell.LastContact, leader: s.look.Leader}, region: s.cfg.Region, dir: s.dir}
	fresh, err := summary.NewOwn(s.cfg.Region, source.changes, clock.Real).Now()
	if err != nil {
		return err
	}
	got, want := rowsOf(t, c), rowsOf(t, fresh)
	for key, row := range want {
		if !reflect.DeepEqual(row, got[key]) {
			return fmt.Errorf("%s is\n%+v\nand at the source\n%+v", key, got[key], row)
		}
	}
	for key := range got {
		if want[key] == nil {
			return fmt.Errorf("%s is gone at the source", key)
		}
	}
	if !maps.Equal(c.Jobs.Counts(), fresh.Jobs.Counts()) || !maps.Equal(c.Nodes.Counts(), fresh.Nodes.Counts()) || !maps.Equal(c.Deployments.Counts(), fresh.Deployments.Counts()) {
		return fmt.Errorf("counts %v %v %v", c.Jobs.Counts(), c.Nodes.Counts(), c.Deployments.Counts())
	}
	return nil
}

// threeRegions are us, eu and ap, a server each, that know each other; eu can be
// started again with the same data at the same place.
func threeRegions(t testing.TB) (us, eu, ap *testServer, startEU func() *testServer) {
	t.Helper()
	dir, addr, serf := t.TempDir(), freeport.Addr(t), freeport.Addr(t)
	start := func(name, region, dir, addr, serf string, join ...string) *testServer {
		// Nodes that send no heartbeats stay up.
		return startAt(t, addr, serf, Config{Name: name, Region: region, DataDir: dir, Expect: 1, Join: join, Heartbeats: heartbeat.Config{MinTTL: time.Hour, Grace: time.Hour}})
	}
	us = start("u1", "us", t.TempDir(), freeport.Addr(t), freeport.Addr(t))
	startEU = func() *testServer { return start("e1", "eu", dir, addr, serf, us.cfg.AdvertiseSerf) }
	eu = startEU()
	ap = start("a1", "ap", t.TempDir(), freeport.Addr(t), freeport.Addr(t), us.cfg.AdvertiseSerf)
	for _, s := range []*testServer{us, eu, ap} {
		lead(t, s)
		for _, region := range []string{"us", "eu", "ap"} {
			if region != s.cfg.Region {
				wait(t, s.cfg.Region+" has a copy of "+region, func() error {
					if s.sums.copies.Of(region) == nil {
						return errors.New("not yet")
					}
					return nil
				})
			}
		}
	}
	return us, eu, ap, startEU
}

// worths are what an answer says of the regions: "eu=stale, us=live".
func worths(answers []model.RegionAnswer) string {
	var out []string
	for _, a := range answers {
		out = append(out, a.Region+"="+string(a.Freshness))
	}
	return strings.Join(out, ", ")
}

func shownJobs(rows []*model.JobRow) (out []string) {
	for _, r := range rows {
		out = append(out, r.ID+"@"+r.Region)
	}
	return out
}

func TestCopiesFollowWhateverChangesInARegion(t *testing.T) {
	us, eu, _, _ := threeRegions(t)
	node, secret := aNode("dc1")
	call(t, us.RPC(), method.NodeRegister, rpc.To{Region: "eu"}, &method.NodeRegisterRequest{Node: node, SecretID: secret})
	settled := func(what string) {
		t.Helper()
		own, err := eu.sums.own.Now()
		if err != nil {
			t.Fatal(err)
		}
		wait(t, what+": the copy at us", func() error {
			if c := us.sums.copies.Of("eu"); c == nil || c.Index < own.Index {
				return errors.New("it is behind")
			}
			return sameRows(t, us.sums.copies.Of("eu"), eu)
		})
		wait(t, what+": the own copy", func() error {
			own, err := eu.sums.own.Now()
			if err != nil {
				return err
			}
			return sameRows(t, own, eu)
		})
	}
	settled("a node")
	euJob := func(id string, count int) *model.Job {
		j := aJob(id, count, "dc1")
		j.TaskGroups[0].Update = &model.UpdateStrategy{Stagger: 30 * time.Second, MaxParallel: 1, HealthCheck: "manual", ProgressDeadline: time.Minute, HealthyDeadline: 30 * time.Second}
		return j
	}
	for i := range 5 {
		register(t, us.RPC(), "eu", euJob(fmt.Sprintf("job-%d", i), 2+i))
	}
	settled("jobs with placements, what has no room, deployments")
	row, _ := us.sums.copies.Of("eu").Jobs.Get(model.RowKey{Namespace: "default", ID: "job-0"})
	if row.Region != "eu" || row.DeploymentStatus == "" || len(row.Groups) != 1 || row.Groups[0].Count != 2 || row.Version != 0 {
		t.Errorf("job-0 is %+v", row)
	}
	if n, _ := us.sums.copies.Of("eu").Nodes.Get(model.RowKey{ID: node.ID}); n.Used.CPU == 0 || n.Total.CPU != 1000 {
		t.Errorf("the node is %+v", n)
	}
	// The node reports what became of them.
	allocs := call(t, us.RPC(), method.AllocList, rpc.To{Region: "eu"}, &method.ListRequest{}).Allocs
	var updates []*model.AllocUpdate
	for i, a := range allocs {
		status := model.AllocClientRunning
		if i%3 == 0 {
			status = model.AllocClientFailed
		}
		updates = append(updates, &model.AllocUpdate{ID: a.ID, ClientStatus: status})
	}
	call(t, us.RPC(), method.NodeUpdate, rpc.To{Region: "eu"}, &method.NodeUpdateAllocsRequest{NodeID: node.ID, SecretID: secret, Updates: updates})
	settled("reports")
	more := euJob("job-1", 4)
	more.Priority = 70
	register(t, us.RPC(), "eu", more)
	call(t, us.RPC(), method.JobDeregister, rpc.To{Region: "eu"}, &method.JobDeregisterRequest{JobID: "job-2"})
	call(t, us.RPC(), method.JobDeregister, rpc.To{Region: "eu"}, &method.JobDeregisterRequest{JobID: "job-3", Purge: true})
	call(t, us.RPC(), method.NodeEligibility, rpc.To{Region: "eu"}, &method.NodeEligibilityRequest{NodeID: node.ID, Eligibility: model.NodeIneligible})
	settled("an update, a stop, a purge, a node out of use")
	if _, there := us.sums.copies.Of("eu").Jobs.Get(model.RowKey{Namespace: "default", ID: "job-3"}); there {
		t.Error("a purged job is there still")
	}
	call(t, us.RPC(), method.SystemReconcile, rpc.To{Region: "eu"}, &method.Empty{})
	call(t, us.RPC(), method.EvalDelete, rpc.To{Region: "eu"}, &method.EvalDeleteRequest{Namespace: "*", Filter: `Status != ""`})
	call(t, us.RPC(), method.SystemGC, rpc.To{Region: "eu"}, &method.Empty{})
	settled("a recount, deleted evaluations, a collection")
	call(t, us.RPC(), method.NodePurge, rpc.To{Region: "eu"}, &method.NodeIDRequest{NodeID: node.ID})
	settled("a purged node")
	// All of that was told as changes; one who is followed from its beginning is
	// told whole once.
	if n := us.sums.copies.Traffic("eu"); n.Full != 1 {
		t.Errorf("the copy cost %+v", n)
	}
}

func TestAllRegionsAnswerAlsoForThoseThatAreGone(t *testing.T) {
	us, eu, ap, startEU := threeRegions(t)
	for _, s := range []*testServer{us, eu, ap} {
		for _, id := range []string{"web", "only-" + s.cfg.Region} {
			register(t, us.RPC(), s.cfg.Region, aJob(id, 1))
		}
	}
	ask := func(req method.FederationRequest) *method.FederationPage[*model.JobRow] {
		t.Helper()
		begun := time.Now()
		out := call(t, us.RPC(), method.FederationJobs, rpc.To{}, &req)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%+v took %s", req, took)
		}
		return out
	}
	all := []string{"only-ap@ap", "only-eu@eu", "only-us@us", "web@ap", "web@eu", "web@us"}
	wait(t, "all copies at us", func() error {
		out := ask(method.FederationRequest{})
		if got := shownJobs(out.Rows); !slices.Equal(got, all) {
			return fmt.Errorf("%v", got)
		}
		if got := worths(out.Regions); got != "ap=stale, eu=stale, us=live" {
			return errors.New(got)
		}
		for _, a := range out.Regions {
			if a.Index == 0 || a.Freshness == model.Stale && (a.Age <= 0 || a.Age > 10*time.Second) {
				t.Errorf("%+v", a)
			}
		}
		return nil
	})
	if out := ask(method.FederationRequest{Fresh: true}); worths(out.Regions) != "ap=live, eu=live, us=live" || !slices.Equal(shownJobs(out.Rows), all) {
		t.Errorf("fresh: %s, %v", worths(out.Regions), shownJobs(out.Rows))
	}

	beforeIndex := us.sums.copies.Of("eu").Index
	cost := us.sums.copies.Traffic("eu")
	eu.stop()
	for _, fresh := range []bool{false, true} {
		out := ask(method.FederationRequest{Fresh: fresh})
		want := "ap=stale, eu=stale, us=live"
		if fresh {
			want = "ap=live, eu=stale, us=live"
		}
		if worths(out.Regions) != want || !slices.Equal(shownJobs(out.Rows), all) {
			t.Errorf("without eu, fresh %v: %s, %v", fresh, worths(out.Regions), shownJobs(out.Rows))
		}
	}
	wait(t, "the cause beside what is known of eu", func() error {
		a := ask(method.FederationRequest{SummaryRequest: method.SummaryRequest{ID: "web"}, Regions: []string{"eu"}}).Regions[0]
		if a.Freshness != model.Stale || a.Age < time.Second || a.Index != beforeIndex || !strings.Contains(a.Error, `region "eu" is unreachable`) {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	// A page after another, while a region is gone, and after.
	page := ask(method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: method.Query{PerPage: 4}}})
	if !slices.Equal(shownJobs(page.Rows), all[:4]) || page.NextToken == "" {
		t.Errorf("the first page is %v, the next %q", shownJobs(page.Rows), page.NextToken)
	}
	again := startEU()
	lead(t, again)
	rest := ask(method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: method.Query{PerPage: 4, NextToken: page.NextToken}}})
	if !slices.Equal(shownJobs(rest.Rows), all[4:]) || rest.NextToken != "" {
		t.Errorf("the rest is %v, the next %q", shownJobs(rest.Rows), rest.NextToken)
	}
	// Back, it tells what changed since: its log says that.
	register(t, again.RPC(), "eu", aJob("later", 1))
	wait(t, "eu to be followed again", func() error { return sameRows(t, us.sums.copies.Of("eu"), again) })
	if now := us.sums.copies.Traffic("eu"); now.Full != cost.Full || now.Rows-cost.Rows > 10 {
		t.Errorf("the copy cost %+v after %+v", now, cost)
	}
	// One job's shares, of regions that are named, and what is filtered.
	if out := ask(method.FederationRequest{SummaryRequest: method.SummaryRequest{ID: "web"}, Regions: []string{"us", "ap"}}); !slices.Equal(shownJobs(out.Rows), []string{"web@ap", "web@us"}) {
		t.Errorf("the shares of web: %v", shownJobs(out.Rows))
	}
	if out := ask(method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: method.Query{Prefix: "only", Filter: `Region == "ap" or ID == "only-us"`}}}); !slices.Equal(shownJobs(out.Rows), []string{"only-ap@ap", "only-us@us"}) {
		t.Errorf("filtered: %v", shownJobs(out.Rows))
	}
	for name, req := range map[string]method.FederationRequest{
		"a filter": {SummaryRequest: method.SummaryRequest{Query: method.Query{Filter: "Nonsense == 1"}}},
		"a page":   {SummaryRequest: method.SummaryRequest{Query: method.Query{PerPage: maxPage + 1}}},
		"a token":  {SummaryRequest: method.SummaryRequest{Query: method.Query{NextToken: "nonsense"}}},
	} {
		for _, fresh := range []bool{false, true} {
			req.Fresh = fresh
			if _, err := rpc.Call(t.Context(), us.RPC(), method.FederationJobs, rpc.To{}, &req); model.KindOf(err) != model.KindInvalid {
				t.Errorf("%s that is none: %v", name, err)
			}
		}
	}
	if _, err := rpc.Call(t.Context(), us.RPC(), method.FederationJobs, rpc.To{}, &method.FederationRequest{Regions: []string{"mars"}}); model.KindOf(err) != model.KindUnknownRegion {
		t.Errorf("an unknown region: %v", err)
	}

	// The others find by themselves that eu is back.
	wait(t, "all regions, seen from ap", func() error {
		regions := call(t, ap.RPC(), method.FederationRegions, rpc.To{}, &method.FederationRequest{Fresh: true}).Regions
		if len(regions) != 3 {
			return fmt.Errorf("%d regions", len(regions))
		}
		for _, o := range regions {
			jobs := 0
			for _, n := range o.Jobs {
				jobs += n
			}
			if want := map[string]int{"ap": 2, "eu": 3, "us": 2}[o.Region]; o.Freshness != model.Live || jobs != want || len(o.Servers) != 1 || !o.Servers[0].Leader || !o.Servers[0].Alive || o.Servers[0].Build != "test" || o.Leader == "" || o.CellID == "" {
				return fmt.Errorf("%+v", o)
			}
		}
		return nil
	})
}

func TestARestoredStateIsToldWhole(t *testing.T) {
	us, eu, _, _ := threeRegions(t)
	to := rpc.To{Region: "eu"}
	register(t, us.RPC(), "eu", aJob("kept", 1))
	archive := saved(t, us.RPC(), to)
	register(t, us.RPC(), "eu", aJob("lost", 1))
	wait(t, "both jobs", func() error { return sameRows(t, us.sums.copies.Of("eu"), eu) })
	state := us.sums.copies.Of("eu").State
	if _, err := restore(t, us.RPC(), to, archive); err != nil {
		t.Fatal(err)
	}
	wait(t, "the restored state", func() error {
		c := us.sums.copies.Of("eu")
		if _, there := c.Jobs.Get(model.RowKey{Namespace: "default", ID: "lost"}); there || c.State == state {
			return fmt.Errorf("a job that is lost is there: %v, the state is %s", there, c.State)
		}
		return sameRows(t, c, eu)
	})
	if n := us.sums.copies.Traffic("eu").Full; n != 2 {
		t.Errorf("it was told whole %d times, want 2", n)
	}
}

func TestAFollowerTellsOfItsRegionWhatItsLeaderSays(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	c.writes("web")
	leader := c.leader()
	for name, s := range c.servers {
		out := call(t, s.RPC(), method.FederationJobs, rpc.To{}, &method.FederationRequest{})
		if worths(out.Regions) != "us=live" || !slices.Equal(shownJobs(out.Rows), []string{"web@us"}) {
			t.Errorf("at %s: %s, %v", name, worths(out.Regions), shownJobs(out.Rows))
		}
		if o := call(t, s.RPC(), method.FederationRegions, rpc.To{}, &method.FederationRequest{}).Regions[0]; len(o.Servers) != 3 || o.Leader != leader.cfg.AdvertiseRPC {
			t.Errorf("at %s: %+v", name, o)
		}
	}
	// Without a leader, what is here has to do, and says how old it is.
	for name := range c.servers {
		if name != leader.cfg.Name {
			c.kill(name)
		}
	}
	wait(t, "the last one to lead no more", func() error {
		if leader.cell.Leads() {
			return errors.New("it does")
		}
		return nil
	})
	begun := time.Now()
	out := call(t, leader.RPC(), method.FederationJobs, rpc.To{}, &method.FederationRequest{})
	if a := out.Regions[0]; a.Freshness != model.Stale || a.Age <= 0 || !slices.Equal(shownJobs(out.Rows), []string{"web@us"}) || time.Since(begun) > time.Second {
		t.Errorf("after %s: %+v, %v", time.Since(begun), a, shownJobs(out.Rows))
	}
}

// What one region tells wrongly is no reason to answer for none.
func TestAnAnswerThatCannotBeUsedIsItsRegionsAlone(t *testing.T) {
	row := func(id string) *model.JobRow { return &model.JobRow{Namespace: "default", ID: id} }
	for _, c := range []struct {
		name   string
		rows   []*model.JobRow
		reason string
	}{
		{"a row is missing", []*model.JobRow{row("c"), nil}, "row 1 is missing"},
		{"not in order", []*model.JobRow{row("d"), row("c")}, `row 1, "c", is not in order`},
		{"twice", []*model.JobRow{row("c"), row("c")}, `row 1, "c", is not in order`},
		{"of a page before", []*model.JobRow{row("a")}, `row 0, "a", is of a page before`},
		{"right", []*model.JobRow{row("b"), row("c")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := rpc.NewServer(rpc.ServerConfig{Router: local{}})
			dir, err := federation.NewDirectory(federation.DirectoryConfig{Region: "region-0", Clock: clock.Real})
			if err != nil {
				t.Fatal(err)
			}
			dir.Update([]federation.Peer{{Region: "region-1", RPC: "r1:1", Alive: true}, {Region: "region-2", RPC: "r2:1", Alive: true}})
			rpc.Handle(calls, method.SummaryJobs, func(_ context.Context, in *rpc.Inbound, _ *method.SummaryRequest) (*method.SummaryPage[*model.JobRow], error) {
				if in.Envelope.Region == "region-1" {
					return &method.SummaryPage[*model.JobRow]{Rows: c.rows}, nil
				}
				return &method.SummaryPage[*model.JobRow]{Rows: []*model.JobRow{row("c")}}, nil
			})
			s := &aggregates{region: "region-0", dir: dir, calls: calls, leads: func() bool { return true }, leader: func() string { return "" }, clock: clock.Real, copies: summary.NewCopies(summary.Config{})}
			s.bind(calls)
			had := summary.Position{RowKey: model.RowKey{Namespace: "default", ID: "b"}, Region: "region-0"}
			out := call(t, calls, method.FederationJobs, rpc.To{}, &method.FederationRequest{Fresh: true, SummaryRequest: method.SummaryRequest{Query: method.Query{NextToken: had.String()}}})
			want, jobs := "region-0=live, region-1=unreachable, region-2=live", []string{"c@", "c@region-2"}
			if c.reason == "" {
				want, jobs = "region-0=live, region-1=live, region-2=live", []string{"b@region-1", "c@", "c@region-1", "c@region-2"}
			}
			if worths(out.Regions) != want || !slices.Equal(shownJobs(out.Rows), jobs) {
				t.Errorf("%s, %v; want %s, %v", worths(out.Regions), shownJobs(out.Rows), want, jobs)
			}
			if a := out.Regions[1]; !strings.Contains(a.Error, c.reason) {
				t.Errorf("%+v", a)
			}
		})
	}
}
