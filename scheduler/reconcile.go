package scheduler

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"atoll/model"
)

// decisions are what reconciliation comes to.
type decisions struct {
	stop   []model.PlanStop
	update []*model.AllocRow
	place  map[string][]wanted
	// retryAt is when a failed allocation may be placed again; zero when
	// nothing waits.
	retryAt time.Time
}

// wanted is one allocation to place.
type wanted struct {
	index    uint32
	previous *model.AllocRow
	// reschedule says that previous failed, and counts as an attempt.
	reschedule bool
	// stop says why previous is stopped once this one is placed, and only
	// then; "" when it is no matter.
	stop string
}

// replaces reports whether the allocation takes over from one that runs on.
func (w wanted) replaces() bool { return w.stop != "" }

const (
	whyStopped  = "alloc not needed as the job was stopped"
	whySurplus  = "alloc not needed due to job update"
	whyLost     = "alloc is lost since its node is down"
	whyReplaced = "alloc is being updated due to job update"
	whyResched  = "alloc was rescheduled because it failed"
	whyNodeGone = "alloc is lost since its node is gone"
	whyOldJob   = "alloc belongs to an earlier job of the same id"
	whyFollowup = "created for a failed allocation whose delay is not over"
	whyBlocked  = "created to place remaining allocations"
)

// reconcile compares what runs of a job with what should. job is nil or
// stopped when nothing should.
func reconcile(st State, job *model.Job, key model.JobID, now time.Time) *decisions {
	d := &decisions{place: make(map[string][]wanted)}
	byGroup := make(map[string][]*model.AllocRow)
	for r := range st.AllocsOfJob(key) {
		if r.ServerTerminal() {
			continue
		}
		switch {
		case job.Stopped():
			if !r.ClientTerminal() {
				d.stop = append(d.stop, d.lostOr(st, r, whyStopped))
			}
		case r.Job().CreateIndex != job.CreateIndex:
			if !r.ClientTerminal() {
				d.stop = append(d.stop, d.lostOr(st, r, whyOldJob))
			}
		case job.Group(r.Shared.Group) == nil:
			if !r.ClientTerminal() {
				d.stop = append(d.stop, d.lostOr(st, r, whySurplus))
			}
		default:
			byGroup[r.Shared.Group] = append(byGroup[r.Shared.Group], r)
		}
	}
	if job.Stopped() {
		return d
	}
	for _, g := range job.TaskGroups {
		d.group(st, job, g, byGroup[g.Name], now)
	}
	return d
}

// lostOr is the stop of a row, which its node cannot carry out when it is
// down.
func (d *decisions) lostOr(st State, r *model.AllocRow, why string) model.PlanStop {
	_, lost := nodeLost(st, r.NodeID)
	return model.PlanStop{ID: r.ID, Description: why, Lost: lost}
}

func nodeLost(st State, id model.UUID) (why string, lost bool) {
	n := st.Node(id)
	if n == nil {
		return whyNodeGone, true
	}
	return whyLost, n.Status == model.NodeStatusDown
}

func (d *decisions) group(st State, job *model.Job, g *model.TaskGroup, rows []*model.AllocRow, now time.Time) {
	taken := make(map[uint32]bool, g.Count)
	var keep []*model.AllocRow
	var place []wanted
	for _, r := range rows {
		switch {
		case r.Client == model.ClientComplete:
			// A batch allocation that is done stays done for its version;
			// a service has nothing left and is placed anew.
			if job.Type == model.JobTypeBatch && r.Job().Version == job.Version {
				taken[r.Index] = true
			}
		case r.Client == model.ClientFailed:
			d.failed(job, g, r, now, taken, &place)
		case r.ClientTerminal():
			// Lost: its replacement was placed with it.
		default:
			if why, lost := nodeLost(st, r.NodeID); lost {
				d.stop = append(d.stop, model.PlanStop{ID: r.ID, Description: why, Lost: true})
				place = append(place, wanted{index: r.Index, previous: r})
			} else {
				keep = append(keep, r)
			}
		}
	}
	d.keep(job, g, keep, taken, &place)
	d.fill(g, taken, place)
}

// failed decides on an allocation that its node gave up: again now, later, or
// no more.
func (d *decisions) failed(job *model.Job, g *model.TaskGroup, r *model.AllocRow, now time.Time, taken map[uint32]bool, place *[]wanted) {
	if r.Job().Version != job.Version {
		// A new version is a new start.
		return
	}
	if r.Extra != nil && !r.Extra.Next.IsZero() {
		return // replaced already
	}
	at, ok := rescheduleAt(g.ReschedulePolicy, r)
	switch {
	case !ok:
		taken[r.Index] = true
	case at.After(now):
		taken[r.Index] = true
		if d.retryAt.IsZero() || at.Before(d.retryAt) {
			d.retryAt = at
		}
	default:
		*place = append(*place, wanted{index: r.Index, previous: r, reschedule: true, stop: whyResched})
	}
}

