package state

import (
	"cmp"
	"strings"
	"time"

	"github.com/google/btree"
	memdb "github.com/hashicorp/go-memdb"

	"atoll/internal/wire"
	"atoll/model"
)

// A cell remembers the requests of the last RequestAge, up to 218 a second, and no
// more than RequestsKept of them: they take about 40 MB, and a second of a restart.
// The clocks of those who make ids may be apart by as much as is remembered.
const (
	RequestAge   = 10 * time.Minute
	RequestsKept = 1 << 17
)

// forgetAtOnce bounds how many requests are forgotten with one that comes, so that
// a clock that was set forward costs neither the memory as a whole nor a pause.
const forgetAtOnce = 8

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
	// Taken is when the leader took the request, by the leader's clock; 0 when
	// whoever brings word of the request does not know.
	Taken int64
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
	// older one was applied cannot be told. An id that was in the future when it
	// was forgotten does not count, but as one that does not tell: else whoever's
	// clock is ahead would have the ids of all others refused.
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
			// One entry may bring word of several requests.
			return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.ID, b.ID)) < 0
		}),
	}
}

// now is when a request was taken, as far as anything tells.
func (m *memory) now(r *Request) int64 {
	if newest, some := m.byIndex.Max(); some && r.Taken == 0 {
		return newest.Taken
	}
	return r.Taken
}

// horizonAt is the horizon at a time. One that lies in the future was written
// while a clock was ahead: only that a request is of before RequestAge is known
// then.
func (m *memory) horizonAt(now int64) int64 {
	if now != 0 && m.horizon > now {
		return now - int64(RequestAge)
	}
	return m.horizon
}

// old reports whether a request need not be remembered any more at a time.
func (k *Kept) old(now int64) bool {
	return now-cmp.Or(k.Taken, k.Issued) >= int64(RequestAge)
}

// forget forgets the oldest request.
func (m *memory) forget(now int64) {
	k, _ := m.byIndex.DeleteMin()
	m.byID.Delete(k)
	if now == 0 || k.Issued <= now {
		m.horizon = max(m.horizon, k.Issued)
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
	}
	if horizon := m.horizonAt(m.now(r)); r.Issued != 0 && r.Issued <= horizon {
		return nil, model.Errorf(model.KindConflict, "the request id %q was made at %s, by the clock of its maker, and this region remembers requests since %s only: whether it was applied cannot be told, and it is not applied now; look, and send it with a new id",
			r.ID, at(r.Issued), at(horizon))
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
	k := &Kept{Request: *r, Index: t.index, Answer: answer}
	k.Taken = next.now(r)
	next.horizon = next.horizonAt(k.Taken)
	next.add(k)
	for next.byID.Len() > RequestsKept {
		next.forget(k.Taken)
	}
	for range forgetAtOnce {
		if oldest, some := next.byIndex.Min(); !some || k.Taken == 0 || !oldest.old(k.Taken) {
			break
		}
		next.forget(k.Taken)
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
