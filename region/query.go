package region

import (
	"cmp"
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
)

// maxWait is the default and the longest wait of a blocking query; a sixteenth
// of jitter is added so that waiters do not return together.
const maxWait = 5 * time.Minute

// reader answers reads from the local state.
type reader struct {
	snapshot func() *state.Snapshot
	// contact and leader describe how far the local state can be trusted.
	contact func() time.Duration
	leader  func() string
	// verify asks the cell whether this server leads still.
	verify func(ctx context.Context) error
	// answers are the lists that are shared.
	answers answers
}

// read runs f on snapshots until the index that it returns is higher than the
// query's, or the query's wait is over, and fills meta in. A query that does not
// wait runs f once. f must add to ws whatever its result depends on.
//
// An index from before the state was restored is of another state: whoever waits
// on one is answered at once, with one that is higher.
func (r *reader) read(ctx context.Context, q *method.Query, meta *method.Meta, f func(ws state.Watch, snap *state.Snapshot) (uint64, error)) error {
	if q.Consistent {
		if err := r.verify(ctx); err != nil {
			return err
		}
	}
	if q.MinIndex > 0 {
		wait := q.MaxWait
		if wait <= 0 || wait > maxWait {
			wait = maxWait
		}
		wait += rand.N(wait/16 + 1)
		waitCtx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		for {
			ws := make(state.Watch)
			snap := r.snapshot()
			snap.WatchStore(ws)
			index, err := f(ws, snap)
			if err != nil {
				return err
			}
			index = max(index, snap.Restored())
			if index > q.MinIndex || ws.WatchCtx(waitCtx) != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return r.describe(meta, index)
			}
		}
	}
	snap := r.snapshot()
	index, err := f(nil, snap)
	if err != nil {
		return err
	}
	return r.describe(meta, max(index, snap.Restored()))
}

// describe fills in what every read answers with. Clients wait on the index,
// and 0 would not wait, so it is at least 1.
func (r *reader) describe(meta *method.Meta, index uint64) error {
	meta.Index = max(index, 1)
	meta.LastContact = max(r.contact(), 0)
	meta.KnownLeader = r.leader() != ""
	return nil
}

// lister turns rows of a table into a page of a list.
type lister[Row, Stub any] struct {
	// key is the row's place in the order, and what a page's token names.
	key  func(Row) string
	stub func(Row) Stub
	// keep selects rows before the filter does; nil keeps all.
	keep func(Row) bool
	// stored is the object that a filter sees; nil means the row itself.
	stored func(Row) any
}

// maxPage bounds a page; without a page size a list is whole, as clients expect.
const maxPage = 10_000

// page returns the rows that the query asks for, and the token of the next
// page.
func (l lister[Row, Stub]) page(q *method.Query, rows iter.Seq[Row]) ([]Stub, string, error) {
	filter, err := filterOf(q)
	if err != nil {
		return nil, "", err
	}
	if q.Reverse {
		all := slices.Collect(rows)
		slices.SortFunc(all, func(a, b Row) int { return cmp.Compare(l.key(b), l.key(a)) })
		rows = slices.Values(all)
	}
	out := []Stub{}
	for row := range rows {
		if l.keep != nil && !l.keep(row) {
			continue
		}
		key := l.key(row)
		if q.NextToken != "" && (!q.Reverse && key < q.NextToken || q.Reverse && key > q.NextToken) {
			continue
		}
		if filter != nil {
			var object any = row
			if l.stored != nil {
				object = l.stored(row)
			}
			ok, err := filter.passes(object)
			if err != nil {
				return nil, "", err
			}
			if !ok {
				continue
			}
		}
		if q.PerPage > 0 && len(out) == q.PerPage {
			return out, key, nil
		}
		out = append(out, l.stub(row))
	}
	return out, "", nil
}

// filterOf reads a query's filter, nil for none, and checks its page size.
func filterOf(q *method.Query) (*filter, error) {
	if q.PerPage < 0 || q.PerPage > maxPage {
		return nil, model.Invalidf("per_page", "cannot list: per_page %d is not from 0 to %d", q.PerPage, maxPage)
	}
	return newFilter(q.Filter)
}

// inNamespace says whether an object of a namespace is asked for; no namespace
// in a query means the default one.
func inNamespace(q *method.Query, namespace string) bool {
	want := cmp.Or(q.Namespace, model.DefaultNamespace)
	return want == model.AllNamespaces || want == namespace
}

func jobKey(q *method.Query, id string) model.JobID {
	return model.JobID{Namespace: cmp.Or(q.Namespace, model.DefaultNamespace), ID: id}
}
