package scheduler

import (
	"math"
	"slices"

	"atoll/model"
)

// placer places the allocations of one job on nodes, keeping what it has placed
// so far. All its state is of one proposal.
type placer struct {
	st    State
	job   *model.Job
	opts  Options
	check *checker
	// nodes are those of the job's datacenters and pool, ready, in shuffled
	// order; the others are only counted.
	nodes     []*candidate
	available map[string]int
	inPool    int
	// freed are the rows that the plan stops: what they hold may be used.
	freed map[model.UUID][]*model.AllocRow
	hosts map[model.UUID]*hostUse
}

// candidate is a node with what is left of it.
type candidate struct {
	node     *model.Node
	id       model.UUID
	capacity model.Usage
	used     model.Usage
	ports    *portSet
	heldPort []uint16
}

// hostUse counts a job's allocations on a node, by group.
type hostUse struct {
	job    int
	groups map[string]int
}

func newPlacer(st State, job *model.Job, stops []model.PlanStop, opts Options) *placer {
	p := &placer{
		st: st, job: job, opts: opts, check: newChecker(), available: make(map[string]int),
		freed: make(map[model.UUID][]*model.AllocRow), hosts: make(map[model.UUID]*hostUse),
	}
	stopped := make(map[model.UUID]bool, len(stops))
	for _, s := range stops {
		stopped[s.ID] = true
		if r := st.Alloc(s.ID); r != nil && !r.Terminal() {
			p.freed[r.NodeID] = append(p.freed[r.NodeID], r)
		}
	}
	for r := range st.AllocsOfJob(job.Key()) {
		if !r.Terminal() && !stopped[r.ID] {
			p.host(r.NodeID).add(r.Shared.Group)
		}
	}
	for n := range st.Nodes() {
		if !job.MatchesPool(n.NodePool) {
			continue
		}
		p.inPool++
		if !n.Ready() || !job.MatchesDatacenter(n.Datacenter) {
			continue
		}
		id, ok := model.ParseUUID(n.ID)
		if !ok {
			continue
		}
		p.available[n.Datacenter]++
		c := &candidate{node: n, id: id, capacity: n.Capacity()}
		c.used, c.heldPort = st.Load(id)
		for _, r := range p.freed[id] {
			c.used = c.used.Sub(r.Shared.Usage)
		}
		p.nodes = append(p.nodes, c)
	}
	opts.Rand.Shuffle(len(p.nodes), func(i, j int) { p.nodes[i], p.nodes[j] = p.nodes[j], p.nodes[i] })
	return p
}

func (p *placer) host(id model.UUID) *hostUse {
	h := p.hosts[id]
	if h == nil {
		h = &hostUse{groups: make(map[string]int)}
		p.hosts[id] = h
	}
	return h
}

func (h *hostUse) add(group string) {
	h.job++
	h.groups[group]++
}

// portsOf is the candidate's set of used ports, made when first needed.
func (p *placer) portsOf(c *candidate) *portSet {
	if c.ports == nil {
		c.ports = usedPorts(c.node, c.heldPort)
		for _, r := range p.freed[c.id] {
			r.HostPorts(func(port int) { c.ports.drop(port) })
		}
	}
	return c.ports
}

// groupPlacer places one group.
type groupPlacer struct {
	*placer
	group    *model.TaskGroup
	usage    model.Usage
	ports    bool
	distinct bool // over the job
	apart    bool // over the group
	// ring are the feasible candidates; those found full are taken out, as
	// they only get fuller. next is where the next search begins.
	ring  []*candidate
	next  int
	limit int
	// metrics is what placements of the group share.
	metrics *model.AllocMetric
}

