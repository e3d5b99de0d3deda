package region

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// scaling serves the methods about groups' counts.
type scaling struct {
	*reader
	*writer
	multi *rollouts
}

func (s *scaling) bind(r *rpc.Server) {
	rpc.Handle(r, method.JobScale, s.scale)
	rpc.Handle(r, method.JobScaleStatus, s.status)
	rpc.Handle(r, method.ScalingList, s.policies)
	rpc.Handle(r, method.ScalingGet, s.policy)
}

// Bounds of what is kept of a scaling, in bytes.
const (
	maxScalingMessage = 4 << 10
	maxScalingMeta    = 64 << 10
)

func (s *scaling) scale(ctx context.Context, c *rpc.Inbound, req *method.JobScaleRequest) (*method.JobRegisterResponse, error) {
	switch {
	case req.Group == "":
		return nil, model.Invalidf("Target", "cannot scale job %q: Target names no %s", req.JobID, model.ScalingTargetGroup)
	case req.Error && req.Count != nil:
		return nil, model.Invalidf("Count", "cannot scale job %q: an event that tells of an error has no Count", req.JobID)
	case len(req.Message) > maxScalingMessage:
		return nil, model.Invalidf("Message", "cannot scale job %q: a message of %d bytes is over the limit of %d", req.JobID, len(req.Message), maxScalingMessage)
	}
	if b, err := json.Marshal(req.Meta); err != nil || len(b) > maxScalingMeta {
		return nil, model.Invalidf("Meta", "cannot scale job %q: Meta of %d bytes is over the limit of %d", req.JobID, len(b), maxScalingMeta)
	}
	if model.TooNested(req.Meta) {
		return nil, model.Invalidf("Meta", "cannot scale job %q: the lists and maps of Meta are nested too deep", req.JobID)
	}
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	if r := s.snapshot().Rollout(nil, key); r.RunsIn(s.multi.region) && req.Count != nil {
		return s.multi.scale(ctx, c, r, req)
	}
	now := s.clock.Now().UnixNano()
	index, value, err := s.once(ctx, c, key.Namespace, req, cell.CmdJobScale, &cell.JobScale{
		Key: key, Group: req.Group, JobModifyIndex: req.JobModifyIndex,
		Event: model.ScalingEvent{Count: req.Count, Message: req.Message, Error: req.Error, Meta: req.Meta, Time: uint64(now)},
		Eval:  newEval(key, model.JobTypeService, model.JobDefaultPriority, model.TriggerScaling, now),
	})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobRegistered)
	out := &method.JobRegisterResponse{EvalID: done.EvalID, JobModifyIndex: done.JobModifyIndex, Index: index}
	if out.EvalID != "" {
		out.EvalCreateIndex = index
	}
	return out, nil
}

func (s *scaling) status(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.JobScaleStatusResponse, error) {
	out := &method.JobScaleStatusResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		key := jobKey(&req.Query, req.JobID)
		job := snap.Job(ws, key)
		if job == nil {
			out.Status = nil
			return snap.SpecsIndex(), nil
		}
		rows, index := snap.AllocsOfJob(ws, key)
		events := snap.JobScaling(ws, key)
		index = max(index, job.ModifyIndex)
		out.Status = &model.JobScaleStatus{
			JobID: job.ID, Namespace: job.Namespace, JobCreateIndex: job.CreateIndex, JobModifyIndex: job.JobModifyIndex, JobStopped: job.Stop,
			TaskGroups: make(map[string]*model.GroupScaleStatus, len(job.TaskGroups)),
		}
		for _, g := range job.TaskGroups {
			of := &model.GroupScaleStatus{Desired: g.Count, Events: []*model.ScalingEvent{}}
			if events != nil && events.Events[g.Name] != nil {
				of.Events = events.Events[g.Name]
			}
			out.Status.TaskGroups[g.Name] = of
		}
		if events != nil {
			index = max(index, events.ModifyIndex)
		}
		for r := range rows {
			g := out.Status.TaskGroups[r.Shared.Group]
			if g == nil || r.Terminal() || r.Job().CreateIndex != job.CreateIndex {
				continue
			}
			g.Placed++
			if r.Client == model.ClientRunning {
				g.Running++
			}
			switch ds := r.DeploymentStatus(); {
			case ds.IsHealthy():
				g.Healthy++
			case ds.IsUnhealthy():
				g.Unhealthy++
			}
		}
		return index, nil
	})
}

func (s *scaling) policies(ctx context.Context, _ *rpc.Inbound, req *method.ScalingListRequest) (*method.ScalingListResponse, error) {
	out := &method.ScalingListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		var all []*model.ScalingPolicy
		for j := range snap.Jobs(ws, cmp.Or(req.Namespace, model.DefaultNamespace), "") {
			if req.JobID == "" || j.ID == req.JobID {
				all = append(all, j.ScalingPolicies()...)
			}
		}
		slices.SortFunc(all, func(a, b *model.ScalingPolicy) int { return strings.Compare(a.ID, b.ID) })
		prefix := strings.ToLower(req.Prefix)
		var err error
		out.Policies, out.NextToken, err = lister[*model.ScalingPolicy, *model.ScalingPolicyStub]{
			key: func(p *model.ScalingPolicy) string { return p.ID },
			keep: func(p *model.ScalingPolicy) bool {
				return strings.HasPrefix(p.ID, prefix) && (req.Type == "" || p.Type == req.Type)
			},
			stub: (*model.ScalingPolicy).Stub,
		}.page(&req.Query, slices.Values(all))
		return snap.SpecsIndex(), err
	})
}

func (s *scaling) policy(ctx context.Context, _ *rpc.Inbound, req *method.ScalingRequest) (*method.ScalingResponse, error) {
	out := &method.ScalingResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Policy = nil
		for j := range snap.Jobs(ws, model.AllNamespaces, "") {
			for _, p := range j.ScalingPolicies() {
				if p.ID == req.PolicyID {
					out.Policy = p
					return p.ModifyIndex, nil
				}
			}
		}
		return snap.SpecsIndex(), nil
	})
}
