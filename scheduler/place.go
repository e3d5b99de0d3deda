package scheduler

import (
	"math"
	"math/bits"
	"slices"

	"atoll/model"
)

// place finds a node for one allocation; the metric says why there is none.
func (gp *groupPlacer) place(w wanted) (model.Placement, *model.AllocMetric) {
	gp.makeRoom(w)
	for {
		best := gp.choose(w)
		if best == nil {
			gp.takeRoom(w)
			return model.Placement{}, gp.failure()
		}
		extra, why := gp.assign(best)
		if why != "" {
			gp.retire(best, why)
			continue
		}
		return gp.placement(best, w, extra), nil
	}
}

// placeOn places one allocation on a given node, or says in which dimension it
// has no room.
func (gp *groupPlacer) placeOn(c *candidate, w wanted) (model.Placement, string) {
	gp.makeRoom(w)
	why := gp.full(c)
	var extra *model.AllocExtra
	if why == "" {
		extra, why = gp.assign(c)
	}
	if why != "" {
		gp.takeRoom(w)
		return model.Placement{}, why
	}
	return gp.placement(c, w, extra), ""
}

// makeRoom gives what a running predecessor holds to its replacement, and to it
// alone: takeRoom takes it back when the replacement finds no place, so that
// the old one goes on.
func (gp *groupPlacer) makeRoom(w wanted) {
	if w.how == isReplacement {
		gp.free(w.previous)
		gp.readmit(gp.candidate(w.previous.NodeID))
	}
}

func (gp *groupPlacer) takeRoom(w wanted) {
	if w.how == isReplacement {
		gp.hold(w.previous)
	}
}

// assign takes what an allocation holds from a candidate that has room.
func (gp *groupPlacer) assign(c *candidate) (extra *model.AllocExtra, why string) {
	if gp.ports {
		if extra, why = assignPorts(gp.group, c.node, c.usedPorts(), gp.opts.Rand); why != "" {
			return nil, why
		}
	}
	c.used = c.used.Add(gp.usage)
	gp.count(c, gp.group.Name, +1)
	return extra, ""
}

// choose returns the best of the next few candidates that have room, nil when
// none has.
func (gp *groupPlacer) choose(w wanted) *candidate {
	var best *candidate
	bestScore, found, full := 0.0, 0, 0
	at := 0
	if len(gp.ring) > 0 {
		at = gp.next % len(gp.ring)
	}
	for range gp.ring {
		c := gp.ring[at]
		if at++; at == len(gp.ring) {
			at = 0
		}
		if gp.full(c) != "" {
			full++
			continue
		}
		if score := gp.score(c, w); best == nil || score > bestScore {
			best, bestScore = c, score
		}
		if found++; found == gp.limit {
			break
		}
	}
	gp.next = at
	if full*4 > len(gp.ring) {
		// Full nodes only get fuller, unless something on them is freed:
		// look at them no more.
		gp.ring = slices.DeleteFunc(gp.ring, func(c *candidate) bool {
			why := gp.full(c)
			if why != "" {
				gp.out[c] = why
			}
			return why != ""
		})
	}
	return best
}

// retire takes a candidate out of the ring; readmit takes it in again.
func (gp *groupPlacer) retire(c *candidate, why string) {
	gp.out[c] = why
	gp.ring = slices.DeleteFunc(gp.ring, func(o *candidate) bool { return o == c })
}

func (gp *groupPlacer) readmit(c *candidate) {
	if _, was := gp.out[c]; was {
		delete(gp.out, c)
		gp.ring = append(gp.ring, c)
	}
}

// failure tells why no candidate was chosen.
func (gp *groupPlacer) failure() *model.AllocMetric {
	m := *gp.metrics
	for c, why := range gp.out {
		exhausted(&m, c, why)
	}
	for _, c := range gp.ring {
		exhausted(&m, c, gp.full(c))
	}
	return &m
}

// exhausted counts a node that has no room.
func exhausted(m *model.AllocMetric, c *candidate, why string) {
	m.NodesExhausted++
	count(&m.DimensionExhausted, why)
	if c.node.NodeClass != "" {
		count(&m.ClassExhausted, c.node.NodeClass)
	}
}

// full says in which dimension a candidate has no room, "" when it has.
func (gp *groupPlacer) full(c *candidate) string {
	if c.groups != nil && (gp.distinct && c.allocs > 0 || gp.apart && c.groups[gp.number] > 0) {
		return model.ConstraintDistinctHosts
	}
	return c.used.Add(gp.usage).Exceeds(c.capacity)
}

// score is the mean of what speaks for and against a node: how well it would be
// filled, or how little, how many of the group it has, and whether the allocation failed there.
func (gp *groupPlacer) score(c *candidate, w wanted) float64 {
	sum, n := fit(gp.algorithm, c.capacity, c.used.Add(gp.usage)), 1.0
	if c.groups != nil && c.groups[gp.number] > 0 {
		sum -= float64(c.groups[gp.number]+1) / float64(max(gp.group.Count, 1))
		n++
	}
	if w.failedOn(c) {
		sum--
		n++
	}
	return sum / n
}

// failedOn reports whether an earlier try of the allocation failed on c.
func (w wanted) failedOn(c *candidate) bool {
	if w.how != isRescheduled && w.how != isStandIn {
		return false
	}
	if w.previous.NodeID == c.id {
		return true
	}
	x := w.previous.Extra
	return x != nil && x.Reschedule != nil && slices.ContainsFunc(x.Reschedule.Events, func(e *model.RescheduleEvent) bool {
		return e.PrevNodeID == c.node.ID
	})
}

// fit scores a node by how it would be filled, from 0 to 1.
func fit(algorithm string, capacity, used model.Usage) float64 {
	full := binpack(capacity, used)
	if algorithm == model.AlgorithmSpread {
		return 1 - full
	}
	return full
}

// binpack scores how full a node would be, from 0 (empty) to 1, by the best fit
// of Google's 2010 cluster-scheduling work ("BestFit v3"): 20 − 10^free CPU −
// 10^free memory, of which at most 18 counts.
func binpack(capacity, used model.Usage) float64 {
	free := func(have, take int64) float64 {
		if have <= 0 {
			return 0
		}
		return 1 - float64(take)/float64(have)
	}
	s := 20 - math.Pow(10, free(capacity.CPU, used.CPU)) - math.Pow(10, free(capacity.MemoryMB, used.MemoryMB))
	return min(max(s, 0), 18) / 18
}

// ceilLog2 is ⌈log₂ n⌉, 0 for none.
func ceilLog2(n int) int { return bits.Len(uint(max(n-1, 0))) }

func (gp *groupPlacer) placement(c *candidate, w wanted, extra *model.AllocExtra) model.Placement {
	pl := model.Placement{ID: gp.opts.newUUID(), NodeID: c.id, Index: w.index, Extra: extra}
	if w.previous == nil && !w.canary {
		return pl
	}
	if pl.Extra == nil {
		pl.Extra = &model.AllocExtra{}
	}
	if w.canary {
		pl.Extra.DeploymentStatus = &model.AllocDeploymentStatus{Canary: true}
	}
	if w.previous != nil {
		pl.Extra.Previous = w.previous.ID
	}
	if w.how == isRescheduled || w.how == isStandIn {
		pl.Extra.Reschedule = tracked(w.previous, gp.opts.Now.UnixNano(), gp.group.ReschedulePolicy)
	}
	return pl
}
