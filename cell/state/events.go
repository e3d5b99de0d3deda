package state

import (
	"context"
	"iter"
	"slices"
	"sync"

	"atoll/model"
)

// Changes are the rows that one log entry changed, as it left them. They are
// immutable, and mostly the tables' own rows: events are made of them only when
// a reader wants some.
type Changes struct {
	Index uint64
	// cause is the type of the events, "" for the usual one of their topic.
	cause string
	// rows are *model.Job, *model.Evaluation, *model.Deployment, *model.Node
	// and gone, in the order of writing; one may be there more than once.
	rows []any
	// placed are allocations that are new, changed others.
	placed  []*placing
	changed []model.AllocRow
	cost    int
}

// gone marks a row that was deleted.
type gone struct{ row any }

// Cause says what the transaction's events are about: their type, and the size
// in bytes of the entry that they come of.
func (t *Txn) Cause(event string, size int) { t.cause, t.size = event, size }

// noteRow notes a row for events, if there are any of its table.
func (t *Txn) noteRow(table string, row any) {
	switch table {
	case tableJobs, tableEvals, tableDeployments, tableNodes:
		t.rowsChanged = append(t.rowsChanged, row)
	}
}

// noteGone notes that a row was deleted. Only jobs and nodes have events of it.
func (t *Txn) noteGone(table string, row any) {
	if table == tableJobs || table == tableNodes {
		t.rowsChanged = append(t.rowsChanged, gone{row})
	}
}

// What a batch of changes is taken to keep in memory, in bytes: a decoded entry
// is about three times as large as an encoded one, a placement is 56, and a
// changed allocation's row 112 and some extras.
const (
	costOfChanges = 256
	costOfRow     = 1024
	costOfAlloc   = 256
)

// changes returns what the transaction changed, nil when nothing that has
// events.
func (t *Txn) changes(table *allocTable) *Changes {
	c := &Changes{Index: t.index, cause: t.cause, rows: t.rowsChanged, placed: t.placed}
	allocs := 0
	for _, p := range c.placed {
		allocs += len(p.place)
	}
	if t.allocs != nil && len(t.allocs.touched) > 0 {
		c.changed = make([]model.AllocRow, 0, len(t.allocs.touched))
		for _, place := range t.allocs.touched {
			// What was changed may have been deleted since.
			if leaf := table.rows.leaf(int(place)); leaf != nil {
				if r := &leaf.rows[place&(leafSize-1)]; r.Shared != nil {
					c.changed = append(c.changed, *r)
				}
			}
		}
	}
	if allocs += len(c.changed); len(c.rows)+allocs == 0 {
		return nil
	}
	c.cost = costOfChanges + 3*t.size + costOfRow*len(c.rows) + costOfAlloc*allocs
	return c
}

// Events yields the events about the changes that f wants, made one by one.
// Names of nodes are those in snap.
func (c *Changes) Events(f *model.EventFilter, snap *Snapshot) iter.Seq[*model.Event] {
	return func(yield func(*model.Event) bool) {
		last := make(map[[3]string]int, len(c.rows))
		for i, row := range c.rows {
			last[identity(row)] = i
		}
		for i, row := range c.rows {
			if last[identity(row)] == i {
				if e := c.event(f, row); e != nil && !yield(e) {
					return
				}
			}
		}
		if len(f.Keys(model.TopicAllocation)) == 0 {
			return // they may be many
		}
		for r := range c.allocs() {
			key, id, deployment := r.Job().Key(), r.ID.String(), r.Shared.DeploymentID.String()
			if !f.Wants(model.TopicAllocation, key.Namespace, id, key.ID, deployment) {
				continue
			}
			e := c.about(model.TopicAllocation, model.EventAllocationUpdated, id, key.Namespace, key.ID, deployment)
			e.Payload.Allocation = snap.View(r)
			e.Payload.Allocation.Job = nil
			if !yield(e) {
				return
			}
		}
	}
}

// allocs yields the rows of allocations.
func (c *Changes) allocs() iter.Seq[*model.AllocRow] {
	return func(yield func(*model.AllocRow) bool) {
		for _, p := range c.placed {
			for i := range p.place {
				if r := p.row(i); !r.ID.IsZero() && !yield(&r) {
					return
				}
			}
		}
		for i := range c.changed {
			if !yield(&c.changed[i]) {
				return
			}
		}
	}
}

// identity tells rows of one transaction apart.
func identity(row any) [3]string {
	switch r := row.(type) {
	case gone:
		return identity(r.row)
	case *model.Job:
		return [3]string{model.TopicJob, r.Namespace, r.ID}
	case *model.Evaluation:
		return [3]string{model.TopicEvaluation, "", r.ID}
	case *model.Deployment:
		return [3]string{model.TopicDeployment, "", r.ID}
	}
	return [3]string{model.TopicNode, "", row.(*model.Node).ID}
}

