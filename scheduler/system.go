package scheduler

import (
	"slices"

	"atoll/model"
)

// Jobs of type system and sysbatch run once on every node that they may run on.
// There is nothing to choose, so that neither anti-affinity nor a reschedule
// policy has a say: what matters is where the job is already.

// everyNode says what is to be done of a group on all nodes.
type everyNode struct {
	// covered are the nodes that need nothing.
	covered map[model.UUID]bool
	// previous is what ended on a node and is placed there again.
	previous map[model.UUID]*model.AllocRow
	// replace are rows of earlier versions, of which no more than limit are
	// replaced at once.
	replace []*model.AllocRow
	limit   int
}

// everyNode decides on one group of a system or sysbatch job.
func (r *reconciler) everyNode(g *model.TaskGroup, rows []*model.AllocRow) {
	e := &everyNode{covered: make(map[model.UUID]bool), previous: make(map[model.UUID]*model.AllocRow)}
	r.system[g.Name] = e
	did := r.desired[g.Name]
	// The newest first: of two on one node it goes on.
	rows = slices.Clone(rows)
	slices.Reverse(rows)
	for _, row := range rows {
		if !row.ClientTerminal() {
			r.onNode(e, row, did)
		}
	}
	for _, row := range rows {
		if row.ClientTerminal() && !e.covered[row.NodeID] && !row.HasNext() {
			if r.isDone(row) {
				e.covered[row.NodeID] = true
				did.Ignore++
			} else if e.previous[row.NodeID] == nil {
				e.previous[row.NodeID] = row
			}
		}
	}
	e.limit = len(e.replace)
	if g.Update.Rolls() {
		e.limit = g.Update.MaxParallel
		if r.staggered() {
			e.limit = 0
		}
	}
}

// onNode decides on a row that may run.
func (r *reconciler) onNode(e *everyNode, row *model.AllocRow, did *model.DesiredUpdates) {
	touch, why := r.contact(row)
	n := r.node(row.NodeID)
	switch {
	case touch == lost:
		r.stop = append(r.stop, model.PlanStop{ID: row.ID, Description: why, Lost: true})
		did.Stop++
	case e.covered[row.NodeID]:
		r.end(row, whySurplus)
		did.Stop++
	case touch == outOfTouch:
		e.covered[row.NodeID] = true
		r.lose(row, did)
	case touch == closing:
		e.covered[row.NodeID] = true
		did.Ignore++
	case row.Transition().ShouldMigrate():
		r.end(row, whyMigrated)
		did.Migrate++
		if row.Transition().ShouldNotPlace() {
			e.covered[row.NodeID] = true
		} else {
			e.previous[row.NodeID] = row
		}
	case !r.belongs(n):
		r.end(row, whyElsewhere)
		did.Stop++
	default:
		e.covered[row.NodeID] = true
		if row.Disconnected() != 0 {
			r.reconnect = append(r.reconnect, row.ID)
			did.Reconnect++
		}
		switch {
		case row.Job().Version == r.job.Version:
			did.Ignore++
		case r.inPlace(row):
			r.update = append(r.update, row)
			did.InPlaceUpdate++
		default:
			e.replace = append(e.replace, row)
		}
	}
}

// isDone reports whether what ended on a node stays so. A sysbatch allocation
// is done for its version, whatever came of it. That of a system job is placed
// again, but not by the evaluation that tells of its end: a task that fails
// would go round for ever.
func (r *reconciler) isDone(row *model.AllocRow) bool {
	switch {
	case row.Client == model.ClientLost, row.Job().Version != r.job.Version:
		return false
	case r.job.Type == model.JobTypeSysBatch:
		return true
	}
	return r.eval.TriggeredBy == model.TriggerRetryFailed
}

// staggered reports whether the next step of a rolling update waits already.
func (r *reconciler) staggered() bool {
	for e := range r.st.EvalsOfJob(r.eval.JobKey()) {
		if e.Status == model.EvalPending && e.TriggeredBy == model.TriggerRolling && e.WaitUntil.After(r.now) && e.JobModifyIndex == r.job.JobModifyIndex {
			return true
		}
	}
	return false
}

// placeEverywhere places a group on all nodes that it may run on.
func (p *Proposal) placeEverywhere(pl *placer, g *model.TaskGroup, e *everyNode, d *decisions, add func(*groupPlacer, wanted, model.Placement)) {
	did := d.desired[g.Name]
	gp := pl.forGroup(pl.job, g)
	var failed *model.AllocMetric
	try := func(c *candidate, w wanted) bool {
		placed, why := gp.placeOn(c, w)
		if why == "" {
			add(gp, w, placed)
			return true
		}
		if failed == nil {
			m := *gp.metrics
			failed = &m
		} else {
			failed.CoalescedFailures++
		}
		exhausted(failed, c, why)
		p.Queued[g.Name]++
		return false
	}
	replaced := 0
	for _, row := range e.replace {
		c := pl.candidate(row.NodeID)
		switch {
		case c == nil:
			// Its node takes nothing new; what runs there goes on.
			did.Ignore++
		case gp.infeasible(c) != "":
			p.Plan.Stop = append(p.Plan.Stop, model.PlanStop{ID: row.ID, Description: whyElsewhere})
			did.Stop++
		case replaced < e.limit:
			did.DestructiveUpdate++
			if try(c, wanted{previous: row, how: isReplacement}) {
				replaced++
			}
		default:
			did.Ignore++
			if g.Update.Rolls() && e.limit > 0 && !d.waitsFor(model.TriggerRolling) {
				d.waits = append(d.waits, wait{pl.opts.Now.Add(g.Update.Stagger), model.TriggerRolling, nil})
			}
		}
	}
	for _, c := range slices.Clone(gp.ring) {
		if e.covered[c.id] {
			continue
		}
		w := wanted{previous: e.previous[c.id]}
		if w.previous != nil {
			w.how = isSuccessor
		}
		did.Place++
		try(c, w)
	}
	if failed != nil {
		p.fail(g.Name, failed, gp)
	}
}

func (d *decisions) waitsFor(trigger string) bool {
	return slices.ContainsFunc(d.waits, func(w wait) bool { return w.trigger == trigger })
}
