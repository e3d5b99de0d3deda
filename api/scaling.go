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
	return object(r, "job", method.JobScaleStatus, &method.JobRequest{Query: r.read, JobID: r.id})
}

func listScalingPolicies(r *request) (any, error) {
	return list(r, method.ScalingList, &method.ScalingListRequest{Query: r.read, JobID: r.query.Get("job"), Type: r.query.Get("type")},
		func(out *method.ScalingListResponse) []*model.ScalingPolicyStub { return out.Policies },
		func(row *model.ScalingPolicyStub, region string) { row.Region = region })
}

func readScalingPolicy(r *request) (any, error) {
	return object(r, "scaling policy", method.ScalingGet, &method.ScalingRequest{Query: r.read, PolicyID: r.id})
}
