package gc

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/model"
	"atoll/scheduler"
)

// view is a snapshot as the scheduler reads it.
type view struct{ *state.Snapshot }

func (v view) Job(key model.JobID) *model.Job { return v.Snapshot.Job(nil, key) }
func (v view) AllocsOfJob(key model.JobID) iter.Seq[*model.AllocRow] {
	rows, _ := v.Snapshot.AllocsOfJob(nil, key)
	return rows
}
func (v view) Alloc(id model.UUID) *model.AllocRow { return v.Snapshot.Alloc(nil, id) }
func (v view) EvalsOfJob(key model.JobID) iter.Seq[*model.Evaluation] {
	return v.Snapshot.EvalsOfJob(nil, key)
}
func (v view) LatestDeployment(key model.JobID) *model.Deployment {
	return v.Snapshot.LatestDeployment(nil, key)
}
func (v view) Nodes() iter.Seq[*model.Node]   { return v.Snapshot.Nodes(nil, "") }
func (v view) Node(id model.UUID) *model.Node { return v.Snapshot.Node(nil, id.String()) }

func unneeded(s *state.Snapshot, key model.JobID, old func(*model.AllocRow) bool) []*model.AllocRow {
	return scheduler.Unneeded(view{s}, key, old)
}

// region is a region whose time is the test's, and whose workers and nodes do
// at once what they are to do.
type region struct {
	t     testing.TB
	store *state.Store
	rng   *rand.Rand
	ids   *rand.ChaCha8
	index uint64
	now   time.Time
	jobs  int
	// ends is when jobs are to be stopped.
	ends map[model.JobID]time.Time
	// made counts what was ever made.
	made map[string]int
}

func newRegion(t testing.TB, seed uint64) *region {
	s, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	return &region{
		t: t, store: s, rng: rand.New(rand.NewPCG(seed, 0)), ids: rand.NewChaCha8([32]byte{byte(seed)}), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		ends: make(map[model.JobID]time.Time), made: make(map[string]int),
	}
}

func (r *region) write(f func(*state.Txn) error) {
	r.t.Helper()
	r.index++
	if err := r.store.Write(r.index, f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *region) node() string {
	n := &model.Node{
		ID: model.NewUUID(r.ids).String(), Name: "n", Datacenter: "dc1", NodePool: model.NodePoolDefault, Status: model.NodeStatusReady,
		Attributes: map[string]string{"kernel.version": fmt.Sprint(r.made["nodes"] / 10)},
		Drivers:    map[string]*model.DriverInfo{"mock": {Detected: true, Healthy: true}},
		NodeResources: &model.NodeResources{
			Cpu: model.NodeCpuResources{CpuShares: 20_000}, Memory: model.NodeMemoryResources{MemoryMB: 20_000}, Disk: model.NodeDiskResources{DiskMB: 1_000_000},
		},
	}
	n.ComputedClass = scheduler.ComputedClass(n)
	r.made["nodes"]++
	r.write(func(tx *state.Txn) error { return tx.UpsertNode(n, r.now.UnixNano()) })
	return n.ID
}

// down takes a node away for good.
func (r *region) down(id string) {
	u, _ := model.ParseUUID(id)
	snap := r.store.Snapshot()
	r.write(func(tx *state.Txn) error {
		if err := tx.LoseStopped(u, r.now.UnixNano()); err != nil {
			return err
		}
		_, err := tx.SetNodeStatus(id, model.NodeStatusDown, "gone", r.now.UnixNano())
		return err
	})
	jobs := make(map[model.JobID]bool)
	for row := range snap.AllocsOfNode(nil, u) {
		if !row.Terminal() {
			jobs[row.Job().Key()] = true
		}
	}
	for _, key := range sorted(jobs) {
		r.eval(key, model.TriggerNodeUpdate)
	}
}

func (r *region) eval(key model.JobID, trigger string) {
	e := &model.Evaluation{
		ID: model.NewUUID(r.ids).String(), Namespace: key.Namespace, JobID: key.ID, Type: model.JobTypeService, Priority: 50, TriggeredBy: trigger,
		Status: model.EvalPending, CreateTime: r.now.UnixNano(), ModifyTime: r.now.UnixNano(),
	}
	if j := r.store.Snapshot().Job(nil, key); j != nil {
		e.Type = j.Type
	}
	r.made["evals"]++
	r.write(func(tx *state.Txn) error { return tx.UpsertEvals([]*model.Evaluation{e}) })
}

func sorted[V any](m map[model.JobID]V) []model.JobID {
	return slices.SortedFunc(maps.Keys(m), func(a, b model.JobID) int { return cmp.Compare(a.ID, b.ID) })
}

// register registers a job that lasts for a while, or goes on one under its id.
func (r *region) register(id, jobType string, count int, lasts time.Duration, run string) {
	j := &model.Job{ID: id, Type: jobType, TaskGroups: []*model.TaskGroup{{
		Name: "g", Count: count, EphemeralDisk: &model.EphemeralDisk{SizeMB: 10},
		Tasks: []*model.Task{{Name: "t", Driver: "mock", Config: map[string]any{"run": run}, Resources: &model.Resources{CPU: 100, MemoryMB: 100}}},
	}}}
	if run == "nowhere" {
		j.Constraints = []*model.Constraint{{LTarget: "${node.class}", Operand: "=", RTarget: "none"}}
	}
	// Nobody ends deployments here: all are replaced at once, without one.
	j.Update = model.NewUpdateStrategy()
	j.Update.MaxParallel = 0
	j.Canonicalize()
	j.SubmitTime = r.now.UnixNano()
	r.made["jobs"]++
	r.ends[j.Key()] = r.now.Add(lasts)
	r.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(j); return err })
	r.eval(j.Key(), model.TriggerJobRegister)
}

