package api

import (
	"cmp"
	"strconv"
	"strings"

	"atoll/jobspec"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

func listJobs(r *request) (any, error) {
	full, err := r.flag("meta")
	if err != nil {
		return nil, err
	}
	known := &fallback[*model.JobRow, model.JobStub]{method.FederationJobs, (*model.JobRow).Stub}
	if full {
		known = nil
	}
	return listOr(r, method.JobList, &method.ListRequest{Query: r.read, Full: full},
		func(out *method.JobListResponse) (*method.Meta, []*model.JobStub) { return &out.Meta, out.Jobs },
		func(row *model.JobStub, region string) { row.Region = region }, known)
}

// registration is the body of a register.
type registration struct {
	Job            *model.Job
	Region         string
	Namespace      string
	EnforceIndex   bool
	JobModifyIndex uint64
	EvalPriority   int
}

func registerJob(r *request) (any, error) {
	var in registration
	if err := r.body(&in); err != nil {
		return nil, err
	}
	return register(r, &in)
}

func updateJob(r *request) (any, error) {
	var in registration
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if in.Job != nil && in.Job.ID != r.id {
		return nil, model.Invalidf("Job.ID", "Job ID does not match: the path says %q and the body %q", r.id, in.Job.ID)
	}
	return register(r, &in)
}

func register(r *request, in *registration) (any, error) {
	if in.Job == nil {
		return nil, model.Invalidf("Job", "Job must be specified: the body has no object Job")
	}
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	in.Job.Namespace = cmp.Or(in.Job.Namespace, in.Namespace, r.read.Namespace)
	// The body says where, else the query, else the job; "global" in a job is
	// what clients fill in when nobody said.
	to := r.to
	to.Region = cmp.Or(in.Region, to.Region)
	if to.Region == "" && in.Job.Region != model.GlobalRegion {
		to.Region = in.Job.Region
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.JobRegister, to, &method.JobRegisterRequest{
		Job: in.Job, EnforceIndex: in.EnforceIndex, JobModifyIndex: in.JobModifyIndex, EvalPriority: in.EvalPriority,
	})
	if err != nil {
		return nil, err
	}
	r.index(out.Index)
	return out, nil
}

func readJob(r *request) (any, error) {
	out, err := call(r, method.JobGet, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.JobResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Job == nil {
		return nil, notFound("job", r.id)
	}
	return out.Job, nil
}

func stopJob(r *request) (any, error) {
	purge, err := r.flag("purge")
	if err != nil {
		return nil, err
	}
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	if global, err := r.flag("global"); err != nil {
		return nil, err
	} else if global {
		return nil, model.Errorf(model.KindUnsupported, "this version of Atoll has no multi-region jobs: stop the job in each region")
	}
	priority := 0
	if s := r.query.Get("eval_priority"); s != "" {
		if priority, err = strconv.Atoi(s); err != nil || priority < 0 || priority > model.JobMaxPriority {
			return nil, model.Invalidf("eval_priority", "eval_priority %q is not from 0 to %d", s, model.JobMaxPriority)
		}
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.JobDeregister, r.to, &method.JobDeregisterRequest{
		Namespace: r.read.Namespace, JobID: r.id, Purge: purge, EvalPriority: priority,
	})
	if err != nil {
		return nil, err
	}
	r.index(out.Index)
	return out, nil
}

func parseJob(r *request) (any, error) {
	var in struct {
		JobHCL, Variables string
		Canonicalize      bool
		HCLv1             bool
	}
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if in.HCLv1 {
		return nil, model.Invalidf("HCLv1", "HCL version 1 is not read any more; write HCL2")
	}
	if strings.TrimSpace(in.JobHCL) == "" {
		return nil, model.Invalidf("JobHCL", "JobHCL is empty; send the text of a job file")
	}
	// Files are the caller's: functions that read them are off here.
	job, err := jobspec.Parse("job.nomad.hcl", []byte(in.JobHCL), jobspec.Options{VarText: in.Variables})
	if err != nil {
		return nil, err
	}
	if in.Canonicalize {
		job.Canonicalize()
	}
	return job, nil
}

func jobAllocations(r *request) (any, error) {
	all, err := r.flag("all")
	if err != nil {
		return nil, err
	}
	return list(r, method.JobAllocations, &method.JobAllocsRequest{Query: r.read, JobID: r.id, All: all},
		func(out *method.AllocListResponse) (*method.Meta, []*model.AllocStub) { return &out.Meta, out.Allocs },
		func(row *model.AllocStub, region string) { row.Region = region })
}

func jobEvaluations(r *request) (any, error) {
	return list(r, method.JobEvaluations, &method.JobRequest{Query: r.read, JobID: r.id}, evalRows, nameEval)
}

func jobSummary(r *request) (any, error) {
	out, err := call(r, method.JobSummary, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.JobSummaryResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Summary == nil {
		return nil, notFound("job", r.id)
	}
	return out.Summary, nil
}

func jobVersions(r *request) (any, error) {
	if diffs, err := r.flag("diffs"); err != nil {
		return nil, err
	} else if diffs {
		return nil, model.Errorf(model.KindUnsupported, "this version of Atoll makes no diffs of versions; ask without diffs")
	}
	out, err := call(r, method.JobVersions, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.JobVersionsResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if len(out.Versions) == 0 {
		return nil, notFound("job", r.id)
	}
	return struct {
		Versions []*model.Job
		Diffs    []any
	}{Versions: out.Versions}, nil
}

func unsupportedPart(r *request) (any, error) {
	return nil, model.Errorf(model.KindUnsupported, "this version of Atoll does not have %s %s yet", r.Method, r.URL.Path)
}

func orEmpty[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}
