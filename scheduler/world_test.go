package scheduler

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"atoll/model"
)

// epoch is when the tests take place.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a State that can be changed: what cell/state does, by scanning.
type world struct {
	index uint64
	now   time.Time
	jobs  map[model.JobID]*model.Job
	nodes []*model.Node // by id
	rows  []*model.AllocRow
	evals []*model.Evaluation
	rng   *rand.Rand
	// deployments are in the order of their making.
	deployments []*model.Deployment
	versions    map[model.JobID]map[uint64]*model.Job
	algorithm   string
	// why is what stopped allocations.
	why map[model.UUID]string
}

var _ State = (*world)(nil)

func newWorld() *world {
	return &world{now: epoch, jobs: make(map[model.JobID]*model.Job), versions: make(map[model.JobID]map[uint64]*model.Job), why: make(map[model.UUID]string), rng: rand.New(rand.NewPCG(1, 2))}
}

func (w *world) Job(key model.JobID) *model.Job { return w.jobs[key] }
func (w *world) Nodes() iter.Seq[*model.Node]   { return slices.Values(w.nodes) }
func (w *world) Index() uint64                  { return w.index }
func (w *world) Algorithm() string              { return w.algorithm }

func (w *world) AllocsOfJob(key model.JobID) iter.Seq[*model.AllocRow] {
	return func(yield func(*model.AllocRow) bool) {
		for _, r := range w.rows {
			if r.Job().Key() == key && !yield(r) {
				return
			}
		}
	}
}

func (w *world) Alloc(id model.UUID) *model.AllocRow {
	for _, r := range w.rows {
		if r.ID == id {
			return r
		}
	}
	return nil
}

func (w *world) EvalsOfJob(key model.JobID) iter.Seq[*model.Evaluation] {
	return func(yield func(*model.Evaluation) bool) {
		for _, e := range w.evals {
			if e.JobKey() == key && !yield(e) {
				return
			}
		}
	}
}

func (w *world) LatestDeployment(key model.JobID) *model.Deployment {
	for _, d := range slices.Backward(w.deployments) {
		if d.Key() == key {
			return d
		}
	}
	return nil
}

// deployment changes a deployment in place of a copy of it.
func (w *world) deployment(id string, f func(*model.Deployment)) {
	for i, d := range w.deployments {
		if d.ID == id {
			c := model.Clone(d)
			f(c)
			w.deployments[i] = c
		}
	}
}

func (w *world) Node(id model.UUID) *model.Node {
	at, found := slices.BinarySearchFunc(w.nodes, id.String(), func(n *model.Node, id string) int { return cmp.Compare(n.ID, id) })
	if !found {
		return nil
	}
	return w.nodes[at]
}

func (w *world) Load(id model.UUID) (u model.Usage, ports []uint16) {
	for _, r := range w.rows {
		if r.NodeID == id && !r.Terminal() {
			u = u.Add(r.Shared.Usage)
			r.HostPorts(func(p int) { ports = append(ports, uint16(p)) })
		}
	}
	slices.Sort(ports)
	return u, ports
}

// node adds a ready node of 1,000 MHz, 1,000 MB and 10,000 MB of disk.
func (w *world) node(name string, change ...func(*model.Node)) model.UUID {
	id := model.NewUUID(randReader{w.rng})
	n := &model.Node{
		ID: id.String(), Name: name, Datacenter: "dc1", NodePool: model.NodePoolDefault,
		Attributes: map[string]string{"kernel.name": "linux", "cpu.numcores": "8", "nomad.version": "1.9.3"},
		Meta:       map[string]string{},
		Drivers:    map[string]*model.DriverInfo{"mock": {Detected: true, Healthy: true}},
		Status:     model.NodeStatusReady, SchedulingEligibility: model.NodeEligible,
		NodeResources: &model.NodeResources{
			Cpu: model.NodeCpuResources{CpuShares: 1000}, Memory: model.NodeMemoryResources{MemoryMB: 1000}, Disk: model.NodeDiskResources{DiskMB: 10_000},
			Networks: []*model.NetworkResource{{IP: "10.0.0.1"}},
		},
	}
	for _, f := range change {
		f(n)
	}
	n.ComputedClass = ComputedClass(n)
	w.nodes = append(w.nodes, n)
	slices.SortFunc(w.nodes, func(a, b *model.Node) int { return cmp.Compare(a.ID, b.ID) })
	return id
}

// change replaces a node by a changed copy.
func (w *world) change(id model.UUID, f func(*model.Node)) {
	for i, n := range w.nodes {
		if n.ID == id.String() {
			c := model.Clone(n)
			f(c)
			w.nodes[i] = c
		}
	}
}

