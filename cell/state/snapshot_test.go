package state

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"atoll/internal/wire"
	"atoll/model"
)

func TestANewerSnapshotIsRefusedByBothVersions(t *testing.T) {
	s, _, nodes := filled(t)
	s.Build = "v1"
	before := dump(t, s.Snapshot(), nodes)
	record := func(rec byte, v any) []byte {
		b, err := wire.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return append(appendRecordHead(nil, rec, b), b...)
	}
	for name, tc := range map[string]struct {
		bytes []byte
		want  []string
	}{
		"a newer format":         {record(recHeader, &snapHeader{Version: SnapshotVersion + 1, Written: "v9"}), []string{"format 3", "v9", "v1 (format 2)"}},
		"a table of a newer one": {append(record(recHeader, &snapHeader{Version: SnapshotVersion, Written: "v9"}), record(250, 1)...), []string{"record type 250", "v9", "v1"}},
	} {
		whole := append([]byte(snapshotMagic), tc.bytes...)
		for road, err := range map[string]error{
			"Restore": s.Restore(bytes.NewReader(whole)),
			"Inspect": func() error { _, err := Inspect(bytes.NewReader(whole), "v1"); return err }(),
		} {
			var newer *Newer
			if !errors.As(err, &newer) {
				t.Errorf("%s: %s: %v, want a *Newer", name, road, err)
				continue
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: %s: %q does not name %q", name, road, err, w)
				}
			}
		}
	}
	if after := dump(t, s.Snapshot(), nodes); after != before {
		t.Error("a refused snapshot changed the state")
	}
}

func TestAnyFlippedByteIsFoundAndPlaced(t *testing.T) {
	s, _, _ := filled(t)
	var buf bytes.Buffer
	if err := s.Snapshot().Persist(&buf); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	info, err := Inspect(bytes.NewReader(good), "")
	if err != nil || info.Size != int64(len(good)) || info.Cell.ID != "cell-1" || info.Version != SnapshotVersion {
		t.Fatalf("%+v, %v", info, err)
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		_, err := Inspect(bytes.NewReader(bad), "")
		var c *Corrupt
		if !errors.As(err, &c) {
			t.Fatalf("byte %d flipped: %v, want a *Corrupt", at, err)
		}
		// The offset is of the record that holds the byte.
		if c.Offset > int64(at) || int64(at)-c.Offset > 1<<19 {
			t.Fatalf("byte %d flipped: found at %d", at, c.Offset)
		}
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 4
	if err := newStore(t).Restore(bytes.NewReader(bad)); err == nil {
		t.Error("a damaged snapshot was restored")
	}
}

// testdata/snapshot-v1.bin is what filled and Persist gave in version 1.
func TestAVersion1SnapshotIsRead(t *testing.T) {
	b, err := os.ReadFile("testdata/snapshot-v1.bin")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	if err := s.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	if c := snap.Cell(nil); c == nil || c.ID != "cell-1" || c.Region != "eu" || c.Created != 7 {
		t.Errorf("cell %+v", c)
	}
	if n := snap.AllocCount(); n != 101 {
		t.Errorf("%d allocations, want 101", n)
	}
	if j := snap.Job(nil, model.JobID{Namespace: "default", ID: "a"}); j == nil || j.TaskGroups[0].Name != "web" {
		t.Errorf("job %+v", j)
	}
	if n := len(slices.Collect(snap.Nodes(nil, ""))); n != 3 {
		t.Errorf("%d nodes, want 3", n)
	}
	if k, err := snap.Recall(&Request{ID: "r", Namespace: "default", Hash: [16]byte{1}}); err != nil || k == nil || string(k.Answer) != "answer" {
		t.Errorf("the remembered request: %+v, %v", k, err)
	}
	if info, err := Inspect(bytes.NewReader(b), ""); err != nil || info.Version != 1 || info.Cell.ID != "cell-1" {
		t.Errorf("inspected: %+v, %v", info, err)
	}
}

func TestARetiredStoreWakesWhoeverWaits(t *testing.T) {
	s := newStore(t)
	ws, any := make(Watch), make(Watch)
	s.Snapshot().WatchStore(ws)
	s.Snapshot().WatchAny(any)
	if closed(ws) || closed(any) {
		t.Fatal("woken before anything happened")
	}
	s.Retire()
	if !closed(ws) || !closed(any) {
		t.Error("not woken")
	}
}
