package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"atoll/internal/wire"
	"atoll/model"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reread is a store that was restored from a snapshot of another.
func reread(t testing.TB, s *Store) *Store {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	other := newStore(t)
	if err := other.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	return other
}

func write(t testing.TB, s *Store, index uint64, f func(*Txn) error) {
	t.Helper()
	if err := s.Write(index, f); err != nil {
		t.Fatal(err)
	}
}

func job(id string) *model.Job {
	return &model.Job{
		ID: id, Name: id, Namespace: model.DefaultNamespace, Type: model.JobTypeService, Priority: 50,
		TaskGroups: []*model.TaskGroup{{Name: "web", Count: 1, EphemeralDisk: model.NewEphemeralDisk(), Tasks: []*model.Task{{Name: "t", Driver: "mock", Resources: model.NewResources()}}}},
	}
}

func node(name string) (*model.Node, model.UUID) {
	id := model.NewUUID(nil)
	return &model.Node{ID: id.String(), SecretID: "s-" + name, Name: name, Status: model.NodeStatusReady}, id
}

// place is a plan of n placements of a job's group on nodes in turn.
func place(j *model.Job, nodes []model.UUID, n int, extra *model.AllocExtra) *PlanCommand {
	p := &model.Plan{
		EvalID: model.NewUUID(nil), JobKey: j.Key(), JobVersion: j.Version,
		Groups: []model.PlanGroup{{Name: "web", Resources: j.TaskGroups[0].AllocatedResources(), Metrics: &model.AllocMetric{NodesEvaluated: n}}},
	}
	for i := range n {
		p.Place = append(p.Place, model.Placement{ID: model.NewUUID(nil), NodeID: nodes[i%len(nodes)], Index: uint32(i), Extra: extra})
	}
	return NewPlanCommand(p, int64(1000+n))
}

func applyPlan(tx *Txn, c *PlanCommand) error {
	_, err := tx.ApplyPlan(c)
	return err
}

func ids(rows func(func(*model.AllocRow) bool)) []string {
	var out []string
	for r := range rows {
		out = append(out, r.ID.String())
	}
	return out
}

// filled is a store with every table filled, and the ids of what is in it.
func filled(t testing.TB) (s *Store, j *model.Job, nodes []model.UUID) {
	s = newStore(t)
	write(t, s, 1, func(tx *Txn) error {
		_, err := tx.SetCell(&Cell{ID: "cell-1", Region: "eu", Created: 7})
		return err
	})
	for i := range 3 {
		n, id := node(fmt.Sprintf("node-%d", i))
		nodes = append(nodes, id)
		write(t, s, uint64(2+i), func(tx *Txn) error { return tx.UpsertNode(n, int64(i)*1e9) })
	}
	write(t, s, 5, func(tx *Txn) (err error) { j, err = tx.UpsertJob(job("a")); return err })
	write(t, s, 6, func(tx *Txn) error {
		return tx.UpsertEvals([]*model.Evaluation{{ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "a", Status: model.EvalPending}})
	})
	write(t, s, 7, func(tx *Txn) error { return applyPlan(tx, place(j, nodes, 100, nil)) })
	write(t, s, 8, func(tx *Txn) error {
		return applyPlan(tx, place(j, nodes[:1], 1, &model.AllocExtra{
			Ports:        []model.PortMapping{{Label: "http", Value: 23000, To: 80}},
			TaskNetworks: map[string]*model.NetworkResource{"t": {IP: "1.2.3.4", DynamicPorts: []model.Port{{Label: "db", Value: 21000}}}},
		}))
	})
	var first string
	for r := range s.Snapshot().AllocsOfNode(nil, nodes[0]) {
		first = r.ID.String()
		break
	}
	write(t, s, 9, func(tx *Txn) error {
		_, err := tx.ReportAllocs(nodes[0], []*model.AllocUpdate{{
			ID: first, ClientStatus: model.AllocClientFailed, ClientDescription: "boom",
			TaskStates: map[string]*model.TaskState{"t": {State: "dead", Failed: true, FinishedAt: time.Unix(5, 0).UTC(), Events: []*model.TaskEvent{{Type: model.TaskTerminated, Time: 3, ExitCode: 2}}}},
		}}, 99)
		return err
	})
	write(t, s, 10, func(tx *Txn) error {
		return tx.Remember(&Request{ID: "r", Namespace: "default", Hash: [16]byte{1}, Issued: 5}, []byte("answer"))
	})
	write(t, s, 10, func(tx *Txn) error {
		return tx.addDeployment(&model.Deployment{ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "a", Status: model.DeploymentRunning})
	})
	write(t, s, 10, func(tx *Txn) error { return tx.SetLaunched(j.Key(), time.Unix(7, 0), 7e9) })
	write(t, s, 10, func(tx *Txn) error { return tx.SetAutopilotConfig(model.DefaultAutopilot()) })
	write(t, s, 10, func(tx *Txn) error {
		_, err := tx.UpsertNamespace(&model.Namespace{Name: "team"})
		return err
	})
	write(t, s, 10, func(tx *Txn) error { return tx.AddScalingEvent(j.Key(), "web", model.ScalingEvent{Message: "more"}) })
	write(t, s, 10, func(tx *Txn) error {
		return tx.PutRollout(&model.Rollout{Namespace: "default", JobID: "a", Open: 1, Won: &model.Proposal{ID: "p", Job: j}, Shares: []model.Share{{Region: "us", Seq: 1}}})
	})
	write(t, s, 10, func(tx *Txn) error {
		return tx.SetSchedulerConfig(model.SchedulerConfig{SchedulerAlgorithm: model.AlgorithmSpread, PauseEvalBroker: true})
	})
	return s, j, nodes
}

