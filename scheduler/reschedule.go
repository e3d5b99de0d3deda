package scheduler

import (
	"cmp"
	"slices"
	"time"

	"atoll/model"
)

// failed decides on an allocation that its node gave up.
func (s *groupState) failed(row *model.AllocRow, canary bool) {
	switch {
	case replaced(s.st, row):
	case row.DeploymentStatus().IsCanary() && !canary && !s.promoted(row):
		// It was tried, and its deployment is over.
	case row.Job().Version != s.job.Version:
		// A new version is a new start, if it may be placed already.
		s.forgiven = append(s.forgiven, row)
	default:
		s.again(row, canary)
	}
}

// again places what failed as its policy says: now, later, or no more. What
// failed in a deployment that goes on is for the deployment's watcher to let
// go, which may rather revert the job; one that failed for good places no more
// of it.
func (s *groupState) again(row *model.AllocRow, canary bool) {
	deployed := row.Shared.DeploymentID == s.deploymentID()
	at, ok := rescheduleAt(s.group.ReschedulePolicy, row)
	switch {
	case deployed && s.deploymentFailed(), deployed && !row.Transition().ShouldReschedule():
		s.hold(row, canary)
	case row.Transition().ShouldForceReschedule(), ok && !at.After(s.now):
		s.want = append(s.want, wanted{previous: row, index: row.Index, how: isRescheduled, canary: canary})
	case !ok:
		s.hold(row, canary)
	default:
		s.hold(row, canary)
		s.did.RescheduleLater++
		s.waits = append(s.waits, wait{at, model.TriggerRetryFailed, row})
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

// trackedEvents bounds what is remembered of earlier placements.
const trackedEvents = 10

// tracked is the history of what is placed anew after prev failed.
func tracked(prev *model.AllocRow, now int64, policy *model.ReschedulePolicy) *model.RescheduleTracker {
	t := &model.RescheduleTracker{}
	if prev.Extra != nil && prev.Extra.Reschedule != nil {
		t.Events = append(t.Events, prev.Extra.Reschedule.Events...)
	}
	delay := time.Duration(0)
	if policy != nil {
		delay = rescheduleDelay(policy, len(t.Events))
	}
	t.Events = append(t.Events, &model.RescheduleEvent{
		RescheduleTime: now, PrevAllocID: prev.ID.String(), PrevNodeID: prev.NodeID.String(), Delay: delay,
	})
	t.Events = t.Events[max(0, len(t.Events)-trackedEvents):]
	return t
}

// wait is something that an evaluation at a later time must look at.
type wait struct {
	at      time.Time
	trigger string
	row     *model.AllocRow // nil for the job as a whole
}

// waitWindow is within how long waits share an evaluation, the last one's: many
// allocations that fail together must not make as many evaluations.
const waitWindow = 5 * time.Second

var whyWaits = map[string]string{
	model.TriggerRetryFailed: "created for failed allocations whose delay is not over",
	model.TriggerDisconnect:  "created for allocations whose node is out of touch",
	model.TriggerRolling:     "created to go on with a rolling update",
}

// followUps returns the evaluations that waits need beside those that wait
// already, and which one each row waits for.
func followUps(st State, waits []wait, eval *model.Evaluation, opts Options) (later []*model.Evaluation, of map[model.UUID]model.UUID) {
	if len(waits) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(waits, func(a, b wait) int {
		return cmp.Or(cmp.Compare(a.trigger, b.trigger), a.at.Compare(b.at))
	})
	var pending []*model.Evaluation
	for e := range st.EvalsOfJob(eval.JobKey()) {
		if e.Status == model.EvalPending && e.WaitUntil.After(opts.Now) {
			pending = append(pending, e)
		}
	}
	of = make(map[model.UUID]model.UUID)
	for len(waits) > 0 {
		first, n := waits[0], 1
		for n < len(waits) && waits[n].trigger == first.trigger && waits[n].at.Sub(first.at) <= waitWindow {
			n++
		}
		last := waits[n-1].at
		e := inTime(pending, first.trigger, last, first.at.Add(waitWindow))
		if e == nil {
			e = followUp(eval, opts)
			e.WaitUntil, e.TriggeredBy, e.StatusDescription = last.UTC(), first.trigger, whyWaits[first.trigger]
			later = append(later, e)
		}
		id, _ := model.ParseUUID(e.ID)
		for _, w := range waits[:n] {
			if w.row != nil {
				of[w.row.ID] = id
			}
		}
		waits = waits[n:]
	}
	return later, of
}

// inTime finds an evaluation that comes between two times.
func inTime(pending []*model.Evaluation, trigger string, from, to time.Time) *model.Evaluation {
	for _, e := range pending {
		if e.TriggeredBy == trigger && !e.WaitUntil.Before(from) && !e.WaitUntil.After(to) {
			return e
		}
	}
	return nil
}
