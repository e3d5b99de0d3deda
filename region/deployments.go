package region

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/deploy"
	"atoll/rpc"
)

// deployments serves the Deployment methods, and those of a job's versions.
type deployments struct {
	*reader
	*writer
}

func (s *deployments) bind(r *rpc.Server) {
	rpc.Handle(r, method.DeploymentList, s.list)
	rpc.Handle(r, method.DeploymentGet, s.get)
	rpc.Handle(r, method.DeploymentAllocs, s.allocations)
	rpc.Handle(r, method.DeploymentPromote, s.promote)
	rpc.Handle(r, method.DeploymentFail, s.fail)
	rpc.Handle(r, method.DeploymentPause, s.pause)
	rpc.Handle(r, method.DeploymentUnblock, s.unblock)
	rpc.Handle(r, method.DeploymentHealth, s.health)
	rpc.Handle(r, method.JobDeployments, s.ofJob)
	rpc.Handle(r, method.JobRevert, s.revert)
	rpc.Handle(r, method.JobStable, s.stable)
	rpc.Handle(r, method.JobTag, s.tag)
}

func (s *deployments) list(ctx context.Context, c *rpc.Inbound, req *method.ListRequest) (*method.DeploymentListResponse, error) {
	out := &method.DeploymentListResponse{}
	var err error
	out.Deployments, err = list(ctx, s.reader, c.Envelope.Method, &req.Query, nil, &out.Meta, func(ws state.Watch, snap *state.Snapshot) view[*model.Deployment, *model.Deployment] {
		return view[*model.Deployment, *model.Deployment]{snap.Deployments(ws, strings.ToLower(req.Prefix)), lister[*model.Deployment, *model.Deployment]{
			key:  func(d *model.Deployment) string { return d.ID },
			keep: func(d *model.Deployment) bool { return inNamespace(&req.Query, d.Namespace) },
			stub: func(d *model.Deployment) *model.Deployment { return d },
		}, snap.DeploymentsIndex()}
	})
	return out, err
}

func (s *deployments) get(ctx context.Context, _ *rpc.Inbound, req *method.DeploymentRequest) (*method.DeploymentResponse, error) {
	out := &method.DeploymentResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		if out.Deployment = snap.Deployment(ws, req.DeploymentID); out.Deployment == nil {
			return snap.DeploymentsIndex(), nil
		}
		return out.Deployment.ModifyIndex, nil
	})
}

func (s *deployments) allocations(ctx context.Context, _ *rpc.Inbound, req *method.DeploymentRequest) (*method.AllocListResponse, error) {
	out := &method.AllocListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Allocs = []*model.AllocStub{}
		d := snap.Deployment(ws, req.DeploymentID)
		if d == nil {
			return snap.DeploymentsIndex(), nil
		}
		id, _ := model.ParseUUID(d.ID)
		rows, index := snap.AllocsOfJob(ws, d.Key())
		l := allocLister(snap, false)
		l.keep = func(r *model.AllocRow) bool { return r.Shared.DeploymentID == id }
		var err error
		out.Allocs, _, err = l.page(&method.Query{}, rows)
		return max(index, d.ModifyIndex), err
	})
}

func (s *deployments) ofJob(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.DeploymentListResponse, error) {
	out := &method.DeploymentListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		key := jobKey(&req.Query, req.JobID)
		if snap.Job(ws, key) == nil {
			return 0, model.NotFound("job", req.JobID)
		}
		out.Deployments = snap.DeploymentsOfJob(ws, key)
		if len(out.Deployments) == 0 {
			return snap.DeploymentsIndex(), nil
		}
		return slices.MaxFunc(out.Deployments, func(a, b *model.Deployment) int { return cmp.Compare(a.ModifyIndex, b.ModifyIndex) }).ModifyIndex, nil
	})
}

