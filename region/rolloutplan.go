package region

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"atoll/cell"
	policy "atoll/federation/rollout"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/rpc"
)

// plan asks each region what a submit would do there. Each holds for the index
// that it names, and all for as long as nobody takes what they found free.
func (s *rollouts) plan(ctx context.Context, c *rpc.Inbound, req *method.RolloutPlanRequest) (*method.RolloutPlanResponse, error) {
	if req.Job == nil || !req.Job.Multiregional() {
		return nil, model.Invalidf("Job", "cannot plan: the request holds no multi-region job")
	}
	job := model.Clone(req.Job)
	job.Canonicalize()
	if _, err := job.Validate(); err != nil {
		return nil, err
	}
	p := &model.Proposal{Request: c.Envelope.RequestID, Job: job, Door: s.region, Time: s.clock.Now().UnixNano()}
	var lost *model.MultiregionRegion
	if req.Without != "" {
		if lost = job.Multiregion.Region(req.Without); lost == nil || len(job.Multiregion.Regions) == 1 {
			return nil, model.Invalidf("without", "cannot plan job %q without region %q: it runs in %v", job.ID, req.Without, job.Multiregion.RegionNames())
		}
		job.Multiregion.Regions = slices.DeleteFunc(job.Multiregion.Regions, func(r *model.MultiregionRegion) bool { return r == lost })
	}
	snap := s.snapshot()
	if err := s.prepare(ctx, snap, snap.Rollout(nil, p.Key()), p); err != nil {
		return nil, err
	}
	if lost != nil && p.Counts == nil {
		if err := s.inherit(ctx, p, lost); err != nil {
			return nil, err
		}
	}
	out := &method.RolloutPlanResponse{Version: p.Version}
	plans, errs := each(p.Regions(), func(region string) (*method.JobPlanResponse, error) {
		return rpc.Call(ctx, s.calls, method.JobPlan, rpc.To{Region: region, Timeout: rolloutTime}, &method.JobPlanRequest{
			Job: job, Diff: req.Diff, Share: &method.PlanShare{Version: p.Version, Count: p.Count(region)},
		})
	})
	for i, region := range p.Regions() {
		plan := method.RegionPlan{Region: region, Plan: plans[i]}
		if errs[i] != nil {
			plan.Error = errs[i].Error()
		}
		out.Regions = append(out.Regions, plan)
	}
	return out, nil
}

// inherit divides what a lost region would run among the others, by their room.
func (s *rollouts) inherit(ctx context.Context, p *model.Proposal, lost *model.MultiregionRegion) error {
	rooms, err := s.rooms(ctx, p, lost.Count)
	if err != nil {
		return err
	}
	parts := make([]policy.Part, len(rooms))
	for i := range parts {
		parts[i] = policy.Part{Max: lost.Count}
	}
	more, err := policy.Capacity(lost.Count, parts, rooms)
	if err != nil {
		return model.Invalidf("without", "job %q does not fit without region %q: beside their own shares, %v", p.Job.ID, lost.Name, err)
	}
	for i, r := range p.Job.Multiregion.Regions {
		p.Counts = append(p.Counts, r.Count+more[i])
	}
	return nil
}

// scale submits a multi-region job with another count: that which the regions
// divide, else that of the region which was asked.
func (s *rollouts) scale(ctx context.Context, c *rpc.Inbound, r *model.Rollout, req *method.JobScaleRequest) (*method.JobRegisterResponse, error) {
	job, err := r.Won.Job.ScaledIn(s.region, req.Group, *req.Count)
	if err != nil {
		return nil, err
	}
	again := s.came(c, r.Namespace, req)
	if !again {
		if why := s.busy(ctx, r); why != "" {
			return nil, model.Invalidf("Count", "job scaling blocked due to active deployment: %s; wait for its end", why)
		}
	}
	if !again && req.JobModifyIndex != 0 {
		if err := cell.EnforceIndex(s.snapshot().Job(nil, r.Key()), job.ID, req.JobModifyIndex); err != nil {
			return nil, err
		}
	}
	out, err := s.submit(ctx, c, &submission{job: job, asks: req, from: r.Won})
	if err != nil {
		return nil, err
	}
	event := model.ScalingEvent{
		Message: fmt.Sprintf("scaled to %d by version %d of the multi-region job: %s", *req.Count, *out.Version, req.Message), Meta: req.Meta,
		Time: uint64(s.clock.Now().UnixNano()),
	}
	if _, _, err := s.Apply(ctx, cell.CmdJobScale, &cell.JobScale{Key: r.Key(), Group: req.Group, Event: event}); err != nil {
		return nil, err
	}
	return out, nil
}

// busy is why a job cannot be scaled now, "" for nothing: a version is on its way
// through the regions. A region that is out of reach is not waited for, once our
// own share is over, and neither is one that is not listed any more.
func (s *rollouts) busy(ctx context.Context, r *model.Rollout) string {
	if r.Accepted != nil {
		return fmt.Sprintf("version %d of job %q is being decided", r.Accepted.Version, r.JobID)
	}
	open := slices.DeleteFunc(r.Won.Regions(), func(region string) bool {
		share := r.Share(region)
		return share == nil || share.State.Over()
	})
	states, _ := each(open, func(region string) (*model.ShareState, error) {
		if region == s.region {
			return &r.Share(region).State, nil
		}
		out, err := s.tell(ctx, region, &method.RolloutTellRequest{News: []method.RolloutNews{rollout.News(s.snapshot(), r.Key())}})
		if err != nil {
			return nil, err
		}
		state := model.SharePending
		for _, n := range out.News {
			for _, share := range n.Shares {
				if n.Won == r.Won.Mark() && share.Region == region {
					state = share.State
				}
			}
		}
		return &state, nil
	})
	for i, state := range states {
		if state != nil && !state.Over() {
			return fmt.Sprintf("version %d of job %q is %s in region %q", r.Won.Version, r.JobID, *state, open[i])
		}
	}
	return ""
}

// stopGlobal is the submission that stops a multi-region job in all its regions.
func (s *rollouts) stopGlobal(req *method.JobDeregisterRequest) (*submission, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	r := s.snapshot().Rollout(nil, key)
	if r == nil || r.Won == nil {
		if s.snapshot().Job(nil, key) == nil {
			return nil, model.NotFound("job", key.ID)
		}
		return nil, model.Invalidf("global", "cannot stop job %q globally: it is not a multi-region job; stop it in its region", key.ID)
	}
	job := *r.Won.Job
	job.Stop = true
	return &submission{job: &job, purge: req.Purge, priority: req.EvalPriority, asks: req, from: r.Won}, nil
}
