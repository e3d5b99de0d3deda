package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"pgregory.net/rapid"

	"atoll/model"
)

// ledger is a plain model of the table of allocations: rows in the order of
// placement, and what each node knows that keeps asking for its own.
type ledger struct {
	t     *rapid.T
	s     *Store
	index uint64
	nodes []model.UUID
	jobs  []*model.Job // nil when purged
	rows  []*entry
	known map[model.UUID]map[model.UUID]uint64
	seen  map[model.UUID]uint64
	// ended counts, by incarnation of a job and client status.
	counts map[uint64]map[model.AllocState]int
	old    []*Snapshot
	dumps  []string
}

type entry struct {
	id, node model.UUID
	job      string
	created  uint64 // the job's CreateIndex
	client   model.AllocState
	stopped  bool
	modified uint64
}

func (l *ledger) write(f func(*Txn) error) {
	l.index++
	if err := l.s.Write(l.index, f); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) register(i int) {
	l.write(func(tx *Txn) (err error) { l.jobs[i], err = tx.UpsertJob(job(fmt.Sprint("j", i))); return err })
	if c := l.jobs[i].CreateIndex; l.counts[c] == nil {
		l.counts[c] = make(map[model.AllocState]int)
	}
}

func (l *ledger) place(i, n int) {
	if l.jobs[i] == nil {
		return
	}
	p := place(l.jobs[i], l.nodes, n, nil)
	ps, _ := model.UnpackPlacements(p.Rows)
	l.write(func(tx *Txn) error { return applyPlan(tx, p) })
	for _, pl := range ps {
		l.rows = append(l.rows, &entry{id: pl.ID, node: pl.NodeID, job: l.jobs[i].ID, created: l.jobs[i].CreateIndex, modified: l.index})
		l.counts[l.jobs[i].CreateIndex][model.ClientPending]++
	}
}

func (l *ledger) end(e *entry, status model.AllocState) {
	if e.client != model.ClientPending {
		return
	}
	name := map[model.AllocState]string{model.ClientComplete: model.AllocClientComplete, model.ClientFailed: model.AllocClientFailed}[status]
	l.write(func(tx *Txn) error {
		_, err := tx.ReportAllocs(e.node, []*model.AllocUpdate{{ID: e.id.String(), ClientStatus: name}}, 1)
		return err
	})
	e.client, e.modified = status, l.index
	l.counts[e.created][model.ClientPending]--
	l.counts[e.created][status]++
}

func (l *ledger) stop(e *entry) {
	l.write(func(tx *Txn) error {
		return applyPlan(tx, &PlanCommand{Plan: model.Plan{Stop: []model.PlanStop{{ID: e.id}}}, Rows: model.Placements(nil).Pack()})
	})
	e.stopped, e.modified = true, l.index
	if e.client == model.ClientPending && l.s.Snapshot().Node(nil, e.node.String()) == nil {
		e.client = model.ClientLost
		l.counts[e.created][model.ClientPending]--
	}
}

// reap asks for the deletion of rows chosen on the state of an index.
func (l *ledger) reap(chosen []*entry, snapshot uint64) {
	r := &Reap{SnapshotIndex: snapshot}
	gone := make(map[*entry]bool)
	for _, e := range chosen {
		r.Allocs = append(r.Allocs, e.id)
		jobChanged := slices.ContainsFunc(l.jobs, func(j *model.Job) bool { return j != nil && j.ID == e.job && j.JobModifyIndex > snapshot })
		nodeGone := l.s.Snapshot().Node(nil, e.node.String()) == nil
		if e.modified <= snapshot && !jobChanged && (e.client != model.ClientPending || e.stopped && nodeGone) {
			gone[e] = true
			if e.client == model.ClientPending {
				l.counts[e.created][model.ClientPending]--
			}
		}
	}
	var out *Reaped
	l.write(func(tx *Txn) (err error) { out, err = tx.Reap(r); return err })
	if out.Allocs != len(gone) {
		l.t.Fatalf("%d rows were reaped, want %d of %d", out.Allocs, len(gone), len(chosen))
	}
	l.rows = slices.DeleteFunc(l.rows, func(e *entry) bool { return gone[e] })
}

// abort begins to write and fails.
func (l *ledger) abort(i int) {
	r := &Reap{SnapshotIndex: l.index}
	for _, e := range l.some("aborted") {
		r.Allocs = append(r.Allocs, e.id)
	}
	if err := l.s.Write(l.index+1, func(tx *Txn) error {
		if l.jobs[i] != nil {
			if err := applyPlan(tx, place(l.jobs[i], l.nodes, 5, nil)); err != nil {
				return err
			}
		}
		if _, err := tx.Reap(r); err != nil {
			return err
		}
		return errors.New("aborted")
	}); err == nil {
		l.t.Fatal("no error")
	}
}

