package state

import (
	"sync"

	"atoll/model"
)

// Touched are the keys of jobs, nodes and deployments of which something may be
// other than it was: the row itself, what a job's allocations and evaluations add
// up to, what a node's allocations hold.
type Touched struct {
	Jobs        []model.JobID
	Nodes       []model.UUID
	Deployments []model.JobID // namespace and the deployment's id
}

// Touched returns what was touched after an index, that up to which this is all,
// and a snapshot that holds it. ok is false when so much is not remembered: then
// everything in the snapshot may be new. Its cost grows with what was touched.
//
// The index is not the snapshot's, which may be newer; what comes between is told
// again.
func (s *Snapshot) Touched(since uint64) (t *Touched, index uint64, now *Snapshot, ok bool) {
	t, index, ok = s.store.touched.since(since)
	return t, index, s.store.Snapshot(), ok
}

// touchesKept bounds what is remembered of each kind, gone ones too: about 10 MB
// for jobs.
const touchesKept = 1 << 16

// touchLog remembers at which index each key was touched last. Unlike the log of
// changes it has each key once, so that however much is placed in a second, what
// is asked for once a second is still there.
type touchLog struct {
	mu          sync.Mutex // guards what follows
	jobs        touches[model.JobID]
	nodes       touches[model.UUID]
	deployments touches[model.JobID]
	// after is the index after which all touches are there, last that of the last
	// write.
	after, last uint64
}

// touches are keys in the order in which they were touched last.
type touches[K comparable] struct {
	at             map[K]*touch[K]
	oldest, newest *touch[K]
}

type touch[K comparable] struct {
	key          K
	index        uint64
	older, newer *touch[K]
}

// add notes that a key was touched, and returns the index of the touch that was
// forgotten for it, 0 for none.
func (t *touches[K]) add(key K, index uint64) (forgotten uint64) {
	if t.at == nil {
		t.at = make(map[K]*touch[K])
	}
	e := t.at[key]
	switch {
	case e == nil:
		e = &touch[K]{key: key}
		t.at[key] = e
	case e == t.newest:
		e.index = index
		return 0
	default:
		t.unlink(e)
	}
	e.index, e.older, e.newer = index, t.newest, nil
	if t.newest != nil {
		t.newest.newer = e
	} else {
		t.oldest = e
	}
	t.newest = e
	if len(t.at) <= touchesKept {
		return 0
	}
	old := t.oldest
	t.unlink(old)
	delete(t.at, old.key)
	return old.index
}

func (t *touches[K]) unlink(e *touch[K]) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		t.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		t.newest = e.older
	}
}

func (t *touches[K]) since(index uint64) (out []K) {
	for e := t.newest; e != nil && e.index > index; e = e.older {
		out = append(out, e.key)
	}
	return out
}

func (l *touchLog) since(index uint64) (*Touched, uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index < l.after {
		return nil, l.last, false
	}
	return &Touched{Jobs: l.jobs.since(index), Nodes: l.nodes.since(index), Deployments: l.deployments.since(index)}, l.last, true
}

// wrote takes up what a transaction has touched, once others see what it wrote.
func (l *touchLog) wrote(t *Txn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range t.rowsTouched {
		l.row(row, t.index)
	}
	if t.allocs != nil {
		for _, key := range t.allocs.jobsTouched {
			l.job(key, t.index)
		}
		for _, id := range t.allocs.nodesTouched {
			l.after = max(l.after, l.nodes.add(id, t.index))
		}
	}
	l.last = t.index
}

func (l *touchLog) job(key model.JobID, index uint64) { l.after = max(l.after, l.jobs.add(key, index)) }

func (l *touchLog) row(row any, index uint64) {
	switch r := row.(type) {
	case *model.Job:
		l.job(r.Key(), index)
		if r.ParentID != "" {
			// Whose children are counted in its summary.
			l.job(model.JobID{Namespace: r.Namespace, ID: r.ParentID}, index)
		}
	case *model.Evaluation:
		l.job(r.JobKey(), index)
	case *model.Deployment:
		l.job(r.Key(), index)
		l.after = max(l.after, l.deployments.add(model.JobID{Namespace: r.Namespace, ID: r.ID}, index))
	case *model.Node:
		if id, ok := model.ParseUUID(r.ID); ok {
			l.after = max(l.after, l.nodes.add(id, index))
		}
	}
}

// restart forgets all, since the state is another, of an index.
func (l *touchLog) restart(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs, l.nodes, l.deployments = touches[model.JobID]{}, touches[model.UUID]{}, touches[model.JobID]{}
	l.after, l.last = index, index
}

// noteTouched notes a row that is written or deleted.
func (t *Txn) noteTouched(table string, row any) {
	switch table {
	case tableJobs, tableEvals, tableDeployments, tableNodes:
		t.rowsTouched = append(t.rowsTouched, row)
	}
}
