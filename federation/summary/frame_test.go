package summary

import (
	"bytes"
	"compress/flate"
	"fmt"
	"strings"
	"testing"

	"atoll/model"
	"atoll/model/method"
)

// A frame of little bytes is not inflated to gigabytes of rows.
func TestAFrameThatMakesTooMuchIsRefused(t *testing.T) {
	for name, plain := range map[string][]byte{
		"rows of nothing": append([]byte{0x81, 0xa4, 'J', 'o', 'b', 's', 0xdd, 0, 0x50, 0, 0}, bytes.Repeat([]byte{0x80}, 5<<20)...),
		"too many bytes":  bytes.Repeat([]byte{0x90}, maxInflated+1),
	} {
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, flate.BestSpeed)
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if rows, err := unpack(packed.Bytes()); err == nil {
			t.Errorf("%s: %d bytes made %d rows", name, packed.Len(), len(rows.Jobs))
		}
	}
}

// Rows that are large go in more frames, none of which its reader refuses.
func TestFramesStayBelowTheirLimit(t *testing.T) {
	const n = 100
	want := &Delta{State: "cell", Index: 9}
	for i := range n {
		groups := make([]model.GroupRow, 3000)
		for g := range groups {
			groups[g].Name = fmt.Sprintf("group-%d-%s", g, strings.Repeat("x", 50))
		}
		want.Rows.Jobs = append(want.Rows.Jobs, &model.JobRow{Namespace: "default", ID: fmt.Sprintf("job-%03d", i), Groups: groups})
		want.Rows.GoneNodes = append(want.Rows.GoneNodes, model.RowKey{ID: fmt.Sprint(i)})
	}
	var frames []*method.SummaryFrame
	if err := Send(want, func(f *method.SummaryFrame) error { frames = append(frames, f); return nil }); err != nil {
		t.Fatal(err)
	}
	var ids []string
	gone := 0
	for _, f := range frames {
		rows, err := unpack(f.Rows)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range rows.Jobs {
			ids = append(ids, j.ID)
		}
		gone += len(rows.GoneNodes)
	}
	if len(frames) < 10 || len(ids) != n || ids[n-1] != "job-099" || gone != n {
		t.Errorf("%d frames with %d jobs and %d nodes gone", len(frames), len(ids), gone)
	}
}
