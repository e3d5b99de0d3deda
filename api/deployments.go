package api

import (
	"strings"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// deploymentRow is a deployment in a list.
type deploymentRow struct {
	*model.Deployment
	// Region is set in answers over several regions.
	Region string `json:",omitempty"`
}

func deploymentRows(out *method.DeploymentListResponse) []*deploymentRow {
	rows := make([]*deploymentRow, len(out.Deployments))
	for i, d := range out.Deployments {
		rows[i] = &deploymentRow{Deployment: d}
	}
	return rows
}

func nameDeployment(row *deploymentRow, region string) { row.Region = region }

func listDeployments(r *request) (any, error) {
	return list(r, method.DeploymentList, &method.ListRequest{Query: r.read}, deploymentRows, nameDeployment)
}

func readDeployment(r *request) (any, error) {
	return object(r, "deployment", method.DeploymentGet, &method.DeploymentRequest{Query: r.read, DeploymentID: r.id})
}

func deploymentAllocations(r *request) (any, error) {
	return show(r, method.DeploymentAllocs, &method.DeploymentRequest{Query: r.read, DeploymentID: r.id})
}

func jobDeployments(r *request) (any, error) {
	return list(r, method.JobDeployments, &method.JobRequest{Query: r.read, JobID: r.id}, deploymentRows, nameDeployment)
}

// jobDeployment is the newest of a job's, null when it has none.
func jobDeployment(r *request) (any, error) {
	out, err := call(r, method.JobDeployments, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.DeploymentListResponse) *method.Meta { return &out.Meta })
	if err != nil || len(out.Deployments) == 0 {
		return nil, err
	}
	return out.Deployments[0], nil
}

// change makes a user's write in one region.
func change[Q, R any](r *request, m method.Method[Q, R], req *Q, index func(*R) uint64) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, m, r.to, req)
	if err != nil {
		return nil, err
	}
	r.index(index(out))
	return out, nil
}

func changeDeployment[Q any](r *request, m method.Method[Q, method.DeploymentUpdateResponse], id func(*Q) *string) (any, error) {
	req := new(Q)
	if err := r.body(req); err != nil {
		return nil, err
	}
	if err := r.names(id(req), "DeploymentID"); err != nil {
		return nil, err
	}
	return change(r, m, req, func(out *method.DeploymentUpdateResponse) uint64 { return out.Index })
}

// names makes the body name what the path does.
func (r *request) names(id *string, field string) error {
	if *id != "" && *id != r.id {
		return model.Invalidf(field, "the path says %q and the body %q", r.id, *id)
	}
	*id = r.id
	return nil
}

func promoteDeployment(r *request) (any, error) {
	return changeDeployment(r, method.DeploymentPromote, func(q *method.DeploymentPromoteRequest) *string { return &q.DeploymentID })
}

func failDeployment(r *request) (any, error) {
	// There is nothing to say in a body, and some clients send none.
	return change(r, method.DeploymentFail, &method.DeploymentFailRequest{DeploymentID: r.id}, func(out *method.DeploymentUpdateResponse) uint64 { return out.Index })
}

func pauseDeployment(r *request) (any, error) {
	return changeDeployment(r, method.DeploymentPause, func(q *method.DeploymentPauseRequest) *string { return &q.DeploymentID })
}

func unblockDeployment(r *request) (any, error) {
	return changeDeployment(r, method.DeploymentUnblock, func(q *method.DeploymentUnblockRequest) *string { return &q.DeploymentID })
}

func setAllocHealth(r *request) (any, error) {
	return changeDeployment(r, method.DeploymentHealth, func(q *method.DeploymentHealthRequest) *string { return &q.DeploymentID })
}

func revertJob(r *request) (any, error) {
	req := &method.JobRevertRequest{}
	if err := r.body(req); err != nil {
		return nil, err
	}
	if err := r.names(&req.JobID, "JobID"); err != nil {
		return nil, err
	}
	req.Namespace = r.read.Namespace
	return change(r, method.JobRevert, req, func(out *method.JobRegisterResponse) uint64 { return out.Index })
}

func setJobStable(r *request) (any, error) {
	req := &method.JobStableRequest{}
	if err := r.body(req); err != nil {
		return nil, err
	}
	if err := r.names(&req.JobID, "JobID"); err != nil {
		return nil, err
	}
	req.Namespace = r.read.Namespace
	return change(r, method.JobStable, req, func(out *method.JobStableResponse) uint64 { return out.Index })
}

// tagged splits the id of a path /v1/job/:id/versions/:name/tag.
func (r *request) tagged() (job, name string, err error) {
	const between = "/versions/"
	at := strings.LastIndex(r.id, between)
	if at <= 0 {
		return "", "", notFound("path", r.URL.Path)
	}
	return r.id[:at], r.id[at+len(between):], nil
}

func tagJob(r *request) (any, error) {
	job, name, err := r.tagged()
	if err != nil {
		return nil, err
	}
	var in struct {
		Version     uint64
		Latest      bool
		Description string
	}
	if err := r.body(&in); err != nil {
		return nil, err
	}
	return change(r, method.JobTag, &method.JobTagRequest{
		Namespace: r.read.Namespace, JobID: job, Name: name, Description: in.Description, Version: in.Version, Latest: in.Latest,
	}, func(out *method.JobStableResponse) uint64 { return out.Index })
}

func untagJob(r *request) (any, error) {
	job, name, err := r.tagged()
	if err != nil {
		return nil, err
	}
	return change(r, method.JobTag, &method.JobTagRequest{Namespace: r.read.Namespace, JobID: job, Name: name, Untag: true},
		func(out *method.JobStableResponse) uint64 { return out.Index })
}
