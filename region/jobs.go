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
	"atoll/region/rollout"
	"atoll/rpc"
)

// jobs serves the Job methods.
type jobs struct {
	*reader
	*writer
	multi  *rollouts
	region string
	// checkTask refuses a task that its driver could not start.
	checkTask func(*model.Task) error
}

func (s *jobs) bind(r *rpc.Server) {
	rpc.Handle(r, method.JobRegister, s.register)
	rpc.Handle(r, method.JobDeregister, s.deregister)
	rpc.Handle(r, method.JobDispatch, s.dispatch)
	rpc.Handle(r, method.JobPeriodicForce, s.force)
	rpc.Handle(r, method.JobGet, s.get)
	rpc.Handle(r, method.JobList, s.list)
	rpc.Handle(r, method.JobSummary, s.summary)
	rpc.Handle(r, method.JobVersions, s.versions)
	rpc.Handle(r, method.JobAllocations, s.allocations)
	rpc.Handle(r, method.JobEvaluations, s.evaluations)
	rpc.Handle(r, method.JobPlan, s.plan)
}

func (s *jobs) register(ctx context.Context, c *rpc.Inbound, req *method.JobRegisterRequest) (*method.JobRegisterResponse, error) {
	if req.Job == nil {
		return nil, model.Invalidf("Job", "cannot register: the request holds no job")
	}
	job := model.Clone(req.Job)
	warnings, err := s.admit(s.snapshot(), job)
	if err != nil {
		return nil, err
	}
	if req.EvalPriority < 0 || req.EvalPriority > model.JobMaxPriority {
		return nil, model.Invalidf("EvalPriority", "cannot register job %q: EvalPriority %d is not from 1 to %d", job.ID, req.EvalPriority, model.JobMaxPriority)
	}
	now := s.clock.Now().UnixNano()
	asks := *req
	asks.Job = job
	if job.Multiregional() {
		if req.PreserveCounts {
			return nil, model.Errorf(model.KindUnsupported, "PreserveCounts is not supported for multi-region jobs; write the counts into the job, or scale it afterwards")
		}
		sub := &submission{job: job, priority: req.EvalPriority, asks: &asks, warnings: warnings}
		if req.EnforceIndex {
			sub.enforce = &req.JobModifyIndex
		}
		return s.multi.submit(ctx, c, sub)
	}
	submitted := *job
	submitted.SubmitTime = now
	eval := newEval(job.Key(), job.Type, cmp.Or(req.EvalPriority, job.Priority), model.TriggerJobRegister, now)
	index, value, err := s.once(ctx, c, job.Namespace, &asks, cell.CmdJobRegister, &cell.JobRegister{
		Job: &submitted, Eval: eval, EnforceIndex: req.EnforceIndex, JobModifyIndex: req.JobModifyIndex, PreserveCounts: req.PreserveCounts,
	})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobRegistered)
	return &method.JobRegisterResponse{
		EvalID: done.EvalID, EvalCreateIndex: evalIndex(done.EvalID, index), Index: index,
		JobModifyIndex: done.JobModifyIndex, Warnings: strings.Join(warnings, "\n"),
	}, nil
}

// evalIndex is that of an evaluation that was made at index, or was not made.
func evalIndex(evalID string, index uint64) uint64 {
	if evalID == "" {
		return 0
	}
	return index
}

// admit makes a submitted job ready to be stored, or refuses it.
func (s *jobs) admit(snap *state.Snapshot, job *model.Job) (warnings []string, err error) {
	job.Canonicalize()
	switch {
	case job.Multiregional():
		job.Region = model.GlobalRegion
	case job.Region != "" && job.Region != model.GlobalRegion && job.Region != s.region:
		return nil, model.Invalidf("Region", "cannot register job %q here: it is for region %q and this is region %q", job.ID, job.Region, s.region)
	default:
		job.Region = s.region
	}
	namespace := snap.Namespace(nil, job.Namespace)
	if namespace == nil {
		return nil, model.NoNamespace(job)
	}
	// What the server sets is not the submitter's to say.
	job.Stop, job.Stable, job.Status, job.StatusDescription, job.ParentID = false, false, "", "", ""
	job.Version, job.CreateIndex, job.ModifyIndex, job.JobModifyIndex, job.SubmitTime = 0, 0, 0, 0, 0
	job.VersionTag, job.Dispatched, job.DispatchIdempotencyToken, job.Payload = nil, false, "", nil
	if warnings, err = job.Validate(); err != nil {
		return nil, err
	}
	if err := namespace.Admits(job); err != nil {
		return nil, err
	}
	if err := job.CheckTasks(s.checkTask); err != nil {
		return nil, err
	}
	return warnings, nil
}

func newEval(key model.JobID, jobType string, priority int, trigger string, now int64) *model.Evaluation {
	return &model.Evaluation{
		ID: model.NewUUID(nil).String(), Namespace: key.Namespace, JobID: key.ID, Type: jobType, Priority: priority,
		TriggeredBy: trigger, Status: model.EvalPending, CreateTime: now, ModifyTime: now,
	}
}

func (s *jobs) deregister(ctx context.Context, c *rpc.Inbound, req *method.JobDeregisterRequest) (*method.JobDeregisterResponse, error) {
	if req.Global {
		return s.stopGlobal(ctx, c, req)
	}
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	now := s.clock.Now().UnixNano()
	eval := newEval(key, model.JobTypeService, cmp.Or(req.EvalPriority, model.JobDefaultPriority), model.TriggerJobDeregister, now)
	index, value, err := s.once(ctx, c, key.Namespace, req, cell.CmdJobDeregister, &cell.JobDeregister{Key: key, Purge: req.Purge, Eval: eval})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobRegistered)
	return &method.JobDeregisterResponse{
		EvalID: done.EvalID, EvalCreateIndex: index, Index: index, JobModifyIndex: done.JobModifyIndex,
	}, nil
}

