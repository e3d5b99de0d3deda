package api

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"atoll/jobspec"
	"atoll/model"
	"atoll/model/diff"
	"atoll/model/method"
	"atoll/rpc"
)

func listJobs(r *request) (any, error) {
	full, err := r.flag("meta")
	if err != nil {
		return nil, err
	}
	known := &fallback[model.JobRow, model.JobStub]{method.FederationJobs, (*model.JobRow).Stub}
	if full {
		known = nil
	}
	return listOr(r, method.JobList, &method.ListRequest{Query: r.read, Full: full},
		func(out *method.JobListResponse) []*model.JobStub { return out.Jobs },
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
	// PreserveCounts keeps the counts that the job's groups have.
	PreserveCounts    bool
	PreserveResources bool
	PolicyOverride    bool
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
	if err := noOverride(in.PolicyOverride); err != nil {
		return nil, err
	}
	if in.PreserveResources {
		return nil, model.Errorf(model.KindUnsupported, "this version of Atoll does not have PreserveResources; write the resources into the job")
	}
	to, err := r.placed(in.Job, in.Region, in.Namespace)
	if err != nil {
		return nil, err
	}
	out, elsewhere, err := atDoors(r, in.Job, to, method.JobRegister, &method.JobRegisterRequest{
		Job: in.Job, EnforceIndex: in.EnforceIndex, JobModifyIndex: in.JobModifyIndex, EvalPriority: in.EvalPriority, PreserveCounts: in.PreserveCounts,
	})
	if err != nil {
		return nil, err
	}
	if elsewhere {
		out.EvalID, out.EvalCreateIndex = "", 0
	}
	r.index(out.Index)
	return out, nil
}

// atDoors calls the region that a job is for. A multi-region job may be submitted
// to each of its regions, but to no other: when the one that was asked is out of
// reach, or none of them, another is. Then elsewhere is true: clients look for an
// evaluation in the region that they asked, and would not find it.
func atDoors[Q, R any](r *request, job *model.Job, to rpc.To, m method.Method[Q, R], req *Q) (out *R, elsewhere bool, err error) {
	if !job.Multiregional() {
		out, err = rpc.Call(r.Context(), r.api.cfg.Caller, m, to, req)
		return out, false, err
	}
	asked := cmp.Or(to.Region, r.api.cfg.Region)
	if asked == model.GlobalRegion {
		asked = r.api.cfg.Region
	}
	doors := job.Multiregion.RegionNames()
	if i := slices.Index(doors, asked); i > 0 {
		doors = append([]string{asked}, slices.Delete(doors, i, i+1)...)
	}
	if to.RequestID == "" {
		to.RequestID = model.NewRequestID(time.Now(), nil)
	}
	for _, door := range doors {
		to.Region = door
		if out, err = rpc.Call(r.Context(), r.api.cfg.Caller, m, to, req); model.KindOf(err) != model.KindUnreachable {
			return out, door != asked, err
		}
	}
	return out, true, err
}

func readJob(r *request) (any, error) {
	return object(r, "job", method.JobGet, &method.JobRequest{Query: r.read, JobID: r.id})
}

func stopJob(r *request) (any, error) {
	purge, err := r.flag("purge")
	if err != nil {
		return nil, err
	}
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	elsewhere := false
	global, err := r.flag("global")
	if err == nil && global {
		elsewhere, err = globally(r)
	}
	if err != nil {
		return nil, err
	}
	priority := 0
	if s := r.query.Get("eval_priority"); s != "" {
		if priority, err = strconv.Atoi(s); err != nil || priority < 0 || priority > model.JobMaxPriority {
			return nil, model.Invalidf("eval_priority", "eval_priority %q is not from 0 to %d", s, model.JobMaxPriority)
		}
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.JobDeregister, r.to, &method.JobDeregisterRequest{
		Namespace: r.read.Namespace, JobID: r.id, Purge: purge, Global: global, EvalPriority: priority,
	})
	if err != nil {
		return nil, err
	}
	if elsewhere {
		out.EvalID, out.EvalCreateIndex = "", 0
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
		func(out *method.AllocListResponse) []*model.AllocStub { return out.Allocs },
		func(row *model.AllocStub, region string) { row.Region = region })
}

func jobEvaluations(r *request) (any, error) {
	return list(r, method.JobEvaluations, &method.JobRequest{Query: r.read, JobID: r.id}, evalRows, nameEval)
}

func jobSummary(r *request) (any, error) {
	return object(r, "job", method.JobSummary, &method.JobRequest{Query: r.read, JobID: r.id})
}

func jobVersions(r *request) (any, error) {
	diffs, err := r.flag("diffs")
	if err != nil {
		return nil, err
	}
	out, err := call(r, method.JobVersions, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.JobVersionsResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if len(out.Versions) == 0 {
		return nil, notFound("job", r.id)
	}
	answer := struct {
		Versions []*model.Job
		Diffs    []*diff.Job
	}{Versions: out.Versions}
	if diffs {
		answer.Diffs, err = r.versionDiffs(out.Versions)
	}
	return answer, err
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
