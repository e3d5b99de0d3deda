package state

import (
	"slices"
	"testing"

	"atoll/model"
)

func names(s *Snapshot, prefix string) (out []string) {
	for n := range s.Namespaces(nil, prefix) {
		out = append(out, n.Name)
	}
	return out
}

func TestTheDefaultNamespaceIsThereUnasked(t *testing.T) {
	s := newStore(t)
	if got := names(s.Snapshot(), ""); !slices.Equal(got, []string{"default"}) {
		t.Errorf("a new cell has %v", got)
	}
	for i, name := range []string{"web", "batch", "dev"} {
		write(t, s, uint64(10+i), func(tx *Txn) error {
			_, err := tx.UpsertNamespace(&model.Namespace{Name: name})
			return err
		})
	}
	snap := s.Snapshot()
	if got := names(snap, ""); !slices.Equal(got, []string{"batch", "default", "dev", "web"}) {
		t.Errorf("%v", got)
	}
	if got := names(snap, "de"); !slices.Equal(got, []string{"default", "dev"}) {
		t.Errorf("of de: %v", got)
	}
	if got := names(snap, "w"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("of w: %v", got)
	}
	write(t, s, 20, func(tx *Txn) error {
		_, err := tx.UpsertNamespace(&model.Namespace{Name: "default", Description: "ours"})
		return err
	})
	if n := s.Snapshot().Namespace(nil, "default"); n.Description != "ours" || n.ModifyIndex != 20 {
		t.Errorf("%+v", n)
	}
}

// A namespace's version goes up whatever becomes of it, so that copies in other
// regions can be told newer from older.
func TestAVersionOnlyGoesUp(t *testing.T) {
	s := newStore(t)
	upsert := func(index uint64, description string) *model.Namespace {
		write(t, s, index, func(tx *Txn) error {
			_, err := tx.UpsertNamespace(&model.Namespace{Name: "web", Description: description, Version: 77})
			return err
		})
		return s.Snapshot().Namespace(nil, "web")
	}
	if n := upsert(1, "a"); n.Version != 1 || n.CreateIndex != 1 {
		t.Errorf("made: %+v", n)
	}
	if n := upsert(2, "b"); n.Version != 2 || n.CreateIndex != 1 || n.ModifyIndex != 2 {
		t.Errorf("changed: %+v", n)
	}
	ws := make(Watch)
	s.Snapshot().Namespace(ws, "web")
	write(t, s, 3, func(tx *Txn) error {
		_, err := tx.UpsertNamespace(&model.Namespace{Name: "web", Deleted: true})
		return err
	})
	if n := s.Snapshot().Namespace(nil, "web"); n != nil || !closed(ws) || len(names(s.Snapshot(), "")) != 1 {
		t.Errorf("deleted: %+v, %v", n, names(s.Snapshot(), ""))
	}
	if n := upsert(4, "c"); n.Version != 4 || n.CreateIndex != 4 || n.Description != "c" {
		t.Errorf("made again: %+v", n)
	}
	// A whole row of somewhere else counts when it is newer.
	for _, tc := range []struct {
		version uint64
		want    string
	}{{4, "c"}, {3, "c"}, {9, "theirs"}} {
		write(t, s, 10+tc.version, func(tx *Txn) error {
			_, err := tx.PutNamespace(&model.Namespace{Name: "web", Description: "theirs", Version: tc.version})
			return err
		})
		if n := s.Snapshot().Namespace(nil, "web"); n.Description != tc.want || n.CreateIndex != 4 {
			t.Errorf("a row of version %d: %+v", tc.version, n)
		}
	}
}