// rescheduleAt is when a failed row may be placed again; false when its policy
// allows no more attempts.
func rescheduleAt(p *model.ReschedulePolicy, r *model.AllocRow) (time.Time, bool) {
	if p == nil || (!p.Unlimited && p.Attempts <= 0) {
		return time.Time{}, false
	}
	failedAt := time.Unix(0, r.ModifyTime)
	var events []*model.RescheduleEvent
	if r.Extra != nil && r.Extra.Reschedule != nil {
		events = r.Extra.Reschedule.Events
	}
	if !p.Unlimited {
		recent := 0
		for _, e := range events {
			if failedAt.Sub(time.Unix(0, e.RescheduleTime)) < p.Interval {
				recent++
			}
		}
		if recent >= p.Attempts {
			return time.Time{}, false
		}
	}
	return failedAt.Add(rescheduleDelay(p, len(events))), true
}

// rescheduleDelay is the wait before attempt n, from 0.
func rescheduleDelay(p *model.ReschedulePolicy, n int) time.Duration {
	delay := p.Delay
	switch p.DelayFunction {
	case "exponential":
		for range n {
			if delay *= 2; p.MaxDelay > 0 && delay >= p.MaxDelay {
				break
			}
		}
	case "fibonacci":
		prev := time.Duration(0)
		for range n {
			prev, delay = delay, prev+delay
			if p.MaxDelay > 0 && delay >= p.MaxDelay {
				break
			}
		}
	}
	if p.DelayFunction != "constant" && p.MaxDelay > 0 {
		delay = min(delay, p.MaxDelay)
	}
	return delay
}

// keep decides on rows that run on nodes that are up: which are too many, which
// are out of date.
func (d *decisions) keep(job *model.Job, g *model.TaskGroup, keep []*model.AllocRow, taken map[uint32]bool, place *[]wanted) {
	// Lowest numbers stay; of two with one number, the newer.
	slices.SortStableFunc(keep, func(a, b *model.AllocRow) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(b.CreateIndex, a.CreateIndex))
	})
	room := g.Count
	for _, t := range taken {
		if t {
			room--
		}
	}
	for _, r := range keep {
		if room <= 0 || int(r.Index) >= g.Count || taken[r.Index] {
			d.stop = append(d.stop, model.PlanStop{ID: r.ID, Description: whySurplus})
			continue
		}
		room--
		switch {
		case r.Job().Version == job.Version:
			taken[r.Index] = true
		case sameTasks(r.Job(), job, g):
			taken[r.Index] = true
			d.update = append(d.update, r)
		default:
			*place = append(*place, wanted{index: r.Index, previous: r, stop: whyReplaced})
		}
	}
}

// fill adds what replaces something, and then new allocations under the lowest
// free numbers, until the group has its count.
func (d *decisions) fill(g *model.TaskGroup, taken map[uint32]bool, place []wanted) {
	var out []wanted
	for _, w := range place {
		if int(w.index) < g.Count && !taken[w.index] {
			taken[w.index] = true
			out = append(out, w)
		}
	}
	for i := range uint32(g.Count) {
		if !taken[i] {
			out = append(out, wanted{index: i})
		}
	}
	if len(out) > 0 {
		d.place[g.Name] = out
	}
}

// sameTasks reports whether a group of the new version can be run by what runs
// of the old: nothing differs but counts, policies and what only the server
// acts on.
func sameTasks(old, now *model.Job, g *model.TaskGroup) bool {
	was := old.Group(g.Name)
	if was == nil || !sameMap(old.Meta, now.Meta) {
		return false
	}
	return sameJSON(inert(was), inert(g))
}

// inert is a group without what can change while its tasks run.
func inert(g *model.TaskGroup) *model.TaskGroup {
	c := *g
	c.Count, c.RestartPolicy, c.ReschedulePolicy, c.Update, c.Services = 0, nil, nil, nil, nil
	c.Constraints, c.Scaling, c.Migrate, c.Disconnect = nil, nil, nil, nil
	c.Tasks = make([]*model.Task, len(g.Tasks))
	for i, t := range g.Tasks {
		tc := *t
		tc.RestartPolicy, tc.Services, tc.Constraints = nil, nil, nil
		c.Tasks[i] = &tc
	}
	return &c
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// sameJSON compares by value whatever went through encodings that turn absent
// into empty and ints into floats. It is off the hot path: once for each
// version that still runs.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