// event makes the event about a row, nil when it is not wanted.
func (c *Changes) event(f *model.EventFilter, row any) *model.Event {
	g, deleted := row.(gone)
	if deleted {
		row = g.row
	}
	switch r := row.(type) {
	case *model.Job:
		if f.Wants(model.TopicJob, r.Namespace, r.ID) {
			usual := model.EventJobRegistered
			if deleted {
				usual = model.EventJobDeregistered
			}
			e := c.about(model.TopicJob, usual, r.ID, r.Namespace)
			e.Payload.Job, e.Payload.Deleted = r, deleted
			return e
		}
	case *model.Evaluation:
		if f.Wants(model.TopicEvaluation, r.Namespace, r.ID, r.JobID, r.DeploymentID) {
			e := c.about(model.TopicEvaluation, model.EventEvaluationUpdated, r.ID, r.Namespace, r.JobID, r.DeploymentID)
			e.Payload.Evaluation = r
			return e
		}
	case *model.Deployment:
		if f.Wants(model.TopicDeployment, r.Namespace, r.ID, r.JobID) {
			e := c.about(model.TopicDeployment, model.EventDeploymentStatus, r.ID, r.Namespace, r.JobID)
			e.Payload.Deployment = r
			return e
		}
	case *model.Node:
		if f.Wants(model.TopicNode, "", r.ID) {
			e := c.about(model.TopicNode, model.EventNode, r.ID, "")
			if deleted {
				e.Type = model.EventNodeDeregistration
			}
			// Events go to other regions, which the secret must not.
			n := *r
			n.SecretID = ""
			e.Payload.Node = &n
			return e
		}
	}
	return nil
}

func (c *Changes) about(topic, usual, key, namespace string, others ...string) *model.Event {
	e := &model.Event{Topic: topic, Type: usual, Key: key, Namespace: namespace, Index: c.Index}
	if c.cause != "" {
		e.Type = c.cause
	}
	e.FilterKeys = slices.DeleteFunc(others, func(s string) bool { return s == "" })
	return e
}

// eventsKept bounds what a store keeps of its latest changes, in bytes by their
// estimated cost. Rows that the tables have still are counted too.
const eventsKept = 16 << 20

// changeLog keeps a store's latest changes, for any number of readers: each is
// a number in it, and costs no more however slow it is.
type changeLog struct {
	mu sync.Mutex // guards what follows
	// kept are the latest changes, of which the first has the number first.
	kept  []*Changes
	first uint64
	cost  int
	// after is the index after which every change is kept.
	after uint64
	// wake is closed and dropped when something is added; nil unless somebody
	// waits.
	wake chan struct{}
}

func (l *changeLog) add(c *Changes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, c)
	l.cost += c.cost
	for l.cost > eventsKept && len(l.kept) > 1 {
		l.cost -= l.kept[0].cost
		l.after = l.kept[0].Index
		l.kept[0] = nil
		l.kept = l.kept[1:]
		l.first++
	}
	l.rouse()
}

func (l *changeLog) rouse() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// restart forgets all, since the state is another, of an index. Readers find
// that they cannot go on: their numbers are below the first.
func (l *changeLog) restart(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first += uint64(len(l.kept)) + 1
	l.kept, l.cost, l.after = nil, 0, index
	l.rouse()
}

// EventReader reads the changes of a store in the order of the log. It is for
// one goroutine.
type EventReader struct {
	store *Store
	from  uint64
	next  uint64
	read  uint64
}

// Changes returns a reader of the changes from an index on, and the index after
// which the store has all of them: a change at or before that may be missing.
// It reads on as the store changes, whatever the age of the snapshot.
func (s *Snapshot) Changes(from uint64) (r *EventReader, after uint64) {
	l := &s.store.log
	l.mu.Lock()
	defer l.mu.Unlock()
	at, _ := slices.BinarySearchFunc(l.kept, from, func(c *Changes, index uint64) int {
		if c.Index < index {
			return -1
		}
		return 1
	})
	return &EventReader{store: s.store, from: from, next: l.first + uint64(at)}, l.after
}

// Next waits for the next changes. It returns ctx's error, or one of KindGone
// when the reader cannot go on: it was too slow, or another state took the place
// of the one it read.
func (r *EventReader) Next(ctx context.Context) (*Changes, error) {
	for {
		c, wake, err := r.take()
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.store.retired:
			return nil, model.Errorf(model.KindGone, "cannot go on with the event stream: the server's state was replaced; go on from index %d", r.read+1)
		}
	}
}

// take returns the next changes, or what to wait for.
func (r *EventReader) take() (*Changes, <-chan struct{}, error) {
	l := &r.store.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.next < l.first {
		return nil, nil, model.Errorf(model.KindGone, "cannot go on with the event stream: it is at index %d, and the server has only what came after %d; go on from there, and read faster",
			r.read, l.after)
	}
	for int(r.next-l.first) < len(l.kept) {
		c := l.kept[r.next-l.first]
		r.next++
		r.read = c.Index
		if c.Index >= r.from {
			return c, nil, nil
		}
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return nil, l.wake, nil
}
