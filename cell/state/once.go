package state

import (
	"time"

	"github.com/google/btree"
	memdb "github.com/hashicorp/go-memdb"

	"atoll/internal/wire"
	"atoll/model"
)

// RequestsKept is how many requests a cell remembers, the newest: a quarter of
// an hour at 70 writes a second, in about 20 MB.
const RequestsKept = 1 << 16

// Request names a write, so that it is applied once however often it comes.
type Request struct {
	// ID is the caller's, or the first agent's that had the call; it is unique
	// within Namespace.
	ID        string
	Namespace string
	// Hash is of the method and the request.
	Hash [16]byte
	// Issued is when the id was made, in Unix nanoseconds by its maker's clock;
	// 0 for an id that does not tell.
	Issued int64
}

// Kept is what became of a request: the Raft index it was applied at, and its
// answer, encoded.
type Kept struct {
	Request
	Index  uint64
	Answer []byte
}

// memory is the requests that were applied, immutable once published. It is one
// row of memdb, as the table of allocations is.
type memory struct {
	byID *btree.BTreeG[*Kept]
	// byIndex is in the order of their application: the oldest are forgotten.
	byIndex *btree.BTreeG[*Kept]
	// horizon is the newest time of issue among those forgotten: whether an
	// older one was applied cannot be told.
	horizon int64
}

func newMemory() *memory {
	return &memory{
		byID: btree.NewG(btreeDegree, func(a, b *Kept) bool {
			if a.Namespace != b.Namespace {
				return a.Namespace < b.Namespace
			}
			return a.ID < b.ID
		}),
		byIndex: btree.NewG(btreeDegree, func(a, b *Kept) bool {
			if a.Index != b.Index {
				return a.Index < b.Index
			}
			if a.Namespace != b.Namespace {
				return a.Namespace < b.Namespace
			}
			return a.ID < b.ID
		}),
	}
}

func (m *memory) add(k *Kept) {
	m.byID.ReplaceOrInsert(k)
	m.byIndex.ReplaceOrInsert(k)
}

// Recall returns what became of a request, nil when it was not applied. A
// request of the same id that asks for something else is a Conflict, and so is
// one that is older than what is remembered.
func (s *Snapshot) Recall(r *Request) (*Kept, error) {
	m := first[*memory](s.tx, nil, tableRequests)
	if m == nil {
		return nil, nil
	}
	k, found := m.byID.Get(&Kept{Request: Request{ID: r.ID, Namespace: r.Namespace}})
	switch {
	case found && k.Hash == r.Hash:
		return k, nil
	case found:
		return nil, model.Errorf(model.KindConflict, "the request id %q was used before, for another request; give each request an id of its own", r.ID)
	case r.Issued != 0 && r.Issued <= m.horizon:
		return nil, model.Errorf(model.KindConflict, "the request id %q was made at %s, and this region remembers requests since %s only: whether it was applied cannot be told, and it is not applied now; look, and send it with a new id",
			r.ID, at(r.Issued), at(m.horizon))
	}
	return nil, nil
}

func at(unixNano int64) string { return time.Unix(0, unixNano).UTC().Format(time.RFC3339) }

// Remember keeps the answer of a request that this transaction applies.
func (t *Txn) Remember(r *Request, answer []byte) error {
	next := newMemory()
	if m := first[*memory](t.tx, nil, tableRequests); m != nil {
		next = &memory{byID: m.byID.Clone(), byIndex: m.byIndex.Clone(), horizon: m.horizon}
	}
	next.add(&Kept{Request: *r, Index: t.index, Answer: answer})
	for next.byID.Len() > RequestsKept {
		k, _ := next.byIndex.DeleteMin()
		next.byID.Delete(k)
		next.horizon = max(next.horizon, k.Issued)
	}
	return t.tx.Insert(tableRequests, next)
}

// requestsTable declares the memory as a table of one row, which stands in
// snapshots as a record of its horizon and one of each request.
func requestsTable() table {
	t := tableOf[memory](tableRequests, recRequest, singleton{})
	t.persist = func(p *persister, tx *memdb.Txn) {
		m := first[*memory](tx, nil, tableRequests)
		if m == nil {
			return
		}
		p.put(recRequest, &Kept{Request: Request{Issued: m.horizon}})
		m.byIndex.Ascend(func(k *Kept) bool {
			p.put(recRequest, k)
			return p.err == nil
		})
	}
	t.restore = func(r *restorer, body []byte) error {
		k := new(Kept)
		if err := wire.Decode(body, k); err != nil {
			return err
		}
		// The transaction is nobody else's yet: the row is changed in place.
		m := first[*memory](r.tx, nil, tableRequests)
		if m == nil {
			m = newMemory()
			m.horizon = k.Issued
			return r.tx.Insert(tableRequests, m)
		}
		m.add(k)
		return nil
	}
	return t
}
