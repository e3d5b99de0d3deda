package region

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// union is a federation of regions of one server and one node each. A node finds
// an allocation unhealthy when its job's meta says that it is sick in its region.
type union struct {
	t       testing.TB
	regions []string
	servers map[string]*testServer
	nodes   map[string]*model.Node
}

func newUnion(t testing.TB, regions ...string) *union {
	t.Helper()
	u := &union{t: t, regions: regions, servers: make(map[string]*testServer), nodes: make(map[string]*model.Node)}
	var join []string
	for _, region := range regions {
		s := startServer(t, "s-"+region, region, t.TempDir(), 1, join...)
		join = append(join, s.cfg.AdvertiseSerf)
		u.servers[region] = s
	}
	for _, region := range regions {
		lead(t, u.servers[region])
		wait(t, region+" knows the others", func() error {
			for _, other := range regions {
				if _, err := rpc.Call(context.Background(), u.servers[region].RPC(), method.StatusPing, rpc.To{Region: other}, &method.Empty{}); err != nil {
					return err
				}
			}
			return nil
		})
		node, secret := aNode("dc1")
		u.nodes[region] = node
		runJudgingNode(t, []*testServer{u.servers[region]}, node, secret, func(a *model.Allocation) *model.AllocDeploymentStatus {
			healthy := a.Job.Meta["sick"] != region
			return &model.AllocDeploymentStatus{Healthy: &healthy, Timestamp: time.Now()}
		})
	}
	return u
}

func (u *union) job(id string, change func(*model.Job)) *model.Job {
	j := aJob(id, 0, "*")
	j.Meta = make(map[string]string)
	j.Multiregion = &model.Multiregion{Strategy: &model.MultiregionStrategy{MaxParallel: 1}}
	for _, name := range u.regions {
		r := model.NewMultiregionRegion()
		r.Name, r.Count = name, 2
		j.Multiregion.Regions = append(j.Multiregion.Regions, r)
	}
	j.Update = model.NewUpdateStrategy()
	j.Update.MinHealthyTime, j.Update.HealthyDeadline, j.Update.ProgressDeadline = time.Millisecond, time.Second, 0
	if change != nil {
		change(j)
	}
	return j
}

func (u *union) submit(door string, j *model.Job) (*method.JobRegisterResponse, error) {
	return rpc.Call(u.t.Context(), u.servers[door].RPC(), method.JobRegister, rpc.To{Region: door}, &method.JobRegisterRequest{Job: j})
}

// shares are the regions' own shares of a job, as "us=running eu=pending", by the
// servers that are there.
func (u *union) shares(id string) string {
	var out []string
	for _, region := range u.regions {
		s := u.servers[region]
		if s == nil {
			continue
		}
		state := "none"
		if share := s.cell.Snapshot().Rollout(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id}).Share(region); share != nil {
			state = string(share.State)
		}
		out = append(out, region+"="+state)
	}
	return strings.Join(out, " ")
}

