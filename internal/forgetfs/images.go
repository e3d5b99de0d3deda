//go:build linux

package forgetfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is what the disk writes whole or not at all. Of pages written in part
// a log can tell nothing when its meta page may be one; no disk does that to 512
// bytes.
const sector = 512

// content is a file's: what is read, and what lasts.
type content struct {
	data, kept []byte
	// dirty are the numbers of sectors that may differ in the two.
	dirty map[int]bool
	// low is the least size that the file had since it was synced.
	low int
}

func newContent() *content { return &content{dirty: map[int]bool{}} }

func (c *content) touch(from, to int) {
	for s := from / sector; s*sector < to; s++ {
		c.dirty[s] = true
	}
}

func (c *content) read(into []byte, at int64) int {
	if at >= int64(len(c.data)) {
		return 0
	}
	return copy(into, c.data[at:])
}

func (c *content) write(b []byte, at int64) {
	if end := int(at) + len(b); end > len(c.data) {
		c.data = resized(c.data, end)
	}
	copy(c.data[at:], b)
	c.touch(int(at), int(at)+len(b))
}

func (c *content) truncate(size int) {
	if size < len(c.data) {
		c.touch(size, max(len(c.data), len(c.kept)))
	}
	c.data = resized(c.data, size)
	c.low = min(c.low, size)
}

func (c *content) sync() {
	c.kept = resized(c.kept, len(c.data))
	for s := range c.dirty {
		c.keep(s)
	}
	clear(c.dirty)
	c.low = len(c.data)
}

// keep copies a sector to what lasts, as far as both have it.
func (c *content) keep(s int) {
	if from := s * sector; from < len(c.kept) {
		into := c.kept[from:min(from+sector, len(c.kept))]
		clear(into)
		if from < len(c.data) {
			copy(into, c.data[from:])
		}
	}
}

// lose leaves what lasts, and of what was not synced what chance adds; nil adds
// nothing. Each file has its own odds, so that one may have lost all that was
// written before something of which another has lost nothing.
func (c *content) lose(r *rand.Rand) {
	if r != nil {
		odds := []float64{0, 0.2, 0.5, 0.9, 1}[r.IntN(5)]
		if odds > 0 {
			sizes := []int{len(c.kept), len(c.data), c.low}
			c.kept = resized(c.kept, sizes[r.IntN(len(sizes))])
		}
		for _, s := range slices.Sorted(maps.Keys(c.dirty)) {
			if r.Float64() < odds {
				c.keep(s)
			}
		}
	}
	c.data = slices.Clone(c.kept)
	clear(c.dirty)
	c.low = len(c.data)
}

// resized is b with another length; what comes new is zero.
func resized(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	old := len(b)
	b = slices.Grow(b, n-old)[:n]
	clear(b[old:])
	return b
}

// listing is a directory's: what is read, and what lasts.
type listing struct {
	names, kept map[string]*node
	// pending are the changes since it was synced, in their order. Each is of
	// names that change together: a nil is a name that goes.
	pending []map[string]*node
}

func newListing() *listing {
	return &listing{names: map[string]*node{}, kept: map[string]*node{}}
}

func (l *listing) change(c map[string]*node) {
	apply(l.names, c)
	l.pending = append(l.pending, c)
}

func (l *listing) sync() {
	l.kept, l.pending = maps.Clone(l.names), nil
}

// lose leaves what lasts, and the first few of the changes that were not synced;
// nil leaves none of them.
func (l *listing) lose(r *rand.Rand) {
	if r != nil && len(l.pending) > 0 {
		for _, c := range l.pending[:r.IntN(len(l.pending)+1)] {
			apply(l.kept, c)
		}
	}
	l.names, l.pending = maps.Clone(l.kept), nil
}

func apply(names, change map[string]*node) {
	for name, n := range change {
		if n == nil {
			delete(names, name)
		} else {
			names[name] = n
		}
	}
}
