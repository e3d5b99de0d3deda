package region

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// Those who wait for the same list and are woken by one change share the answer;
// those who ask for another have their own.
func TestWaitersForTheSameListShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := state.New()
		if err != nil {
			t.Fatal(err)
		}
		index := uint64(0)
		register := func(id string) {
			index++
			if err := store.Write(index, func(tx *state.Txn) error {
				_, err := tx.UpsertJob(&model.Job{ID: id, Namespace: model.DefaultNamespace, Type: model.JobTypeService})
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 40 { // more than are watched one by one
			register(fmt.Sprint("a", i))
		}
		register("b0")
		s := &jobs{reader: &reader{
			snapshot: store.Snapshot, contact: func() time.Duration { return 0 }, leader: func() string { return "s1" },
		}}
		call := &rpc.Inbound{Envelope: &rpc.Envelope{Method: method.JobList.Name}}
		waiting := func(q method.Query) <-chan *method.JobListResponse {
			got := make(chan *method.JobListResponse, 1)
			q.MinIndex, q.MaxWait = index, time.Minute
			go func() {
				out, err := s.list(context.Background(), call, &method.ListRequest{Query: q})
				if err != nil {
					t.Error(err)
				}
				got <- out
			}()
			return got
		}
		first, second, third := waiting(method.Query{}), waiting(method.Query{}), waiting(method.Query{Prefix: "a1"})
		elsewhere := waiting(method.Query{Prefix: "b"})
		synctest.Wait()
		register("a1x")
		a, b, c := <-first, <-second, <-third
		if len(a.Jobs) != 42 || a.Index != 42 || a.Encoding == nil || a.Encoding != b.Encoding || &a.Jobs[0] != &b.Jobs[0] || &a.Meta == &b.Meta {
			t.Errorf("two waiters got %d jobs at %d and %d at %d, and do not share them", len(a.Jobs), a.Index, len(b.Jobs), b.Index)
		}
		if len(c.Jobs) != 12 || c.Encoding == a.Encoding {
			t.Errorf("a waiter for another list got %d jobs", len(c.Jobs))
		}
		select {
		case out := <-elsewhere:
			t.Errorf("a waiter whom it does not concern got %d jobs", len(out.Jobs))
		default:
		}
		// Who does not wait has an answer of its own, and so has the next state.
		out, err := s.list(context.Background(), call, &method.ListRequest{})
		if err != nil || out.Encoding != nil || len(out.Jobs) != 42 {
			t.Errorf("%+v, %v", out, err)
		}
		first = waiting(method.Query{})
		synctest.Wait()
		register("b1")
		if next := <-first; next.Encoding == a.Encoding || len(next.Jobs) != 43 {
			t.Errorf("the next state's list has %d jobs", len(next.Jobs))
		}
		if out := <-elsewhere; len(out.Jobs) != 2 {
			t.Errorf("the list of b has %d jobs", len(out.Jobs))
		}
		if _, err := s.list(context.Background(), call, &method.ListRequest{Query: method.Query{MinIndex: index, Filter: "((("}}); model.KindOf(err) != model.KindInvalid {
			t.Errorf("a filter that is none: %v", err)
		}
	})
}

func TestDifferentListsAreAskedDifferently(t *testing.T) {
	keys := make(map[string]method.Query)
	for _, q := range []method.Query{
		{}, {Prefix: "web", Filter: "not A == B"}, {Prefix: "web not", Filter: "A == B"}, {Namespace: "web", Filter: "not A == B"}, {Prefix: "web", NextToken: "not A == B"}, {PerPage: 1}, {Reverse: true},
	} {
		key := askedAs("Job.List", &q, false)
		if other, there := keys[key]; there {
			t.Errorf("%+v is asked as %+v", q, other)
		}
		keys[key] = q
	}
	if askedAs("Eval.List", &method.Query{}, [2]string{"a b", ""}) == askedAs("Eval.List", &method.Query{}, [2]string{"a", "b "}) {
		t.Error("evaluations of two jobs are asked alike")
	}
}
