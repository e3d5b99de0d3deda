package state

import (
	"errors"
	"fmt"
	"io"

	memdb "github.com/hashicorp/go-memdb"

	"atoll/internal/wire"
	"atoll/model"
)

// Restore replaces every table by what Persist wrote. When it fails the tables
// are as before. Whoever watched anything is woken.
func (s *Store) Restore(r io.Reader) error {
	tx := s.db.Txn(true)
	defer tx.Abort()
	before := first[*allocRoot](tx, nil, tableAllocs).table
	rest := &restorer{in: newRecordReader(r, s.Build), tx: tx, allocs: newAllocTable().begin(0)}
	rest.allocs.uncounted = make(map[model.JobID]bool)
	if err := rest.run(); err != nil {
		return fmt.Errorf("cannot restore snapshot: %w", err)
	}
	table, _ := rest.allocs.publish()
	if err := tx.Insert(tableAllocs, &allocRoot{table: table}); err != nil {
		return fmt.Errorf("cannot restore snapshot: %w", err)
	}
	tx.Commit()
	before.wakeAll()
	s.log.restart(s.Snapshot().Index())
	s.touched.restart(s.Snapshot().Index())
	return nil
}

func (t *allocTable) wakeAll() {
	t.jobs.Ascend(func(j *jobAllocs) bool { j.watch.replaced(); return true })
	t.nodes.Ascend(func(n *nodeAllocs) bool { n.watch.replaced(); return true })
	for i := 0; i < t.rows.n; i += leafSize {
		if leaf := t.rows.leaf(i); leaf != nil {
			leaf.watch.replaced()
		}
	}
}

type restorer struct {
	in     *recordReader
	tx     *memdb.Txn
	allocs *allocTxn
	jobs   []*model.Job
	shared []*model.AllocShared
}

func (r *restorer) run() error {
	for {
		rec, body, err := r.in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.record(rec, body); err != nil {
			return fmt.Errorf("record %d: %w", r.in.records-1, err)
		}
	}
}

func (r *restorer) record(rec byte, body []byte) error {
	switch rec {
	case recHeader:
		return r.empty()
	case recEnd:
		r.allocs.order()
		return nil
	case recJobAllocs:
		var v snapJobAllocs
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		j := r.allocs.ownJob(v.Key)
		j.modified, j.incarnation = v.Modified, v.Incarnation
		for _, c := range v.Counts {
			g := groupCount{group: c.Group}
			copy(g.by[:], c.By)
			j.counts = append(j.counts, g)
		}
		// Before counts were kept in snapshots, they were of the rows there.
		r.allocs.uncounted[v.Key] = len(v.Counts) == 0
		return nil
	case recNodeAllocs:
		var v snapNodeAllocs
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		n := r.allocs.ownNode(v.ID)
		n.name, n.modified, n.forgotten = v.Name, v.Modified, v.Modified
		return nil
	case recAllocJob:
		var j model.Job
		if err := wire.Decode(body, &j); err != nil {
			return err
		}
		r.jobs = append(r.jobs, r.known(&j))
		return nil
	case recShared:
		var v snapShared
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		if int(v.Job) >= len(r.jobs) {
			return fmt.Errorf("allocations refer to job record %d of %d", v.Job, len(r.jobs))
		}
		v.Shared.Job = r.jobs[v.Job]
		r.shared = append(r.shared, &v.Shared)
		return nil
	case recRows:
		return r.rows(body)
	}
	for _, t := range tables {
		if t.rec == rec {
			return t.restore(r, body)
		}
	}
	return fmt.Errorf("record type %d is unknown to this version", rec)
}

// empty empties all tables but that of allocations.
func (r *restorer) empty() error {
	for _, t := range tables {
		if _, err := r.tx.DeleteAll(t.name, byID); err != nil {
			return err
		}
	}
	return nil
}

// known returns the job of the versions' table that j is, so that allocations
// and table share one copy, else j.
func (r *restorer) known(j *model.Job) *model.Job {
	v := first[*model.Job](r.tx, nil, tableVersions, j.Namespace, j.ID, j.Version)
	if v != nil && v.CreateIndex == j.CreateIndex {
		return v
	}
	return j
}

func (r *restorer) rows(body []byte) error {
	var v snapRows
	if err := wire.Decode(body, &v); err != nil {
		return err
	}
	if len(v.Rows)%packedRow != 0 {
		return fmt.Errorf("%d bytes are no whole number of rows", len(v.Rows))
	}
	for i := 0; i*packedRow < len(v.Rows); i++ {
		row, shared := unpackRow(v.Rows[i*packedRow:])
		if int(shared) >= len(r.shared) {
			return fmt.Errorf("row %d refers to shared record %d of %d", i, shared, len(r.shared))
		}
		row.Shared, row.Extra = r.shared[shared], v.Extras[uint32(i)]
		if err := r.allocs.restore(row); err != nil {
			return err
		}
	}
	return nil
}

// restore adds a row as it was, without the marks of a change.
func (t *allocTxn) restore(row model.AllocRow) error {
	if row.Desired > model.DesiredEvict || row.Client > model.ClientUnknown {
		return fmt.Errorf("allocation %s has the unknown status %d/%d", row.ID, row.Desired, row.Client)
	}
	j, n := t.job(row.Shared.Job.Key()), t.node(row.NodeID)
	if j == nil || n == nil {
		return fmt.Errorf("allocation %s has no job or node record", row.ID)
	}
	if _, exists := t.byID.Get(idPlace{id: row.ID}); exists {
		return fmt.Errorf("allocation %s is there twice", row.ID)
	}
	place := uint32(t.rows.add(row, t.edit))
	t.byID.ReplaceOrInsert(idPlace{row.ID, place})
	j.places, n.places = append(j.places, place), append(n.places, place)
	if t.uncounted[j.key] {
		j.count(&row, +1)
	}
	n.hold(&row, +1)
	return nil
}

func restoreRow[T any](r *restorer, table string, body []byte) error {
	v := new(T)
	if err := wire.Decode(body, v); err != nil {
		return err
	}
	return r.tx.Insert(table, v)
}
