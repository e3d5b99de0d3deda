package region

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/rpc"
)

// What is asked of a region's room and plans comes from outside, and is bounded
// before anything of its size is made.
func TestACountWithoutBoundIsNotTried(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	job := seasJob("web", "us", "eu")
	second := model.Clone(job.TaskGroups[0])
	second.Name = "h"
	job.TaskGroups = append(job.TaskGroups, second)
	for _, count := range []int{2_000_000_000, math.MaxInt} {
		_, err := rpc.Call(t.Context(), s.RPC(), method.RolloutRoom, rpc.To{}, &method.RolloutRoomRequest{Job: job, Region: "us", Try: map[string]int{"g": count, "h": count}})
		if model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("room for %d: %v", count, err)
		}
		_, err = rpc.Call(t.Context(), s.RPC(), method.JobPlan, rpc.To{}, &method.JobPlanRequest{Job: job, Share: &method.PlanShare{Count: count}})
		if model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("a plan of %d: %v", count, err)
		}
		big := seasJob("web", "us", "eu")
		big.Multiregion.Region("us").Count = count
		if _, err = rpc.Call(t.Context(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: big}); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("a submit of %d: %v", count, err)
		}
	}
}

// seasJob is a canonical job of some regions.
func seasJob(id string, regions ...string) *model.Job {
	j := aJob(id, 0, "*")
	j.Multiregion = &model.Multiregion{}
	return overSeas(j, regions...)
}

// overSeas makes a job one of some regions, and canonical.
func overSeas(j *model.Job, regions ...string) *model.Job {
	for _, name := range regions {
		r := model.NewMultiregionRegion()
		r.Name = name
		j.Multiregion.Regions = append(j.Multiregion.Regions, r)
	}
	j.Canonicalize()
	j.Region = model.GlobalRegion
	return j
}

// lone is the door of region "us", whose other regions say what a test says, else
// that they know nothing and vote for all.
type lone struct {
	*rollouts
	t       testing.TB
	machine *cell.Machine
	now     time.Time
	said    func(*method.RolloutTellRequest) *method.RolloutNews
	votes   func(*model.Proposal) *method.RolloutVoteResponse
}

func newLone(t testing.TB) *lone {
	d := &lone{t: t, now: time.Now()}
	d.rollouts, d.machine = aDoor(t, "us")
	d.clock, d.log = clock.Func(func() time.Time { return d.now }), hclog.NewNullLogger()
	d.tell = func(_ context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
		n := &method.RolloutNews{Key: req.News[0].Key, Region: region}
		if d.said != nil {
			n = d.said(req)
		}
		return &method.RolloutTellResponse{News: []method.RolloutNews{*n}}, nil
	}
	d.askVote = func(_ context.Context, _ string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
		if d.votes != nil {
			return d.votes(req.Proposal), nil
		}
		return &method.RolloutVoteResponse{Yes: true}, nil
	}
	return d
}

func (d *lone) submit(token string, req *method.JobRegisterRequest) (*method.JobRegisterResponse, error) {
	d.now = d.now.Add(time.Millisecond)
	s := &jobs{reader: d.reader, writer: d.writer, multi: d.rollouts, region: d.region, checkTask: func(*model.Task) error { return nil }}
	return s.register(d.t.Context(), &rpc.Inbound{Envelope: &rpc.Envelope{Method: "Job.Register", RequestID: token}}, req)
}

func (d *lone) scale(token string, count int64) (*method.JobRegisterResponse, error) {
	s := &scaling{reader: d.reader, writer: d.writer, multi: d.rollouts}
	return s.scale(d.t.Context(), &rpc.Inbound{Envelope: &rpc.Envelope{Method: "Job.Scale", RequestID: token}}, &method.JobScaleRequest{JobID: "web", Group: "g", Count: &count})
}

func (d *lone) must(out *method.JobRegisterResponse, err error) *method.JobRegisterResponse {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *lone) commit(cmd cell.Command, body any) {
	d.t.Helper()
	if _, _, err := d.machine.Apply(cmd, nil, body); err != nil {
		d.t.Error(err) // others call it than the test's goroutine, too
	}
}

// settle ends the newest version in all regions.
func (d *lone) settle() {
	d.t.Helper()
	r := d.machine.Snapshot().Rollout(nil, simKey)
	for _, to := range []model.ShareState{model.ShareRunning, model.ShareBlocked, model.ShareSuccessful} {
		mine := d.machine.Snapshot().Rollout(nil, simKey).Share("us")
		if mine.State == model.SharePending && to != model.ShareRunning || mine.State == to {
			continue
		}
		d.commit(cell.CmdRolloutShare, &cell.RolloutShare{Key: simKey, Version: r.Won.Version, ID: r.Won.ID, From: mine.State, Share: model.Share{Region: "us", State: to}, Eval: newEval(simKey, "service", 50, "t", 1)})
	}
	d.commit(cell.CmdRolloutLearn, &cell.RolloutLearn{Key: simKey, Own: "us", ID: r.Won.ID, Shares: []model.Share{{Region: "eu", State: model.ShareSuccessful, Seq: 9}}})
}

