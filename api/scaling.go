package api

import (
	"cmp"

	"atoll/model"
	"atoll/model/method"
)

func scaleJob(r *request) (any, error) {
	var in struct {
		Count          *int64
		Target         map[string]string
		Message        string
		Error          bool
		Meta           map[string]any
		PolicyOverride bool
		JobModifyIndex uint64
	}
	if err := r.body(&in); err != nil {
		return nil, err
	}
	if job := in.Target[model.ScalingTargetJob]; job != "" && job != r.id {
		return nil, model.Invalidf("Target", "Job ID does not match: the path says %q and Target %q", r.id, job)
	}
	if err := noOverride(in.PolicyOverride); err != nil {
		return nil, err
	}
	return write(r, method.JobScale, &method.JobScaleRequest{
		Namespace: cmp.Or(r.read.Namespace, in.Target[model.ScalingTargetNamespace]), JobID: r.id, Group: in.Target[model.ScalingTargetGroup],
		Count: in.Count, Message: in.Message, Error: in.Error, Meta: in.Meta, JobModifyIndex: in.JobModifyIndex,
	}, func(out *method.JobRegisterResponse) uint64 { return out.Index })
}

func jobScaleStatus(r *request) (any, error) {
	out, err := call(r, method.JobScaleStatus, &method.JobRequest{Query: r.read, JobID: r.id}, func(out *method.JobScaleStatusResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Status == nil {
		return nil, notFound("job", r.id)
	}
	return out.Status, nil
}

func listScalingPolicies(r *request) (any, error) {
	return list(r, method.ScalingList, &method.ScalingListRequest{Query: r.read, JobID: r.query.Get("job"), Type: r.query.Get("type")},
		func(out *method.ScalingListResponse) (*method.Meta, []*model.ScalingPolicyStub) {
			return &out.Meta, out.Policies
		},
		func(row *model.ScalingPolicyStub, region string) { row.Region = region })
}

func readScalingPolicy(r *request) (any, error) {
	out, err := call(r, method.ScalingGet, &method.ScalingRequest{Query: r.read, PolicyID: r.id}, func(out *method.ScalingResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	if out.Policy == nil {
		return nil, notFound("scaling policy", r.id)
	}
	return out.Policy, nil
}