// dump is everything that can be read from a snapshot.
func dump(t testing.TB, s *Snapshot, nodes []model.UUID) string {
	t.Helper()
	var allocs []*model.Allocation
	for r := range s.Allocs(nil, "", model.UUID{}) {
		allocs = append(allocs, s.View(r))
	}
	type load struct {
		Usage    model.Usage
		Ports    []uint16
		IDs      []string
		Modified uint64
	}
	loads := map[string]load{}
	for _, id := range nodes {
		u, p := s.Load(id)
		rows, modified := s.AllocsOfNodeSince(nil, id, 0)
		loads[id.String()] = load{u, p, ids(rows), modified}
	}
	rows, jobModified := s.AllocsOfJob(nil, model.JobID{Namespace: "default", ID: "a"})
	b, err := wire.Encode([]any{
		s.Index(), s.Cell(nil), s.AutopilotConfig(nil), s.SchedulerConfig(nil), slices.Collect(s.Jobs(nil, "*", "")), s.JobVersions(nil, model.JobID{Namespace: "default", ID: "a"}),
		slices.Collect(s.Nodes(nil, "")), slices.Collect(s.Evals(nil, "")), allocs, loads, ids(rows), jobModified,
		s.JobSummary(nil, model.JobID{Namespace: "default", ID: "a"}),
		s.JobsIndex(), s.NodesIndex(), s.EvalsIndex(), s.AllocsIndex(), s.Capacities(nil),
		slices.Collect(s.Deployments(nil, "")), s.DeploymentsIndex(), slices.Collect(s.Rollouts(nil)), s.RolloutsIndex(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := wire.Decode(b, &v); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", v)
}

func TestARestoredSnapshotEqualsTheState(t *testing.T) {
	s, _, nodes := filled(t)
	var buf bytes.Buffer
	if err := s.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	other := newStore(t)
	if err := other.Restore(bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	want, got := dump(t, s.Snapshot(), nodes), dump(t, other.Snapshot(), nodes)
	if want != got {
		t.Errorf("restored state differs: %s", difference(want, got))
	}
	if n := other.Snapshot().Node(nil, nodes[0].String()); n.SecretID != "s-node-0" {
		t.Errorf("the node's secret was lost: %q", n.SecretID)
	}
	var again bytes.Buffer
	if err := other.Snapshot().Persist(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Error("a snapshot of the restored state has other bytes")
	}
}

// difference is where two texts part.
func difference(a, b string) string {
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	from := max(0, at-80)
	return fmt.Sprintf("%q… against %q…", a[from:min(at+80, len(a))], b[from:min(at+80, len(b))])
}

// Every table of the schema must be written by Persist: a new one that was
// forgotten fails here.
func TestEveryTableIsInTheSnapshot(t *testing.T) {
	s, _, _ := filled(t)
	other := reread(t, s)
	for table := range schema().Tables {
		count := func(s *Store) (n int) {
			for range each[any](s.db.Txn(false), nil, table, byID) {
				n++
			}
			return n
		}
		if count(s) == 0 {
			t.Errorf("table %s is empty in the test: fill it", table)
		}
		if count(s) != count(other) {
			t.Errorf("table %s has %d rows, %d after a restore", table, count(s), count(other))
		}
	}
}

func TestADamagedOrNewerSnapshotLeavesTheStateAlone(t *testing.T) {
	s, _, nodes := filled(t)
	before := dump(t, s.Snapshot(), nodes)
	var buf bytes.Buffer
	if err := s.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	cases := map[string][]byte{"empty": nil, "no header": good[5:]}
	for _, cut := range []int{1, 7, len(good) / 3, len(good) - 1} {
		cases[fmt.Sprintf("cut at %d of %d", cut, len(good))] = good[:cut]
	}
	cases["lying length"] = []byte{recHeader, 0xff, 0xff, 0xff, 0xff}
	cases["more behind the end"] = append(bytes.Clone(good), 0)
	for name, bytes_ := range cases {
		if err := s.Restore(bytes.NewReader(bytes_)); err == nil {
			t.Errorf("%s: was restored", name)
		}
	}
	if after := dump(t, s.Snapshot(), nodes); after != before {
		t.Error("a refused snapshot changed the state")
	}
}

func TestASnapshotNeverChanges(t *testing.T) {
	s, j, nodes := filled(t)
	snap := s.Snapshot()
	before := dump(t, snap, nodes)
	for i := range uint64(50) {
		write(t, s, 10+i, func(tx *Txn) error { return applyPlan(tx, place(j, nodes, 7, nil)) })
	}
	for r := range s.Snapshot().AllocsOfNode(nil, nodes[1]) {
		id := r.ID
		write(t, s, 100, func(tx *Txn) error {
			p := place(j, nodes, 0, nil)
			p.Plan.Stop = []model.PlanStop{{ID: id, Description: "over"}}
			return applyPlan(tx, p)
		})
	}
	if dump(t, snap, nodes) != before {
		t.Error("an old snapshot changed")
	}
}

func TestAFailedWriteLeavesNothing(t *testing.T) {
	s, j, nodes := filled(t)
	before := dump(t, s.Snapshot(), nodes)
	bad := place(j, nodes, 3, nil)
	bad.Plan.Groups = nil
	if err := s.Write(50, func(tx *Txn) error { return applyPlan(tx, bad) }); err == nil {
		t.Fatal("a plan without groups was applied")
	}
	if dump(t, s.Snapshot(), nodes) != before {
		t.Error("a failed write left something")
	}
	write(t, s, 51, func(tx *Txn) error { return applyPlan(tx, place(j, nodes, 3, nil)) })
	if got := s.Snapshot().AllocCount(); got != 104 {
		t.Errorf("%d allocations after the next write, want 104", got)
	}
}

func TestAPlanAppliedTwicePlacesOnce(t *testing.T) {
	s, j, nodes := filled(t)
	p := place(j, nodes, 5, nil)
	write(t, s, 10, func(tx *Txn) error { return applyPlan(tx, p) })
	n, load := s.Snapshot().AllocCount(), fmt.Sprint(s.Snapshot().Load(nodes[0]))
	write(t, s, 10, func(tx *Txn) error { return applyPlan(tx, p) })
	if got := s.Snapshot().AllocCount(); got != n {
		t.Errorf("%d allocations, want %d", got, n)
	}
	if got := fmt.Sprint(s.Snapshot().Load(nodes[0])); got != load {
		t.Errorf("load %s, want %s", got, load)
	}
}

func closed(ws Watch) bool {
	for ch := range ws {
		select {
		case <-ch:
			return true
		default:
		}
	}
	return false
}

func TestAWatchWakesOnlyWhomItConcerns(t *testing.T) {
	s, j, nodes := filled(t)
	other, otherID := node("idle")
	write(t, s, 10, func(tx *Txn) error { return tx.UpsertNode(other, 1) })
	write(t, s, 10, func(tx *Txn) error { _, err := tx.UpsertJob(job("b")); return err })
	snap := s.Snapshot()
	watches := map[string]Watch{}
	for _, name := range []string{"node0", "idle node", "job a", "job b", "all"} {
		watches[name] = make(Watch)
	}
	snap.AllocsOfNode(watches["node0"], nodes[0])
	snap.AllocsOfNode(watches["idle node"], otherID)
	snap.AllocsOfJob(watches["job a"], j.Key())
	snap.AllocsOfJob(watches["job b"], model.JobID{Namespace: "default", ID: "b"})
	snap.Allocs(watches["all"], "", model.UUID{})
	write(t, s, 12, func(tx *Txn) error { return applyPlan(tx, place(j, nodes[:1], 1, nil)) })
	want := map[string]bool{"node0": true, "idle node": false, "job a": true, "job b": false, "all": true}
	for name, ws := range watches {
		if closed(ws) != want[name] {
			t.Errorf("%s: woken %v, want %v", name, closed(ws), want[name])
		}
	}
	// A reader of the old snapshot who watches only now has missed the change.
	late := make(Watch)
	snap.AllocsOfNode(late, nodes[0])
	if !closed(late) {
		t.Error("a watch on a replaced value does not say so")
	}
}

func TestANodesOwnReportDoesNotWakeIt(t *testing.T) {
	s, _, nodes := filled(t)
	ws := make(Watch)
	var id string
	rows, _ := s.Snapshot().AllocsOfNodeSince(ws, nodes[1], 0)
	for r := range rows {
		id = r.ID.String()
	}
	alloc := make(Watch)
	u, _ := model.ParseUUID(id)
	s.Snapshot().Alloc(alloc, u)
	write(t, s, 20, func(tx *Txn) error {
		_, err := tx.ReportAllocs(nodes[1], []*model.AllocUpdate{{ID: id, ClientStatus: model.AllocClientRunning}}, 5)
		return err
	})
	if closed(ws) {
		t.Error("the node was woken by its own report")
	}
	if !closed(alloc) {
		t.Error("who watches the allocation was not woken")
	}
}

func TestARestoreWakesEveryWatch(t *testing.T) {
	s, j, nodes := filled(t)
	var buf bytes.Buffer
	if err := s.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	watches := make([]Watch, 5)
	for i := range watches {
		watches[i] = make(Watch)
	}
	snap := s.Snapshot()
	snap.AllocsOfNode(watches[0], nodes[0])
	snap.AllocsOfJob(watches[1], j.Key())
	snap.Job(watches[2], j.Key())
	for r := range snap.Allocs(watches[3], "", model.UUID{}) {
		snap.Alloc(watches[4], r.ID)
	}
	if err := s.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	for i, ws := range watches {
		if !closed(ws) {
			t.Errorf("watch %d was not woken", i)
		}
	}
}

func TestChangesSinceAnIndexAreAllThere(t *testing.T) {
	s, j, nodes := filled(t)
	seen := uint64(0)
	known := map[string]uint64{}
	pull := func() {
		rows, index := s.Snapshot().AllocsOfNodeSince(nil, nodes[0], seen)
		for r := range rows {
			if r.AllocModifyIndex > seen {
				known[r.ID.String()] = r.AllocModifyIndex
			}
		}
		seen = index
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(400) {
		write(t, s, 20+i, func(tx *Txn) error { return applyPlan(tx, place(j, nodes[:1], 1+rng.IntN(3), nil)) })
		// A node that is slow at times sees many changes at once.
		if rng.IntN(10) == 0 || i > 300 && i%150 == 0 {
			pull()
		}
	}
	pull()
	for r := range s.Snapshot().AllocsOfNode(nil, nodes[0]) {
		if known[r.ID.String()] != r.AllocModifyIndex {
			t.Fatalf("the node missed %s", r.ID)
		}
	}
}

// The table of rows against a plain model of it.
func TestAllocTableAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore(t)
		var nodes []model.UUID
		for i := range 4 {
			n, id := node(fmt.Sprint(i))
			nodes = append(nodes, id)
			write(t, s, uint64(i+1), func(tx *Txn) error { return tx.UpsertNode(n, 0) })
		}
		jobs := make([]*model.Job, 2)
		for i := range jobs {
			write(t, s, uint64(i+10), func(tx *Txn) (err error) { jobs[i], err = tx.UpsertJob(job(fmt.Sprint("j", i))); return err })
		}
		type row struct {
			node   model.UUID
			job    int
			port   int
			dead   bool
			client string
		}
		want := map[string]*row{}
		index := uint64(20)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			index++
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0:
				ji := rapid.IntRange(0, 1).Draw(rt, "job")
				port := 20000 + len(want)
				p := place(jobs[ji], nodes, rapid.IntRange(1, 70).Draw(rt, "n"), nil)
				ps, _ := model.UnpackPlacements(p.Rows)
				p.Extras = map[uint32]*model.AllocExtra{0: {Ports: []model.PortMapping{{Label: "x", Value: port}}}}
				write(t, s, index, func(tx *Txn) error { return applyPlan(tx, p) })
				for i, pl := range ps {
					r := &row{node: pl.NodeID, job: ji, client: model.AllocClientPending}
					if i == 0 {
						r.port = port
					}
					want[pl.ID.String()] = r
				}
			case 1:
				for id, r := range want {
					u, _ := model.ParseUUID(id)
					p := place(jobs[r.job], nodes, 0, nil)
					p.Plan.Stop = []model.PlanStop{{ID: u}}
					write(t, s, index, func(tx *Txn) error { return applyPlan(tx, p) })
					r.dead = true
					break
				}
			case 2:
				for id, r := range want {
					status := rapid.SampledFrom([]string{model.AllocClientRunning, model.AllocClientFailed, model.AllocClientComplete}).Draw(rt, "status")
					write(t, s, index, func(tx *Txn) error {
						_, err := tx.ReportAllocs(r.node, []*model.AllocUpdate{{ID: id, ClientStatus: status}}, 1)
						return err
					})
					if !model.ClientTerminal(r.client) {
						r.client = status
					}
					break
				}
			}
		}
		snap := s.Snapshot()
		if snap.AllocCount() != len(want) {
			rt.Fatalf("%d rows, want %d", snap.AllocCount(), len(want))
		}
		usage, ports := map[model.UUID]model.Usage{}, map[model.UUID][]uint16{}
		counts := map[int]map[string]int{0: {}, 1: {}}
		for id, r := range want {
			u, _ := model.ParseUUID(id)
			got := snap.View(snap.Alloc(nil, u))
			if got.ClientStatus != r.client || (got.DesiredStatus == model.AllocDesiredStop) != r.dead || got.NodeID != r.node.String() {
				rt.Fatalf("allocation %s is %s/%s on %s", id, got.DesiredStatus, got.ClientStatus, got.NodeID)
			}
			counts[r.job][r.client]++
			if !r.dead && !model.ClientTerminal(r.client) {
				usage[r.node] = usage[r.node].Add(jobs[0].TaskGroups[0].GroupUsage())
				if r.port != 0 {
					ports[r.node] = append(ports[r.node], uint16(r.port))
				}
			}
		}
		for _, id := range nodes {
			u, p := snap.Load(id)
			slices.Sort(ports[id])
			if u != usage[id] || !slices.Equal(p, ports[id]) {
				rt.Fatalf("node load %v %v, want %v %v", u, p, usage[id], ports[id])
			}
		}
		for ji := range jobs {
			g := snap.JobSummary(nil, jobs[ji].Key()).Summary["web"]
			c := counts[ji]
			if g.Running != c[model.AllocClientRunning] || g.Starting != c[model.AllocClientPending] || g.Failed != c[model.AllocClientFailed] || g.Complete != c[model.AllocClientComplete] {
				rt.Fatalf("summary %+v, want %v", g, c)
			}
		}
	})
}