// stopTries is how many versions of a job a stop is made from: who goes on
// submitting faster than it is stopped is told of to whoever stops it.
const stopTries = 3

// stopGlobal stops a multi-region job in all its regions.
func (s *jobs) stopGlobal(ctx context.Context, c *rpc.Inbound, req *method.JobDeregisterRequest) (*method.JobDeregisterResponse, error) {
	var done *method.JobRegisterResponse
	for left := stopTries; ; left-- {
		sub, err := s.multi.stopGlobal(req)
		if err != nil {
			return nil, err
		}
		if done, err = s.multi.submit(ctx, c, sub); err == nil {
			break
		}
		// A version that this region has heard of only now is stopped as well.
		newest := rollout.News(s.snapshot(), sub.job.Key()).Won
		if left == 1 || model.KindOf(err) != model.KindConflict || !newest.After(sub.from.Mark()) || s.multi.came(c, sub.job.Namespace, req) {
			return nil, err
		}
	}
	return &method.JobDeregisterResponse{EvalID: done.EvalID, EvalCreateIndex: done.EvalCreateIndex, JobModifyIndex: done.JobModifyIndex, Index: done.Index}, nil
}

func (s *jobs) get(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.JobResponse, error) {
	out := &method.JobResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Job = snap.Job(ws, jobKey(&req.Query, req.JobID))
		if out.Job != nil {
			return out.Job.ModifyIndex, nil
		}
		return snap.JobsIndex(), nil
	})
}

func (s *jobs) list(ctx context.Context, c *rpc.Inbound, req *method.ListRequest) (*method.JobListResponse, error) {
	out := &method.JobListResponse{}
	var err error
	out.Jobs, err = list(ctx, s.reader, c.Envelope.Method, &req.Query, req.Full, &out.Meta, func(ws state.Watch, snap *state.Snapshot) view[*model.Job, *model.JobStub] {
		namespace := cmp.Or(req.Namespace, model.DefaultNamespace)
		snap.WatchSummaries(ws, snap.Jobs(nil, namespace, req.Prefix))
		return view[*model.Job, *model.JobStub]{snap.Jobs(ws, namespace, req.Prefix), lister[*model.Job, *model.JobStub]{
			// A space sorts before whatever a namespace may hold.
			key: func(j *model.Job) string { return j.Namespace + " " + j.ID },
			keep: func(j *model.Job) bool {
				return inNamespace(&req.Query, j.Namespace) && strings.HasPrefix(j.ID, req.Prefix)
			},
			stub: func(j *model.Job) *model.JobStub {
				stub := j.Stub(snap.Summary(nil, j))
				if req.Full {
					stub.Meta = j.Meta
				}
				return stub
			},
		}, snap.JobsIndex()}
	})
	return out, err
}

func (s *jobs) summary(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.JobSummaryResponse, error) {
	out := &method.JobSummaryResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Summary = snap.JobSummary(ws, jobKey(&req.Query, req.JobID))
		if out.Summary == nil {
			return snap.JobsIndex(), nil
		}
		return out.Summary.ModifyIndex, nil
	})
}

func (s *jobs) versions(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.JobVersionsResponse, error) {
	out := &method.JobVersionsResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Versions = snap.JobVersions(ws, jobKey(&req.Query, req.JobID))
		if len(out.Versions) == 0 {
			return snap.JobsIndex(), nil
		}
		return slices.MaxFunc(out.Versions, func(a, b *model.Job) int { return cmp.Compare(a.ModifyIndex, b.ModifyIndex) }).ModifyIndex, nil
	})
}

func (s *jobs) allocations(ctx context.Context, _ *rpc.Inbound, req *method.JobAllocsRequest) (*method.AllocListResponse, error) {
	out := &method.AllocListResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		key := jobKey(&req.Query, req.JobID)
		rows, index := snap.AllocsOfJob(ws, key)
		job := snap.Job(ws, key)
		l := allocLister(snap, true)
		l.keep = func(r *model.AllocRow) bool { return req.All || job == nil || r.Job().CreateIndex == job.CreateIndex }
		// They rest in the order of placement; a list is in that of ids.
		sorted := slices.SortedFunc(rows, func(a, b *model.AllocRow) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
		var err error
		out.Allocs, out.NextToken, err = l.page(&req.Query, slices.Values(sorted))
		if index == 0 {
			index = snap.AllocsIndex()
		}
		return index, err
	})
}

func (s *jobs) evaluations(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.EvalListResponse, error) {
	out := &method.EvalListResponse{Evals: []*model.Evaluation{}}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Evals = slices.SortedFunc(snap.EvalsOfJob(ws, jobKey(&req.Query, req.JobID)), func(a, b *model.Evaluation) int {
			return cmp.Or(cmp.Compare(b.CreateIndex, a.CreateIndex), cmp.Compare(a.ID, b.ID))
		})
		if out.Evals == nil {
			out.Evals = []*model.Evaluation{}
		}
		index := uint64(0)
		for _, e := range out.Evals {
			index = max(index, e.ModifyIndex)
		}
		if index == 0 {
			index = snap.EvalsIndex()
		}
		return index, nil
	})
}