// find returns the deployment that a write is about.
func (s *deployments) find(id string) (*state.Snapshot, *model.Deployment, error) {
	snap := s.snapshot()
	d := snap.Deployment(nil, id)
	if d == nil {
		return nil, nil, model.NotFound("deployment", id)
	}
	return snap, d, nil
}

// change applies a command to a deployment and tells what came of it.
func (s *deployments) change(ctx context.Context, c *rpc.Inbound, d *model.Deployment, asks any, cmd cell.Command, body any) (*method.DeploymentUpdateResponse, error) {
	index, value, err := s.once(ctx, c, d.Namespace, asks, cmd, body)
	if err != nil {
		return nil, err
	}
	done := value.(*cell.DeploymentChanged)
	out := &method.DeploymentUpdateResponse{
		EvalID: done.EvalID, DeploymentModifyIndex: done.ModifyIndex, RevertedJobVersion: done.Reverted, Index: index,
	}
	if out.EvalID != "" {
		out.EvalCreateIndex = index
	}
	return out, nil
}

func (s *deployments) promote(ctx context.Context, c *rpc.Inbound, req *method.DeploymentPromoteRequest) (*method.DeploymentUpdateResponse, error) {
	_, d, err := s.find(req.DeploymentID)
	if err != nil {
		return nil, err
	}
	if req.All == (len(req.Groups) > 0) {
		return nil, model.Invalidf("Groups", "cannot promote deployment %s: name groups, or say All", d.ID)
	}
	now := s.clock.Now()
	return s.change(ctx, c, d, req, cell.CmdDeploymentPromote, &cell.DeploymentPromote{
		DeploymentID: d.ID, Groups: req.Groups, Eval: deploy.NewEval(d, now), Time: now.UnixNano(),
	})
}

func (s *deployments) fail(ctx context.Context, c *rpc.Inbound, req *method.DeploymentFailRequest) (*method.DeploymentUpdateResponse, error) {
	snap, d, err := s.find(req.DeploymentID)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, c, d, req, cell.CmdDeploymentStatus, deploy.Fail(snap, d, "failed by an operator", d.Reverts(), s.clock.Now()))
}

func (s *deployments) pause(ctx context.Context, c *rpc.Inbound, req *method.DeploymentPauseRequest) (*method.DeploymentUpdateResponse, error) {
	_, d, err := s.find(req.DeploymentID)
	if err != nil {
		return nil, err
	}
	if d.Awaits() || d.Status == model.DeploymentBlocked {
		return nil, model.Errorf(model.KindConflict, "cannot pause or resume deployment %s: it is %s, and waits for other regions; pause theirs, or fail this one", d.ID, d.Status)
	}
	now := s.clock.Now()
	body := &cell.DeploymentStatus{Time: now.UnixNano(), Update: model.DeploymentUpdate{
		DeploymentID: d.ID, Status: model.DeploymentPaused, StatusDescription: "deployment is paused by an operator",
	}}
	if !req.Pause {
		body.Update.Status, body.Update.StatusDescription = model.DeploymentRunning, "deployment is running"
		if d.RequiresPromotion() {
			body.Update.StatusDescription += ", and waits for its canaries to be promoted"
		}
		body.Eval = deploy.NewEval(d, now)
	}
	return s.change(ctx, c, d, req, cell.CmdDeploymentStatus, body)
}

// unblock ends a deployment that is done here and waits for other regions.
func (s *deployments) unblock(ctx context.Context, c *rpc.Inbound, req *method.DeploymentUnblockRequest) (*method.DeploymentUpdateResponse, error) {
	_, d, err := s.find(req.DeploymentID)
	if err != nil {
		return nil, err
	}
	if d.Active() && d.Status != model.DeploymentBlocked {
		return nil, model.Errorf(model.KindConflict, "cannot unblock deployment %s: it is %s, and does not wait for other regions", d.ID, d.Status)
	}
	return s.change(ctx, c, d, req, cell.CmdDeploymentStatus, &cell.DeploymentStatus{Time: s.clock.Now().UnixNano(), Update: model.DeploymentUpdate{
		DeploymentID: d.ID, Status: model.DeploymentSuccessful, StatusDescription: "deployment was unblocked by an operator",
	}})
}

