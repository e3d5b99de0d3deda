package api

import "atoll/model/method"

func dispatchJob(r *request) (any, error) {
	req := &method.JobDispatchRequest{}
	if err := r.body(req); err != nil {
		return nil, err
	}
	if err := r.names(&req.JobID, "JobID"); err != nil {
		return nil, err
	}
	// Here a token stands for a child, not for a request.
	req.Namespace, req.IdempotencyToken = r.read.Namespace, r.to.RequestID
	r.to.RequestID = ""
	return change(r, method.JobDispatch, req, func(out *method.JobDispatchResponse) uint64 { return out.Index })
}

func forcePeriodic(r *request) (any, error) {
	return change(r, method.JobPeriodicForce, &method.JobPeriodicForceRequest{Namespace: r.read.Namespace, JobID: r.id},
		func(out *method.JobPeriodicForceResponse) uint64 { return out.Index })
}
