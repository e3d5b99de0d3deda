package gc

import (
	"time"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/model"
)

// choice is what a pass deletes.
type choice struct {
	allocs, evals, deployments []model.UUID
	jobs                       []model.JobID
	nodes                      []model.UUID
}

// batches cuts a choice into writes, in an order in which each part is needed by
// none of the later ones.
func (c *choice) batches(index uint64, size int) (out []*state.Reap) {
	r := &state.Reap{SnapshotIndex: index}
	next := func() {
		if r.Len() == size {
			out = append(out, r)
			r = &state.Reap{SnapshotIndex: index}
		}
	}
	for _, id := range c.allocs {
		next()
		r.Allocs = append(r.Allocs, id)
	}
	for _, id := range c.evals {
		next()
		r.Evals = append(r.Evals, id)
	}
	for _, id := range c.deployments {
		next()
		r.Deployments = append(r.Deployments, id)
	}
	for _, key := range c.jobs {
		next()
		r.Jobs = append(r.Jobs, key)
	}
	for _, id := range c.nodes {
		next()
		r.Nodes = append(r.Nodes, id)
	}
	if r.Len() > 0 {
		out = append(out, r)
	}
	return out
}

// chooser chooses on one snapshot.
type chooser struct {
	choice
	snap     *state.Snapshot
	unneeded Unneeded
	Thresholds
	now time.Time
	// ending are the jobs that may go, once all that is theirs may.
	ending map[model.JobID]*ending
	// named are the evaluations that allocations which stay were placed by, and
	// their deployments.
	named map[model.UUID]bool
	// aside are the jobs of which nothing may go, since it is not known what
	// they need.
	aside map[model.JobID]bool
}

// ending is a job that is dead for good. Its last change is what is newest of
// all that is its own: it has no time of death. So its evaluations go with it,
// and not before.
type ending struct {
	last  int64
	open  bool
	evals []model.UUID
}

func choose(snap *state.Snapshot, unneeded Unneeded, t Thresholds, now time.Time, items *aside.Items) *choice {
	c := &chooser{
		snap: snap, unneeded: unneeded, Thresholds: t, now: now, ending: make(map[model.JobID]*ending), named: make(map[model.UUID]bool),
		aside: make(map[model.JobID]bool),
	}
	for j := range snap.Jobs(nil, model.AllNamespaces, "") {
		if final(j) {
			c.ending[j.Key()] = &ending{last: j.SubmitTime}
		}
	}
	c.lookAtEvals()
	for key := range snap.AllocJobs() {
		kept := len(c.allocs)
		if until := items.Do("job", key.Namespace+"/"+key.ID, func() { c.allocsOf(key) }); !until.IsZero() {
			c.aside[key], c.allocs = true, c.allocs[:kept]
		}
	}
	c.evalsAndJobs()
	for d := range snap.Deployments(nil, "") {
		c.deployment(d)
	}
	for n := range snap.Nodes(nil, "") {
		c.node(n)
	}
	return &c.choice
}

// final reports whether a job is over for good: stopped, or of a sort that ends.
// One that runs as its children is dead only once it is stopped; they go as any
// other job does, with their parent or without.
func final(j *model.Job) bool {
	if j.Status != model.JobStatusDead {
		return false
	}
	ends := j.Type == model.JobTypeBatch || j.Type == model.JobTypeSysBatch
	return j.Stop || ends
}

// over reports whether the threshold has passed since a time in Unix
// nanoseconds; a negative one has for whatever is over.
func (c *chooser) over(since int64, threshold time.Duration) bool {
	return threshold < 0 || !time.Unix(0, since).Add(threshold).After(c.now)
}

func (c *chooser) evalThreshold(jobType string) time.Duration {
	if jobType == model.JobTypeBatch || jobType == model.JobTypeSysBatch {
		return c.BatchEvals
	}
	return c.Evals
}

func (c *chooser) nodeGone(id model.UUID) bool { return c.snap.Node(nil, id.String()) == nil }

func (c *chooser) lookAtEvals() {
	for e := range c.snap.Evals(nil, "") {
		if j := c.ending[e.JobKey()]; j != nil {
			j.last = max(j.last, e.ModifyTime)
			j.open = j.open || !e.Terminal()
			if id, ok := model.ParseUUID(e.ID); ok {
				j.evals = append(j.evals, id)
			}
		}
	}
}

// allocsOf chooses among a job's allocations, those of earlier jobs of the same
// id too.
func (c *chooser) allocsOf(key model.JobID) {
	all, _ := c.snap.AllocsOfJob(nil, key)
	if j := c.ending[key]; j != nil {
		var ids []model.UUID
		for r := range all {
			j.last = max(j.last, r.ModifyTime)
			j.open = j.open || !r.Ended(c.nodeGone)
			ids = append(ids, r.ID)
		}
		if !j.open && c.over(j.last, c.Jobs) {
			c.allocs = append(c.allocs, ids...)
			return
		}
	}
	gone := make(map[model.UUID]bool)
	old := func(r *model.AllocRow) bool { return c.over(r.ModifyTime, c.evalThreshold(r.Job().Type)) }
	for _, r := range c.unneeded(c.snap, key, old) {
		gone[r.ID] = true
		c.allocs = append(c.allocs, r.ID)
	}
	var last *model.AllocShared
	for r := range all {
		if r.Shared != last && !gone[r.ID] {
			last = r.Shared
			c.named[last.EvalID], c.named[last.DeploymentID] = true, true
		}
	}
}

func (c *chooser) evalsAndJobs() {
	for key, j := range c.ending {
		if !j.open && !c.aside[key] && c.over(j.last, c.Jobs) {
			c.evals = append(c.evals, j.evals...)
			c.jobs = append(c.jobs, key)
		}
	}
	for e := range c.snap.Evals(nil, "") {
		if !e.Terminal() || c.ending[e.JobKey()] != nil || c.aside[e.JobKey()] || !c.over(e.ModifyTime, c.evalThreshold(e.Type)) {
			continue
		}
		if id, ok := model.ParseUUID(e.ID); ok && !c.named[id] {
			c.evals = append(c.evals, id)
		}
	}
}

// deployment chooses a deployment that is over. A job's newest stays with it:
// one that failed holds its version up.
func (c *chooser) deployment(d *model.Deployment) {
	id, ok := model.ParseUUID(d.ID)
	if !ok || d.Active() || !c.over(d.ModifyTime, c.Deployments) || c.named[id] || c.aside[d.Key()] {
		return
	}
	if newest := c.snap.LatestDeployment(nil, d.Key()); newest.ID != d.ID || c.snap.Job(nil, d.Key()) == nil {
		c.deployments = append(c.deployments, id)
	}
}

func (c *chooser) node(n *model.Node) {
	if n.Status != model.NodeStatusDown || !c.over(n.StatusUpdatedAt*int64(time.Second), c.Nodes) {
		return
	}
	id, ok := model.ParseUUID(n.ID)
	if !ok {
		return
	}
	for r := range c.snap.AllocsOfNode(nil, id) {
		if !r.Terminal() {
			return
		}
	}
	c.nodes = append(c.nodes, id)
}