func inDC(dc string) func(*model.Node) { return func(n *model.Node) { n.Datacenter = dc } }
func class(c string) func(*model.Node) { return func(n *model.Node) { n.NodeClass = c } }
func size(mhz int64) func(*model.Node) {
	return func(n *model.Node) { n.NodeResources.Cpu.CpuShares = mhz }
}
func (w *world) setStatus(id model.UUID, s string) {
	w.change(id, func(n *model.Node) { n.Status = s })
}

// job is a service of count allocations of 100 MHz and 100 MB in group "web".
func job(id string, count int, change ...func(*model.Job)) *model.Job {
	j := &model.Job{
		ID: id, Type: model.JobTypeService,
		TaskGroups: []*model.TaskGroup{{
			Name: "web", Count: count, EphemeralDisk: &model.EphemeralDisk{SizeMB: 100},
			Tasks: []*model.Task{{Name: "main", Driver: "mock", Config: map[string]any{"run_for": "1h"}, Resources: &model.Resources{CPU: 100, MemoryMB: 100}}},
		}},
	}
	for _, f := range change {
		f(j)
	}
	if j.Type == model.JobTypeService && j.Update == nil && j.TaskGroups[0].Update == nil {
		// Without deployments, unless the test is about them.
		j.Update = model.NewUpdateStrategy()
		j.Update.MaxParallel = 0
	}
	j.Canonicalize()
	return j
}

func batch(j *model.Job) { j.Type = model.JobTypeBatch }

// register stores a job as its next version.
func (w *world) register(j *model.Job) *model.Job {
	w.index++
	c := model.Clone(j)
	c.CreateIndex, c.JobModifyIndex, c.ModifyIndex, c.Version = w.index, w.index, w.index, 0
	if old := w.jobs[c.Key()]; old != nil {
		c.CreateIndex, c.Version = old.CreateIndex, old.Version+1
	}
	w.jobs[c.Key()] = c
	if w.versions[c.Key()] == nil {
		w.versions[c.Key()] = make(map[uint64]*model.Job)
	}
	w.versions[c.Key()][c.Version] = c
	return c
}

func (w *world) opts() Options { return Options{Now: w.now, Rand: w.rng} }

func (w *world) eval(j *model.Job, trigger string) *model.Evaluation {
	return &model.Evaluation{
		ID: model.NewUUID(randReader{w.rng}).String(), Namespace: j.Namespace, JobID: j.ID, Type: j.Type, Priority: 50,
		TriggeredBy: trigger, Status: model.EvalPending, JobModifyIndex: j.JobModifyIndex,
	}
}

// propose proposes, and demands that the plan holds on the state that it was
// made on.
func (w *world) propose(t testing.TB, j *model.Job) *Proposal {
	t.Helper()
	p, err := Propose(w, w.eval(j, model.TriggerJobRegister), w.opts())
	if err != nil {
		t.Fatal(err)
	}
	if accepted, rejected := Check(w, p.Plan); len(rejected) > 0 || len(accepted.Place) != len(p.Plan.Place) {
		t.Fatalf("Check refuses a plan on the state it was made on: %d of %d placements stand, nodes %v refuse", len(accepted.Place), len(p.Plan.Place), rejected)
	}
	return p
}

// settle proposes and applies.
func (w *world) settle(t testing.TB, j *model.Job) *Proposal {
	t.Helper()
	p := w.propose(t, j)
	w.apply(p.Plan)
	w.evals = append(w.evals, p.Later...)
	return p
}

// apply does what cell/state does with an accepted plan.
func (w *world) apply(p *model.Plan) {
	w.index++
	if d := p.Deployment; d != nil {
		c := model.Clone(d)
		c.CreateIndex, c.ModifyIndex = w.index, w.index
		w.deployments = append(w.deployments, c)
	}
	for _, u := range p.DeploymentUpdates {
		w.deployment(u.DeploymentID, func(d *model.Deployment) { d.Status, d.StatusDescription = u.Status, u.StatusDescription })
	}
	shared := make([]*model.AllocShared, len(p.Groups))
	for i, g := range p.Groups {
		job := w.jobs[p.JobKey]
		if g.JobVersion != nil {
			job = w.versions[p.JobKey][*g.JobVersion]
		}
		shared[i] = &model.AllocShared{
			EvalID: p.EvalID, Job: job, Group: g.Name, Resources: g.Resources, Usage: g.Resources.Usage(), Metrics: g.Metrics, DeploymentID: g.DeploymentID,
		}
	}
	for _, s := range p.Stop {
		w.why[s.ID] = s.Description
		w.update(s.ID, func(r *model.AllocRow) {
			r.Desired, r.ModifyTime = model.DesiredStop, w.now.UnixNano()
			if s.Lost && !r.ClientTerminal() {
				r.Client = model.ClientLost
			}
		})
	}
	for _, d := range p.Disconnect {
		w.extra(d.ID, func(r *model.AllocRow, x *model.AllocExtra) {
			r.Client, x.Disconnected, x.FollowupEval = model.ClientUnknown, w.now.UnixNano(), d.FollowupEval
		})
	}
	for _, id := range p.Reconnect {
		w.extra(id, func(_ *model.AllocRow, x *model.AllocExtra) { x.Disconnected, x.FollowupEval = 0, model.UUID{} })
	}
	for _, f := range p.Followup {
		w.extra(f.ID, func(_ *model.AllocRow, x *model.AllocExtra) { x.FollowupEval = f.Eval })
	}
	for _, u := range p.Update {
		w.extra(u.ID, func(r *model.AllocRow, x *model.AllocExtra) {
			if r.Shared.DeploymentID != shared[u.Group].DeploymentID {
				x.DeploymentStatus = nil
			}
			r.Shared = shared[u.Group]
			w.placed(r)
		})
	}
	for _, pl := range p.Place {
		row := &model.AllocRow{
			ID: pl.ID, NodeID: pl.NodeID, Shared: shared[pl.Group], Extra: pl.Extra, CreateIndex: w.index, ModifyIndex: w.index,
			CreateTime: w.now.UnixNano(), ModifyTime: w.now.UnixNano(), Index: pl.Index,
		}
		w.rows = append(w.rows, row)
		w.placed(row)
		if pl.Extra != nil && !pl.Extra.Previous.IsZero() {
			w.extra(pl.Extra.Previous, func(_ *model.AllocRow, x *model.AllocExtra) { x.Next = pl.ID })
		}
	}
}

