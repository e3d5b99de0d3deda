//go:build linux

package forgetfs

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestOfAFileOnlyWholeSectorsSurviveBesideWhatWasSynced(t *testing.T) {
	old, fresh := bytes.Repeat([]byte{'o'}, 10*sector), bytes.Repeat([]byte{'n'}, 12*sector)
	seen := map[byte]int{}
	for seed := range uint64(200) {
		c := newContent()
		c.write(old, 0)
		c.sync()
		c.write(fresh, 0)
		c.lose(rand.New(rand.NewPCG(seed, 0)))
		if len(c.data) != len(old) && len(c.data) != len(fresh) {
			t.Fatalf("seed %d: %d bytes are left", seed, len(c.data))
		}
		for s := range len(c.data) / sector {
			got := c.data[s*sector : (s+1)*sector]
			if !bytes.Equal(got, bytes.Repeat(got[:1], sector)) {
				t.Fatalf("seed %d: sector %d is torn", seed, s)
			}
			if got[0] == 0 && s < 10 {
				t.Fatalf("seed %d: sector %d was synced, and is gone", seed, s)
			}
			seen[got[0]]++
		}
	}
	for _, b := range []byte{'o', 'n', 0} {
		if seen[b] == 0 {
			t.Errorf("no sector was %q in 200 losses", b)
		}
	}
}

// Whatever is written and cut off, a synced file is as it was read.
func TestASyncedFileIsWhatWasRead(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, want := newContent(), []byte(nil)
		for range 30 {
			switch at := r.IntN(3000); r.IntN(4) {
			case 0:
				c.truncate(at)
				want = append(want[:min(at, len(want)):min(at, len(want))], make([]byte, max(0, at-len(want)))...)
			case 1:
				c.sync()
			default:
				b := bytes.Repeat([]byte{byte(r.IntN(256))}, 1+r.IntN(2000))
				c.write(b, int64(at))
				want = append(want, make([]byte, max(0, at+len(b)-len(want)))...)
				copy(want[at:], b)
			}
			if !bytes.Equal(c.data, want) {
				t.Fatalf("seed %d: other bytes are read than were written", seed)
			}
		}
		c.sync()
		c.lose(r)
		if !bytes.Equal(c.data, want) {
			t.Fatalf("seed %d: a synced file was changed", seed)
		}
	}
}

func TestOfADirectoryTheFirstChangesSurvive(t *testing.T) {
	n := &node{}
	left := map[int]bool{}
	for seed := range uint64(100) {
		l := newListing()
		l.change(map[string]*node{"a": n})
		l.sync()
		l.change(map[string]*node{"b": n})
		l.change(map[string]*node{"a": nil, "c": n})
		l.lose(rand.New(rand.NewPCG(seed, 2)))
		got := slices.Sorted(maps.Keys(l.names))
		at := slices.IndexFunc([][]string{{"a"}, {"a", "b"}, {"b", "c"}}, func(want []string) bool { return slices.Equal(got, want) })
		if at < 0 {
			t.Fatalf("seed %d: the names are %q", seed, got)
		}
		left[at] = true
	}
	if len(left) != 3 {
		t.Errorf("not every prefix of the changes was seen to survive: %v", left)
	}
}
