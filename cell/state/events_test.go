package state

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"atoll/model"
)

// everything wants all events.
var everything = &model.EventFilter{Topics: map[string][]string{model.TopicAll: {model.TopicAll}}, Namespace: model.AllNamespaces}

// unread are the changes that a reader has not read.
func unread(t *testing.T, r *EventReader) (out []*Changes) {
	t.Helper()
	for {
		c, _, err := r.take()
		if err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return out
		}
		out = append(out, c)
	}
}

// told is what the events about changes say, a line each.
func told(s *Store, changes []*Changes, f *model.EventFilter) string {
	var lines []string
	for _, c := range changes {
		for e := range c.Events(f, s.Snapshot()) {
			key := e.Key
			if _, ok := model.ParseUUID(key); ok {
				key = "uuid"
			}
			lines = append(lines, fmt.Sprintf("%d %s %s %s %d", e.Index, e.Topic, e.Type, key, len(e.FilterKeys)))
		}
	}
	return strings.Join(lines, "\n")
}

func TestEventsTellWhatEachEntryChanged(t *testing.T) {
	s := newStore(t)
	reader, after := s.Snapshot().Changes(0)
	if after != 0 {
		t.Errorf("a new store lacks the changes up to %d", after)
	}
	n, id := node("n1")
	step := func(index uint64, cause string, f func(*Txn) error) {
		write(t, s, index, func(tx *Txn) error { tx.Cause(cause, 100); return f(tx) })
	}
	step(1, model.EventNodeRegistration, func(tx *Txn) error { return tx.UpsertNode(n, 5) })
	var j *model.Job
	step(2, model.EventJobRegistered, func(tx *Txn) (err error) {
		if j, err = tx.UpsertJob(job("a")); err != nil {
			return err
		}
		return tx.UpsertEvals([]*model.Evaluation{{ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "a", Status: model.EvalPending}})
	})
	// The job's status changes with the plan.
	step(3, model.EventPlanResult, func(tx *Txn) error { return applyPlan(tx, place(j, []model.UUID{id}, 2, nil)) })
	var row string
	for r := range s.Snapshot().AllocsOfNode(nil, id) {
		row = r.ID.String()
	}
	step(4, model.EventAllocationUpdated, func(tx *Txn) error {
		_, err := tx.ReportAllocs(id, []*model.AllocUpdate{{ID: row, ClientStatus: model.AllocClientRunning}, {ID: row, ClientStatus: model.AllocClientRunning}}, 6)
		return err
	})
	step(5, "", func(tx *Txn) error { return tx.SetAutopilotConfig(model.DefaultAutopilot()) })
	if err := s.Write(6, func(tx *Txn) error {
		if _, err := tx.UpsertJob(job("b")); err != nil {
			return err
		}
		return fmt.Errorf("refused")
	}); err == nil {
		t.Fatal("the write was not refused")
	}
	step(7, "", func(tx *Txn) error { return tx.PurgeJob(j.Key()) })
	step(8, model.EventJobBatchDeregistered, func(tx *Txn) error { return tx.DeleteNode(n.ID) })
	changes := unread(t, reader)
	want := `1 Node NodeRegistration uuid 0
2 Job JobRegistered a 0
2 Evaluation JobRegistered uuid 1
3 Job PlanResult a 0
3 Allocation PlanResult uuid 1
3 Allocation PlanResult uuid 1
4 Allocation AllocationUpdated uuid 1
7 Job JobDeregistered a 0
8 Node NodeDeregistration uuid 0`
	if got := told(s, changes, everything); got != want {
		t.Errorf("the events are\n%s\nwant\n%s", got, want)
	}
	for _, c := range changes {
		for e := range c.Events(everything, s.Snapshot()) {
			p := &e.Payload
			switch {
			case e.Topic == model.TopicNode && (p.Node.SecretID != "" || p.Node.Name != "n1"):
				t.Errorf("node %+v", p.Node)
			case e.Topic == model.TopicJob && (p.Job.ID != "a" || p.Deleted != (c.Index == 7)):
				t.Errorf("job %q, deleted %v, at %d", p.Job.ID, p.Deleted, c.Index)
			case e.Topic == model.TopicAllocation && (p.Allocation.Job != nil || p.Allocation.ModifyIndex != c.Index || p.Allocation.NodeName != "n1"):
				t.Errorf("allocation %+v at %d", p.Allocation, c.Index)
			}
		}
	}
	if s.Snapshot().Node(nil, n.ID) != nil || n.SecretID == "" {
		t.Error("the events changed what they tell of")
	}
	jobs := &model.EventFilter{Topics: map[string][]string{model.TopicAllocation: {"a"}, model.TopicEvaluation: {"b"}}}
	if got := told(s, changes, jobs); strings.Count(got, "\n") != 2 || strings.Contains(got, "Evaluation") {
		t.Errorf("the events of the allocations of job a are\n%s", got)
	}
	jobs.Namespace = "other"
	if got := told(s, changes, jobs); got != "" {
		t.Errorf("events of another namespace: %s", got)
	}
}

