package scheduler

import (
	"cmp"
	"slices"
	"time"

	"atoll/internal/wire"
	"atoll/model"
)

// An allocation whose node is out of touch may still run. What becomes of it is
// for its group's disconnect block:
//
//	            lost_after                          replace = false
//	running  ─┬───────────→ unknown ─┬─ in time ──→ running, or its stand-in is
//	          │ node down            │
//	          └───────→ lost ←───────┘ too late (not with replace = false)
//
// Without a block it is lost with its node.

// touch is what can be known of an allocation.
type touch uint8

const (
	inTouch touch = iota
	// outOfTouch may run, and may come back.
	outOfTouch
	// closing may run until its node, which is out of touch, stops it.
	closing
	lost
)

// contact says what can be known of a row that may run, and why when it is
// lost.
func (r *reconciler) contact(row *model.AllocRow) (touch, string) {
	n := r.node(row.NodeID)
	if n == nil {
		return lost, whyNodeGone
	}
	away := n.Status == model.NodeStatusDown || n.Status == model.NodeStatusDisconnected
	if !away && row.Client != model.ClientUnknown {
		return inTouch, ""
	}
	d := strategy(row)
	switch {
	case d == nil && !away:
		return lost, whyExpired
	case d == nil:
		return lost, whyGone(n)
	case !d.Replace:
		return outOfTouch, ""
	case row.Client == model.ClientUnknown && d.LostAfter > 0 && n.Status != model.NodeStatusDown:
		if r.now.Before(expiry(row, d, r.now)) {
			return outOfTouch, ""
		}
		return lost, whyExpired
	case n.Status == model.NodeStatusDisconnected && d.LostAfter > 0 && row.Client != model.ClientPending:
		return outOfTouch, ""
	case d.StopOnClientAfter > 0:
		if until := time.Unix(n.StatusUpdatedAt, 0).Add(d.StopOnClientAfter); r.now.Before(until) {
			r.waits = append(r.waits, wait{until, model.TriggerDisconnect, row})
			return closing, ""
		}
	}
	return lost, whyGone(n)
}

func whyGone(n *model.Node) string {
	if n.Status == model.NodeStatusDown {
		return whyDown
	}
	return whyAway
}

// strategy is what the row's own version says, nil when it says nothing.
func strategy(row *model.AllocRow) *model.DisconnectStrategy {
	if g := row.Job().Group(row.Shared.Group); g != nil {
		return g.Disconnect
	}
	return nil
}

// expiry is when a row that is unknown, or becomes so now, is lost.
func expiry(row *model.AllocRow, d *model.DisconnectStrategy, now time.Time) time.Time {
	since := now
	if at := row.Disconnected(); at != 0 {
		since = time.Unix(0, at)
	}
	return since.Add(d.LostAfter)
}

// lose calls a row unknown that is not so yet, and has its end looked at.
func (r *reconciler) lose(row *model.AllocRow, did *model.DesiredUpdates) {
	if d := strategy(row); d.Replace && d.LostAfter > 0 {
		r.waits = append(r.waits, wait{expiry(row, d, r.now), model.TriggerDisconnect, row})
	}
	if row.Client != model.ClientUnknown || row.Disconnected() == 0 {
		r.disconnect = append(r.disconnect, row)
		did.Disconnect++
	}
}

// unknown decides on a row that is out of touch: whether another stands in for
// it, at once, as far as the reschedule policy has attempts left.
func (s *groupState) unknown(row *model.AllocRow, canary bool) {
	if !canary && int(row.Index) >= s.group.Count {
		s.end(row, whySurplus)
		s.did.Stop++
		return
	}
	s.lose(row, s.did)
	_, again := rescheduleAt(s.group.ReschedulePolicy, row)
	switch {
	case !strategy(row).Replace:
		s.hold(row, canary)
	case replaced(s.st, row):
		s.did.Ignore++
	case !again:
		s.hold(row, canary)
	default:
		s.want = append(s.want, wanted{previous: row, index: row.Index, how: isStandIn, canary: canary})
	}
}

