package api

import (
	"cmp"
	"strconv"

	"atoll/model"
	"atoll/model/diff"
	"atoll/model/method"
	"atoll/rpc"
)

func planJob(r *request) (any, error) {
	var in struct {
		Job            *model.Job
		Region         string
		Namespace      string
		Diff           bool
		PolicyOverride bool
	}
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if in.Job == nil {
		return nil, model.Invalidf("Job", "Job must be specified: the body has no object Job")
	}
	if in.Job.ID != r.id {
		return nil, model.Invalidf("Job.ID", "Job ID does not match: the path says %q and the body %q", r.id, in.Job.ID)
	}
	if err := noOverride(in.PolicyOverride); err != nil {
		return nil, err
	}
	to, err := r.placed(in.Job, in.Region, in.Namespace)
	if err != nil {
		return nil, err
	}
	if in.Job.Multiregional() {
		return planEverywhere(r, in.Job, to, in.Diff)
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.JobPlan, to, &method.JobPlanRequest{
		Query: method.Query{Consistent: r.read.Consistent}, Job: in.Job, Diff: in.Diff,
	})
	if err != nil {
		return nil, err
	}
	r.meta(&out.Meta)
	return out, nil
}

// planEverywhere answers with the plan of the region that was asked, beside those
// of all regions of the job.
func planEverywhere(r *request, job *model.Job, to rpc.To, diff bool) (any, error) {
	all, _, err := atDoors(r, job, to, method.RolloutPlan, &method.RolloutPlanRequest{Job: job, Diff: diff, Without: r.query.Get("without")})
	if err != nil {
		return nil, err
	}
	out := &method.JobPlanResponse{Regions: all.Regions}
	asked := cmp.Or(to.Region, r.api.cfg.Region)
	for i := range all.Regions {
		if p := all.Regions[i]; p.Plan != nil && (out.Index == 0 || p.Region == asked) {
			*out = *p.Plan
			out.Regions = all.Regions
		}
	}
	if out.Index == 0 {
		return nil, model.Errorf(model.KindUnreachable, "cannot plan job %q: no region gave a plan: %s", job.ID, all.Regions[0].Error)
	}
	r.meta(&out.Meta)
	return out, nil
}

// noOverride refuses to override policies that this version does not have.
func noOverride(asked bool) error {
	if asked {
		return model.Errorf(model.KindUnsupported, "PolicyOverride is not supported: this version of Atoll has no Sentinel policies to override")
	}
	return nil
}

// placed gives a submitted job its namespace, and tells where the call goes: the
// body says where, else the query, else the job; "global" in a job is what clients
// fill in when nobody said.
func (r *request) placed(job *model.Job, region, namespace string) (rpc.To, error) {
	if err := r.oneRegion(); err != nil {
		return rpc.To{}, err
	}
	job.Namespace = cmp.Or(job.Namespace, namespace, r.read.Namespace)
	to := r.to
	to.Region = cmp.Or(region, to.Region)
	if to.Region == "" && job.Region != model.GlobalRegion {
		to.Region = job.Region
	}
	return to, nil
}

// versionDiffs tells how versions, newest first, differ each from the one before
// it or, when the request names one, all from that.
func (r *request) versionDiffs(versions []*model.Job) ([]*diff.Job, error) {
	var base *model.Job
	tag, number := r.query.Get("diff_tag"), r.query.Get("diff_version")
	for _, j := range versions {
		if tag != "" && j.VersionTag != nil && j.VersionTag.Name == tag || tag == "" && number == strconv.FormatUint(j.Version, 10) {
			base = j
		}
	}
	switch {
	case base != nil:
	case tag != "":
		return nil, notFound("tag", tag)
	case number != "":
		if _, err := strconv.ParseUint(number, 10, 64); err != nil {
			return nil, model.Invalidf("diff_version", "diff_version %q is no number", number)
		}
		return nil, notFound("version", number)
	}
	var out []*diff.Job
	for i, j := range versions {
		before := base
		if base == nil {
			if i == len(versions)-1 {
				break
			}
			before = versions[i+1]
		}
		out = append(out, diff.Jobs(before, j, true))
	}
	return out, nil
}