func TestVectorAgainstASlice(t *testing.T) {
	var v vector[int]
	var versions []vector[int]
	var want [][]int
	rng := rand.New(rand.NewPCG(3, 4))
	var have []int
	for range 200 {
		e := &edit{}
		for range rng.IntN(60) {
			if len(have) > 0 && rng.IntN(2) == 0 {
				i := rng.IntN(len(have))
				have[i] = rng.Int()
				*v.own(i, e) = have[i]
			} else {
				have = append(have, rng.Int())
				v.add(have[len(have)-1], e)
			}
		}
		versions, want = append(versions, v), append(want, slices.Clone(have))
	}
	for k := range versions {
		var got []int
		for _, x := range versions[k].all() {
			got = append(got, *x)
		}
		if !slices.Equal(got, want[k]) {
			t.Fatalf("version %d differs", k)
		}
	}
	if v.depth == 0 {
		t.Error("the test is too small to leave the first leaf")
	}
}

func TestIDsAndBytesSurviveTheWire(t *testing.T) {
	in := &PlanCommand{
		Plan: model.Plan{EvalID: model.NewUUID(nil), Stop: []model.PlanStop{{ID: model.NewUUID(nil), Lost: true}}},
		Rows: []byte{0, 255, 1}, Extras: map[uint32]*model.AllocExtra{7: {Previous: model.NewUUID(nil), TaskStates: []byte{1, 2}}}, Time: 5,
	}
	b, err := wire.Encode(in)
	if err != nil {
		t.Fatal(err)
	}
	var out PlanCommand
	if err := wire.Decode(b, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, &out) {
		t.Errorf("%+v came back as %+v", in, &out)
	}
	if len(b) > 900 {
		t.Errorf("a small plan takes %d bytes", len(b))
	}
}

