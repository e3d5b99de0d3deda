package region

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// eventsUntil are the events of a server from an index on, a line each, up to
// and with the first that contains last.
func eventsUntil(t *testing.T, s *testServer, from uint64, last string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	topics, err := model.ParseTopics(nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := rpc.Open(ctx, s.RPC(), method.EventStream, rpc.To{}, &method.EventStreamRequest{EventFilter: model.EventFilter{Topics: topics}, Index: from})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var lines []string
	for {
		f, err := stream.Recv()
		if err != nil {
			t.Fatalf("%v after\n%s", err, strings.Join(lines, "\n"))
		}
		if f.Gap != nil {
			t.Errorf("from %d: %+v", from, f.Gap)
		}
		for _, e := range f.Events {
			lines = append(lines, fmt.Sprintf("%d %s %s %s", e.Index, e.Topic, e.Type, e.Key))
			if strings.Contains(lines[len(lines)-1], last) {
				return strings.Join(lines, "\n")
			}
		}
	}
}

// Every server tells the same, through a change of leader too.
func TestEveryServerHasTheEvents(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	leader := c.leader()
	var registered *method.JobRegisterResponse
	wait(t, "a job's evaluation", func() (err error) {
		registered, err = rpc.Call(t.Context(), leader.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("web", 2, "dc1")})
		return err
	})
	if err := leader.cell.HandOver(); err != nil {
		t.Fatal(err)
	}
	wait(t, "another leader", func() error {
		_, err := rpc.Call(t.Context(), leader.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("last", 1, "nowhere")})
		return err
	})
	var first string
	for name, s := range c.servers {
		got := eventsUntil(t, s, 0, "JobRegistered last")
		if first == "" {
			first = got
		}
		if got != first || !strings.Contains(got, "Evaluation JobRegistered "+registered.EvalID) {
			t.Errorf("%s tells\n%s\nand another\n%s", name, got, first)
		}
	}
}

// eventStore is a state of so many indexes, each with a job of its own, with what
// serves its events.
type eventStore struct {
	t     *testing.T
	store *state.Store
	last  uint64
	events
}

func newEventStore(t *testing.T, incarnation string, last uint64) *eventStore {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &eventStore{t: t, store: store}
	s.write(func(tx *state.Txn) error {
		_, err := tx.SetCell(&state.Cell{ID: "cell", Incarnation: incarnation})
		return err
	})
	s.grow(last)
	s.events = events{snapshot: store.Snapshot, leads: func() bool { return true }}
	return s
}

func (s *eventStore) write(f func(*state.Txn) error) {
	s.t.Helper()
	s.last++
	if err := s.store.Write(s.last, f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *eventStore) grow(last uint64) {
	for s.last < last {
		job := aJob(fmt.Sprintf("job-%d", s.last), 1)
		job.Namespace = model.DefaultNamespace
		s.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(job); return err })
	}
}

// told is what a stream tells up to and with an index: its gap, and the indexes.
func (s *eventStore) told(from uint64, of string, last uint64) string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	topics, err := model.ParseTopics(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	done := errors.New("seen")
	err = s.stream(ctx, nil, &method.EventStreamRequest{EventFilter: model.EventFilter{Topics: topics}, Index: from, State: of}, func(f *method.EventFrame) error {
		switch {
		case f.Gap != nil:
			out = append(out, fmt.Sprintf("gap %d-%d after %d of %s", f.Gap.From, f.Gap.To, f.Index, f.State))
		case f.State != "":
			out = append(out, fmt.Sprintf("after %d of %s", f.Index, f.State))
		default:
			out = append(out, fmt.Sprint(f.Index))
		}
		if f.Index >= last {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		out = append(out, err.Error())
	}
	return strings.Join(out, ", ")
}

func TestAnIndexOfAnotherStateIsAGap(t *testing.T) {
	s := newEventStore(t, "new", 4)
	for _, c := range []struct {
		from  uint64
		state string
		want  string
	}{
		{0, "", "after 0 of cell/new, 2, 3, 4"},
		{3, "", "after 0 of cell/new, 3, 4"},
		{3, "cell/new", "after 0 of cell/new, 3, 4"},
		{3, "cell/old", "gap 3-0 after 0 of cell/new, 2, 3, 4"},
		{50_000, "cell/old", "gap 50000-0 after 0 of cell/new, 2, 3, 4"},
		// The indexes of a cell say by themselves that one is not of it.
		{50_000, "", "gap 50000-0 after 0 of cell/new, 2, 3, 4"},
	} {
		if got := s.told(c.from, c.state, 4); got != c.want {
			t.Errorf("from %d of %q: %s, want %s", c.from, c.state, got, c.want)
		}
	}
}

// A server that is behind its leader has yet to see what its reader has.
func TestAServerThatIsBehindWaitsForItsReadersIndex(t *testing.T) {
	for _, c := range []struct {
		name, state string
		newest      uint64
		want        string
	}{
		{"no state named", "", 9, "after 0 of cell/new, 8, 9"},
		{"its own", "cell/new", 9, "after 0 of cell/new, 8, 9"},
		{"one that the leader has not either", "", 4, "gap 8-0 after 0 of cell/new, 2, 3, 4, 5, 6, 7, 8, 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newEventStore(t, "new", 4)
				s.leads = func() bool { return false }
				asked := 0
				s.newest = func(context.Context) (uint64, error) { asked++; return c.newest, nil }
				got := make(chan string, 1)
				go func() { got <- s.told(8, c.state, 9) }()
				synctest.Wait()
				if len(got) != 0 {
					t.Fatalf("it told %s", <-got)
				}
				s.grow(9)
				if got := <-got; got != c.want {
					t.Errorf("it told %s, want %s", got, c.want)
				}
				if asked > 1 {
					t.Errorf("the leader was asked %d times", asked)
				}
			})
		})
	}
	s := newEventStore(t, "new", 4)
	s.leads = func() bool { return false }
	s.newest = func(context.Context) (uint64, error) { return 0, errors.New("no leader") }
	if got := s.told(8, "", 4); got != "no leader" {
		t.Errorf("without a leader that could say: %s", got)
	}
}
