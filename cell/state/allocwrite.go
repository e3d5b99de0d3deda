package state

import (
	"fmt"
	"slices"

	"atoll/internal/wire"
	"atoll/model"
)

// PlanCommand is an accepted plan as it stands in the Raft log: the plan
// without its placements, which follow packed.
type PlanCommand struct {
	Plan model.Plan
	// Rows are the placements (model.Placements.Pack), Extras those of them
	// that have any, by row.
	Rows   []byte
	Extras map[uint32]*model.AllocExtra
	// Time is the applier's, in Unix nanoseconds.
	Time int64
}

// NewPlanCommand packs a plan.
func NewPlanCommand(p *model.Plan, now int64) *PlanCommand {
	c := &PlanCommand{Plan: *p, Rows: p.Place.Pack(), Time: now}
	c.Plan.Place = nil
	for i := range p.Place {
		if p.Place[i].Extra != nil {
			if c.Extras == nil {
				c.Extras = make(map[uint32]*model.AllocExtra)
			}
			c.Extras[uint32(i)] = p.Place[i].Extra
		}
	}
	return c
}

// ApplyPlan does what the plan says. It returns the nodes
// among those placed on that went down, or away, since the plan was checked: the
// job has to be looked at again.
func (t *Txn) ApplyPlan(c *PlanCommand) (down []model.UUID, err error) {
	place, err := model.UnpackPlacements(c.Rows)
	if err != nil {
		return nil, err
	}
	p := &c.Plan
	shared, err := t.shareGroups(c, place)
	if err != nil {
		return nil, err
	}
	rows := t.rows()
	if p.Deployment != nil {
		if err := t.addDeployment(p.Deployment); err != nil {
			return nil, err
		}
	}
	for _, u := range p.DeploymentUpdates {
		// One that is over meanwhile stays as it ended.
		if d := first[*model.Deployment](t.tx, nil, tableDeployments, u.DeploymentID); d != nil && d.Active() {
			if _, err := t.SetDeploymentStatus(u, c.Time); err != nil {
				return nil, err
			}
		}
	}
	counts := t.deploying(c.Time)
	for _, stop := range p.Stop {
		t.stopAlloc(rows, &stop, c.Time)
	}
	t.touch(rows, p, c.Time)
	for _, up := range p.Update {
		if int(up.Group) >= len(shared) {
			return nil, fmt.Errorf("cannot apply plan: update of %s names group %d of %d", up.ID, up.Group, len(shared))
		}
		rows.update(up.ID, true, func(r *model.AllocRow) {
			// The allocation keeps the evaluation and the metrics it was
			// placed by.
			s := *shared[up.Group]
			s.EvalID, s.Metrics = r.Shared.EvalID, r.Shared.Metrics
			joins := r.Shared.DeploymentID != s.DeploymentID
			if joins && r.DeploymentStatus() != nil {
				// It has to prove itself anew.
				r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.DeploymentStatus = nil })
			}
			r.Shared, r.ModifyTime = &s, c.Time
			if joins {
				counts.placed(r)
			}
		})
	}
	placed := &placing{place: place, extras: c.Extras, shared: shared, index: t.index, time: c.Time}
	names := make(map[model.UUID]string)
	for i := range place {
		pl := &place[i]
		if int(pl.Group) >= len(shared) {
			return nil, fmt.Errorf("cannot apply plan: placement %d names group %d of %d", i, pl.Group, len(shared))
		}
		name, seen := names[pl.NodeID]
		if !seen {
			n := first[*model.Node](t.tx, nil, tableNodes, pl.NodeID.String())
			if n != nil {
				name = n.Name
			}
			if n == nil || n.Status == model.NodeStatusDown || n.Status == model.NodeStatusDisconnected {
				down = append(down, pl.NodeID)
			}
			names[pl.NodeID] = name
		}
		row := placed.row(i)
		next := row.ID
		if rows.insert(row, name) {
			counts.placed(&row)
		} else {
			pl.ID = model.UUID{}
		}
		if extra := row.Extra; extra != nil && !extra.Previous.IsZero() {
			rows.update(extra.Previous, false, func(r *model.AllocRow) {
				r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.Next = next })
			})
		}
	}
	if err := counts.write(); err != nil {
		return nil, err
	}
	t.placed = append(t.placed, placed)
	return down, t.refreshStatus(p.JobKey)
}

// placing makes the rows of a plan's placements, for the table and again for
// events: one plan may have tens of thousands.
type placing struct {
	// place are the placements; what was there already has the zero id.
	place  model.Placements
	extras map[uint32]*model.AllocExtra
	shared []*model.AllocShared
	index  uint64
	time   int64
}