// pull is what a node does: it takes what changed and forgets what is gone.
func (l *ledger) pull(node model.UUID) {
	snap := l.s.Snapshot()
	rows, index := snap.AllocsOfNodeSince(nil, node, l.seen[node])
	known := l.known[node]
	if known == nil {
		known = make(map[model.UUID]uint64)
		l.known[node] = known
	}
	for r := range rows {
		if r.NodeID != node {
			l.t.Fatalf("node %s is told of a row of node %s", node, r.NodeID)
		}
		if r.AllocModifyIndex > l.seen[node] {
			known[r.ID] = r.AllocModifyIndex
		}
	}
	present := make(map[model.UUID]uint64)
	for r := range snap.AllocsOfNode(nil, node) {
		present[r.ID] = r.AllocModifyIndex
	}
	maps.DeleteFunc(known, func(id model.UUID, _ uint64) bool { _, ok := present[id]; return !ok })
	l.seen[node] = index
	if !maps.Equal(known, present) {
		l.t.Fatalf("node %s knows %d allocations, and has %d", node, len(known), len(present))
	}
}

func (l *ledger) restore() {
	var buf, again bytes.Buffer
	if err := l.s.Snapshot().Persist(&buf); err != nil {
		l.t.Fatal(err)
	}
	b := bytes.Clone(buf.Bytes())
	s, err := New()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := s.Restore(&buf); err != nil {
		l.t.Fatal(err)
	}
	if err := s.Snapshot().Persist(&again); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(b, again.Bytes()) {
		l.t.Fatal("a snapshot of the restored state has other bytes")
	}
	l.s = s
}

func (l *ledger) check() {
	snap := l.s.Snapshot()
	if snap.AllocCount() != len(l.rows) {
		l.t.Fatalf("%d rows, want %d", snap.AllocCount(), len(l.rows))
	}
	byJob, byNode, usage := map[string][]string{}, map[model.UUID][]string{}, map[model.UUID]model.Usage{}
	var all []string
	for _, e := range l.rows {
		byJob[e.job] = append(byJob[e.job], e.id.String())
		byNode[e.node] = append(byNode[e.node], e.id.String())
		all = append(all, e.id.String())
		if r := snap.Alloc(nil, e.id); r == nil || r.ID != e.id || r.NodeID != e.node || r.Client != e.client {
			l.t.Fatalf("allocation %s reads %+v", e.id, r)
		}
		if e.client == model.ClientPending && !e.stopped {
			usage[e.node] = usage[e.node].Add(job("").TaskGroups[0].GroupUsage())
		}
	}
	slices.Sort(all)
	if got := ids(snap.Allocs(nil, "", model.UUID{})); !slices.Equal(got, all) {
		l.t.Fatalf("the table lists %d rows, want %d", len(got), len(all))
	}
	for i, j := range l.jobs {
		name := fmt.Sprint("j", i)
		rows, _ := snap.AllocsOfJob(nil, model.JobID{Namespace: model.DefaultNamespace, ID: name})
		if got := ids(rows); !slices.Equal(got, byJob[name]) {
			l.t.Fatalf("job %s has\n%v, want\n%v", name, got, byJob[name])
		}
		if j == nil {
			if entry := snap.allocs.job(model.JobID{Namespace: model.DefaultNamespace, ID: name}); (entry != nil) != (len(byJob[name]) > 0) {
				l.t.Fatalf("the purged job %s with %d rows has entry %v", name, len(byJob[name]), entry)
			}
			continue
		}
		g, c := snap.JobSummary(nil, j.Key()).Summary["web"], l.counts[j.CreateIndex]
		if g.Starting != c[model.ClientPending] || g.Complete != c[model.ClientComplete] || g.Failed != c[model.ClientFailed] {
			l.t.Fatalf("job %s counts %+v, want %v", name, g, c)
		}
	}
	for _, n := range l.nodes {
		if got := ids(snap.AllocsOfNode(nil, n)); !slices.Equal(got, byNode[n]) {
			l.t.Fatalf("node %s has %v, want %v", n, got, byNode[n])
		}
		if u, _ := snap.Load(n); u != usage[n] {
			l.t.Fatalf("node %s holds %v, want %v", n, u, usage[n])
		}
	}
	// Each place is a row's or free.
	free := 0
	snap.allocs.free.Ascend(func(p uint32) bool { free++; return true })
	if free+len(l.rows) != snap.allocs.rows.n {
		l.t.Fatalf("%d places, of which %d are free and %d have rows", snap.allocs.rows.n, free, len(l.rows))
	}
}

