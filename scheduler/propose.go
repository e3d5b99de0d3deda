package scheduler

import (
	"fmt"

	"atoll/model"
)

// Proposal is a plan, and what it leaves undone.
type Proposal struct {
	Plan *model.Plan
	// Failed tells, by group, why allocations found no place; Queued how
	// many did not.
	Failed map[string]*model.AllocMetric
	Queued map[string]int
	// Classes says of each computed class of nodes that was seen whether it
	// could take some of what failed, were there room; Escaped that single
	// nodes of a class may differ in that.
	Classes map[string]bool
	Escaped bool
	// Later are evaluations for what may be decided only later.
	Later []*model.Evaluation
	// Desired counts, by group, what the plan does.
	Desired map[string]*model.DesiredUpdates
	// deployment is the one that the plan's placements belong to.
	deployment string
}

// Propose makes a plan for an evaluation. Errors are about evaluations that no
// plan can be made for: they should fail.
func Propose(st State, eval *model.Evaluation, opts Options) (*Proposal, error) {
	key := eval.JobKey()
	job := st.Job(key)
	evalID, ok := model.ParseUUID(eval.ID)
	if !ok {
		return nil, fmt.Errorf("evaluation id %q is not a UUID", eval.ID)
	}
	d := reconcile(st, job, eval, opts.Now)
	p := &Proposal{
		Plan: &model.Plan{
			EvalID: evalID, Priority: eval.Priority, JobKey: key, SnapshotIndex: st.Index(), Stop: d.stop, Reconnect: d.reconnect,
			DeploymentUpdates: d.cancel,
		},
		Queued: make(map[string]int), Desired: d.desired,
	}
	if job.Stopped() {
		return p, nil
	}
	p.Plan.JobVersion, p.Plan.JobModifyIndex, p.Plan.AllAtOnce = job.Version, job.JobModifyIndex, job.AllAtOnce
	if d.created {
		d.deployment.ID = opts.newUUID().String()
		if eval.TriggeredBy == model.TriggerJobRegister && eval.DeploymentID != "" {
			// It is known already, as one that waited for its region's turn.
			d.deployment.ID = eval.DeploymentID
		}
		p.Plan.Deployment = d.deployment
	}
	sh := &sharing{plan: p.Plan, job: job, at: make(map[shareKey]uint16)}
	if d.deployment != nil && d.deployment.Active() {
		p.deployment = d.deployment.ID
		sh.deployment, sh.id = d.deployment, parsed(d.deployment.ID)
	}
	p.placeAll(st, job, d, sh, opts)
	for _, r := range d.update {
		p.Plan.Update = append(p.Plan.Update, model.PlanUpdate{ID: r.ID, Group: sh.group(job, job.Group(r.Shared.Group), r.Shared.Metrics)})
	}
	p.follow(st, d, eval, opts)
	return p, nil
}

func parsed(id string) model.UUID {
	u, _ := model.ParseUUID(id)
	return u
}

// placeAll finds nodes for all that d wants.
func (p *Proposal) placeAll(st State, job *model.Job, d *decisions, sh *sharing, opts Options) {
	if len(d.place) == 0 && len(d.system) == 0 {
		for _, g := range job.TaskGroups {
			p.Queued[g.Name] = 0
		}
		return
	}
	pl := newPlacer(st, job, d.stop, opts)
	add := func(gp *groupPlacer, w wanted, placed model.Placement) {
		placed.Group = sh.group(gp.job, gp.group, gp.metrics)
		p.Plan.Place = append(p.Plan.Place, placed)
		if why := w.stops(); why != "" {
			p.Plan.Stop = append(p.Plan.Stop, model.PlanStop{ID: w.previous.ID, Description: why})
		}
	}
	for _, g := range job.TaskGroups {
		p.Queued[g.Name] = 0
		if e := d.system[g.Name]; e != nil {
			p.placeEverywhere(pl, g, e, d, add)
		} else if len(d.place[g.Name]) > 0 {
			p.placeGroup(pl, g, d.place[g.Name], add)
		}
	}
}

func (p *Proposal) placeGroup(pl *placer, g *model.TaskGroup, place []wanted, add func(*groupPlacer, wanted, model.Placement)) {
	// Most of the time all is of one version.
	gps := make(map[*model.Job]*groupPlacer, 1)
	var failed *model.AllocMetric
	for i, w := range place {
		job := pl.job
		if w.job != nil {
			job = w.job
		}
		gp := gps[job]
		if gp == nil {
			gp = pl.forGroup(job, job.Group(g.Name))
			gps[job] = gp
		}
		placed, why := gp.place(w)
		if why != nil {
			// The next would fail in the same way.
			failed = why
			failed.CoalescedFailures = len(place) - i - 1
			p.Queued[g.Name] = len(place) - i
			p.fail(g.Name, failed, gp)
			return
		}
		add(gp, w, placed)
	}
}

// fail notes that a group found no place.
func (p *Proposal) fail(group string, why *model.AllocMetric, gp *groupPlacer) {
	if p.Failed == nil {
		p.Failed, p.Classes = make(map[string]*model.AllocMetric), make(map[string]bool)
	}
	p.Failed[group] = why
	gp.eligibility(p.Classes)
	p.Escaped = p.Escaped || len(gp.unique) > 0
}

// follow adds what waits for later evaluations, and whom they are for.
func (p *Proposal) follow(st State, d *decisions, eval *model.Evaluation, opts Options) {
	var of map[model.UUID]model.UUID
	p.Later, of = followUps(st, d.waits, eval, opts)
	for _, r := range d.disconnect {
		p.Plan.Disconnect = append(p.Plan.Disconnect, model.PlanDisconnect{ID: r.ID, FollowupEval: of[r.ID]})
		delete(of, r.ID)
	}
	for _, w := range d.waits {
		if w.row == nil {
			continue
		}
		if id, waits := of[w.row.ID]; waits && (w.row.Extra == nil || w.row.Extra.FollowupEval != id) {
			p.Plan.Followup = append(p.Plan.Followup, model.PlanFollowup{ID: w.row.ID, Eval: id})
		}
	}
}

// sharing makes the entries of Plan.Groups, one for what is alike.
type sharing struct {
	plan *model.Plan
	job  *model.Job
	// deployment is nil when placements belong to none.
	deployment *model.Deployment
	id         model.UUID
	at         map[shareKey]uint16
}

type shareKey struct {
	job   *model.Job
	group string
}

func (sh *sharing) group(job *model.Job, g *model.TaskGroup, metrics *model.AllocMetric) uint16 {
	key := shareKey{job, g.Name}
	at, ok := sh.at[key]
	if ok {
		return at
	}
	at = uint16(len(sh.plan.Groups))
	sh.at[key] = at
	pg := model.PlanGroup{Name: g.Name, Resources: g.AllocatedResources(), Metrics: metrics}
	switch {
	case job != sh.job:
		version := job.Version
		pg.JobVersion = &version
	case sh.deployment != nil && sh.deployment.TaskGroups[g.Name] != nil:
		pg.DeploymentID = sh.id
	}
	sh.plan.Groups = append(sh.plan.Groups, pg)
	return at
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
	if p.deployment != "" {
		done.DeploymentID = p.deployment
	}
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
	if jobType == model.JobTypeBatch || jobType == model.JobTypeSysBatch {
		return 2
	}
	return 5
}
