package region

import (
	"cmp"
	"context"
	"fmt"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
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
		if !r.Settled() {
			return nil, model.Invalidf("Count", "job scaling blocked due to active deployment: version %d of job %q is still on its way through its regions; wait for its end", r.Won.Version, r.JobID)
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