// parent registers a job that is launched every hour.
func (r *region) parent(id string) {
	j := &model.Job{
		ID: id, Type: model.JobTypeBatch, SubmitTime: r.now.UnixNano(), Periodic: &model.PeriodicConfig{Enabled: true, Spec: "@hourly"},
		TaskGroups: []*model.TaskGroup{{
			Name: "g", Count: 1, EphemeralDisk: &model.EphemeralDisk{SizeMB: 10},
			Tasks: []*model.Task{{Name: "t", Driver: "mock", Resources: &model.Resources{CPU: 100, MemoryMB: 100}}},
		}},
	}
	j.Canonicalize()
	r.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(j); return err })
}

// launch launches a child of a job, and returns its id.
func (r *region) launch(id string) string {
	key := model.JobID{Namespace: model.DefaultNamespace, ID: id}
	child := r.store.Snapshot().Job(nil, key).LaunchedAt(r.now, r.now.UnixNano())
	r.made["jobs"]++
	r.write(func(tx *state.Txn) error {
		if err := tx.SetLaunched(key, r.now, r.now.UnixNano()); err != nil {
			return err
		}
		_, err := tx.UpsertJob(child)
		return err
	})
	r.eval(child.Key(), model.TriggerPeriodicJob)
	return child.ID
}

// work is what workers do until nothing is pending.
func (r *region) work() {
	for {
		snap := r.store.Snapshot()
		var next *model.Evaluation
		for e := range snap.EvalsByStatus(nil, model.EvalPending) {
			if !e.WaitUntil.After(r.now) {
				next = e
				break
			}
		}
		if next == nil {
			return
		}
		opts := scheduler.Options{Now: r.now, Rand: r.rng}
		p, err := scheduler.Propose(view{snap}, next, opts)
		if err != nil {
			r.t.Fatal(err)
		}
		accepted, rejected := scheduler.Check(view{snap}, p.Plan)
		if len(rejected) > 0 {
			r.t.Fatalf("nodes %v refuse a plan", rejected)
		}
		r.made["allocations"] += len(accepted.Place)
		r.write(func(tx *state.Txn) error {
			if _, err := tx.ApplyPlan(state.NewPlanCommand(accepted, r.now.UnixNano())); err != nil {
				return err
			}
			return tx.UpsertEvals(p.Conclude(next, opts))
		})
		r.made["evals"] += len(p.Later)
	}
}