func (s *deployments) health(ctx context.Context, c *rpc.Inbound, req *method.DeploymentHealthRequest) (*method.DeploymentUpdateResponse, error) {
	_, d, err := s.find(req.DeploymentID)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	body := &cell.AllocHealth{DeploymentID: d.ID, Eval: deploy.NewEval(d, now), Time: now.UnixNano()}
	for _, list := range []struct {
		in    []string
		out   *[]model.UUID
		field string
	}{{req.HealthyAllocationIDs, &body.Healthy, "HealthyAllocationIDs"}, {req.UnhealthyAllocationIDs, &body.Unhealthy, "UnhealthyAllocationIDs"}} {
		for _, id := range list.in {
			u, ok := model.ParseUUID(id)
			if !ok {
				return nil, model.Invalidf(list.field, "cannot set the health of allocations: %q is no whole id", id)
			}
			*list.out = append(*list.out, u)
		}
	}
	if len(body.Healthy)+len(body.Unhealthy) == 0 {
		return nil, model.Invalidf("HealthyAllocationIDs", "cannot set the health of allocations: none is named")
	}
	return s.change(ctx, c, d, req, cell.CmdAllocHealth, body)
}

func (s *deployments) revert(ctx context.Context, c *rpc.Inbound, req *method.JobRevertRequest) (*method.JobRegisterResponse, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	snap := s.snapshot()
	job := snap.Job(nil, key)
	if job == nil {
		return nil, model.NotFound("job", req.JobID)
	}
	// Its namespace may allow less than when the version was registered.
	if n := snap.Namespace(nil, key.Namespace); n != nil {
		for _, v := range snap.JobVersions(nil, key) {
			if v.Version == req.JobVersion {
				if err := n.Admits(v); err != nil {
					return nil, err
				}
			}
		}
	}
	now := s.clock.Now().UnixNano()
	index, value, err := s.once(ctx, c, key.Namespace, req, cell.CmdJobRevert, &cell.JobRevert{
		Key: key, Version: req.JobVersion, EnforcePrior: req.EnforcePriorVersion, Time: now,
		Eval: newEval(key, job.Type, job.Priority, model.TriggerJobRegister, now),
	})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobRegistered)
	return &method.JobRegisterResponse{EvalID: done.EvalID, EvalCreateIndex: index, Index: index, JobModifyIndex: done.JobModifyIndex}, nil
}

func (s *deployments) stable(ctx context.Context, c *rpc.Inbound, req *method.JobStableRequest) (*method.JobStableResponse, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	index, _, err := s.once(ctx, c, key.Namespace, req, cell.CmdJobStability, &cell.JobStability{Key: key, Version: req.JobVersion, Stable: req.Stable})
	if err != nil {
		return nil, err
	}
	return &method.JobStableResponse{JobModifyIndex: index, Index: index}, nil
}

func (s *deployments) tag(ctx context.Context, c *rpc.Inbound, req *method.JobTagRequest) (*method.JobStableResponse, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	body := &cell.JobVersionTag{Key: key, Version: req.Version, Untag: req.Name}
	if req.Name == "" {
		return nil, model.Invalidf("Name", "cannot tag a version of job %q: the tag has no name", req.JobID)
	}
	if !req.Untag {
		body.Tag = &model.JobVersionTag{Name: req.Name, Description: req.Description, TaggedTime: s.clock.Now().UnixNano()}
		if req.Latest {
			job := s.snapshot().Job(nil, key)
			if job == nil {
				return nil, model.NotFound("job", req.JobID)
			}
			body.Version = job.Version
		}
	}
	index, _, err := s.once(ctx, c, key.Namespace, req, cell.CmdJobVersionTag, body)
	if err != nil {
		return nil, err
	}
	return &method.JobStableResponse{JobModifyIndex: index, Index: index}, nil
}
