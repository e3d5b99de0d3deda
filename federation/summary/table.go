package summary

import (
	"cmp"
	"iter"
	"maps"
	"strings"

	"github.com/google/btree"

	"atoll/model"
)

// Row is a row of one of the three tables.
type Row interface {
	Key() model.RowKey
	// State is what rows are counted by, Size about what the row takes.
	State() string
	Size() int
	// OfRegion says whose row it is, before anybody else sees it.
	OfRegion(name string)
}

// Table is the rows of a kind, in order; immutable once others see it.
type Table[R Row] struct {
	rows *btree.BTreeG[entry[R]]
	// by counts the rows by State.
	by map[string]int
}

type entry[R Row] struct {
	key model.RowKey
	row R
}

func newTable[R Row]() *Table[R] {
	return &Table[R]{rows: btree.NewG(32, func(a, b entry[R]) bool { return less(a.key, b.key) }), by: map[string]int{}}
}

func less(a, b model.RowKey) bool {
	if a.Namespace != b.Namespace {
		return a.Namespace < b.Namespace
	}
	return a.ID < b.ID
}

// clone returns a table that can be changed without the other seeing it.
func (t *Table[R]) clone() *Table[R] {
	return &Table[R]{rows: t.rows.Clone(), by: maps.Clone(t.by)}
}

// put adds or replaces a row and returns by how much the table grew.
func (t *Table[R]) put(row R) int {
	old, replaced := t.rows.ReplaceOrInsert(entry[R]{row.Key(), row})
	t.by[row.State()]++
	if !replaced {
		return row.Size()
	}
	t.uncount(old.row)
	return row.Size() - old.row.Size()
}

// drop takes a row away and returns by how much the table shrank.
func (t *Table[R]) drop(key model.RowKey) int {
	old, found := t.rows.Delete(entry[R]{key: key})
	if !found {
		return 0
	}
	t.uncount(old.row)
	return old.row.Size()
}

func (t *Table[R]) uncount(row R) {
	state := row.State()
	if t.by[state]--; t.by[state] <= 0 {
		delete(t.by, state)
	}
}

// Get returns the row of a key.
func (t *Table[R]) Get(key model.RowKey) (R, bool) {
	e, found := t.rows.Get(entry[R]{key: key})
	return e.row, found
}

// Len is the number of rows.
func (t *Table[R]) Len() int { return t.rows.Len() }

// Counts are the rows by their status. The map is shared: do not change it.
func (t *Table[R]) Counts() map[string]int { return t.by }

// Selection says which rows are wanted.
type Selection[R Row] struct {
	// Namespace is AllNamespaces for all. Rows of nodes have the namespace "".
	Namespace string
	// Prefix selects by the beginning of the id, ID one row.
	Prefix, ID string
	// Keep selects further; nil keeps all.
	Keep func(R) (bool, error)
	// After is the last row that was had already, in any region.
	After *Position
}

// Position is a row's place in an answer over many regions: they are in the
// order of namespace, id and region, whichever regions take part.
type Position struct {
	model.RowKey
	Region string
}

// Select yields the rows of a region that are wanted, in order, or an error of
// Keep, with which it ends. Its cost grows with the rows taken, and with those
// between them that Keep refuses.
func (t *Table[R]) Select(region string, sel *Selection[R]) iter.Seq2[R, error] {
	all := sel.Namespace == model.AllNamespaces
	start := model.RowKey{}
	if !all {
		start = model.RowKey{Namespace: sel.Namespace, ID: cmp.Or(sel.ID, sel.Prefix)}
	}
	if sel.After != nil && less(start, sel.After.RowKey) {
		start = sel.After.RowKey
	}
	wanted := func(id string) bool { return strings.HasPrefix(id, sel.Prefix) && (sel.ID == "" || id == sel.ID) }
	return func(yield func(R, error) bool) {
		t.rows.AscendGreaterOrEqual(entry[R]{key: start}, func(e entry[R]) bool {
			switch {
			case !wanted(e.key.ID) || e.key.Namespace != sel.Namespace && !all:
				return all
			case sel.After != nil && !after(Position{e.key, region}, *sel.After):
				return true
			}
			if sel.Keep != nil {
				keep, err := sel.Keep(e.row)
				if err != nil {
					yield(e.row, err)
					return false
				}
				if !keep {
					return true
				}
			}
			return yield(e.row, nil)
		})
	}
}

func after(a, b Position) bool {
	if a.RowKey != b.RowKey {
		return less(b.RowKey, a.RowKey)
	}
	return a.Region > b.Region
}