// An update that was made from one version does not follow another, which won while
// the door asked the regions, and has begun.
func TestAnEnforcedIndexIsCheckedAfterTheRegionsWereAsked(t *testing.T) {
	d := newLone(t)
	d.must(d.submit("first", &method.JobRegisterRequest{Job: seasJob("web", "us", "eu")}))
	index := d.machine.Snapshot().Job(nil, simKey).JobModifyIndex
	d.said = func(req *method.RolloutTellRequest) *method.RolloutNews {
		d.said = nil
		won := d.machine.Snapshot().Rollout(nil, simKey).Won
		other := &model.Proposal{ID: "o", Request: "o", Version: 1, Born: won.Born, Follows: won.Mark(), Base: won.Regions(), Job: seasJob("web", "us", "eu"), Door: "eu", Time: 7}
		other.Job.Meta = map[string]string{"by": "other"}
		d.commit(cell.CmdRolloutLearn, rollout.Won(other, "us", d.now))
		run(t, d.machine, d.machine.Snapshot().Rollout(nil, simKey))
		return &method.RolloutNews{Key: req.News[0].Key, Region: "eu"}
	}
	job := seasJob("web", "us", "eu")
	job.Meta = map[string]string{"by": "this"}
	out, err := d.submit("second", &method.JobRegisterRequest{Job: job, EnforceIndex: true, JobModifyIndex: index})
	if model.KindOf(err) != model.KindConflict {
		t.Errorf("%+v, %v; want a conflict", out, err)
	}
	if got := d.machine.Snapshot().Rollout(nil, simKey).Won; got.ID != "o" {
		t.Errorf("version %d of %s has won", got.Version, got.Request)
	}
	// Made from the newest it is taken, and taken once.
	index = d.machine.Snapshot().Job(nil, simKey).JobModifyIndex
	for range 2 {
		if out := d.must(d.submit("third", &method.JobRegisterRequest{Job: job, EnforceIndex: true, JobModifyIndex: index})); *out.Version != 2 {
			t.Errorf("it is version %d", *out.Version)
		}
	}
}

// The version of a scaling is won whatever becomes of its event.
func TestAScalingThatWasWonIsAnsweredFor(t *testing.T) {
	d := newLone(t)
	job := seasJob("web", "eu", "us")
	job.Multiregion.Strategy.MaxParallel = 1
	d.must(d.submit("first", &method.JobRegisterRequest{Job: job}))
	d.settle()
	events := func() (n int) {
		if kept := d.machine.Snapshot().JobScaling(nil, simKey); kept != nil {
			n = len(kept.Events["g"])
		}
		return n
	}
	for range 2 {
		if out := d.must(d.scale("second", 5)); *out.Version != 1 {
			t.Errorf("it is version %d", *out.Version)
		}
		d.now = d.now.Add(time.Second)
	}
	if n := events(); n != 1 {
		t.Errorf("one scaling that was sent twice has %d events", n)
	}
	d.settle()
	d.commit(cell.CmdJobDeregister, &cell.JobDeregister{Key: simKey, Purge: true, Eval: newEval(simKey, "service", 50, "t", 1)})
	// It is not our turn yet: there is no job here that could have an event.
	if out := d.must(d.scale("third", 4)); *out.Version != 2 {
		t.Errorf("it is version %d", *out.Version)
	}
}

// Who sends a submit again hears what became of it the first time.
func TestASubmitThatWonIsAnsweredForAfterOthers(t *testing.T) {
	tokens := []string{"a", "b", "c", "d"}
	req := func(token string, regions ...string) *method.JobRegisterRequest {
		job := seasJob("web", regions...)
		job.Multiregion.Strategy.MaxParallel, job.Meta = 1, map[string]string{"by": token}
		return &method.JobRegisterRequest{Job: job}
	}
	t.Run("that ran here", func(t *testing.T) {
		d := newLone(t)
		for range 2 {
			for i, token := range tokens {
				if out := d.must(d.submit(token, req(token, "us", "eu"))); *out.Version != uint64(i) || out.JobModifyIndex == 0 {
					t.Errorf("%s has version %d, at index %d", token, *out.Version, out.JobModifyIndex)
				}
			}
		}
	})
	t.Run("that did not", func(t *testing.T) {
		d := newLone(t)
		for i, token := range tokens {
			if out := d.must(d.submit(token, req(token, "eu", "us"))); *out.Version != uint64(i) {
				t.Errorf("%s has version %d", token, *out.Version)
			}
		}
		if out := d.must(d.submit("c", req("c", "eu", "us"))); *out.Version != 2 {
			t.Errorf("what the newest follows has version %d", *out.Version)
		}
		if _, err := d.submit("a", req("a", "eu", "us")); model.KindOf(err) != model.KindConflict || !strings.Contains(err.Error(), "cannot be told") {
			t.Errorf("what nothing tells of any more: %v", err)
		}
	})
}

