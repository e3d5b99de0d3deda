package scheduler

import (
	"fmt"
	"time"

	"atoll/model"
)

// Proposal is a plan, and what it leaves undone.
type Proposal struct {
	Plan *model.Plan
	// Failed tells, by group, why allocations found no place; Queued how
	// many did not.
	Failed map[string]*model.AllocMetric
	Queued map[string]int
	// Classes and Escaped say which nodes could help with what failed
	// (model.Evaluation.ClassEligibility).
	Classes map[string]bool
	Escaped bool
	// Later are evaluations for what may be placed only later.
	Later []*model.Evaluation
}

// Propose makes a plan for an evaluation. Errors are about evaluations that no
// plan can be made for: they should fail.
func Propose(st State, eval *model.Evaluation, opts Options) (*Proposal, error) {
	key := eval.JobKey()
	job := st.Job(key)
	if job != nil && job.Type != model.JobTypeService && job.Type != model.JobTypeBatch {
		return nil, model.Errorf(model.KindUnsupported, "jobs of type %q are not scheduled by this version", job.Type)
	}
	evalID, ok := model.ParseUUID(eval.ID)
	if !ok {
		return nil, fmt.Errorf("evaluation id %q is not a UUID", eval.ID)
	}
	d := reconcile(st, job, key, opts.Now)
	p := &Proposal{
		Plan:   &model.Plan{EvalID: evalID, Priority: eval.Priority, JobKey: key, SnapshotIndex: st.Index(), Stop: d.stop},
		Queued: make(map[string]int),
	}
	if job.Stopped() {
		return p, nil
	}
	p.Plan.JobVersion, p.Plan.JobModifyIndex, p.Plan.AllAtOnce = job.Version, job.JobModifyIndex, job.AllAtOnce
	groups := make(map[string]uint16)
	group := func(g *model.TaskGroup, metrics *model.AllocMetric) uint16 {
		at, ok := groups[g.Name]
		if !ok {
			at = uint16(len(p.Plan.Groups))
			groups[g.Name] = at
			p.Plan.Groups = append(p.Plan.Groups, model.PlanGroup{Name: g.Name, Resources: g.AllocatedResources(), Metrics: metrics})
		}
		return at
	}
	if len(d.place) > 0 {
		pl := newPlacer(st, job, d.stop, opts)
		for _, g := range job.TaskGroups {
			p.placeGroup(pl, g, d.place[g.Name], group)
		}
	}
	for _, r := range d.update {
		g := job.Group(r.Shared.Group)
		p.Plan.Update = append(p.Plan.Update, model.PlanUpdate{ID: r.ID, Group: group(g, r.Shared.Metrics)})
	}
	if !d.retryAt.IsZero() && !hasLater(st, key, d, opts.Now) {
		later := followUp(eval, opts)
		later.WaitUntil, later.StatusDescription = d.retryAt.UTC(), whyFollowup
		later.TriggeredBy = model.TriggerRetryFailed
		p.Later = append(p.Later, later)
	}
	return p, nil
}

func (p *Proposal) placeGroup(pl *placer, g *model.TaskGroup, place []wanted, group func(*model.TaskGroup, *model.AllocMetric) uint16) {
	p.Queued[g.Name] = 0
	if len(place) == 0 {
		return
	}
	gp := pl.forGroup(g)
	for i, w := range place {
		placed, failed := gp.place(w)
		if failed != nil {
			// The next would fail in the same way.
			failed.CoalescedFailures = len(place) - i - 1
			if p.Failed == nil {
				p.Failed, p.Classes = make(map[string]*model.AllocMetric), make(map[string]bool)
			}
			gp.eligibility(p.Classes)
			p.Escaped = p.Escaped || gp.escaped
			p.Failed[g.Name] = failed
			p.Queued[g.Name] = len(place) - i
			return
		}
		placed.Group = group(g, gp.metrics)
		p.Plan.Place = append(p.Plan.Place, placed)
		if w.replaces() {
			p.Plan.Stop = append(p.Plan.Stop, model.PlanStop{ID: w.previous.ID, Description: w.stop})
		}
	}
}

// hasLater reports whether an evaluation waits already that comes in time for
// what d leaves for later.
func hasLater(st State, key model.JobID, d *decisions, now time.Time) bool {
	for e := range st.EvalsOfJob(key) {
		if e.Status == model.EvalPending && e.WaitUntil.After(now) && !e.WaitUntil.After(d.retryAt) {
			return true
		}
	}
	return false
}

func followUp(e *model.Evaluation, opts Options) *model.Evaluation {
	now := opts.Now.UnixNano()
	return &model.Evaluation{
		ID: opts.newUUID().String(), Namespace: e.Namespace, JobID: e.JobID, Type: e.Type, Priority: e.Priority,
		JobModifyIndex: e.JobModifyIndex, Status: model.EvalPending, PreviousEval: e.ID, CreateTime: now, ModifyTime: now,
	}
}

// Conclude returns the evaluations to write once a proposal was applied whole:
// the evaluation itself, and those that go on with what is left.
func (p *Proposal) Conclude(eval *model.Evaluation, opts Options) []*model.Evaluation {
	done := *eval
	done.Status, done.StatusDescription = model.EvalComplete, ""
	done.SnapshotIndex, done.ModifyTime = p.Plan.SnapshotIndex, opts.Now.UnixNano()
	done.FailedTGAllocs, done.QueuedAllocations = p.Failed, p.Queued
	done.ClassEligibility, done.EscapedComputedClass = nil, false
	out := []*model.Evaluation{&done}
	if len(p.Failed) > 0 {
		if eval.TriggeredBy == model.TriggerQueued {
			// It was blocked before, and blocks again.
			done.Status, done.StatusDescription = model.EvalBlocked, whyBlocked
			done.ClassEligibility, done.EscapedComputedClass = p.Classes, p.Escaped
		} else {
			blocked := followUp(eval, opts)
			blocked.Status, blocked.StatusDescription, blocked.TriggeredBy = model.EvalBlocked, whyBlocked, model.TriggerQueued
			blocked.FailedTGAllocs, blocked.QueuedAllocations, blocked.SnapshotIndex = p.Failed, p.Queued, done.SnapshotIndex
			blocked.ClassEligibility, blocked.EscapedComputedClass = p.Classes, p.Escaped
			done.BlockedEval = blocked.ID
			out = append(out, blocked)
		}
	}
	if len(p.Later) > 0 {
		done.NextEval = p.Later[0].ID
		out = append(out, p.Later...)
	}
	return out
}

// Attempts is how often a worker proposes anew when the applier refuses parts
// of its plans.
func Attempts(jobType string) int {
	if jobType == model.JobTypeBatch {
		return 2
	}
	return 5
}
