package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
)

type row struct {
	Name  string
	Data  []byte
	Attrs map[string]any
	Next  *row
}

func sample(name string, size int) *row {
	return &row{Name: name, Data: bytes.Repeat([]byte(name[:1]), size), Attrs: map[string]any{"a": name, "n": int64(7)}, Next: &row{Name: "next of " + name}}
}

// Codecs are shared: what one call gave must not change with the next.
func TestValuesAreTheirCallersOwn(t *testing.T) {
	for _, size := range []int{0, 100, 2 * keptBuffer} {
		first, err := Encode(sample("first", size))
		if err != nil {
			t.Fatal(err)
		}
		kept := bytes.Clone(first)
		got := new(row)
		if err := Decode(first, got); err != nil {
			t.Fatal(err)
		}
		second, err := Encode(sample("other", size))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, kept) {
			t.Fatalf("size %d: a later value was written over an earlier one", size)
		}
		copy(first, second)
		if want := sample("first", size); size > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("size %d: the decoded value changed with its bytes: %+v", size, got)
		}
	}
}

type unwilling struct{}

func (unwilling) MarshalBinary() ([]byte, error) { return nil, errors.New("no") }

func (unwilling) UnmarshalBinary([]byte) error { return nil }

func TestAFailureLeavesNothingBehind(t *testing.T) {
	for range 4 {
		if _, err := Encode([]any{"begun", unwilling{}}); err == nil {
			t.Fatal("what cannot be encoded was")
		}
		if err := Decode([]byte{0x81, 0xa4, 'N', 'a'}, new(row)); err == nil {
			t.Fatal("half a value was decoded")
		}
		if err := Decode(nil, new(row)); err == nil {
			t.Fatal("no bytes were decoded")
		}
		b, err := Encode(sample("x", 10))
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(append(b, 0xc0), new(row)); err == nil || !strings.Contains(err.Error(), "1 bytes follow") {
			t.Fatalf("bytes after the value: %v", err)
		}
		got := new(row)
		if err := Decode(b, got); err != nil || !reflect.DeepEqual(got, sample("x", 10)) {
			t.Fatalf("%+v %v", got, err)
		}
	}
}

func TestCodecsServeManyAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			for size := range 300 {
				b, err := Encode(sample(name, size+1))
				got := new(row)
				if err == nil {
					err = Decode(b, got)
				}
				if err != nil || !reflect.DeepEqual(got, sample(name, size+1)) {
					t.Errorf("%s, size %d: %+v %v", name, size, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkRoundTrip(b *testing.B) {
	v := sample("x", 100)
	b.ReportAllocs()
	for b.Loop() {
		data, err := Encode(v)
		if err != nil {
			b.Fatal(err)
		}
		if err := Decode(data, new(row)); err != nil {
			b.Fatal(err)
		}
	}
}
