package state

import (
	"iter"

	"atoll/model"
)

// AllocsIndex is the index of the last change of any allocation.
func (s *Snapshot) AllocsIndex() uint64 { return s.tableIndex(tableAllocs) }

// AllocCount is the number of allocations.
func (s *Snapshot) AllocCount() int { return s.allocs.byID.Len() }

// watchAllocs adds the whole table of allocations to ws.
func (s *Snapshot) watchAllocs(ws Watch) { first[*allocRoot](s.tx, ws, tableAllocs) }

// View makes a row's allocation.
func (s *Snapshot) View(r *model.AllocRow) *model.Allocation {
	name := ""
	if n := s.allocs.node(r.NodeID); n != nil {
		name = n.name
	}
	return r.View(name, decodeStates)
}

// Alloc returns an allocation's row, nil when there is none.
func (s *Snapshot) Alloc(ws Watch, id model.UUID) *model.AllocRow {
	p, ok := s.allocs.byID.Get(idPlace{id: id})
	if !ok {
		s.watchAllocs(ws)
		return nil
	}
	leaf := s.allocs.rows.leaf(int(p.place))
	leaf.watch.watch(ws)
	return &leaf.rows[p.place&(leafSize-1)]
}

// Allocs yields rows by id, from the id from on, as long as their ids begin
// with prefix.
func (s *Snapshot) Allocs(ws Watch, prefix string, from model.UUID) iter.Seq[*model.AllocRow] {
	s.watchAllocs(ws)
	return s.allocs.prefixed(prefix, from)
}

func (s *Snapshot) jobAllocs(ws Watch, key model.JobID) *jobAllocs {
	j := s.allocs.job(key)
	if j == nil {
		s.watchAllocs(ws)
		return nil
	}
	j.watch.watch(ws)
	return j
}

// AllocsOfJob yields a job's rows in the order of their placement, those of
// earlier jobs of the same id too, and the index of their last change.
func (s *Snapshot) AllocsOfJob(ws Watch, key model.JobID) (iter.Seq[*model.AllocRow], uint64) {
	j := s.jobAllocs(ws, key)
	if j == nil {
		return func(func(*model.AllocRow) bool) {}, 0
	}
	return s.allocs.at(j.places), j.modified
}

// AllocJobs yields the jobs that have, or may get, allocations: those that are
// there, and those that are gone and have some left.
func (s *Snapshot) AllocJobs() iter.Seq[model.JobID] {
	return func(yield func(model.JobID) bool) {
		s.allocs.jobs.Ascend(func(j *jobAllocs) bool { return yield(j.key) })
	}
}

func (s *Snapshot) nodeAllocs(ws Watch, id model.UUID) *nodeAllocs {
	n := s.allocs.node(id)
	if n == nil {
		s.watchAllocs(ws)
		return nil
	}
	n.watch.watch(ws)
	return n
}

// AllocsOfNode yields a node's rows in the order of their placement.
func (s *Snapshot) AllocsOfNode(ws Watch, id model.UUID) iter.Seq[*model.AllocRow] {
	rows, _ := s.AllocsOfNodeSince(ws, id, 0)
	return rows
}

// AllocsOfNodeSince yields those of a node's rows that the server changed after
// an index (it may yield others), and the index of its last change to any. The
// cost grows with the changes, unless there were many.
func (s *Snapshot) AllocsOfNodeSince(ws Watch, id model.UUID, index uint64) (iter.Seq[*model.AllocRow], uint64) {
	n := s.nodeAllocs(ws, id)
	if n == nil {
		return func(func(*model.AllocRow) bool) {}, 0
	}
	return s.allocs.at(n.since(index)), n.modified
}

// Load is what a node's allocations hold that are not terminal: sums, and host
// ports in ascending order.
func (s *Snapshot) Load(id model.UUID) (model.Usage, []uint16) {
	if n := s.allocs.node(id); n != nil {
		return n.usage, n.ports
	}
	return model.Usage{}, nil
}