func (l *ledger) some(name string) []*entry {
	if len(l.rows) == 0 {
		return nil
	}
	from := rapid.IntRange(0, len(l.rows)-1).Draw(l.t, name+" from")
	return slices.Clone(l.rows[from:min(len(l.rows), from+rapid.IntRange(1, 40).Draw(l.t, name+" n"))])
}

func TestDeletedRowsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := New()
		if err != nil {
			rt.Fatal(err)
		}
		l := &ledger{
			t: rt, s: s, jobs: make([]*model.Job, 3), known: map[model.UUID]map[model.UUID]uint64{}, seen: map[model.UUID]uint64{},
			counts: map[uint64]map[model.AllocState]int{},
		}
		for i := range 4 {
			n, id := node(fmt.Sprint(i))
			l.nodes = append(l.nodes, id)
			l.write(func(tx *Txn) error { return tx.UpsertNode(n, 0) })
		}
		for i := range l.jobs {
			l.register(i)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch i := rapid.IntRange(0, 2).Draw(rt, "job"); rapid.SampledFrom([]string{"place", "place", "end", "end", "stop", "reap", "reap", "restore", "purge", "register", "node", "pull", "keep", "abort"}).Draw(rt, "step") {
			case "place":
				l.place(i, rapid.IntRange(1, 90).Draw(rt, "n"))
			case "end":
				status := rapid.SampledFrom([]model.AllocState{model.ClientComplete, model.ClientFailed}).Draw(rt, "status")
				for _, e := range l.some("ended") {
					l.end(e, status)
				}
			case "stop":
				for _, e := range l.some("stopped") {
					l.stop(e)
				}
			case "reap":
				l.reap(l.some("reaped"), l.index-uint64(rapid.IntRange(0, 2).Draw(rt, "age")))
			case "restore":
				l.restore()
			case "purge":
				if l.jobs[i] != nil {
					l.write(func(tx *Txn) error { return tx.PurgeJob(l.jobs[i].Key()) })
					l.jobs[i] = nil
				}
			case "register":
				l.register(i)
			case "node":
				if n := l.s.Snapshot().Node(nil, l.nodes[i].String()); n == nil {
					l.write(func(tx *Txn) error {
						return tx.UpsertNode(&model.Node{ID: l.nodes[i].String(), Name: "again", Status: model.NodeStatusReady}, 0)
					})
				} else {
					l.write(func(tx *Txn) error { return tx.DeleteNode(n.ID) })
				}
			case "pull":
				for _, n := range l.nodes {
					l.pull(n)
				}
			case "abort":
				l.abort(i)
			case "keep":
				l.old = append(l.old, l.s.Snapshot())
				l.dumps = append(l.dumps, dump(t, l.s.Snapshot(), l.nodes))
			}
			l.check()
		}
		for _, n := range l.nodes {
			l.pull(n)
		}
		for i, snap := range l.old {
			if dump(t, snap, l.nodes) != l.dumps[i] {
				rt.Fatal("an old snapshot changed")
			}
		}
	})
}

func TestWhatIsDeletedWakesWhoWatchesIt(t *testing.T) {
	s, j, nodes := filled(t)
	write(t, s, 20, func(tx *Txn) error { _, err := tx.UpsertJob(job("idle")); return err })
	other, otherID := node("idle")
	write(t, s, 21, func(tx *Txn) error { return tx.UpsertNode(other, 1) })
	snap := s.Snapshot()
	var failed model.UUID
	for r := range snap.AllocsOfNode(nil, nodes[0]) {
		if r.Client == model.ClientFailed {
			failed = r.ID
		}
	}
	watches := map[string]Watch{}
	for _, name := range []string{"row", "job", "node", "all", "idle job", "idle node"} {
		watches[name] = make(Watch)
	}
	snap.Alloc(watches["row"], failed)
	_, jobIndex := snap.AllocsOfJob(watches["job"], j.Key())
	_, nodeIndex := snap.AllocsOfNodeSince(watches["node"], nodes[0], 0)
	snap.Allocs(watches["all"], "", model.UUID{})
	snap.AllocsOfJob(watches["idle job"], model.JobID{Namespace: "default", ID: "idle"})
	snap.AllocsOfNode(watches["idle node"], otherID)
	write(t, s, 22, func(tx *Txn) error {
		out, err := tx.Reap(&Reap{SnapshotIndex: 21, Allocs: []model.UUID{failed}})
		if out.Allocs != 1 {
			t.Errorf("%d rows were reaped", out.Allocs)
		}
		return err
	})
	for name, ws := range watches {
		if want := !strings.HasPrefix(name, "idle"); closed(ws) != want {
			t.Errorf("%s: woken %v, want %v", name, closed(ws), want)
		}
	}
	// Who waits for a higher index gets one.
	_, jobNow := s.Snapshot().AllocsOfJob(nil, j.Key())
	_, nodeNow := s.Snapshot().AllocsOfNodeSince(nil, nodes[0], 0)
	if jobNow <= jobIndex || nodeNow <= nodeIndex {
		t.Errorf("indexes %d and %d after %d and %d", jobNow, nodeNow, jobIndex, nodeIndex)
	}
}

