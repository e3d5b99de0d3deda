package region

import (
	"context"
	"math/rand/v2"
	"strings"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/diff"
	"atoll/model/method"
	"atoll/region/worker"
	"atoll/rpc"
	"atoll/scheduler"
)

// planned is a state in which a job is registered already.
type planned struct {
	worker.View
	job *model.Job
}

func (p planned) Job(key model.JobID) *model.Job {
	if key == p.job.Key() {
		return p.job
	}
	return p.View.Job(key)
}

// plan runs the scheduler on a snapshot in which the job is registered, and tells
// what it would do. Nothing is written, so that any server can answer, for as old a
// state as the caller allows; the answer names its index. Between it and a register
// others may take what it found free, and change the job unless the register names
// the job's index.
func (s *jobs) plan(ctx context.Context, _ *rpc.Inbound, req *method.JobPlanRequest) (*method.JobPlanResponse, error) {
	if req.Job == nil {
		return nil, model.Invalidf("Job", "cannot plan: the request holds no job")
	}
	job := model.Clone(req.Job)
	out := &method.JobPlanResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(_ state.Watch, snap *state.Snapshot) (uint64, error) {
		warnings, err := s.admit(snap, job)
		if err != nil {
			return 0, err
		}
		now := s.clock.Now()
		if req.Share != nil && job.Multiregional() {
			job = job.InRegion(s.region, req.Share.Count)
			if _, err := job.Validate(); err != nil {
				return 0, err // the share's count is the asker's
			}
		}
		job.SubmitTime = now.UnixNano()
		old := snap.Job(nil, job.Key())
		job = state.NextVersion(old, job, snap.Index()+1)
		if req.Share != nil {
			job.Version = max(job.Version, req.Share.Version)
		}
		eval := newEval(job.Key(), job.Type, job.Priority, model.TriggerJobRegister, now.UnixNano())
		eval.JobModifyIndex = job.JobModifyIndex
		opts := scheduler.Options{Now: now, Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
		p, err := scheduler.Propose(planned{worker.View{Snapshot: snap}, job}, eval, opts)
		if err != nil {
			return 0, err
		}
		countRemoved(snap, job, p)
		out.Warnings = strings.Join(warnings, "\n")
		out.Annotations = &method.PlanAnnotations{DesiredTGUpdates: p.Desired}
		out.FailedTGAllocs = p.Failed
		out.CreatedEvals = p.Conclude(eval, opts)[1:]
		if old != nil {
			out.JobModifyIndex = old.JobModifyIndex
		}
		if job.IsPeriodicActive() {
			if schedule, err := job.Periodic.Schedule(); err == nil {
				out.NextPeriodicLaunch = schedule.Next(now)
			}
		}
		if req.Diff {
			out.Diff = diff.Jobs(old, job, true)
			diff.Annotate(out.Diff, p.Desired, func(group, task string) bool { return scheduler.SameTask(old, job, group, task) })
		}
		return snap.Index(), nil
	})
}

// countRemoved counts what is stopped of groups that the job no longer has, which
// the scheduler has no counts for.
func countRemoved(snap *state.Snapshot, job *model.Job, p *scheduler.Proposal) {
	for _, stop := range p.Plan.Stop {
		row := snap.Alloc(nil, stop.ID)
		if row == nil || row.Job().CreateIndex != job.CreateIndex || job.Group(row.Shared.Group) != nil {
			continue
		}
		u := p.Desired[row.Shared.Group]
		if u == nil {
			u = &model.DesiredUpdates{}
			p.Desired[row.Shared.Group] = u
		}
		u.Stop++
	}
}
