package cell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// boltFile reads a bbolt file as it lies on the disk, and believes nothing of
// it. bbolt itself has a sum on its two meta pages only; of everything else it
// believes each byte, and a wrong one makes it panic, read past its map, or lose
// a page of keys without a word. So a file is walked by this before bbolt is
// given it.
//
// What has no sum is held to how bbolt lays pages out: elements one after
// another and their data behind them without a gap, in as many pages as that
// takes, keys in order, each page naming itself. That leaves no byte of a live
// page, but for keys and values, that can change unnoticed; those are the
// visitor's, who knows their sums.
//
// The format is bbolt's version 2 (internal/common in go.etcd.io/bbolt v1.5.0),
// in the byte order of the machine.
type boltFile struct {
	f    *os.File
	path string
	size int64
	page int64 // bytes in a page
	high uint64
	// depth is of branch pages now being visited: a page that led to itself
	// would never end.
	depth int
}

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	boltPageHead = 16
	boltElement  = 16
	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltMeta     = 0x04

	boltBucketFlag = 0x01
	boltBucketHead = 16

	// boltDepth is more than a file of any size has: a branch has 100 children
	// and more.
	boltDepth = 16
)

var native = binary.NativeEndian

// visitor is given each key of a bucket in order, its value, and where in the
// file that begins. It returns what is wrong with it, "" for nothing.
type visitor func(key, value []byte, offset int64) (what, why string)

// walkBolt visits the live keys of a bbolt file, by bucket. A bucket that is not
// named is damage, and so is one that is missing. Errors are *Damage, and those
// of opening the file.
func walkBolt(path string, buckets map[string]visitor) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := &boltFile{f: f, path: path, size: st.Size()}
	root, err := b.meta()
	if err != nil {
		return err
	}
	found := 0
	var last []byte
	err = b.visit(root, 0, nil, &last, func(key, value []byte, flags uint32, offset int64) error {
		visit := buckets[string(key)]
		if visit == nil || flags != boltBucketFlag || len(value) < boltBucketHead {
			return b.damage(offset, "the root bucket", fmt.Sprintf("%q is no bucket of this log", key))
		}
		found++
		return b.bucket(bytes.Clone(value), offset, visit)
	})
	if err == nil && found != len(buckets) {
		err = b.damage(int64(root)*b.page, "the root bucket", "a bucket is missing")
	}
	return err
}

func (b *boltFile) damage(offset int64, what, why string) error {
	return &Damage{File: b.path, Offset: offset, What: what, Why: why}
}

// meta checks both meta pages and returns the newer one's root bucket. bbolt
// would go back to the older when the newer is damaged, and with it one
// transaction, of which the cell was told that it is on the disk.
func (b *boltFile) meta() (root uint64, err error) {
	const size = boltPageHead + 64
	var tx [2]uint64
	var roots, highs [2]uint64
	for i := range tx {
		head := make([]byte, size)
		at := int64(i) * b.page
		if _, err := b.f.ReadAt(head, at); err != nil {
			return 0, b.damage(at, fmt.Sprintf("meta page %d", i), readWhy(err))
		}
		m := head[boltPageHead:]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:56])
		switch {
		case native.Uint64(head) != uint64(i) || native.Uint16(head[8:]) != boltMeta:
			return 0, b.damage(at, fmt.Sprintf("meta page %d", i), "its head is not that of a meta page")
		case native.Uint64(m[56:]) != sum.Sum64():
			return 0, b.damage(at, fmt.Sprintf("meta page %d", i), "its checksum is wrong")
		case native.Uint32(m) != boltMagic || native.Uint32(m[4:]) != boltVersion:
			return 0, b.damage(at, fmt.Sprintf("meta page %d", i), "it is not bbolt's, or of another version")
		}
		b.page = int64(native.Uint32(m[8:]))
		roots[i], highs[i], tx[i] = native.Uint64(m[16:]), native.Uint64(m[40:]), native.Uint64(m[48:])
		if b.page < 1024 || b.page > 1<<24 {
			return 0, b.damage(at, fmt.Sprintf("meta page %d", i), fmt.Sprintf("pages of %d bytes", b.page))
		}
	}
	newer := 0
	switch {
	case tx[1] == tx[0]+1:
		newer = 1
	case tx[0] != tx[1]+1:
		return 0, b.damage(0, "the meta pages", fmt.Sprintf("transactions %d and %d do not follow each other", tx[0], tx[1]))
	}
	b.high = highs[newer]
	return roots[newer], nil
}

// bucket visits a bucket's keys, given the value under which it stands.
func (b *boltFile) bucket(value []byte, offset int64, visit visitor) error {
	f := func(key, value []byte, flags uint32, offset int64) error {
		if flags != 0 {
			return b.damage(offset, "a bucket", "a bucket within it")
		}
		if what, why := visit(key, value, offset); what != "" {
			return b.damage(offset, what, why)
		}
		return nil
	}
	var last []byte
	if root := native.Uint64(value); root != 0 {
		return b.visit(root, offset, nil, &last, f)
	}
	// A small bucket's page stands in the value itself.
	page := value[boltBucketHead:]
	offset += boltBucketHead
	if len(page) < boltPageHead || native.Uint64(page) != 0 || native.Uint16(page[8:]) != boltLeaf || native.Uint32(page[12:]) != 0 {
		return b.damage(offset, "a small bucket", "its head is not that of a page")
	}
	used, err := b.elements(page, offset, "a small bucket", &last, f)
	if err == nil && used != len(page) {
		err = b.damage(offset, "a small bucket", fmt.Sprintf("%d bytes of %d are used", used, len(page)))
	}
	return err
}