func TestWhatChangedOrIsNeededIsNotReaped(t *testing.T) {
	s, j, nodes := filled(t)
	eval := func(id model.UUID, status string) *model.Evaluation {
		return &model.Evaluation{ID: id.String(), Namespace: "default", JobID: "dead", Status: status}
	}
	done, open := model.NewUUID(nil), model.NewUUID(nil)
	down, downID := node("down")
	write(t, s, 20, func(tx *Txn) error {
		if err := tx.UpsertNode(down, 1); err != nil {
			return err
		}
		if _, err := tx.SetNodeStatus(down.ID, model.NodeStatusDown, "", 1); err != nil {
			return err
		}
		if _, err := tx.UpsertJob(&model.Job{ID: "dead", Namespace: "default", Type: model.JobTypeService, Stop: true}); err != nil {
			return err
		}
		return tx.UpsertEvals([]*model.Evaluation{eval(done, model.EvalComplete), eval(open, model.EvalBlocked)})
	})
	dead := model.JobID{Namespace: "default", ID: "dead"}
	var live model.UUID
	for r := range s.Snapshot().AllocsOfNode(nil, nodes[1]) {
		live = r.ID
	}
	reap := func(index, snapshot uint64) (out Reaped) {
		write(t, s, index, func(tx *Txn) error {
			o, err := tx.Reap(&Reap{
				SnapshotIndex: snapshot, Allocs: []model.UUID{live}, Evals: []model.UUID{done, open}, Jobs: []model.JobID{dead, j.Key()}, Nodes: []model.UUID{downID, nodes[0]},
			})
			out = *o
			return err
		})
		return out
	}
	if out := reap(21, 19); out != (Reaped{}) {
		t.Errorf("reaped %+v of what changed since", out)
	}
	if out := reap(22, 21); out != (Reaped{Evals: 1, Nodes: 1}) {
		t.Errorf("reaped %+v, want an evaluation and a node", out)
	}
	write(t, s, 23, func(tx *Txn) error { return tx.UpsertEvals([]*model.Evaluation{eval(open, model.EvalCancelled)}) })
	if out := reap(24, 23); out != (Reaped{Evals: 1, Jobs: 1}) {
		t.Errorf("reaped %+v, want an evaluation and a job", out)
	}
	if s.Snapshot().Job(nil, dead) != nil || s.Snapshot().Node(nil, down.ID) != nil {
		t.Error("the job or the node is still there")
	}
}

func TestADeletedEvaluationDoesNotComeBack(t *testing.T) {
	s, _, _ := filled(t)
	var e *model.Evaluation
	for e = range s.Snapshot().Evals(nil, "") {
	}
	id, _ := model.ParseUUID(e.ID)
	write(t, s, 20, func(tx *Txn) error {
		n, err := tx.DeleteEvals("", []model.UUID{id, id}, true)
		if n != 1 {
			t.Errorf("%d were deleted, want 1", n)
		}
		return err
	})
	done := *e
	done.Status = model.EvalComplete
	write(t, s, 21, func(tx *Txn) error { return tx.UpsertEvals([]*model.Evaluation{&done}) })
	if got := s.Snapshot().Eval(nil, e.ID); got != nil {
		t.Errorf("it came back: %+v", got)
	}
}

func TestAnEvaluationThatAllocationsNameIsKept(t *testing.T) {
	s, j, nodes := filled(t)
	p := place(j, nodes, 2, nil)
	needed, other := p.Plan.EvalID, model.NewUUID(nil)
	write(t, s, 20, func(tx *Txn) error {
		return tx.UpsertEvals([]*model.Evaluation{
			{ID: needed.String(), Namespace: "default", JobID: "a", Status: model.EvalComplete}, {ID: other.String(), Namespace: "default", JobID: "a", Status: model.EvalComplete},
		})
	})
	write(t, s, 21, func(tx *Txn) error { return applyPlan(tx, p) })
	err := s.Write(22, func(tx *Txn) error { _, err := tx.DeleteEvals("*", []model.UUID{other, needed}, true); return err })
	if model.KindOf(err) != model.KindConflict {
		t.Errorf("error %v, want a conflict", err)
	}
	write(t, s, 23, func(tx *Txn) error {
		n, err := tx.DeleteEvals("", []model.UUID{other, model.NewUUID(nil), needed}, false)
		if n != 1 {
			t.Errorf("%d were deleted, want 1", n)
		}
		return err
	})
	if s.Snapshot().Eval(nil, needed.String()) == nil || s.Snapshot().Eval(nil, other.String()) != nil {
		t.Error("the wrong one was deleted")
	}
}