// forGroup finds the nodes that may run the group at all.
func (p *placer) forGroup(g *model.TaskGroup) *groupPlacer {
	gp := &groupPlacer{
		placer: p, group: g, usage: g.GroupUsage(), ports: asksPorts(g),
		distinct: distinctHosts(p.job.Constraints), apart: distinctHosts(g.Constraints),
		metrics: &model.AllocMetric{NodesInPool: p.inPool, NodePool: p.job.NodePool, NodesAvailable: p.available},
	}
	var shared, unique []*model.Constraint
	for _, list := range append([][]*model.Constraint{p.job.Constraints, g.Constraints}, taskConstraints(g)...) {
		for _, c := range list {
			if escapesClass(c) {
				unique = append(unique, c)
			} else {
				shared = append(shared, c)
			}
		}
	}
	classes := make(map[string]string) // why a class is not feasible, "" when it is
	for _, c := range p.nodes {
		gp.metrics.NodesEvaluated++
		why, seen := classes[c.node.ComputedClass]
		if !seen || c.node.ComputedClass == "" {
			why = p.infeasible(c.node, g, shared)
			classes[c.node.ComputedClass] = why
		}
		if why == "" {
			why = p.unmet(c.node, unique)
		}
		if why != "" {
			gp.metrics.NodesFiltered++
			count(&gp.metrics.ConstraintFiltered, why)
			if c.node.NodeClass != "" {
				count(&gp.metrics.ClassFiltered, c.node.NodeClass)
			}
			continue
		}
		gp.ring = append(gp.ring, c)
	}
	// Two candidates are enough for batch, log₂ n for services: the power of
	// two choices, and a little more for what lives long.
	gp.limit = 2
	if p.job.Type == model.JobTypeService && len(gp.ring) > 0 {
		gp.limit = max(2, int(math.Ceil(math.Log2(float64(len(gp.ring))))))
	}
	return gp
}

func taskConstraints(g *model.TaskGroup) (out [][]*model.Constraint) {
	for _, t := range g.Tasks {
		out = append(out, t.Constraints)
	}
	return out
}

func count(m *map[string]int, key string) {
	if *m == nil {
		*m = make(map[string]int)
	}
	(*m)[key]++
}

// infeasible says why a node cannot run the group, whatever is left of it.
func (p *placer) infeasible(n *model.Node, g *model.TaskGroup, constraints []*model.Constraint) string {
	for _, t := range g.Tasks {
		d := n.Drivers[t.Driver]
		if d == nil || !d.Detected || !d.Healthy {
			return "missing drivers"
		}
	}
	return p.unmet(n, constraints)
}

func (p *placer) unmet(n *model.Node, constraints []*model.Constraint) string {
	for _, c := range constraints {
		if !p.check.meets(n, c) {
			return c.String()
		}
	}
	return ""
}

// place finds a node for one allocation; the metric says why there is none.
func (gp *groupPlacer) place(w wanted) (model.Placement, *model.AllocMetric) {
	var best *candidate
	bestScore, found := 0.0, 0
	exhausted := &model.AllocMetric{}
	start := 0
	if len(gp.ring) > 0 {
		start = gp.next % len(gp.ring)
	}
	for i := 0; i < len(gp.ring) && found < gp.limit; i++ {
		at := (start + i) % len(gp.ring)
		c := gp.ring[at]
		if why := gp.full(c); why != "" {
			exhausted.NodesExhausted++
			count(&exhausted.DimensionExhausted, why)
			if c.node.NodeClass != "" {
				count(&exhausted.ClassExhausted, c.node.NodeClass)
			}
			continue
		}
		found++
		gp.next = at + 1
		if score := gp.score(c, w); best == nil || score > bestScore {
			best, bestScore = c, score
		}
	}
	if exhausted.NodesExhausted*4 > len(gp.ring) {
		// Full nodes only get fuller within a plan: look at them no more.
		gp.prune()
	}
	for best != nil {
		var extra *model.AllocExtra
		if gp.ports {
			x, why := assignPorts(gp.group, best.node, gp.portsOf(best), gp.opts.Rand)
			if why != "" {
				best = gp.withPorts(best, exhausted, why)
				if best == nil {
					break
				}
				continue
			}
			extra = x
		}
		best.used = best.used.Add(gp.usage)
		gp.host(best.id).add(gp.group.Name)
		return gp.placement(best, w, extra), nil
	}
	m := *gp.metrics
	m.NodesExhausted, m.DimensionExhausted, m.ClassExhausted = exhausted.NodesExhausted, exhausted.DimensionExhausted, exhausted.ClassExhausted
	return model.Placement{}, &m
}

