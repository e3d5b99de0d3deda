package cell

import (
	"testing"

	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

func write(id string) model.NamespaceWrite {
	return model.NamespaceWrite{ID: id, Hash: [16]byte{1}, Time: 5}
}

func TestRowsOfOtherRegionsAreTakenUpWhereTheyAreNewer(t *testing.T) {
	a := newApplied(t)
	do(a, applyNamespaceUpsert, &NamespaceUpsert{&model.Namespace{Name: "team", Description: "ours", Writer: "eu"}}, "")
	for _, c := range []struct {
		version           uint64
		writer, want, has string
	}{
		{1, "ap", "older", "ours"}, {1, "us", "newer", "newer"}, {1, "us", "newer", "newer"}, {3, "ap", "newest", "newest"}, {2, "us", "older", "newest"},
	} {
		row := &model.Namespace{Name: "team", Description: c.want, Version: c.version, Writer: c.writer, Write: write(c.writer + c.want)}
		do(a, applyNamespaceLearn, &NamespaceLearn{Own: "eu", Rows: []*model.Namespace{row}}, "")
		snap := a.store.Snapshot()
		if got := snap.Namespace(nil, "team").Description; got != c.has {
			t.Errorf("after version %d of %s it is %q, want %q", c.version, c.writer, got, c.has)
		}
		// The request is known, whether its change stands or not.
		kept, err := snap.Recall(NamespaceRequest(&row.Write))
		if err != nil || kept == nil {
			t.Fatalf("version %d of %s: %v, %v", c.version, c.writer, kept, err)
		}
		var tag model.NamespaceTag
		if err := wire.Decode(kept.Answer, &tag); err != nil || tag != (model.NamespaceTag{Version: c.version, Writer: c.writer}) {
			t.Errorf("it was answered with %+v, %v", tag, err)
		}
	}
	// Several requests of one entry are remembered and forgotten each by itself.
	var rows []*model.Namespace
	for _, name := range []string{"a", "b", "c"} {
		rows = append(rows, &model.Namespace{Name: name, Version: 1, Write: write(name)})
	}
	do(a, applyNamespaceLearn, &NamespaceLearn{Own: "eu", Rows: rows}, "")
	index := a.index
	do(a, func(tx *state.Txn, _ *state.Snapshot, _ uint64, n *int) (*None, error) {
		for i := range *n {
			if err := tx.Remember(&state.Request{ID: string(rune('A' + i)), Namespace: "default"}, nil); err != nil {
				return nil, err
			}
		}
		return &None{}, nil
	}, new(2), "")
	for _, row := range rows {
		if kept, err := a.store.Snapshot().Recall(NamespaceRequest(&row.Write)); err != nil || kept == nil || kept.Index != index {
			t.Errorf("%s: %+v, %v", row.Name, kept, err)
		}
	}
}

func TestADeletionFromElsewhereIsTakenBackForALiveJob(t *testing.T) {
	a := newApplied(t)
	for _, name := range []string{"team", "idle"} {
		do(a, applyNamespaceUpsert, &NamespaceUpsert{&model.Namespace{Name: name, Description: "ours", Writer: "eu", Write: write(name)}}, "")
	}
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("team")}, "")
	var gone []*model.Namespace
	for _, name := range []string{"team", "idle"} {
		gone = append(gone, &model.Namespace{Name: name, Version: 2, Writer: "us", Write: write("delete " + name), Deleted: true})
	}
	out := do(a, applyNamespaceLearn, &NamespaceLearn{Own: "eu", Rows: gone}, "")
	if len(out.Kept) != 1 || out.Kept[0] != (NamespaceKept{"team", "web"}) {
		t.Errorf("kept: %+v", out.Kept)
	}
	snap := a.store.Snapshot()
	if n := snap.Namespace(nil, "team"); n == nil || n.Version != 3 || n.Writer != "eu" || n.Description != "ours" || n.Write.ID != "" {
		t.Errorf("%+v", n)
	}
	if n := snap.NamespaceRow(nil, "idle"); !n.Deleted || n.Version != 2 {
		t.Errorf("%+v", n)
	}
	// Told again, it is known; once the job is over, a deletion stands.
	if out := do(a, applyNamespaceLearn, &NamespaceLearn{Own: "eu", Rows: gone}, ""); len(out.Kept) != 0 || NewsOfNamespace(a.store.Snapshot(), gone[0]) {
		t.Errorf("told again: %+v", out)
	}
	do(a, applyJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "team", ID: "web"}}, "")
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "team", Writer: "eu"}, "")
}

func TestWhatIsForgottenIsGoneOnAbove(t *testing.T) {
	a := newApplied(t)
	upsert := func(name string) uint64 {
		t.Helper()
		return do(a, applyNamespaceUpsert, &NamespaceUpsert{&model.Namespace{Name: name}}, "").Version
	}
	for range 4 {
		upsert("team")
	}
	upsert("other")
	live := a.store.Snapshot().NamespaceRow(nil, "team").Bare()
	do(a, applyNamespaceLearn, &NamespaceLearn{Forget: []*model.Namespace{live}}, "")
	if a.store.Snapshot().Namespace(nil, "team") == nil {
		t.Fatal("one that is not deleted was forgotten")
	}
	do(a, applyNamespaceDelete, &NamespaceDelete{Name: "team"}, "")
	gone := a.store.Snapshot().NamespaceRow(nil, "team").Bare()
	do(a, applyNamespaceLearn, &NamespaceLearn{Forget: []*model.Namespace{gone}}, "")
	snap := a.store.Snapshot()
	if snap.NamespaceRow(nil, "team") != nil {
		t.Error("it is not forgotten")
	}
	var names []string
	for n := range snap.Namespaces(nil, "") {
		names = append(names, n.Name)
	}
	if len(names) != 2 || snap.Namespace(nil, model.AllNamespaces) != nil {
		t.Errorf("there are %v", names)
	}
	if v := upsert("team"); v != 6 {
		t.Errorf("made anew it is version %d, want 6", v)
	}
	if v := upsert("other"); v != 6 {
		t.Errorf("another is version %d, want 6", v)
	}
	// Word of another region's forgetting is no deletion of anything.
	do(a, applyJobRegister, &JobRegister{Job: scalableJob("team")}, "")
	if out := do(a, applyNamespaceLearn, &NamespaceLearn{Own: "eu", Rows: []*model.Namespace{{Name: model.AllNamespaces, Version: 40, Deleted: true}}}, ""); len(out.Kept) != 0 {
		t.Errorf("%+v", out)
	}
	if v := upsert("third"); v != 41 {
		t.Errorf("a third is version %d, want 41", v)
	}
}
