package state

import (
	"iter"
	"slices"
	"strings"

	"github.com/google/btree"

	"atoll/internal/wire"
	"atoll/model"
)

// allocTable is the table of allocations, immutable once published: the rows
// in one persistent vector, and three indexes that hold places in it. A change
// of a row leaves the indexes alone. A deleted row leaves a free place, a row
// without Shared, for a later one.
//
//	rows   place → model.AllocRow           96 bytes each
//	byID   id → place                       a B-tree, about 30 bytes each
//	jobs   job → jobAllocs: places, counts  4 bytes each
//	nodes  node → nodeAllocs: places, load  4 bytes each
//	free   free places                      a B-tree, about 6 bytes each
//
// docs/decisions/0001-hot-rows.md weighs this against go-memdb.
type allocTable struct {
	rows  vector[model.AllocRow]
	byID  *btree.BTreeG[idPlace]
	jobs  *btree.BTreeG[*jobAllocs]
	nodes *btree.BTreeG[*nodeAllocs]
	free  *btree.BTreeG[uint32]
}

type idPlace struct {
	id    model.UUID
	place uint32
}

// jobAllocs is one job's part of the table. The slice of places grows in an
// array that older versions share: each sees the length it had.
type jobAllocs struct {
	edit   *edit
	watch  lazyChan
	key    model.JobID
	places []uint32
	// modified is the index of the last change of any of the rows.
	modified uint64
	// incarnation is the CreateIndex of the job that counts are of: rows of
	// an earlier job of the same id are not counted. Ended rows that were
	// deleted are.
	incarnation uint64
	counts      []groupCount
}

// groupCount counts a group's allocations by client status.
type groupCount struct {
	group string
	by    [model.ClientUnknown + 1]int32
}

// nodeAllocs is one node's part of the table: what it holds is summed as it
// changes, so that nobody sums it again for each candidate.
type nodeAllocs struct {
	edit   *edit
	watch  lazyChan
	id     model.UUID
	name   string
	places []uint32
	// modified is the index of the last change that the server made to any
	// of the rows: what the node itself waits for.
	modified uint64
	// changes are the newest of those changes, in order, so that a node that
	// keeps up need not look at all its rows; older ones, up to and with
	// index forgotten, are not in it.
	changes   []change
	forgotten uint64
	// usage and ports are of the rows that are not terminal; ports are
	// sorted, and replaced, never changed. One that several rows hold, since
	// they said that they may, is there as often.
	usage model.Usage
	ports []uint16
}

// change is a row that the server changed at an index.
type change struct {
	index uint64
	place uint32
}

// changesKept is how many changes a node's entry keeps at least, once it had
// as many: more than a plan brings a node, and 4 kB at the most.
const changesKept = 128

func (n *nodeAllocs) changed(place uint32, index uint64) {
	n.modified = index
	if len(n.changes) >= 2*changesKept {
		old := len(n.changes) - changesKept
		n.forgotten = n.changes[old-1].index
		n.changes = append(make([]change, 0, 2*changesKept), n.changes[old:]...)
	}
	n.changes = append(n.changes, change{index, place})
}

// since returns the places of rows that the server changed after index.
func (n *nodeAllocs) since(index uint64) []uint32 {
	if index < n.forgotten || index == 0 {
		return n.places
	}
	at := len(n.changes)
	for at > 0 && n.changes[at-1].index > index {
		at--
	}
	out := make([]uint32, 0, len(n.changes)-at)
	for _, c := range n.changes[at:] {
		if !slices.Contains(out, c.place) {
			out = append(out, c.place)
		}
	}
	return out
}

// btreeDegree: nodes of up to 63 ids are 1.5 kB, the best of 16, 32, 64 and 128
// for plans of 1 to 1,000 placements (BenchmarkAllocs).
const btreeDegree = 32

func newAllocTable() *allocTable {
	return &allocTable{
		byID:  btree.NewG(btreeDegree, func(a, b idPlace) bool { return less(a.id, b.id) }),
		jobs:  btree.NewG(btreeDegree, func(a, b *jobAllocs) bool { return lessJob(a.key, b.key) }),
		nodes: btree.NewG(btreeDegree, func(a, b *nodeAllocs) bool { return less(a.id, b.id) }),
		free:  btree.NewG(btreeDegree, func(a, b uint32) bool { return a < b }),
	}
}