// replaced reports whether something took over from a row, or is about to: the
// last of those that did is not stopped. One that stood in and was sent away
// does not count.
func replaced(st State, row *model.AllocRow) bool {
	last := row
	for last != nil && last.HasNext() {
		last = st.Alloc(last.Extra.Next)
	}
	return last != nil && last != row && !last.ServerTerminal()
}

// reunite chooses, for each row that is in touch again, between it and those
// that stood in for it.
func (s *groupState) reunite() {
	if len(s.back) == 0 {
		return
	}
	type number struct {
		index  uint32
		canary bool
	}
	of := func(r *model.AllocRow) number { return number{r.Index, s.isCanary(r)} }
	standIns := make(map[number][]*model.AllocRow)
	for _, r := range slices.Concat(s.running, s.canaries) {
		standIns[of(r)] = append(standIns[of(r)], r)
	}
	gone := make(map[*model.AllocRow]bool)
	for _, row := range s.back {
		best := row
		for _, other := range standIns[of(row)] {
			if s.prefers(best, other) {
				best = other
			}
		}
		if best != row {
			s.end(row, whyStoodIn)
			s.did.Stop++
			continue
		}
		for _, r := range standIns[of(row)] {
			gone[r] = true
			s.end(r, whyStandIn)
			s.did.Stop++
		}
		switch canary := s.isCanary(row); {
		case row.Transition().ShouldMigrate():
			s.migrate(row, canary)
			continue
		case canary:
			s.hold(row, true)
		default:
			s.prove(row)
			s.running = append(s.running, row)
		}
		s.reconnect = append(s.reconnect, row.ID)
		s.did.Reconnect++
	}
	isGone := func(r *model.AllocRow) bool { return gone[r] }
	s.running, s.canaries = slices.DeleteFunc(s.running, isGone), slices.DeleteFunc(s.canaries, isGone)
}

// prefers reports whether the stand-in goes on rather than the original. A
// newer version of the job wins over whatever the group says.
func (s *groupState) prefers(original, standIn *model.AllocRow) bool {
	if c := cmp.Compare(standIn.Job().Version, original.Job().Version); c != 0 {
		return c > 0
	}
	if original.Transition().ShouldMigrate() {
		return true
	}
	how := model.ReconcileBestScore
	if d := strategy(original); d != nil {
		how = d.Reconcile
	}
	switch {
	case how == model.ReconcileKeepOriginal:
		return false
	case how == model.ReconcileKeepReplacement:
		return true
	case standIn.Client != model.ClientRunning:
		return false // it may never run
	case how == model.ReconcileLongestRunning:
		return startedAt(standIn).Before(startedAt(original))
	}
	return s.standing(standIn) > s.standing(original)
}

// standing is the score of a row's node as it is filled now.
func (s *groupState) standing(row *model.AllocRow) float64 {
	n := s.node(row.NodeID)
	if n == nil {
		return 0
	}
	used, _ := s.st.Load(row.NodeID)
	return fit(s.st.Algorithm(), n.Capacity(), used)
}

// startedAt is since when a row runs without a break: of its leader, else of
// the first of its tasks.
func startedAt(row *model.AllocRow) time.Time {
	placed := time.Unix(0, row.CreateTime)
	g := row.Job().Group(row.Shared.Group)
	if row.Extra == nil || g == nil || len(g.Tasks) == 0 {
		return placed
	}
	var states map[string]*model.TaskState
	if err := wire.Decode(row.Extra.TaskStates, &states); err != nil {
		return placed
	}
	task := g.Tasks[0]
	if at := slices.IndexFunc(g.Tasks, func(t *model.Task) bool { return t.Leader }); at >= 0 {
		task = g.Tasks[at]
	}
	state := states[task.Name]
	switch {
	case state == nil || state.StartedAt.IsZero():
		return placed
	case state.LastRestart.After(state.StartedAt):
		return state.LastRestart
	}
	return state.StartedAt
}
