package state

import (
	"fmt"

	memdb "github.com/hashicorp/go-memdb"

	"atoll/model"
)

// Store holds a cell's tables. One goroutine writes, any number read.
type Store struct {
	db *memdb.MemDB
	// Build is the version of Atoll, written into snapshots; set before use.
	Build string
	// retired is closed by Retire.
	retired chan struct{}
	// log is what events are made of.
	log changeLog
	// touched is what summaries are made of.
	touched touchLog
}

// New returns an empty store.
func New() (*Store, error) {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		return nil, fmt.Errorf("cannot make state tables: %w", err)
	}
	s := &Store{db: db, retired: make(chan struct{})}
	tx := db.Txn(true)
	defer tx.Abort()
	if err := tx.Insert(tableAllocs, &allocRoot{table: newAllocTable()}); err != nil {
		return nil, fmt.Errorf("cannot make state tables: %w", err)
	}
	tx.Commit()
	return s, nil
}

// allocRoot makes the allocation table one row of memdb, so that one commit
// publishes it together with the other tables, and a watch on the row is a
// watch on the whole table.
type allocRoot struct{ table *allocTable }

// indexRow is the Raft index of a table's last change; "" is of any.
type indexRow struct {
	Table string
	Index uint64
}

// Txn is one change of the tables, made by the FSM for one Raft entry.
type Txn struct {
	tx     *memdb.Txn
	allocs *allocTxn
	index  uint64
	before *allocTable
	dirty  map[string]bool
	// rowsChanged, placed, cause and size are for events.
	rowsChanged []any
	placed      []*placing
	cause       string
	size        int
	// rowsTouched are rows written or deleted, for summaries.
	rowsTouched []any
}

// Write runs f as one transaction at a Raft index. An error of f leaves the
// tables as they were, and is returned.
func (s *Store) Write(index uint64, f func(*Txn) error) error {
	tx := s.db.Txn(true)
	defer tx.Abort()
	root, err := tx.First(tableAllocs, byID)
	if err != nil {
		return err
	}
	before := root.(*allocRoot).table
	t := &Txn{tx: tx, index: index, before: before, dirty: make(map[string]bool, 4)}
	if err := f(t); err != nil {
		return err
	}
	var woken []*lazyChan
	table := before
	if t.allocs != nil {
		if err := t.freed(t.allocs.freed); err != nil {
			return err
		}
		table, woken = t.allocs.publish()
		if err := tx.Insert(tableAllocs, &allocRoot{table: table}); err != nil {
			return err
		}
		t.dirty[tableAllocs] = true
	}
	t.dirty[last] = true
	for _, name := range indexed {
		if t.dirty[name] {
			if err := tx.Insert(tableIndexes, &indexRow{name, index}); err != nil {
				return err
			}
		}
	}
	tx.Commit()
	for _, w := range woken {
		w.replaced()
	}
	if c := t.changes(table); c != nil {
		s.log.add(c)
	}
	s.touched.wrote(t)
	return nil
}

// rows returns the allocation transaction, begun when first asked for.
func (t *Txn) rows() *allocTxn {
	if t.allocs == nil {
		t.allocs = t.before.begin(t.index)
	}
	return t.allocs
}

// table is the table of allocations as the transaction sees it.
func (t *Txn) table() *allocTable {
	if t.allocs != nil {
		return &t.allocs.allocTable
	}
	return t.before
}

func (t *Txn) insert(table string, row any) error {
	t.dirty[table] = true
	if n, ok := row.(*model.Node); ok {
		if err := t.nodeChanged(first[*model.Node](t.tx, nil, tableNodes, n.ID), n); err != nil {
			return err
		}
	}
	if err := t.tx.Insert(table, row); err != nil {
		return fmt.Errorf("cannot write table %s: %w", table, err)
	}
	t.noteRow(table, row)
	t.noteTouched(table, row)
	return nil
}

// Snapshot is the tables as they were at one moment.
type Snapshot struct {
	tx     *memdb.Txn
	allocs *allocTable
	store  *Store
}

// Snapshot returns the newest state.
func (s *Store) Snapshot() *Snapshot {
	tx := s.db.Txn(false)
	return &Snapshot{tx: tx, allocs: first[*allocRoot](tx, nil, tableAllocs).table, store: s}
}

// Index is the Raft index of the newest change in the snapshot.
func (s *Snapshot) Index() uint64 { return s.tableIndex(last) }

// WatchAny adds the whole state to ws: it wakes at the next commit, and when the
// store is retired.
func (s *Snapshot) WatchAny(ws Watch) {
	first[*indexRow](s.tx, ws, tableIndexes, last)
	s.WatchStore(ws)
}

// WatchStore adds to ws that another store takes the place of this one: whoever
// waits for longer must, since nothing changes in this one then.
func (s *Snapshot) WatchStore(ws Watch) { ws.Add(s.store.retired) }

// Retire says that another store has taken this one's place; once.
func (s *Store) Retire() { close(s.retired) }

func (s *Snapshot) tableIndex(table string) uint64 {
	if row := first[*indexRow](s.tx, nil, tableIndexes, table); row != nil {
		return row.Index
	}
	return 0
}

// first returns the row that the arguments of the id index name, the zero
// value when there is none. The schema makes errors impossible but for
// programming mistakes, which a test of every table finds.
func first[T any](tx *memdb.Txn, ws Watch, table string, args ...any) T {
	watch, row, err := tx.FirstWatch(table, byID, args...)
	if err != nil {
		panic("state: " + err.Error())
	}
	ws.Add(watch)
	out, _ := row.(T)
	return out
}

// each yields the rows of a table by an index and its arguments, in order.
func each[T any](tx *memdb.Txn, ws Watch, table, index string, args ...any) func(func(T) bool) {
	it, err := tx.Get(table, index, args...)
	if err != nil {
		panic("state: " + err.Error())
	}
	ws.Add(it.WatchCh())
	return func(yield func(T) bool) {
		for row := it.Next(); row != nil; row = it.Next() {
			if !yield(row.(T)) {
				return
			}
		}
	}
}
