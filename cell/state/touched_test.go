package state

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll/model"
)

func TestTouchesAreRememberedOnceEachByTheirLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log touches[int]
		last := map[int]uint64{}
		for index := range uint64(rapid.IntRange(0, 60).Draw(t, "writes")) {
			for range rapid.IntRange(0, 3).Draw(t, "keys") {
				key := rapid.IntRange(0, 12).Draw(t, "key")
				log.add(key, index+1)
				last[key] = index + 1
			}
		}
		since := uint64(rapid.IntRange(0, 61).Draw(t, "since"))
		want := slices.Sorted(maps.Keys(last))
		want = slices.DeleteFunc(want, func(key int) bool { return last[key] <= since })
		got := log.since(since)
		slices.Sort(got)
		if !slices.Equal(got, want) || len(log.at) != len(last) {
			t.Fatalf("since %d: %v, want %v; %d kept of %d", since, got, want, len(log.at), len(last))
		}
	})
}

func TestTouchesThatAreForgottenAreSaidToBe(t *testing.T) {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	write := func(index uint64, keys ...string) {
		t.Helper()
		if err := s.Write(index, func(tx *Txn) error {
			for _, id := range keys {
				tx.noteTouched(tableEvals, &model.Evaluation{Namespace: "default", JobID: id})
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	write(10, "first")
	write(11, "second")
	write(12)
	if touched, index, _, ok := s.Snapshot().Touched(10); !ok || index != 12 || len(touched.Jobs) != 1 || touched.Jobs[0].ID != "second" {
		t.Errorf("%+v at %d, %v", touched, index, ok)
	}
	for i := range touchesKept - 1 {
		s.touched.job(model.JobID{ID: string(rune('a'+i%26)) + model.NewUUID(nil).String()}, 13)
	}
	for since, want := range map[uint64]bool{9: false, 10: true, 13: true} {
		touched, _, _, ok := s.Snapshot().Touched(since)
		if ok != want {
			t.Errorf("what was touched since %d is there: %v", since, ok)
		}
		if ok && since == 10 && len(touched.Jobs) != touchesKept {
			t.Errorf("%d touched since 10", len(touched.Jobs))
		}
	}
	var snapshot bytes.Buffer
	if err := s.Snapshot().Persist(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := s.Snapshot().Touched(11); ok {
		t.Error("what was touched before a snapshot is said to be known")
	}
	// Another state begins anew.
	s.touched.restart(50)
	if _, _, _, ok := s.Snapshot().Touched(49); ok {
		t.Error("what was touched in another state is said to be known")
	}
	if touched, index, _, ok := s.Snapshot().Touched(50); !ok || index != 50 || len(touched.Jobs)+len(touched.Nodes)+len(touched.Deployments) != 0 {
		t.Errorf("%+v at %d, %v", touched, index, ok)
	}
}

func BenchmarkTouches(b *testing.B) {
	var log touches[model.UUID]
	ids := make([]model.UUID, 1000)
	for i := range ids {
		ids[i] = model.NewUUID(nil)
	}
	for i := 0; b.Loop(); i++ {
		log.add(ids[i%len(ids)], uint64(i/len(ids)))
	}
}