// placed counts a row in its deployment.
func (w *world) placed(r *model.AllocRow) {
	w.deployment(r.Shared.DeploymentID.String(), func(d *model.Deployment) {
		s := d.TaskGroups[r.Shared.Group]
		s.PlacedAllocs++
		if r.DeploymentStatus().IsCanary() {
			s.PlacedCanaries = append(s.PlacedCanaries, r.ID.String())
		}
	})
}

// health is a node's word on whether an allocation is healthy.
func (w *world) health(id model.UUID, healthy bool) {
	w.extra(id, func(r *model.AllocRow, x *model.AllocExtra) {
		x.DeploymentStatus = &model.AllocDeploymentStatus{Healthy: &healthy, Canary: r.DeploymentStatus().IsCanary()}
		w.deployment(r.Shared.DeploymentID.String(), func(d *model.Deployment) {
			if s := d.TaskGroups[r.Shared.Group]; healthy {
				s.HealthyAllocs++
			} else {
				s.UnhealthyAllocs++
			}
		})
	})
}

// promote makes a deployment's canaries ordinary allocations.
func (w *world) promote(d *model.Deployment) {
	w.deployment(d.ID, func(d *model.Deployment) {
		for _, s := range d.TaskGroups {
			s.Promoted = s.DesiredCanaries > 0
		}
	})
	for _, r := range slices.Clone(w.rows) {
		if r.Shared.DeploymentID.String() == d.ID && r.DeploymentStatus().IsCanary() {
			w.extra(r.ID, func(_ *model.AllocRow, x *model.AllocExtra) {
				c := *x.DeploymentStatus
				c.Canary = false
				x.DeploymentStatus = &c
			})
		}
	}
}

// extra changes a copy of a row and of its extra.
func (w *world) extra(id model.UUID, f func(*model.AllocRow, *model.AllocExtra)) {
	w.update(id, func(r *model.AllocRow) {
		x := model.AllocExtra{}
		if r.Extra != nil {
			x = *r.Extra
		}
		f(r, &x)
		r.Extra = &x
	})
}

// update replaces a row by a changed copy.
func (w *world) update(id model.UUID, f func(*model.AllocRow)) {
	for i, r := range w.rows {
		if r.ID == id {
			c := *r
			f(&c)
			w.rows[i] = &c
		}
	}
}

// report is a node saying how an allocation fares.
func (w *world) report(id model.UUID, s model.AllocState) {
	w.update(id, func(r *model.AllocRow) { r.Client, r.ModifyTime = s, w.now.UnixNano() })
}

// live are a job's rows that should run and may.
func (w *world) live(j *model.Job) (out []*model.AllocRow) {
	for r := range w.AllocsOfJob(j.Key()) {
		if !r.Terminal() {
			out = append(out, r)
		}
	}
	return out
}

// indexes are the numbers of a job's live allocations, in order.
func (w *world) indexes(j *model.Job) string {
	var out []uint32
	for _, r := range w.live(j) {
		out = append(out, r.Index)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

// by counts a job's live allocations by what f says of their nodes.
func (w *world) by(j *model.Job, f func(*model.Node) string) map[string]int {
	out := make(map[string]int)
	for _, r := range w.live(j) {
		out[f(w.Node(r.NodeID))]++
	}
	return out
}

func datacenter(n *model.Node) string { return n.Datacenter }
func nodeName(n *model.Node) string   { return n.Name }