type elementFunc func(key, value []byte, flags uint32, offset int64) error

// visit visits the keys under a page. from is where in the file its number
// stands, min the key under which its parent has it, last the greatest key that
// was met. A page that is not what led to it should find may be right, and the
// number wrong: both places are named.
func (b *boltFile) visit(id uint64, from int64, min []byte, last *[]byte, f elementFunc) error {
	at := int64(id) * b.page
	what := fmt.Sprintf("page %d", id)
	if id < 2 || id >= b.high || at+b.page > b.size {
		return b.damage(from, "a page's number", fmt.Sprintf("there is no page %d in the file", id))
	}
	what += fmt.Sprintf(" (to which byte %d leads)", from)
	page := make([]byte, b.page)
	if _, err := b.f.ReadAt(page, at); err != nil {
		return b.damage(at, what, readWhy(err))
	}
	kind, more := native.Uint16(page[8:]), int64(native.Uint32(page[12:]))
	if native.Uint64(page) != id || kind != boltLeaf && kind != boltBranch || id+uint64(more) >= b.high || at+(more+1)*b.page > b.size {
		return b.damage(at, what, "its head is wrong")
	}
	if more > 0 {
		page = append(page, make([]byte, more*b.page)...)
		if _, err := b.f.ReadAt(page[b.page:], at+b.page); err != nil {
			return b.damage(at, what, readWhy(err))
		}
	}
	if kind == boltLeaf {
		first := true
		used, err := b.elements(page, at, what, last, func(key, value []byte, flags uint32, offset int64) error {
			if first && bytes.Compare(key, min) < 0 {
				return b.damage(offset, what, "its keys are not those that lead to it")
			}
			first = false
			return f(key, value, flags, offset)
		})
		return b.fits(err, used, more, at, what)
	}
	used, err := b.branch(page, at, what, last, f)
	return b.fits(err, used, more, at, what)
}

// fits checks that a page has as many pages more as its elements take.
func (b *boltFile) fits(err error, used int, more, at int64, what string) error {
	if err == nil && (int64(used)+b.page-1)/b.page != more+1 {
		err = b.damage(at, what, fmt.Sprintf("it takes %d pages for %d bytes", more+1, used))
	}
	return err
}

// elements visits the elements of a leaf page and returns how many bytes it
// uses.
func (b *boltFile) elements(page []byte, at int64, what string, last *[]byte, f elementFunc) (int, error) {
	n := int(native.Uint16(page[10:]))
	data := boltPageHead + n*boltElement
	for i := range n {
		e := boltPageHead + i*boltElement
		if e+boltElement > len(page) {
			return 0, b.damage(at, what, fmt.Sprintf("%d elements do not fit it", n))
		}
		flags, pos := native.Uint32(page[e:]), int(native.Uint32(page[e+4:]))
		k, v := int(native.Uint32(page[e+8:])), int(native.Uint32(page[e+12:]))
		if e+pos != data || k == 0 || k > len(page) || v > len(page) || data+k+v > len(page) {
			return 0, b.damage(at+int64(e), what, fmt.Sprintf("element %d of %d is not where it should be", i, n))
		}
		key, value := page[data:data+k], page[data+k:data+k+v]
		if *last != nil && bytes.Compare(key, *last) <= 0 {
			return 0, b.damage(at+int64(data), what, fmt.Sprintf("key %x comes after %x", key, *last))
		}
		*last = append((*last)[:0], key...)
		if err := f(key, value, flags, at+int64(data+k)); err != nil {
			return 0, err
		}
		data += k + v
	}
	return data, nil
}

// branch visits the pages below a branch page and returns how many bytes it
// uses.
func (b *boltFile) branch(page []byte, at int64, what string, last *[]byte, f elementFunc) (int, error) {
	n := int(native.Uint16(page[10:]))
	if b.depth++; n == 0 || b.depth > boltDepth {
		return 0, b.damage(at, what, "a branch without leaves")
	}
	defer func() { b.depth-- }()
	data := boltPageHead + n*boltElement
	for i := range n {
		e := boltPageHead + i*boltElement
		if e+boltElement > len(page) {
			return 0, b.damage(at, what, fmt.Sprintf("%d elements do not fit it", n))
		}
		pos, k, child := int(native.Uint32(page[e:])), int(native.Uint32(page[e+4:])), native.Uint64(page[e+8:])
		if e+pos != data || k == 0 || k > len(page) || data+k > len(page) {
			return 0, b.damage(at+int64(e), what, fmt.Sprintf("element %d of %d is not where it should be", i, n))
		}
		key := page[data : data+k]
		if *last != nil && bytes.Compare(key, *last) <= 0 {
			return 0, b.damage(at+int64(data), what, fmt.Sprintf("key %x comes after %x", key, *last))
		}
		before := bytes.Clone(*last)
		if err := b.visit(child, at+int64(e)+8, key, last, f); err != nil {
			return 0, err
		}
		if bytes.Equal(before, *last) {
			return 0, b.damage(at+int64(e)+8, what, fmt.Sprintf("page %d under it is empty", child))
		}
		data += k
	}
	return data, nil
}

func readWhy(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the file ends before it"
	}
	return err.Error()
}
