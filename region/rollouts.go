package region

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/rpc"
)

// rollouts serves the Rollout methods, and is the door for submits of
// multi-region jobs.
type rollouts struct {
	*reader
	*writer
	region string
	calls  rpc.Caller
	links
	log    hclog.Logger
	sights sights
}

// links are the ways to other regions that a submit and the leader's loop share.
type links struct {
	tell    func(ctx context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error)
	askVote func(ctx context.Context, region string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error)
}

// rolloutTime bounds a call to another region about a rollout.
const rolloutTime = 1800 * time.Millisecond

func linksBy(calls rpc.Caller) links {
	return links{
		func(ctx context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
			return rpc.Call(ctx, calls, method.RolloutTell, rpc.To{Region: region, Timeout: rolloutTime}, req)
		},
		func(ctx context.Context, region string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
			return rpc.Call(ctx, calls, method.RolloutVote, rpc.To{Region: region, Timeout: rolloutTime}, req)
		},
	}
}

func (s *rollouts) bind(r *rpc.Server) {
	rpc.Handle(r, method.RolloutTell, s.told)
	rpc.Handle(r, method.RolloutVote, s.vote)
	rpc.Handle(r, method.RolloutRoom, s.room)
	rpc.Handle(r, method.RolloutPlan, s.plan)
	rpc.Handle(r, method.RolloutGet, s.get)
}

// maxNews bounds the jobs of one exchange.
const maxNews = 1024

func (s *rollouts) told(ctx context.Context, _ *rpc.Inbound, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
	if len(req.News) > maxNews {
		return nil, model.Invalidf("News", "cannot hear of %d rollouts at once: the limit is %d", len(req.News), maxNews)
	}
	out := &method.RolloutTellResponse{News: make([]method.RolloutNews, len(req.News))}
	var wg sync.WaitGroup
	for i := range req.News {
		n := &req.News[i]
		wg.Go(func() {
			err := n.Check()
			if err == nil {
				if body := rollout.Learn(s.snapshot(), s.region, n, s.clock.Now()); body != nil {
					_, _, err = s.Apply(ctx, cell.CmdRolloutLearn, body)
				}
			}
			if err != nil {
				out.News[i] = method.RolloutNews{Key: n.Key, Region: s.region, Error: err.Error()}
				return
			}
			out.News[i] = rollout.Answer(s.snapshot(), n)
			out.News[i].Count = s.divided(n.Key)
		})
	}
	wg.Wait()
	rollout.Bound(out.News)
	return out, nil
}

// divided is what the region's job has now of a count that the regions divide.
func (s *rollouts) divided(key model.JobID) (n int) {
	snap := s.snapshot()
	r, job := snap.Rollout(nil, key), snap.Job(nil, key)
	if !r.Live() || job.Stopped() {
		return 0
	}
	for _, g := range r.Won.Job.TaskGroups {
		if have := job.Group(g.Name); g.Count == 0 && have != nil {
			n = max(n, have.Count)
		}
	}
	return n
}

// vote votes under the submit's request id, so that the same submit, if it comes
// by this door, finds it.
func (s *rollouts) vote(ctx context.Context, _ *rpc.Inbound, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
	p := req.Proposal
	if err := p.Check(); err != nil {
		return nil, err
	}
	s.sights.since(p.ID, s.clock.Now())
	asked := &state.Request{
		ID: p.Request, Namespace: p.Job.Namespace, Hash: p.Hash, Issued: min(model.RequestIssued(p.Request), s.clock.Now().UnixNano()),
	}
	_, _, err := s.ApplyOnce(ctx, cell.CmdRolloutVote, asked, &cell.RolloutVote{Proposal: p, Time: s.clock.Now().UnixNano()})
	out := &method.RolloutVoteResponse{}
	if err != nil {
		if model.KindOf(err) != model.KindConflict {
			return nil, err
		}
		out.Why = model.AsError(err).Message
	}
	snap := s.snapshot()
	r := snap.Rollout(nil, p.Key())
	if r != nil && (r.Voted(p.Version) == p.ID || r.Won.Mark() == p.Mark()) {
		out.Yes = true
		return out, nil
	}
	if kept, why := snap.Recall(asked); kept != nil || why != nil {
		// It is the memory of requests that says no, which is no vote: the number
		// is let go, so that whoever counts is not left waiting.
		out.Why = cmp.Or(out.Why, "the same submit came by another region, or is over")
		if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, &cell.RolloutLearn{Key: p.Key(), Own: s.region, Open: p.Version + 1, Time: s.clock.Now().UnixNano()}); err != nil {
			return nil, err
		}
		r = s.snapshot().Rollout(nil, p.Key())
	}
	if r != nil {
		out.Never = r.Refuses(p)
		if out.Rival = r.Won.Mark(); r.Accepted.Mark().After(out.Rival) {
			out.Rival = r.Accepted.Mark()
		}
	}
	return out, nil
}

func (s *rollouts) get(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.RolloutResponse, error) {
	out := &method.RolloutResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		if out.Rollout = snap.Rollout(ws, jobKey(&req.Query, req.JobID)); out.Rollout == nil {
			return snap.RolloutsIndex(), nil
		}
		return out.Rollout.ModifyIndex, nil
	})
}

// each asks all regions at once.
func each[T any](regions []string, ask func(region string) (*T, error)) ([]*T, []error) {
	out, errs := make([]*T, len(regions)), make([]error, len(regions))
	var wg sync.WaitGroup
	for i, region := range regions {
		wg.Go(func() {
			if out[i], errs[i] = ask(region); errs[i] != nil {
				out[i] = nil
			}
		})
	}
	wg.Wait()
	return out, errs
}