// report is what nodes say: what waits runs, batch work ends, and some fails.
func (r *region) report() {
	snap := r.store.Snapshot()
	ended := make(map[model.JobID]bool)
	for n := range snap.Nodes(nil, "") {
		if n.Status != model.NodeStatusReady {
			continue
		}
		id, _ := model.ParseUUID(n.ID)
		var updates []*model.AllocUpdate
		for row := range snap.AllocsOfNode(nil, id) {
			if status := r.fate(row); status != "" {
				updates = append(updates, &model.AllocUpdate{ID: row.ID.String(), ClientStatus: status, TaskStates: map[string]*model.TaskState{
					"t": {State: "running", StartedAt: r.now, Events: []*model.TaskEvent{{Type: model.TaskStarted, Time: r.now.UnixNano()}}},
				}})
				if model.ClientTerminal(status) && !row.ServerTerminal() {
					ended[row.Job().Key()] = true
				}
			}
		}
		if len(updates) > 0 {
			r.write(func(tx *state.Txn) error { _, err := tx.ReportAllocs(id, updates, r.now.UnixNano()); return err })
		}
	}
	for _, key := range sorted(ended) {
		if j := r.store.Snapshot().Job(nil, key); j != nil && !j.Stop {
			r.eval(key, model.TriggerRetryFailed)
		}
	}
}

func (r *region) fate(row *model.AllocRow) string {
	switch {
	case row.ClientTerminal():
		return ""
	case row.ServerTerminal():
		return model.AllocClientComplete
	case row.Client == model.ClientPending:
		return model.AllocClientRunning
	case row.Job().ID == "crashes", r.rng.IntN(100) == 0:
		return model.AllocClientFailed
	case row.Job().Type == model.JobTypeBatch:
		return model.AllocClientComplete
	}
	return ""
}

// stopDue stops jobs whose time has come, and purges some of them.
func (r *region) stopDue() {
	for _, key := range sorted(r.ends) {
		if r.now.Before(r.ends[key]) {
			continue
		}
		delete(r.ends, key)
		purge := r.rng.IntN(2) == 0
		if r.store.Snapshot().Job(nil, key) == nil {
			continue
		}
		r.write(func(tx *state.Txn) error {
			if purge {
				return tx.PurgeJob(key)
			}
			_, err := tx.StopJob(key)
			return err
		})
		r.eval(key, model.TriggerJobDeregister)
	}
}

// collect makes the passes of an hour, which are one as nothing happens between
// them.
func (r *region) collect() {
	snap := r.store.Snapshot()
	for _, batch := range choose(snap, unneeded, Default, r.now, &aside.Items{}).batches(snap.Index(), batchSize) {
		r.write(func(tx *state.Txn) error { _, err := tx.Reap(batch); return err })
	}
}

// hour is an hour of churn.
func (r *region) hour(h int) {
	const forGood = 10_000 * time.Hour
	if h == 0 {
		for range 20 {
			r.node()
		}
		r.register("always", model.JobTypeService, 50, forGood, "v0")
		r.register("crashes", model.JobTypeService, 3, forGood, "")
		r.register("nowhere", model.JobTypeService, 3, forGood, "nowhere")
		r.parent("hourly")
	}
	r.launch("hourly")
	if h%6 == 5 {
		var ready []string
		for n := range r.store.Snapshot().Nodes(nil, "") {
			if n.Status == model.NodeStatusReady {
				ready = append(ready, n.ID)
			}
		}
		r.node()
		r.down(ready[r.rng.IntN(len(ready))])
	}
	if h%12 == 0 {
		r.register("always", model.JobTypeService, 50, forGood, fmt.Sprint("v", h))
	}
	r.register(fmt.Sprint("service-", r.jobs), model.JobTypeService, 1+r.rng.IntN(10), time.Duration(1+r.rng.IntN(24))*time.Hour, "")
	r.register(fmt.Sprint("batch-", r.jobs), model.JobTypeBatch, 1+r.rng.IntN(20), forGood, "")
	r.register(fmt.Sprint("again-", r.jobs%5), model.JobTypeBatch, 5, time.Hour, fmt.Sprint(h))
	r.register(fmt.Sprint("nowhere-", r.jobs), model.JobTypeService, 1, 3*time.Hour, "nowhere")
	r.jobs++
	for range 4 {
		r.stopDue()
		r.work()
		r.now = r.now.Add(15 * time.Minute)
		r.report()
	}
	r.work()
	r.collect()
}