func TestReadersBeginWhereTheyAsk(t *testing.T) {
	s, _, _ := filled(t)
	for from, want := range map[uint64][]uint64{0: {2, 3, 4, 5, 6, 7, 8, 9, 10}, 1: {2, 3, 4, 5, 6, 7, 8, 9, 10}, 7: {7, 8, 9, 10}, 10: {10}, 11: nil} {
		r, _ := s.Snapshot().Changes(from)
		var got []uint64
		for _, c := range unread(t, r) {
			got = append(got, c.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %d: %v, want %v", from, got, want)
		}
	}
	// One that is ahead of this server passes over what it has seen.
	r, _ := s.Snapshot().Changes(12)
	write(t, s, 11, func(tx *Txn) error { _, err := tx.UpsertJob(job("c")); return err })
	write(t, s, 12, func(tx *Txn) error { _, err := tx.UpsertJob(job("d")); return err })
	if got := unread(t, r); len(got) != 1 || got[0].Index != 12 {
		t.Errorf("read %v, want the changes of 12 alone", got)
	}
}

// large is a transaction that takes a quarter of what is kept.
func large(t *testing.T, s *Store, index uint64) {
	write(t, s, index, func(tx *Txn) error {
		tx.Cause("", eventsKept/12)
		_, err := tx.UpsertJob(job(fmt.Sprint("j", index)))
		return err
	})
}

func TestAReaderThatIsTooSlowIsToldSo(t *testing.T) {
	s := newStore(t)
	slow, _ := s.Snapshot().Changes(0)
	for i := uint64(1); i <= 3; i++ {
		large(t, s, i)
	}
	if c, _, err := slow.take(); err != nil || c.Index != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	for i := uint64(4); i <= 40; i++ {
		large(t, s, i)
	}
	if n := len(s.log.kept); n < 3 || n > 4 || s.log.cost > eventsKept {
		t.Errorf("%d changes are kept, at a cost of %d", n, s.log.cost)
	}
	if _, err := slow.Next(t.Context()); model.KindOf(err) != model.KindGone || !strings.Contains(err.Error(), "at index 1") {
		t.Errorf("the reader got %v, want to be told that it is at index 1 and too slow", err)
	}
	fresh, after := s.Snapshot().Changes(2)
	if got := unread(t, fresh); got[0].Index != after+1 || after < 36 {
		t.Errorf("the changes after %d are kept, and the first of them is of %d", after, got[0].Index)
	}
	// One that is larger than all that is kept is kept, alone.
	write(t, s, 41, func(tx *Txn) error { tx.Cause("", eventsKept); _, err := tx.UpsertJob(job("x")); return err })
	if len(s.log.kept) != 1 {
		t.Errorf("%d changes are kept", len(s.log.kept))
	}
}

func TestReadersEndWithTheStateTheyRead(t *testing.T) {
	t.Run("restored", func(t *testing.T) {
		s, _, _ := filled(t)
		var snapshot bytes.Buffer
		if err := s.Snapshot().Persist(&snapshot); err != nil {
			t.Fatal(err)
		}
		caughtUp, _ := s.Snapshot().Changes(0)
		unread(t, caughtUp)
		if err := s.Restore(&snapshot); err != nil {
			t.Fatal(err)
		}
		if _, err := caughtUp.Next(t.Context()); model.KindOf(err) != model.KindGone {
			t.Errorf("a reader goes on into another state: %v", err)
		}
		r, after := s.Snapshot().Changes(3)
		if after != 10 || len(unread(t, r)) != 0 {
			t.Errorf("after a restore at 10 the changes after %d are kept", after)
		}
	})
	t.Run("retired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t)
			r, _ := s.Snapshot().Changes(0)
			got := make(chan error)
			go func() { _, err := r.Next(context.Background()); got <- err }()
			synctest.Wait()
			s.Retire()
			if err := <-got; model.KindOf(err) != model.KindGone {
				t.Errorf("the reader got %v", err)
			}
		})
	})
}

func TestReadersWakeByAChangeAndByTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan string, 30)
		for range 10 {
			go func() {
				r, _ := s.Snapshot().Changes(0)
				for {
					c, err := r.Next(ctx)
					if err != nil {
						got <- err.Error()
						return
					}
					got <- fmt.Sprint(c.Index)
				}
			}()
		}
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if len(got) != 10 {
				t.Fatalf("%d readers woke, want 10", len(got))
			}
			for range 10 {
				if g := <-got; g != want {
					t.Errorf("a reader got %s, want %s", g, want)
				}
			}
		}
		write(t, s, 1, func(tx *Txn) error { _, err := tx.UpsertJob(job("a")); return err })
		expect("1")
		write(t, s, 2, func(tx *Txn) error { _, err := tx.UpsertJob(job("b")); return err })
		expect("2")
		cancel()
		expect(context.Canceled.Error())
	})
}

func BenchmarkChanges(b *testing.B) {
	for _, readers := range []int{0, 100} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			s := newStore(b)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			for range readers {
				r, _ := s.Snapshot().Changes(0)
				go func() {
					for {
						if _, err := r.Next(ctx); err != nil {
							return
						}
					}
				}()
			}
			index := uint64(0)
			j := job("a")
			for b.Loop() {
				index++
				write(b, s, index, func(tx *Txn) error { tx.Cause("", 200); return tx.putJob(j) })
			}
		})
	}
}
