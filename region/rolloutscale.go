package region

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/rpc"
)

// scale submits a multi-region job with another count: that which the regions
// divide, else that of the region which was asked.
func (s *rollouts) scale(ctx context.Context, c *rpc.Inbound, r *model.Rollout, req *method.JobScaleRequest) (*method.JobRegisterResponse, error) {
	sub := &submission{job: r.Won.Job, asks: req, from: r.Won}
	if req.JobModifyIndex != 0 {
		sub.enforce = &req.JobModifyIndex
	}
	if !s.came(c, r.Namespace, req) {
		if why := s.busy(ctx, r); why != "" {
			return nil, model.Invalidf("Count", "job scaling blocked due to active deployment: %s; wait for its end", why)
		}
		var err error
		if sub.job, err = r.Won.Job.ScaledIn(s.region, req.Group, *req.Count); err != nil {
			return nil, err
		}
	}
	out, err := s.submit(ctx, c, sub)
	if err != nil {
		return nil, err
	}
	s.note(ctx, c, r.Key(), req, *out.Version)
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

// note keeps the event of a scaling, once however often the scaling is sent. The
// version is won by then, whatever becomes of the event: a region that was purged
// of the job, and whose turn has not come, has nothing to keep it with.
func (s *rollouts) note(ctx context.Context, c *rpc.Inbound, key model.JobID, req *method.JobScaleRequest, version uint64) {
	asked, err := request(c.Envelope.Method, c.Envelope.RequestID, key.Namespace, req)
	if err == nil {
		asked.ID = "event of " + asked.ID
		_, _, err = s.ApplyOnce(ctx, cell.CmdJobScale, asked, &cell.JobScale{Key: key, Group: req.Group, Event: model.ScalingEvent{
			Message: fmt.Sprintf("scaled to %d by version %d of the multi-region job: %s", *req.Count, version, req.Message), Meta: req.Meta,
			Time: uint64(s.clock.Now().UnixNano()),
		}})
	}
	if err != nil {
		s.log.Warn("cannot keep the event of a scaling, which is done", "job", key.ID, "group", req.Group, "error", err)
	}
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