// sizes is what the state holds.
func (r *region) sizes() map[string]int {
	snap := r.store.Snapshot()
	n := map[string]int{"allocations": snap.AllocCount(), "classes": len(snap.Capacities(nil))}
	for range snap.Evals(nil, "") {
		n["evaluations"]++
	}
	for range snap.Jobs(nil, model.AllNamespaces, "") {
		n["jobs"]++
	}
	for range snap.Nodes(nil, "") {
		n["nodes"]++
	}
	for range snap.AllocJobs() {
		n["entries of jobs"]++
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	n["bytes of live heap"] = int(m.HeapAlloc)
	return n
}

// A month of churn must not leave more behind than its second week did.
func TestTheStateDoesNotGrowWithTime(t *testing.T) {
	const seed, days = 1, 30
	r := newRegion(t, seed)
	before := r.sizes()["bytes of live heap"]
	early, late := make(map[string]int), make(map[string]int)
	for h := range days * 24 {
		r.hour(h)
		if h%24 != 23 {
			continue
		}
		n := r.sizes()
		n["bytes of live heap"] -= before
		t.Logf("day %d: %v", h/24+1, n)
		for name, size := range n {
			switch day := h/24 + 1; {
			case day > 4 && day <= 12:
				early[name] = max(early[name], size)
			case day > 22:
				late[name] = max(late[name], size)
			}
		}
	}
	t.Logf("made %v", r.made)
	for name, size := range late {
		if size > early[name]+early[name]/4+2 {
			t.Errorf("%d %s late in the month, %d early in it (seed %d)", size, name, early[name], seed)
		}
	}
	for name, of := range map[string]string{"allocations": "allocations", "evaluations": "evals", "jobs": "jobs", "nodes": "nodes"} {
		if late[name]*4 > r.made[of] {
			t.Errorf("%d %s are left of %d: the churn is too little to show anything", late[name], name, r.made[of])
		}
	}
	r.wellServed()
	r.counted()
	r.restored()
}

// wellServed fails unless every job that should run does.
func (r *region) wellServed() {
	snap := r.store.Snapshot()
	for j := range snap.Jobs(nil, model.AllNamespaces, "") {
		if j.Stop || j.Type != model.JobTypeService || len(j.Constraints) > 0 || j.ID == "crashes" {
			continue
		}
		live := make(map[uint32]bool)
		rows, _ := snap.AllocsOfJob(nil, j.Key())
		for row := range rows {
			if !row.Terminal() || row.Client == model.ClientFailed && !row.HasNext() {
				live[row.Index] = true // or waits for its turn
			}
		}
		if len(live) < j.TaskGroups[0].Count {
			r.t.Errorf("job %s runs as %v, of %d", j.ID, slices.Sorted(maps.Keys(live)), j.TaskGroups[0].Count)
		}
	}
}

// counted fails unless a parent's children are counted as they are stored.
func (r *region) counted() {
	snap := r.store.Snapshot()
	var want model.JobChildrenSummary
	for j := range snap.Jobs(nil, model.DefaultNamespace, "hourly/") {
		switch j.Status {
		case model.JobStatusPending:
			want.Pending++
		case model.JobStatusRunning:
			want.Running++
		case model.JobStatusDead:
			want.Dead++
		}
	}
	if got := snap.Parent(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "hourly"}).Children; got != want || want.Dead == 0 {
		r.t.Errorf("the children are counted as %+v, and are %+v", got, want)
	}
}

// restored fails unless a snapshot of the state holds all of it.
func (r *region) restored() {
	var first, second bytes.Buffer
	if err := r.store.Snapshot().Persist(&first); err != nil {
		r.t.Fatal(err)
	}
	b := bytes.Clone(first.Bytes())
	other, err := state.New()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := other.Restore(&first); err != nil {
		r.t.Fatal(err)
	}
	if err := other.Snapshot().Persist(&second); err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Equal(b, second.Bytes()) {
		r.t.Error("a snapshot of the restored state has other bytes")
	}
}