func (p *placing) row(i int) model.AllocRow {
	pl := &p.place[i]
	return model.AllocRow{
		ID: pl.ID, NodeID: pl.NodeID, Shared: p.shared[pl.Group], Extra: p.extras[uint32(i)],
		CreateIndex: p.index, ModifyIndex: p.index, AllocModifyIndex: p.index,
		CreateTime: p.time, ModifyTime: p.time, Index: pl.Index,
	}
}

// touch makes allocations unknown whose node is out of touch, and known again;
// and notes which evaluation some wait for. A node that is back since the plan was
// made has said what there is to know.
func (t *Txn) touch(rows *allocTxn, p *model.Plan, now int64) {
	for _, d := range p.Disconnect {
		row := rows.get(d.ID)
		if row == nil || row.Client != model.ClientUnknown && !t.nodeAway(row.NodeID) {
			continue
		}
		rows.update(d.ID, false, func(r *model.AllocRow) {
			if r.ClientTerminal() {
				return
			}
			r.Client, r.ModifyTime = model.ClientUnknown, now
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.Disconnected, x.FollowupEval = now, d.FollowupEval })
		})
	}
	for _, id := range p.Reconnect {
		rows.update(id, false, func(r *model.AllocRow) {
			r.ModifyTime = now
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.Disconnected, x.FollowupEval = 0, model.UUID{} })
		})
	}
	for _, f := range p.Followup {
		// Delays are counted from ModifyTime, which stays.
		rows.update(f.ID, false, func(r *model.AllocRow) {
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.FollowupEval = f.Eval })
		})
	}
}

// shareGroups makes what the plan's allocations share.
func (t *Txn) shareGroups(c *PlanCommand, place model.Placements) ([]*model.AllocShared, error) {
	p := &c.Plan
	shared := make([]*model.AllocShared, len(p.Groups))
	for i, g := range p.Groups {
		version := p.JobVersion
		if g.JobVersion != nil {
			version = *g.JobVersion
		}
		job := first[*model.Job](t.tx, nil, tableVersions, p.JobKey.Namespace, p.JobKey.ID, version)
		if job == nil && g.JobVersion != nil {
			job = t.replacedVersion(c, place, uint16(i), version)
		}
		if job == nil {
			return nil, model.Errorf(model.KindConflict, "cannot apply plan: version %d of job %q is gone", version, p.JobKey.ID)
		}
		shared[i] = &model.AllocShared{
			EvalID: p.EvalID, Job: job, Group: g.Name, Resources: g.Resources, Usage: g.Resources.Usage(), Metrics: g.Metrics, DeploymentID: g.DeploymentID,
		}
	}
	return shared, nil
}

// replacedVersion is an earlier version of the job that its history does not
// have any more, from an allocation that is replaced by another of it.
func (t *Txn) replacedVersion(c *PlanCommand, place model.Placements, group uint16, version uint64) *model.Job {
	for i := range place {
		if x := c.Extras[uint32(i)]; place[i].Group == group && x != nil {
			if r := t.rows().get(x.Previous); r != nil && r.Job().Version == version {
				return r.Job()
			}
		}
	}
	return nil
}

// stopAlloc tells an allocation to stop. The first that did keeps its word: of
// plans that were made side by side, the second has nothing to add but that the
// allocation is lost.
func (t *Txn) stopAlloc(rows *allocTxn, stop *model.PlanStop, now int64) {
	row := rows.get(stop.ID)
	if row == nil {
		return
	}
	// The node may have gone since the plan was made.
	lost := !row.ClientTerminal() && (stop.Lost || t.nodeGone(row.NodeID))
	if row.ServerTerminal() && !lost {
		return
	}
	rows.update(stop.ID, true, func(r *model.AllocRow) {
		r.ModifyTime = now
		if lost {
			r.Client = model.ClientLost
		}
		if r.ServerTerminal() {
			return
		}
		r.Desired = model.DesiredStop
		if stop.Evict {
			r.Desired = model.DesiredEvict
		}
		if stop.Description != "" || !stop.FollowupEval.IsZero() {
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) {
				x.DesiredDescription = stop.Description
				if !stop.FollowupEval.IsZero() {
					x.FollowupEval = stop.FollowupEval
				}
			})
		}
	})
}

// Reported is what reports came to: the jobs of allocations that ended, and the
// deployments that go on and of which allocations are healthy now. Both may hold
// an id more than once.
type Reported struct {
	Ended   []model.JobID
	Healthy []string
}

