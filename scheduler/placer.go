package scheduler

import (
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
	// algorithm is the state's.
	algorithm string
	// nodes are those of the job's datacenters and pool, ready, in shuffled
	// order; the others are only counted. byID is made when first needed.
	nodes     []*candidate
	byID      map[model.UUID]*candidate
	available map[string]int
	inPool    int
	// groups numbers the job's groups for candidate.groups.
	groups map[string]int
}

// candidate is a node with what is left of it.
type candidate struct {
	node     *model.Node
	id       model.UUID
	capacity model.Usage
	used     model.Usage
	ports    *portSet // made when first needed
	held     []uint16
	freed    []*model.AllocRow
	// allocs counts the job's live allocations here, groups those of each
	// group; nil when there are none.
	allocs int
	groups []int
}

// newPlacer sees the state as it will be once stops are carried out: what they
// hold may be used.
func newPlacer(st State, job *model.Job, stops []model.PlanStop, opts Options) *placer {
	p := &placer{st: st, job: job, opts: opts, check: newChecker(), algorithm: st.Algorithm(), available: make(map[string]int), groups: make(map[string]int)}
	for i, g := range job.TaskGroups {
		p.groups[g.Name] = i
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
		c.used, c.held = st.Load(id)
		p.nodes = append(p.nodes, c)
	}
	opts.Rand.Shuffle(len(p.nodes), func(i, j int) { p.nodes[i], p.nodes[j] = p.nodes[j], p.nodes[i] })
	for r := range st.AllocsOfJob(job.Key()) {
		if !r.Terminal() {
			p.count(p.candidate(r.NodeID), r.Shared.Group, +1)
		}
	}
	for _, s := range stops {
		if r := st.Alloc(s.ID); r != nil {
			p.free(r)
		}
	}
	return p
}

// candidate is the candidate of a node, nil when the node is none.
func (p *placer) candidate(id model.UUID) *candidate {
	if p.byID == nil {
		p.byID = make(map[model.UUID]*candidate, len(p.nodes))
		for _, c := range p.nodes {
			p.byID[c.id] = c
		}
	}
	return p.byID[id]
}

func (p *placer) count(c *candidate, group string, by int) {
	if c == nil {
		return
	}
	if c.groups == nil {
		c.groups = make([]int, len(p.groups))
	}
	c.allocs += by
	if at, ok := p.groups[group]; ok {
		c.groups[at] += by
	}
}

// free gives what a row holds to those that are placed after it; hold takes it
// back.
func (p *placer) free(r *model.AllocRow) {
	c := p.candidate(r.NodeID)
	if c == nil || r.Terminal() {
		return
	}
	p.count(c, r.Shared.Group, -1)
	c.used = c.used.Sub(r.Shared.Usage)
	c.freed = append(c.freed, r)
	if c.ports != nil {
		c.ports.release(c.held, c.freed, r)
	}
}

func (p *placer) hold(r *model.AllocRow) {
	c := p.candidate(r.NodeID)
	if c == nil || r.Terminal() {
		return
	}
	p.count(c, r.Shared.Group, +1)
	c.used = c.used.Add(r.Shared.Usage)
	c.freed = slices.DeleteFunc(c.freed, func(f *model.AllocRow) bool { return f.ID == r.ID })
	if c.ports != nil {
		r.HostPorts(c.ports.add)
	}
}

// usedPorts is the candidate's set of ports that nothing may take.
func (c *candidate) usedPorts() *portSet {
	if c.ports == nil {
		c.ports = usedPorts(c.node, c.held)
		c.ports.release(c.held, c.freed, c.freed...)
	}
	return c.ports
}

// groupPlacer places one group.
type groupPlacer struct {
	*placer
	job      *model.Job // the version that is placed
	group    *model.TaskGroup
	number   int // in candidate.groups
	usage    model.Usage
	ports    bool
	distinct bool // over the job
	apart    bool // over the group
	// ring are the feasible candidates; those found full are moved to out,
	// with the reason, until something on them is freed. next is where the
	// next search begins.
	ring  []*candidate
	out   map[*candidate]string
	next  int
	limit int
	// shared are the constraints that nodes of a class meet alike, unique those
	// that see more of a node than its class; classes says of each computed
	// class seen why it is not feasible, "" when it is.
	shared, unique []*model.Constraint
	classes        map[string]string
	// metrics is what placements of the group share.
	metrics *model.AllocMetric
}

// forGroup finds the nodes that may run a group of a version of the job at all.
// An older version is held to the datacenters of the newest.
func (p *placer) forGroup(job *model.Job, g *model.TaskGroup) *groupPlacer {
	gp := &groupPlacer{
		placer: p, job: job, group: g, number: p.groups[g.Name], usage: g.GroupUsage(), ports: asksPorts(g), out: make(map[*candidate]string),
		classes: make(map[string]string), distinct: distinctHosts(job.Constraints), apart: distinctHosts(g.Constraints),
		metrics: &model.AllocMetric{NodesInPool: p.inPool, NodePool: job.NodePool, NodesAvailable: p.available},
	}
	for _, list := range append([][]*model.Constraint{job.Constraints, g.Constraints}, taskConstraints(g)...) {
		for _, c := range list {
			if escapesClass(c) {
				gp.unique = append(gp.unique, c)
			} else {
				gp.shared = append(gp.shared, c)
			}
		}
	}
	for _, c := range p.nodes {
		gp.metrics.NodesEvaluated++
		why := gp.infeasible(c)
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
	if p.job.Type == model.JobTypeService {
		gp.limit = max(2, ceilLog2(len(gp.ring)))
	}
	return gp
}

// eligibility adds to classes which of them could run the group, had their nodes
// room. Classes of which no node was ready are not in it.
func (gp *groupPlacer) eligibility(classes map[string]bool) {
	for class, why := range gp.classes {
		if class != "" {
			classes[class] = classes[class] || why == ""
		}
	}
	// A class is of one pool and datacenter.
	for n := range gp.st.Nodes() {
		if n.ComputedClass != "" && !(gp.placer.job.MatchesPool(n.NodePool) && gp.placer.job.MatchesDatacenter(n.Datacenter)) {
			classes[n.ComputedClass] = false
		}
	}
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

// infeasible says why a candidate cannot run the group, whatever is left of it.
func (gp *groupPlacer) infeasible(c *candidate) string {
	class := c.node.ComputedClass
	why, seen := gp.classes[class]
	if !seen || class == "" {
		if why = lacksDriver(c.node, gp.group); why == "" {
			why = gp.unmet(c.node, gp.shared)
		}
		gp.classes[class] = why
	}
	if why == "" {
		why = gp.unmet(c.node, gp.unique)
	}
	return why
}

func lacksDriver(n *model.Node, g *model.TaskGroup) string {
	for _, t := range g.Tasks {
		d := n.Drivers[t.Driver]
		if d == nil || !d.Detected || !d.Healthy {
			return "missing drivers"
		}
	}
	return ""
}

func (p *placer) unmet(n *model.Node, constraints []*model.Constraint) string {
	for _, c := range constraints {
		if !p.check.meets(n, c) {
			return c.String()
		}
	}
	return ""
}