func TestAClassWithoutNodesIsForgotten(t *testing.T) {
	s := newStore(t)
	classes := func() (out []string) {
		for _, c := range s.Snapshot().Capacities(nil) {
			out = append(out, fmt.Sprint(c.Class, c.Index))
		}
		return out
	}
	a, _ := node("a")
	b, _ := node("b")
	a.ComputedClass, b.ComputedClass = "x", "x"
	write(t, s, 1, func(tx *Txn) error { return tx.UpsertNode(a, 1) })
	write(t, s, 2, func(tx *Txn) error { return tx.UpsertNode(b, 1) })
	c := *a
	c.ComputedClass = "y"
	write(t, s, 3, func(tx *Txn) error { return tx.UpsertNode(&c, 1) })
	if got := fmt.Sprint(classes()); got != "[y3 x2]" {
		t.Error(got)
	}
	write(t, s, 4, func(tx *Txn) error { return tx.DeleteNode(b.ID) })
	if got := fmt.Sprint(classes()); got != "[y3]" {
		t.Error(got)
	}
}

func TestATableThatWasLargeGivesItsMemoryBack(t *testing.T) {
	s, j, nodes := filled(t)
	index := uint64(20)
	for range 20 {
		write(t, s, index, func(tx *Txn) error { return applyPlan(tx, place(j, nodes, 1000, nil)) })
		index++
	}
	leaves := func() (n int) {
		v := s.Snapshot().allocs.rows
		for i := 0; i < v.n; i += leafSize {
			if v.leaf(i) != nil {
				n++
			}
		}
		return n
	}
	var all []*model.AllocRow
	for r := range s.Snapshot().Allocs(nil, "", model.UUID{}) {
		all = append(all, r)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	keep := 100
	for batch := range slices.Chunk(all[keep:], 1000) {
		byNode := map[model.UUID][]*model.AllocUpdate{}
		r := &Reap{SnapshotIndex: 1 << 40}
		for _, row := range batch {
			byNode[row.NodeID] = append(byNode[row.NodeID], &model.AllocUpdate{ID: row.ID.String(), ClientStatus: model.AllocClientComplete})
			r.Allocs = append(r.Allocs, row.ID)
		}
		for _, n := range nodes {
			write(t, s, index, func(tx *Txn) error { _, err := tx.ReportAllocs(n, byNode[n], 1); return err })
			index++
		}
		write(t, s, index, func(tx *Txn) error { _, err := tx.Reap(r); return err })
		index++
	}
	if got := leaves(); got > keep+1 {
		t.Errorf("%d leaves for %d rows", got, keep)
	}
	// Later rows lie in the free places.
	n := s.Snapshot().allocs.rows.n
	write(t, s, index, func(tx *Txn) error { return applyPlan(tx, place(j, nodes, len(all)-keep, nil)) })
	if got := s.Snapshot().allocs.rows.n; got != n {
		t.Errorf("the table grew from %d to %d places", n, got)
	}
	if got := s.Snapshot().AllocCount(); got != len(all) {
		t.Errorf("%d rows, want %d", got, len(all))
	}
}

func TestWhatWasReplacedIsForgotten(t *testing.T) {
	s, j, nodes := filled(t)
	root := func() weak.Pointer[vnode[model.AllocRow]] { return weak.Make(s.Snapshot().allocs.rows.root) }
	entry := func() weak.Pointer[jobAllocs] { return weak.Make(s.Snapshot().allocs.job(j.Key())) }
	oldRoot, oldEntry := root(), entry()
	for i := range uint64(3) {
		write(t, s, 20+i, func(tx *Txn) error { _, err := tx.ApplyPlan(place(j, nodes, 1, nil)); return err })
	}
	runtime.GC()
	if oldRoot.Value() != nil || oldEntry.Value() != nil {
		t.Error("a version that nobody can read is still in memory")
	}
	if newRoot := root(); newRoot.Value() == nil {
		t.Error("the test looks at nothing")
	}
}
