package wire

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// every has each form that a value can take.
func every() any {
	long := strings.Repeat("x", 300)
	list := make([]any, 0, 70_000)
	for i := range 70_000 {
		list = append(list, i)
	}
	wide := make(map[string]int, 70_000)
	for i := range 70_000 {
		wide[strings.Repeat("k", i%7)+string(rune('a'+i%26))+long[:i%90]] = i
	}
	return map[string]any{
		"numbers": []any{0, 127, 128, 255, 256, 65535, 65536, 1 << 40, -1, -32, -33, -129, -40_000, -1 << 40, uint64(1) << 63, float32(1.5), 2.5},
		"strings": []any{"", "short", long[:40], long, strings.Repeat(long, 300)},
		"bytes":   []any{[]byte{}, []byte("b"), []byte(long), []byte(strings.Repeat(long, 300))},
		"others":  []any{nil, true, false, time.Unix(1, 2), time.Unix(1<<35, 0), codec.RawExt{Tag: 7, Data: []byte(long)}, codec.RawExt{Tag: 8, Data: []byte("abcd")}},
		"lists":   []any{[]any{}, []any{1, []any{2}}, list[:20], list},
		"maps":    []any{map[string]any{}, map[string]any{"a": nil, "b": map[string]any{"c": 1}}, wide},
	}
}

func TestAValueIsAllThereOrNot(t *testing.T) {
	b, err := Encode(every())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := scan(b, maxDepth); err != nil {
		t.Fatalf("a whole value: %v", err)
	}
	if err := Receive(b, new(any)); err != nil {
		t.Fatalf("a whole value: %v", err)
	}
	for n := range 100 {
		// Ends near both ends, and in between.
		for _, end := range []int{n, len(b) - 1 - n, len(b) / 100 * n} {
			if _, err := scan(b[:end], maxDepth); err == nil {
				t.Fatalf("%d bytes of %d were taken for a value", end, len(b))
			}
		}
	}
	deep := append(bytes.Repeat([]byte{0x91}, maxDepth-1), 0xc0)
	if err := Receive(deep, new(any)); err != nil {
		t.Errorf("as deep as may be: %v", err)
	}
	if err := Receive(append([]byte{0x91, 0x91}, deep...), new(any)); err == nil {
		t.Error("too deep, and decoded")
	}
}

// What takes a byte here and makes a struct there is refused before it is made.
func TestALittleThatMakesMuchIsRefused(t *testing.T) {
	type big struct {
		Name string
		More [40]int64
		Next *big
	}
	const n = 1 << 20
	list := func(part ...byte) []byte {
		return append([]byte{0xdd, 0, n >> 16 & 0xff, 0, 0}, bytes.Repeat(part, n)...)
	}
	for name, b := range map[string][]byte{
		"empty structs":        list(0x80),
		"nothing":              list(0xc0),
		"structs in structs":   list(0x81, 0xa4, 'N', 'e', 'x', 't', 0x80),
		"structs of no fields": list(0x81, 0xa1, 'x', 0xc0),
		"lists in lists":       list(0x90),
	} {
		var into any = new([]big)
		if name == "lists in lists" {
			into = new([][]int)
		}
		allocs := testing.AllocsPerRun(1, func() {
			if err := Receive(b, into); err == nil || !strings.Contains(err.Error(), "parts") {
				t.Errorf("%s: %v", name, err)
			}
		})
		if allocs > 100 {
			t.Errorf("%s: refused after %v allocations", name, allocs)
		}
	}
	// A list of numbers that is read as one of structs makes no room for all.
	if err := Receive(list(1), new([]big)); err == nil {
		t.Error("numbers were read as structs")
	}
	// What has its fields is taken.
	honest := make([]map[string]string, n/8)
	for i := range honest {
		honest[i] = map[string]string{"Namespace": "default", "ID": "job"}
	}
	b, err := Encode(honest)
	if err == nil {
		err = Receive(b, new([]map[string]string))
	}
	if err != nil {
		t.Error(err)
	}
}

// Whatever scan finds whole, the decoder reads to the same end; and the other way
// round for what the encoder made.
func FuzzScan(f *testing.F) {
	for _, v := range []any{nil, 1, "a", []any{map[string]any{"k": []byte("v")}, -1.5, time.Unix(1, 0)}} {
		b, err := Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := scan(b, maxDepth); err != nil {
			return
		}
		var v any
		if err := Decode(b, &v); err != nil {
			return // keys that are no strings, say
		}
		again, err := Encode(v)
		if err != nil {
			return
		}
		if _, err := scan(again, maxDepth); err != nil {
			t.Fatalf("%x was decoded and encoded as %x: %v", b, again, err)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	row := map[string]any{
		"Namespace": "default", "ID": "a-job-of-some-name", "Status": "running", "Priority": 50, "Version": 12, "SubmitTime": int64(1700000000000000000),
		"Datacenters": []string{"dc1"}, "Groups": []map[string]any{{"Name": "g", "Running": 3, "Lost": 0, "Failed": 0}},
	}
	rows := make([]any, 1000)
	for i := range rows {
		rows[i] = row
	}
	data, err := Encode(rows)
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func(){
		"scan": func() { _, _ = scan(data, maxDepth) },
		"decode": func() {
			_ = Decode(data, new([]struct {
				Namespace, ID, Status string
				Priority, Version     int
				SubmitTime            int64
				Datacenters           []string
				Groups                []struct {
					Name                  string
					Running, Lost, Failed int
				}
			}))
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				f()
			}
		})
	}
}