func TestPrefixesFindAllocations(t *testing.T) {
	s, _, _ := filled(t)
	for r := range s.Snapshot().Allocs(nil, "", model.UUID{}) {
		id := r.ID.String()
		for _, n := range []int{1, 4, 8, 13, 36} {
			if !slices.Contains(ids(s.Snapshot().Allocs(nil, id[:n], model.UUID{})), id) {
				t.Fatalf("prefix %q does not find %s", id[:n], id)
			}
		}
	}
	if got := ids(s.Snapshot().Allocs(nil, "zz", model.UUID{})); got != nil {
		t.Errorf("a prefix that is no id found %v", got)
	}
}

func TestAPortThatTwoAllocationsHoldIsHeldUntilBothAreOver(t *testing.T) {
	s, _, _, node, _ := deployed(t)
	held := func() []uint16 {
		_, ports := s.Snapshot().Load(node)
		return ports
	}
	j := job("b")
	write(t, s, 20, func(tx *Txn) error { _, err := tx.UpsertJob(j); return err })
	cur := s.Snapshot().Job(nil, j.Key())
	extra := &model.AllocExtra{Ports: []model.PortMapping{{Label: "p", Value: 80, IgnoreCollision: true}}}
	c := place(cur, []model.UUID{node}, 2, extra)
	write(t, s, 21, func(tx *Txn) error { return applyPlan(tx, c) })
	rows, _ := s.Snapshot().AllocsOfJob(nil, j.Key())
	index := uint64(22)
	for r := range rows {
		if got := held(); !slices.Contains(got, 80) {
			t.Errorf("ports %v are held while %s runs", got, r.ID)
		}
		report(t, s, index, node, time.Unix(0, 22), &model.AllocUpdate{ID: r.ID.String(), ClientStatus: model.AllocClientComplete})
		index++
	}
	if got := held(); slices.Contains(got, 80) {
		t.Errorf("ports %v are held when both are over", got)
	}
}