// ReportAllocs applies what a node reports of its allocations. Reports of
// allocations that the node does not hold are passed over, and a terminal status
// is final.
func (t *Txn) ReportAllocs(node model.UUID, updates []*model.AllocUpdate, now int64) (out Reported, err error) {
	rows := t.rows()
	counts := t.deploying(now)
	var touched []model.JobID
	seen := make(map[model.JobID]bool)
	for _, u := range updates {
		id, ok := model.ParseUUID(u.ID)
		if !ok {
			continue
		}
		status, ok := model.ParseClientStatus(u.ClientStatus)
		if !ok {
			return out, model.Invalidf("ClientStatus", "cannot update allocation %s: %q is no client status", u.ID, u.ClientStatus)
		}
		row := rows.get(id)
		if row == nil || row.NodeID != node {
			continue
		}
		var states []byte
		if len(u.TaskStates) > 0 {
			var err error
			if states, err = wire.Encode(u.TaskStates); err != nil {
				return out, err
			}
		}
		key, was := row.Shared.Job.Key(), row.ClientTerminal()
		// The first word on an allocation's health counts, if it is about the
		// deployment that the allocation is of.
		judged := u.DeploymentStatus != nil && u.DeploymentStatus.Healthy != nil && u.DeploymentID == row.Shared.DeploymentID.String() &&
			(row.DeploymentStatus() == nil || row.DeploymentStatus().Healthy == nil)
		rows.update(id, false, func(r *model.AllocRow) {
			r.ModifyTime = now
			if !r.ClientTerminal() {
				r.Client = status
			}
			r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) {
				x.ClientDescription = u.ClientDescription
				if states != nil {
					x.TaskStates = states
				}
			})
			if judged {
				r.Extra = counts.judge(r, *u.DeploymentStatus.Healthy, u.DeploymentStatus.Timestamp)
			}
		})
		if judged && *u.DeploymentStatus.Healthy {
			if d := counts.get(row.Shared.DeploymentID); d != nil && d.Active() {
				out.Healthy = append(out.Healthy, d.ID)
			}
		}
		if !was && rows.get(id).ClientTerminal() {
			out.Ended = append(out.Ended, key)
		}
		if !seen[key] {
			seen[key] = true
			touched = append(touched, key)
		}
	}
	for _, key := range touched {
		if err := t.refreshStatus(key); err != nil {
			return out, err
		}
	}
	return out, counts.write()
}

// TransitionAlloc says what is to happen to an allocation, beside what was said
// before; nothing more can happen to one that was told to stop. Its ModifyTime
// stays: it is of what the allocation does.
func (t *Txn) TransitionAlloc(id model.UUID, want *model.DesiredTransition) {
	if r := t.rows().get(id); r == nil || r.ServerTerminal() {
		return
	}
	t.rows().update(id, false, func(r *model.AllocRow) {
		r.Extra = withExtra(r.Extra, func(x *model.AllocExtra) { x.Transition = x.Transition.Merge(want) })
	})
}

// LoseStopped makes a node's allocations that were told to stop lost: their node
// is not there to say that they have.
func (t *Txn) LoseStopped(node model.UUID, now int64) error {
	rows := t.rows()
	n := rows.node(node)
	if n == nil {
		return nil
	}
	var lose []*model.AllocRow
	for r := range rows.at(n.places) {
		if r.ServerTerminal() && !r.ClientTerminal() {
			lose = append(lose, r)
		}
	}
	var touched []model.JobID
	for _, r := range lose {
		rows.update(r.ID, false, func(r *model.AllocRow) { r.Client, r.ModifyTime = model.ClientLost, now })
		if key := r.Job().Key(); !slices.Contains(touched, key) {
			touched = append(touched, key)
		}
	}
	for _, key := range touched {
		if err := t.refreshStatus(key); err != nil {
			return err
		}
	}
	return nil
}

// nodeGone reports whether a node will not say what becomes of its allocations.
func (t *Txn) nodeGone(id model.UUID) bool {
	n := first[*model.Node](t.tx, nil, tableNodes, id.String())
	return n == nil || n.Status == model.NodeStatusDown
}

// nodeAway reports whether nothing is heard of a node.
func (t *Txn) nodeAway(id model.UUID) bool {
	n := first[*model.Node](t.tx, nil, tableNodes, id.String())
	return n == nil || n.Status == model.NodeStatusDown || n.Status == model.NodeStatusDisconnected
}

func withExtra(x *model.AllocExtra, f func(*model.AllocExtra)) *model.AllocExtra {
	var c model.AllocExtra
	if x != nil {
		c = *x
	}
	f(&c)
	return &c
}
