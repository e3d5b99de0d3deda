package api

import (
	"context"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
)

// readRollout is what a region knows of a multi-region job: the agent's or the
// one that is asked for, when it has it, else any that has.
func readRollout(r *request) (any, error) {
	req := &method.JobRequest{Query: r.read, JobID: r.id}
	meta := func(out *method.RolloutResponse) *method.Meta { return &out.Meta }
	out, err := call(r, method.RolloutGet, req, meta)
	if err != nil {
		return nil, err
	}
	if out.Rollout == nil && r.query.Get("region") == "" {
		region, err := holder(r)
		if err != nil {
			return nil, err
		}
		if r.to.Region = region; region != "" {
			if out, err = call(r, method.RolloutGet, req, meta); err != nil {
				return nil, err
			}
		}
	}
	if out.Rollout == nil {
		return nil, notFound("multi-region job", r.id)
	}
	return out.Rollout, nil
}

// holder is a region that knows the request's job as a multi-region one, the
// agent's own before others, "" when none of those that answer does.
func holder(r *request) (region string, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), federation.AskTime)
	defer cancel()
	regions, err := r.regions(ctx)
	if err != nil {
		return "", err
	}
	req := &method.JobRequest{Query: method.Query{Namespace: r.read.Namespace}, JobID: r.id}
	for _, p := range federation.Ask(ctx, r.api.cfg.Caller, regions, method.RolloutGet, req, func(out *method.RolloutResponse) *method.Meta { return &out.Meta }) {
		if p.Reply != nil && p.Reply.Rollout != nil && p.Reply.Rollout.Won != nil && (region == "" || p.Region == r.api.cfg.Region) {
			region = p.Region
		}
	}
	return region, nil
}

// globally finds the region that a write about all of a job's regions goes to;
// elsewhere says that it is not the one that was asked.
func globally(r *request) (elsewhere bool, err error) {
	if r.query.Get("region") != "" && r.to.Region != model.GlobalRegion {
		return false, nil
	}
	region, err := holder(r)
	if err == nil && region != "" {
		r.to.Region = region
	}
	return region != "" && region != r.api.cfg.Region, err
}