func less(a, b model.UUID) bool { return string(a[:]) < string(b[:]) }

func lessJob(a, b model.JobID) bool {
	if a.Namespace != b.Namespace {
		return a.Namespace < b.Namespace
	}
	return a.ID < b.ID
}

func (t *allocTable) get(id model.UUID) *model.AllocRow {
	p, ok := t.byID.Get(idPlace{id: id})
	if !ok {
		return nil
	}
	return t.rows.at(int(p.place))
}

func (t *allocTable) job(key model.JobID) *jobAllocs {
	j, _ := t.jobs.Get(&jobAllocs{key: key})
	return j
}

func (t *allocTable) node(id model.UUID) *nodeAllocs {
	n, _ := t.nodes.Get(&nodeAllocs{id: id})
	return n
}

func (t *allocTable) at(places []uint32) iter.Seq[*model.AllocRow] {
	return func(yield func(*model.AllocRow) bool) {
		for _, p := range places {
			if !yield(t.rows.at(int(p))) {
				return
			}
		}
	}
}

// prefixed yields rows in the order of their ids, from the first that is not
// below from, as long as the text form of the id begins with prefix.
func (t *allocTable) prefixed(prefix string, from model.UUID) iter.Seq[*model.AllocRow] {
	return func(yield func(*model.AllocRow) bool) {
		start := lowest(prefix)
		if less(start, from) {
			start = from
		}
		t.byID.AscendGreaterOrEqual(idPlace{id: start}, func(p idPlace) bool {
			if prefix != "" && !strings.HasPrefix(p.id.String(), prefix) {
				return false
			}
			return yield(t.rows.at(int(p.place)))
		})
	}
}

// lowest is the lowest id whose text begins with prefix.
func lowest(prefix string) model.UUID {
	const none = "00000000-0000-0000-0000-000000000000"
	if len(prefix) > len(none) {
		prefix = prefix[:len(none)]
	}
	u, _ := model.ParseUUID(prefix + none[len(prefix):])
	return u
}

// allocTxn changes a table that only it can see. begin makes it, publish ends
// it.
type allocTxn struct {
	allocTable
	edit  *edit
	index uint64
	// freed are the nodes that hold less than before.
	freed []model.UUID
	// ownsFree says that free is the transaction's to change.
	ownsFree bool
	// touched are the places of rows that were changed, each once.
	touched []uint32
	// jobsTouched and nodesTouched are those whose entries were changed.
	jobsTouched  []model.JobID
	nodesTouched []model.UUID
	// uncounted are the jobs whose restored rows are still to be counted.
	uncounted map[model.JobID]bool
}

func (t *allocTable) begin(index uint64) *allocTxn {
	return &allocTxn{
		allocTable: allocTable{rows: t.rows, byID: t.byID.Clone(), jobs: t.jobs.Clone(), nodes: t.nodes.Clone(), free: t.free},
		edit:       &edit{}, index: index,
	}
}

// ownJob and ownNode return an entry for the transaction to change.
func (t *allocTxn) ownJob(key model.JobID) *jobAllocs {
	old := t.job(key)
	if old != nil && old.edit == t.edit {
		return old
	}
	j := &jobAllocs{edit: t.edit, key: key, modified: t.index}
	if old != nil {
		t.edit.woken = append(t.edit.woken, &old.watch)
		j.places, j.incarnation = old.places, old.incarnation
		j.counts = slices.Clone(old.counts)
	}
	t.jobs.ReplaceOrInsert(j)
	t.jobsTouched = append(t.jobsTouched, key)
	return j
}

func (t *allocTxn) ownNode(id model.UUID) *nodeAllocs {
	old := t.node(id)
	if old != nil && old.edit == t.edit {
		return old
	}
	n := &nodeAllocs{edit: t.edit, id: id}
	if old != nil {
		t.edit.woken = append(t.edit.woken, &old.watch)
		n.name, n.places, n.usage, n.ports = old.name, old.places, old.usage, old.ports
		n.modified, n.changes, n.forgotten = old.modified, old.changes, old.forgotten
	}
	t.nodes.ReplaceOrInsert(n)
	t.nodesTouched = append(t.nodesTouched, id)
	return n
}

