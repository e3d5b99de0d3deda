package region

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"weak"

	"atoll/cell/state"
	"atoll/model/method"
)

// view is what a list is made of, in one state: its rows are read only when it
// is.
type view[Row, Stub any] struct {
	rows iter.Seq[Row]
	lister[Row, Stub]
	// index is of the list's last change.
	index uint64
}

// list answers a list, as read does. It makes it once, when there is an answer
// to give, and once for all who wait for the same: when thousands are woken by
// one change, they share it. asks is what is asked beside the query, of; of adds
// to ws whatever the list depends on.
func list[Row, Stub any](ctx context.Context, r *reader, name string, q *method.Query, asks any, meta *method.Meta, of func(ws state.Watch, snap *state.Snapshot) view[Row, Stub]) ([]Stub, error) {
	if _, err := filterOf(q); err != nil {
		return nil, err // not after a wait
	}
	var snap *state.Snapshot
	var v view[Row, Stub]
	if err := r.read(ctx, q, meta, func(ws state.Watch, s *state.Snapshot) (uint64, error) {
		snap, v = s, of(ws, s)
		return v.index, nil
	}); err != nil {
		return nil, err
	}
	if q.MinIndex == 0 {
		stubs, next, err := v.page(q, v.rows)
		meta.NextToken = next
		return stubs, err
	}
	same := *q
	same.MinIndex, same.MaxWait, same.Consistent = 0, 0, false
	a := r.answers.of(snap.Index(), askedAs(name, &same, asks))
	a.once.Do(func() { a.stubs, a.next, a.err = v.page(q, v.rows) })
	if a.err != nil {
		return nil, a.err
	}
	meta.NextToken, meta.Encoding = a.next, &a.encoding
	return a.stubs.([]Stub), nil
}

// askedAs tells what is asked from whatever else could be.
func askedAs(name string, q *method.Query, asks any) string {
	return fmt.Sprintf("%s %#v %#v", name, *q, asks)
}

// answers are the lists of one state that somebody is being answered with.
// Nothing is kept for its own sake: the collector frees what nobody holds.
type answers struct {
	mu    sync.Mutex // guards what follows
	index uint64
	all   map[string]weak.Pointer[shared]
}

// shared is a list, once it is made.
type shared struct {
	once     sync.Once
	stubs    any
	next     string
	err      error
	encoding method.Encoding
}

// maxShared bounds the different lists of one state.
const maxShared = 256

// of returns the answer to what is asked of the state of an index; its caller
// makes it, unless another did.
func (a *answers) of(index uint64, asked string) *shared {
	a.mu.Lock()
	defer a.mu.Unlock()
	if index > a.index || a.all == nil || len(a.all) >= maxShared {
		a.index, a.all = index, make(map[string]weak.Pointer[shared])
	}
	if index < a.index {
		return new(shared)
	}
	if s := a.all[asked].Value(); s != nil {
		return s
	}
	s := new(shared)
	a.all[asked] = weak.Make(s)
	return s
}