// A submit that two doors took at once lost to itself, which is no loss.
func TestASubmitThatLostToItselfHasWon(t *testing.T) {
	d := newLone(t)
	req := &method.JobRegisterRequest{Job: seasJob("web", "eu", "us")}
	other := &model.Proposal{ID: "mine@eu/12345678", Request: "mine", Born: d.now.UnixNano(), Job: req.Job, Door: "eu", Time: d.now.UnixNano()}
	d.votes = func(p *model.Proposal) *method.RolloutVoteResponse {
		return &method.RolloutVoteResponse{Yes: p.ID == other.ID, Never: true, Rival: other.Mark()}
	}
	_, err := d.submit("mine", req)
	if e := model.AsError(err); model.KindOf(err) != model.KindOutcomeUnknown || e.Token != "mine" {
		t.Fatalf("at first: %v", err)
	}
	d.said = func(*method.RolloutTellRequest) *method.RolloutNews {
		return &method.RolloutNews{Key: simKey, Region: "eu", Undecided: []model.Submit{{ID: other.ID, Request: "mine"}}}
	}
	if _, err = d.submit("mine", req); model.KindOf(err) != model.KindOutcomeUnknown {
		t.Errorf("while the other is being decided: %v", err)
	}
	d.said = func(*method.RolloutTellRequest) *method.RolloutNews {
		return &method.RolloutNews{Key: simKey, Region: "eu", Won: other.Mark(), Proposal: other}
	}
	if out := d.must(d.submit("mine", req)); *out.Version != 0 {
		t.Errorf("it has version %d", *out.Version)
	}
	// Another's is another's.
	d = newLone(t)
	d.votes = func(p *model.Proposal) *method.RolloutVoteResponse {
		return &method.RolloutVoteResponse{Never: true, Rival: other.Mark()}
	}
	if _, err := d.submit("yours", req); model.KindOf(err) != model.KindConflict {
		t.Errorf("another's: %v", err)
	}
}

// How long a submit is undecided is told by the clock of the door that waits, not by
// that of the door that took it.
func TestASubmitOfADoorWhoseClockIsAheadIsOverruled(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			d := newLone(t)
			left := model.Submit{ID: "left@eu/12345678", Request: "left", Version: 0, Time: d.now.Add(ahead).UnixNano()}
			d.said = func(req *method.RolloutTellRequest) *method.RolloutNews {
				return &method.RolloutNews{Key: req.News[0].Key, Region: "eu", Open: 1, Undecided: []model.Submit{left}}
			}
			req := &method.JobRegisterRequest{Job: seasJob("web", "us", "eu")}
			for range 2 {
				if _, err := d.submit("a", req); model.KindOf(err) != model.KindConflict {
					t.Errorf("while it may be decided: %v", err)
				}
				d.now = d.now.Add(settling / 2)
			}
			d.must(d.submit("a", req))
		})
	}
}

// A number that no version could follow locks no job.
func TestASubmitDoesNotTakeTheLastNumber(t *testing.T) {
	d := newLone(t)
	d.said = func(req *method.RolloutTellRequest) *method.RolloutNews {
		return &method.RolloutNews{Key: req.News[0].Key, Region: "eu", Open: math.MaxUint64}
	}
	if _, err := d.submit("a", &method.JobRegisterRequest{Job: seasJob("web", "us", "eu")}); model.KindOf(err) != model.KindInvalid {
		t.Error(err)
	}
	d.said = nil
	d.must(d.submit("a", &method.JobRegisterRequest{Job: seasJob("web", "us", "eu")}))
}

// Three versions that win under its hands are enough: a stop is given up, and says so.
func TestAStopIsMadeFromThreeVersionsAtMost(t *testing.T) {
	d := newLone(t)
	d.must(d.submit("first", &method.JobRegisterRequest{Job: seasJob("web", "us", "eu")}))
	asked := 0
	d.said = func(req *method.RolloutTellRequest) *method.RolloutNews {
		if asked++; asked > 20 {
			return &method.RolloutNews{Key: simKey, Region: "eu"} // it would go on for ever
		}
		won := d.machine.Snapshot().Rollout(nil, simKey).Won
		next := &model.Proposal{
			ID: fmt.Sprint("o", asked), Request: fmt.Sprint("o", asked), Version: won.Version + 1, Born: won.Born, Follows: won.Mark(), Base: won.Regions(),
			Job: seasJob("web", "us", "eu"), Door: "eu", Time: d.now.UnixNano(),
		}
		return &method.RolloutNews{Key: simKey, Region: "eu", Won: next.Mark(), Proposal: next}
	}
	s := &jobs{reader: d.reader, writer: d.writer, multi: d.rollouts, region: d.region}
	stop := &method.JobDeregisterRequest{JobID: "web", Global: true}
	c := &rpc.Inbound{Envelope: &rpc.Envelope{Method: "Job.Deregister", RequestID: "stop"}}
	if _, err := s.deregister(t.Context(), c, stop); model.KindOf(err) != model.KindConflict || asked != stopTries {
		t.Errorf("after %d: %v", asked, err)
	}
	d.said = nil
	if _, err := s.deregister(t.Context(), c, stop); err != nil {
		t.Error(err)
	}
}