// withPorts takes a node out whose ports do not do, and returns the next best
// of all that are left.
func (gp *groupPlacer) withPorts(bad *candidate, exhausted *model.AllocMetric, why string) *candidate {
	exhausted.NodesExhausted++
	count(&exhausted.DimensionExhausted, why)
	gp.ring = slices.DeleteFunc(slices.Clone(gp.ring), func(c *candidate) bool { return c == bad })
	var best *candidate
	bestScore := 0.0
	for _, c := range gp.ring {
		if gp.full(c) != "" {
			continue
		}
		if score := gp.score(c, wanted{}); best == nil || score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}

func (gp *groupPlacer) prune() {
	gp.ring = slices.DeleteFunc(slices.Clone(gp.ring), func(c *candidate) bool { return gp.full(c) != "" && !gp.crowded(c) })
}

// crowded says that only a rule of distinct hosts keeps the group off a node.
func (gp *groupPlacer) crowded(c *candidate) bool {
	return c.used.Add(gp.usage).Exceeds(c.capacity) == ""
}

// full says in which dimension a candidate has no room, "" when it has.
func (gp *groupPlacer) full(c *candidate) string {
	if gp.distinct || gp.apart {
		if h := gp.hosts[c.id]; h != nil && (gp.distinct && h.job > 0 || gp.apart && h.groups[gp.group.Name] > 0) {
			return model.ConstraintDistinctHosts
		}
	}
	return c.used.Add(gp.usage).Exceeds(c.capacity)
}

// score is the mean of what speaks for and against a node: how well it would be
// filled, how many of the group it has, and whether the allocation failed there.
func (gp *groupPlacer) score(c *candidate, w wanted) float64 {
	sum, n := binpack(c.capacity, c.used.Add(gp.usage)), 1.0
	if h := gp.hosts[c.id]; h != nil && h.groups[gp.group.Name] > 0 {
		sum -= float64(h.groups[gp.group.Name]+1) / float64(max(gp.group.Count, 1))
		n++
	}
	if w.reschedule && w.previous.NodeID == c.id {
		sum--
		n++
	}
	return sum / n
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

func (gp *groupPlacer) placement(c *candidate, w wanted, extra *model.AllocExtra) model.Placement {
	pl := model.Placement{ID: gp.opts.newUUID(), NodeID: c.id, Index: w.index, Extra: extra}
	if w.previous == nil {
		return pl
	}
	if pl.Extra == nil {
		pl.Extra = &model.AllocExtra{}
	}
	pl.Extra.Previous = w.previous.ID
	if w.reschedule {
		pl.Extra.Reschedule = tracked(w.previous, gp.opts.Now.UnixNano(), gp.group.ReschedulePolicy)
	}
	return pl
}

// trackedEvents bounds what is remembered of earlier placements.
const trackedEvents = 10

func tracked(prev *model.AllocRow, now int64, policy *model.ReschedulePolicy) *model.RescheduleTracker {
	t := &model.RescheduleTracker{}
	if prev.Extra != nil && prev.Extra.Reschedule != nil {
		t.Events = append(t.Events, prev.Extra.Reschedule.Events...)
	}
	delay := rescheduleDelay(policy, len(t.Events))
	t.Events = append(t.Events, &model.RescheduleEvent{
		RescheduleTime: now, PrevAllocID: prev.ID.String(), PrevNodeID: prev.NodeID.String(), Delay: delay,
	})
	t.Events = t.Events[max(0, len(t.Events)-trackedEvents):]
	return t
}