func (u *union) become(id, want string) {
	u.t.Helper()
	wait(u.t, "the shares of "+id+" become "+want, func() error {
		if got := u.shares(id); got != want {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// versions are the job's versions in the regions, and its allocations that run.
func (u *union) versions(id string) string {
	var out []string
	for _, region := range u.regions {
		s := u.servers[region]
		if s == nil {
			continue
		}
		snap, key := s.cell.Snapshot(), model.JobID{Namespace: model.DefaultNamespace, ID: id}
		job := snap.Job(nil, key)
		if job == nil {
			out = append(out, region+"=none")
			continue
		}
		n := 0
		rows, _ := snap.AllocsOfJob(nil, key)
		for r := range rows {
			if !r.Terminal() {
				n++
			}
		}
		out = append(out, fmt.Sprintf("%s=v%d/%d", region, job.Version, n))
	}
	return strings.Join(out, " ")
}

func (u *union) runs(id, want string) {
	u.t.Helper()
	wait(u.t, "what runs of "+id+" becomes "+want, func() error {
		if got := u.versions(id); got != want {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

func TestAVersionGoesThroughItsRegionsInOrder(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	// Submitted to the last: it begins with the first all the same.
	r, err := u.submit("ap", u.job("web", nil))
	if err != nil {
		t.Fatal(err)
	}
	if r.Version == nil || *r.Version != 0 || len(r.Regions) != 3 || slices.ContainsFunc(r.Regions, func(h method.RolloutHolder) bool { return !h.Holds }) {
		t.Errorf("the answer: %+v", r)
	}
	u.become("web", "us=successful eu=successful ap=successful")
	u.runs("web", "us=v0/2 eu=v0/2 ap=v0/2")
	for _, region := range u.regions {
		for _, d := range u.servers[region].cell.Snapshot().DeploymentsOfJob(nil, model.JobID{Namespace: "default", ID: "web"}) {
			if d.Status != model.DeploymentSuccessful || !d.IsMultiregion {
				t.Errorf("%s: deployment %s is %s, multi-region is %t", region, d.ID, d.Status, d.IsMultiregion)
			}
		}
	}
	// An update that is sick in the second region stops there.
	if _, err := u.submit("us", u.job("web", func(j *model.Job) { j.Meta["sick"] = "eu" })); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=blocked eu=failed ap=failed")
	// Its deployment is held there; an operator lets it be.
	var blocked string
	for _, d := range u.servers["us"].cell.Snapshot().DeploymentsOfJob(nil, model.JobID{Namespace: "default", ID: "web"}) {
		if d.Status == model.DeploymentBlocked {
			blocked = d.ID
		}
	}
	call(t, u.servers["ap"].RPC(), method.DeploymentUnblock, rpc.To{Region: "us"}, &method.DeploymentUnblockRequest{DeploymentID: blocked})
	u.become("web", "us=successful eu=failed ap=failed")
	// The next version is one for all again, and one region less.
	if _, err := u.submit("eu", u.job("web", func(j *model.Job) { j.Multiregion.Regions = j.Multiregion.Regions[:2] })); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=successful eu=successful ap=stopped")
	u.runs("web", "us=v2/2 eu=v2/2 ap=v1/0")
	if _, err := rpc.Call(t.Context(), u.servers["us"].RPC(), method.JobDeregister, rpc.To{Region: "eu"}, &method.JobDeregisterRequest{JobID: "web", Global: true, Purge: true}); err != nil {
		t.Fatal(err)
	}
	u.runs("web", "us=none eu=none ap=none")
	u.become("web", "us=stopped eu=stopped ap=stopped")
}

func TestOnFailureSaysWhatBecomesOfTheOthers(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	for _, c := range []struct{ on, want string }{
		{model.OnFailureRest, "us=blocked eu=failed ap=failed"},
		{model.OnFailureAll, "us=failed eu=failed ap=failed"},
		{model.OnFailureLocal, "us=blocked eu=failed ap=blocked"},
	} {
		id := "web" + c.on
		if _, err := u.submit("eu", u.job(id, func(j *model.Job) { j.Meta["sick"], j.Multiregion.Strategy.OnFailure = "eu", c.on })); err != nil {
			t.Fatal(err)
		}
		u.become(id, c.want)
	}
}

func TestOfTwoSubmitsAtOnceOneWinsEverywhere(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	for n := range 5 {
		id := fmt.Sprintf("web%d", n)
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := make(map[string]bool)
		for _, door := range []string{"us", "eu", "ap"} {
			wg.Go(func() {
				_, err := u.submit(door, u.job(id, func(j *model.Job) { j.Meta["door"] = door }))
				mu.Lock()
				defer mu.Unlock()
				switch model.KindOf(err) {
				case model.KindConflict:
				default:
					if err != nil {
						t.Errorf("submit by %s: %v", door, err)
						return
					}
					won[door] = true
				}
			})
		}
		wg.Wait()
		if len(won) == 0 {
			continue // each took a region's vote: that number is lost to all
		}
		u.become(id, "us=successful eu=successful ap=successful")
		doors := make(map[string]bool)
		for _, region := range u.regions {
			doors[u.servers[region].cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: id}).Meta["door"]] = true
		}
		if len(doors) != 1 {
			t.Errorf("the regions run different submits: %v; won: %v", doors, won)
		}
	}
}

func (u *union) scale(door, id string, count int64) error {
	_, err := rpc.Call(u.t.Context(), u.servers[door].RPC(), method.JobScale, rpc.To{Region: door}, &method.JobScaleRequest{JobID: id, Group: "g", Count: &count})
	return err
}

// stop takes a region's server away, start brings it back.
func (u *union) stop(region string) {
	u.t.Helper()
	u.servers[region].stop()
}

func (u *union) start(region string) {
	u.t.Helper()
	old := u.servers[region].cfg
	u.servers[region] = startAt(u.t, old.AdvertiseRPC, old.BindSerf, Config{Name: old.Name, Region: region, DataDir: old.DataDir, Expect: 1, Join: old.Join})
	lead(u.t, u.servers[region])
}

// vote has one region vote for a proposal, as its door's own vote.
func (u *union) vote(region, id string, version uint64, j *model.Job) {
	u.t.Helper()
	job := model.Clone(j)
	job.Canonicalize()
	job.Region = model.GlobalRegion
	p := &model.Proposal{ID: id, Request: id, Version: version, Job: job, Door: region, Time: time.Now().UnixNano()}
	if p.Born = p.Time; version > 0 {
		won := u.servers[region].cell.Snapshot().Rollout(nil, p.Key()).Won
		p.Follows, p.Base, p.Born = won.Mark(), won.Regions(), won.Born
	}
	r := call(u.t, u.servers[region].RPC(), method.RolloutVote, rpc.To{Region: region}, &method.RolloutVoteRequest{Proposal: p})
	if !r.Yes {
		u.t.Fatal(r.Why)
	}
}

func TestAProposalThatItsDoorLeftIsSeenThrough(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	u.vote("eu", "left", 0, u.job("web", nil))
	// While it is being decided, no other is.
	if _, err := u.submit("us", u.job("web", nil)); model.KindOf(err) != model.KindConflict || !strings.Contains(err.Error(), "being decided") {
		t.Errorf("a submit meanwhile: %v", err)
	}
	u.become("web", "us=successful eu=successful ap=successful")
	// Three submits of which each has one vote are lost: none can win any more.
	for i, region := range u.regions {
		u.vote(region, fmt.Sprint("lost", i), 1, u.job("web", func(j *model.Job) { j.Meta["door"] = region }))
	}
	key := model.JobID{Namespace: "default", ID: "web"}
	wait(t, "they are given up", func() error {
		for _, region := range u.regions {
			if r := u.servers[region].cell.Snapshot().Rollout(nil, key); r.Accepted != nil {
				return fmt.Errorf("%s still waits for %s", region, r.Accepted.ID)
			}
		}
		return nil
	})
	if r, err := u.submit("us", u.job("web", nil)); err != nil || *r.Version != 2 {
		t.Errorf("the next submit: %+v, %v", r, err)
	}
	u.become("web", "us=successful eu=successful ap=successful")
	u.runs("web", "us=v2/2 eu=v2/2 ap=v2/2")
}

func TestASubmitWithoutAMajorityIsNotRefusedAndNotLost(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	u.stop("eu")
	u.stop("ap")
	req := &method.JobRegisterRequest{Job: u.job("web", nil)}
	to := rpc.To{Region: "us", RequestID: "my-token"}
	_, err := rpc.Call(t.Context(), u.servers["us"].RPC(), method.JobRegister, to, req)
	if e := model.AsError(err); model.KindOf(err) != model.KindOutcomeUnknown || e.Token != "my-token" || !strings.Contains(e.Message, "majority") {
		t.Fatalf("one of three regions: %v", err)
	}
	if job := u.servers["us"].cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "web"}); job != nil {
		t.Error("it began without a majority")
	}
	u.start("eu")
	wait(t, "it begins with two of three", func() error {
		r, err := rpc.Call(context.Background(), u.servers["us"].RPC(), method.JobRegister, to, req)
		if err != nil {
			return err
		}
		if *r.Version != 0 {
			t.Fatalf("the same submit has version %d", *r.Version)
		}
		return nil
	})
	u.start("ap")
	u.become("web", "us=successful eu=successful ap=successful")
	u.runs("web", "us=v0/2 eu=v0/2 ap=v0/2")
	// By another door the same submit finds the same version.
	r, err := rpc.Call(t.Context(), u.servers["ap"].RPC(), method.JobRegister, rpc.To{Region: "ap", RequestID: "my-token"}, req)
	if err != nil || *r.Version != 0 {
		t.Errorf("the same submit by another door: %+v, %v", r, err)
	}
	_, err = rpc.Call(t.Context(), u.servers["ap"].RPC(), method.JobRegister, rpc.To{Region: "ap", RequestID: "my-token"}, &method.JobRegisterRequest{Job: u.job("other", nil)})
	if model.KindOf(err) != model.KindConflict {
		t.Errorf("another submit with its token: %v", err)
	}
	// A job that runs in several regions is not overwritten in one.
	if _, err := u.submit("eu", aJob("web", 1, "*")); model.KindOf(err) != model.KindConflict {
		t.Errorf("a submit for one region: %v", err)
	}
}

func TestACountIsDividedAmongTheRegions(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	divided := func(count int, placement string, change func(*model.Multiregion)) *model.Job {
		return u.job("web", func(j *model.Job) {
			j.Multiregion.Count, j.Multiregion.Placement = count, placement
			for _, r := range j.Multiregion.Regions {
				r.Count = model.Unset
			}
			if change != nil {
				change(j.Multiregion)
			}
		})
	}
	if _, err := u.submit("us", divided(8, model.PlacementWeighted, func(m *model.Multiregion) { m.Region("us").Weight = 2 })); err != nil {
		t.Fatal(err)
	}
	u.runs("web", "us=v0/4 eu=v0/2 ap=v0/2")
	// By room: ten fit a node, four of which "us" has; another job takes six of
	// "ap"'s.
	register(t, u.servers["ap"].RPC(), "ap", aJob("busy", 6, "*"))
	wait(t, "ap is busy", func() error { return placed(u.servers["ap"].RPC(), "ap", "busy", 6) })
	u.become("web", "us=successful eu=successful ap=successful")
	if _, err := u.submit("eu", divided(24, model.PlacementCapacity, nil)); err != nil {
		t.Fatal(err)
	}
	u.runs("web", "us=v1/10 eu=v1/10 ap=v1/4")
	// Scaling moves what it must: one, to where there is room.
	u.become("web", "us=successful eu=successful ap=successful")
	wait(t, "all know that all are done, and the job is scaled", func() error { return u.scale("us", "web", 22) })
	wait(t, "two are gone", func() error {
		n := 0
		for _, region := range u.regions {
			n += u.servers[region].cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "web"}).TaskGroups[0].Count
		}
		if n != 22 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	u.become("web", "us=successful eu=successful ap=successful")
	plan := func(without string) (*method.RolloutPlanResponse, error) {
		return rpc.Call(t.Context(), u.servers["us"].RPC(), method.RolloutPlan, rpc.To{}, &method.RolloutPlanRequest{Job: divided(14, model.PlacementCapacity, nil), Diff: true, Without: without})
	}
	got, err := plan("")
	if err != nil || got.Version != 3 || len(got.Regions) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	planned := 0
	for _, p := range got.Regions {
		if p.Plan == nil || p.Plan.Diff == nil || p.Plan.Index == 0 || len(p.Plan.FailedTGAllocs) > 0 {
			t.Fatalf("%+v", p)
		}
		u := p.Plan.Annotations.DesiredTGUpdates["g"]
		planned += int(u.InPlaceUpdate+u.Ignore+u.Place) - int(u.Stop)
	}
	if got, err := plan("eu"); err != nil || len(got.Regions) != 2 {
		t.Errorf("without eu: %+v, %v", got, err)
	}
	if _, err := rpc.Call(t.Context(), u.servers["us"].RPC(), method.RolloutPlan, rpc.To{}, &method.RolloutPlanRequest{Job: divided(22, model.PlacementCapacity, nil), Without: "us"}); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "room for 14 of 22") {
		t.Errorf("without us: %v", err)
	}
	if _, err := u.submit("eu", divided(25, model.PlacementCapacity, nil)); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "room for 24 of 25") {
		t.Errorf("more than fits: %v", err)
	}
}

// An operator acts on each region's deployment, and one that has not begun can be
// failed but not paused.
func TestOperatorsDecideAboutARegionsShare(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	key := model.JobID{Namespace: model.DefaultNamespace, ID: "web"}
	canary := func(j *model.Job) { j.Update.Canary, j.Update.AutoPromote = 1, false }
	if _, err := u.submit("eu", u.job("web", canary)); err != nil {
		t.Fatal(err)
	}
	// The first version has no canaries to wait for.
	u.become("web", "us=successful eu=successful ap=successful")
	if _, err := u.submit("eu", u.job("web", func(j *model.Job) { canary(j); j.TaskGroups[0].Tasks[0].Resources.CPU = 50 })); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=running eu=pending ap=pending")
	newest := func(region string) *model.Deployment {
		return u.servers[region].cell.Snapshot().DeploymentsOfJob(nil, key)[0]
	}
	at := func(region string) (rpc.Caller, rpc.To) { return u.servers["ap"].RPC(), rpc.To{Region: region} }
	c, to := at("eu")
	for _, pause := range []bool{true, false} {
		if _, err := rpc.Call(t.Context(), c, method.DeploymentPause, to, &method.DeploymentPauseRequest{DeploymentID: newest("eu").ID, Pause: pause}); model.KindOf(err) != model.KindConflict {
			t.Errorf("pause %t of a deployment that has not begun: %v", pause, err)
		}
	}
	call(t, c, method.DeploymentFail, to, &method.DeploymentFailRequest{DeploymentID: newest("eu").ID})
	u.become("web", "us=running eu=failed ap=failed")
	c, to = at("us")
	wait(t, "the canary is healthy and can be promoted", func() error {
		_, err := rpc.Call(t.Context(), c, method.DeploymentPromote, to, &method.DeploymentPromoteRequest{DeploymentID: newest("us").ID, All: true})
		return err
	})
	u.become("web", "us=blocked eu=failed ap=failed")
	if _, err := rpc.Call(t.Context(), c, method.DeploymentPause, to, &method.DeploymentPauseRequest{DeploymentID: newest("us").ID, Pause: true}); model.KindOf(err) != model.KindConflict {
		t.Errorf("pause of a deployment that is done here: %v", err)
	}
	call(t, c, method.DeploymentFail, to, &method.DeploymentFailRequest{DeploymentID: newest("us").ID})
	u.become("web", "us=failed eu=failed ap=failed")
}

// What one region does by itself is its own: a stop there lasts until the next
// version, and a region that is not listed any more may have a job of that name.
func TestARegionsOwnJobOfTheName(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	if _, err := u.submit("us", u.job("web", nil)); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=successful eu=successful ap=successful")
	call(t, u.servers["us"].RPC(), method.JobDeregister, rpc.To{Region: "eu"}, &method.JobDeregisterRequest{JobID: "web", Purge: true})
	u.runs("web", "us=v0/2 eu=none ap=v0/2")
	two := func(j *model.Job) { j.Multiregion.Regions = j.Multiregion.Regions[:2] }
	if _, err := u.submit("us", u.job("web", two)); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=successful eu=successful ap=stopped")
	u.runs("web", "us=v1/2 eu=v1/2 ap=v1/0")
	register(t, u.servers["us"].RPC(), "ap", aJob("web", 1, "*"))
	u.runs("web", "us=v1/2 eu=v1/2 ap=v2/1")
	if _, err := u.submit("eu", u.job("web", func(j *model.Job) { two(j); j.Meta["a"] = "b" })); err != nil {
		t.Fatal(err)
	}
	if _, err := rpc.Call(t.Context(), u.servers["us"].RPC(), method.JobDeregister, rpc.To{Region: "us"}, &method.JobDeregisterRequest{JobID: "web", Global: true, Purge: true}); err != nil {
		t.Fatal(err)
	}
	u.runs("web", "us=none eu=none ap=v2/1")
}