// insert adds a row whose id is new; it reports whether it was.
func (t *allocTxn) insert(row model.AllocRow, nodeName string) bool {
	// A replayed or doubled entry must not place twice.
	if _, exists := t.byID.Get(idPlace{id: row.ID}); exists {
		return false
	}
	place := t.add(row)
	t.byID.ReplaceOrInsert(idPlace{row.ID, place})

	j := t.ownJob(row.Shared.Job.Key())
	j.places = append(j.places, place)
	if j.incarnation != row.Shared.Job.CreateIndex {
		j.incarnation, j.counts = row.Shared.Job.CreateIndex, nil
	}
	j.count(&row, +1)

	n := t.ownNode(row.NodeID)
	n.places = append(n.places, place)
	n.changed(place, t.index)
	if nodeName != "" {
		n.name = nodeName
	}
	n.hold(&row, +1)
	return true
}

// update changes the row of id by f, and what is derived from it. server says
// that the change is one that the node must hear of. It reports whether there
// is such a row.
func (t *allocTxn) update(id model.UUID, server bool, f func(*model.AllocRow)) bool {
	p, ok := t.byID.Get(idPlace{id: id})
	if !ok {
		return false
	}
	row := t.rows.own(int(p.place), t.edit)
	j := t.ownJob(row.Shared.Job.Key())
	// A node's entry is touched only when something of it changes: a report
	// of the node itself must not wake the node.
	held := !row.Terminal()
	j.count(row, -1)
	before := *row
	if before.ModifyIndex != t.index {
		t.touched = append(t.touched, p.place)
	}
	f(row)
	row.ModifyIndex = t.index
	if server {
		row.AllocModifyIndex = t.index
	}
	j.count(row, +1)
	moved := held != !row.Terminal() || before.Shared != row.Shared
	if server || moved {
		n := t.ownNode(row.NodeID)
		if moved {
			n.hold(&before, -1)
			if held && (len(t.freed) == 0 || t.freed[len(t.freed)-1] != row.NodeID) {
				t.freed = append(t.freed, row.NodeID)
			}
			n.hold(row, +1)
		}
		if server {
			n.changed(p.place, t.index)
		}
	}
	return true
}

func (j *jobAllocs) count(row *model.AllocRow, by int32) {
	if j.incarnation != row.Shared.Job.CreateIndex {
		return
	}
	for i := range j.counts {
		if j.counts[i].group == row.Shared.Group {
			j.counts[i].by[row.Client] += by
			return
		}
	}
	c := groupCount{group: row.Shared.Group}
	c.by[row.Client] = by
	j.counts = append(j.counts, c)
}

// hold adds (sign +1) or takes away (−1) what a row holds of its node, which is
// nothing once it is terminal.
func (n *nodeAllocs) hold(row *model.AllocRow, sign int) {
	if row.Terminal() {
		return
	}
	if sign > 0 {
		n.usage = n.usage.Add(row.Shared.Usage)
	} else {
		n.usage = n.usage.Sub(row.Shared.Usage)
	}
	if row.Extra == nil {
		return
	}
	row.HostPorts(func(port int) {
		at, found := slices.BinarySearch(n.ports, uint16(port))
		switch {
		case sign > 0:
			n.ports = slices.Insert(slices.Clip(slices.Clone(n.ports)), at, uint16(port))
		case found:
			n.ports = slices.Delete(slices.Clone(n.ports), at, at+1)
		}
	})
}

// publish returns the finished table and the channels to wake once it can be
// seen.
func (t *allocTxn) publish() (*allocTable, []*lazyChan) {
	out, woken := t.allocTable, t.edit.woken
	// What was made here keeps its mark, and must not keep by it what it took
	// the place of, and so all that ever was.
	t.edit.woken = nil
	return &out, woken
}

// decodeStates is the one reader of model.AllocExtra.TaskStates, whose writer
// is the node update. Bytes in the state were checked when they were applied.
func decodeStates(b []byte) map[string]*model.TaskState {
	var states map[string]*model.TaskState
	if err := wire.Decode(b, &states); err != nil {
		return nil
	}
	return states
}
