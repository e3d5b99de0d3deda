package state

import (
	"cmp"
	"slices"

	"atoll/model"
)

// remove deletes rows by id; what is no row is passed over. Their places are
// free for later rows. Who watches a row, its job or its node is woken. The
// cost grows with the rows, and with all that their jobs and nodes have, once
// for each of these.
func (t *allocTxn) remove(ids []model.UUID) (jobs []*jobAllocs, nodes []*nodeAllocs) {
	var places []uint32
	seenJobs, seenNodes := make(map[*jobAllocs]bool), make(map[*nodeAllocs]bool)
	for _, id := range ids {
		p, ok := t.byID.Delete(idPlace{id: id})
		if !ok {
			continue
		}
		row := t.rows.own(int(p.place), t.edit)
		j, n := t.ownJob(row.Shared.Job.Key()), t.ownNode(row.NodeID)
		j.modified, n.modified = t.index, t.index
		// Counts of what has ended stay: a summary tells a job's whole life.
		if !row.ClientTerminal() {
			j.count(row, -1)
		}
		n.hold(row, -1)
		if !seenJobs[j] {
			seenJobs[j] = true
			jobs = append(jobs, j)
		}
		if !seenNodes[n] {
			seenNodes[n] = true
			nodes = append(nodes, n)
		}
		places = append(places, p.place)
		*row = model.AllocRow{}
	}
	if len(places) == 0 {
		return nil, nil
	}
	for _, j := range jobs {
		j.places = t.used(j.places)
	}
	for _, n := range nodes {
		n.places = t.used(n.places)
		kept := make([]change, 0, 2*changesKept)
		for _, c := range n.changes {
			if !t.isFree(c.place) {
				kept = append(kept, c)
			}
		}
		n.changes = kept
	}
	if !t.ownsFree {
		t.free, t.ownsFree = t.free.Clone(), true
	}
	for _, p := range places {
		t.free.ReplaceOrInsert(p)
	}
	t.releaseLeaves(places)
	return jobs, nodes
}

func (t *allocTable) isFree(place uint32) bool { return t.rows.at(int(place)).Shared == nil }

// used returns the places that are not free, in an array of their own.
func (t *allocTable) used(places []uint32) []uint32 {
	n := 0
	for _, p := range places {
		if !t.isFree(p) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make([]uint32, 0, n)
	for _, p := range places {
		if !t.isFree(p) {
			out = append(out, p)
		}
	}
	return out
}

// releaseLeaves gives the memory back of leaves that places lie in and that are
// wholly free: so a table that was large once is not large for ever.
func (t *allocTxn) releaseLeaves(places []uint32) {
	slices.Sort(places)
	done := -1
	for _, p := range places {
		if leaf := int(p) >> leafBits; leaf != done {
			done = leaf
			if !slices.ContainsFunc(t.rows.leaf(int(p)).rows, func(r model.AllocRow) bool { return r.Shared != nil }) {
				t.rows.release(int(p), t.edit)
			}
		}
	}
}

// add puts a row into the lowest free place, else at the end. So the rows of one
// transaction lie in their order, which is how a snapshot tells it.
func (t *allocTxn) add(row model.AllocRow) uint32 {
	if t.free.Len() == 0 {
		return uint32(t.rows.add(row, t.edit))
	}
	if !t.ownsFree {
		t.free, t.ownsFree = t.free.Clone(), true
	}
	place, _ := t.free.DeleteMin()
	*t.rows.own(int(place), t.edit) = row
	return place
}

// dropJob and dropNode forget entries without rows, of jobs and nodes that are
// gone.
func (t *allocTxn) dropJob(key model.JobID) {
	if j := t.job(key); j != nil && len(j.places) == 0 {
		t.edit.woken = append(t.edit.woken, &j.watch)
		t.jobs.Delete(j)
	}
}

func (t *allocTxn) dropNode(id model.UUID) {
	if n := t.node(id); n != nil && len(n.places) == 0 {
		t.edit.woken = append(t.edit.woken, &n.watch)
		t.nodes.Delete(n)
	}
}

// order puts the places of jobs and nodes into the order of their placement,
// after a restore that met the rows in the order of their places.
func (t *allocTxn) order() {
	sort := func(places []uint32) {
		created := func(p uint32) uint64 { return t.rows.at(int(p)).CreateIndex }
		slices.SortStableFunc(places, func(a, b uint32) int { return cmp.Compare(created(a), created(b)) })
	}
	t.jobs.Ascend(func(j *jobAllocs) bool { sort(j.places); return true })
	t.nodes.Ascend(func(n *nodeAllocs) bool { sort(n.places); return true })
}
