//go:build linux

package forgetfs

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Disk is a disk with a tree of files. It is on at first, and empty.
type Disk struct {
	mu   sync.Mutex // guards all that follows, and the tree
	root *node
	inos uint64
	off  chan struct{}
	cut  func(op, path string) bool
	lies func(path string) bool
}

// node is a file or a directory.
type node struct {
	ino    uint64
	mode   uint32 // type and permissions, which last at once
	parent *node
	name   string
	mtime  time.Time
	file   *content
	dir    *listing
}

// New returns a disk. Of the files and directories for which lies returns true,
// by their paths from the root, it says that they are synced and does nothing: as
// if the one who writes them did not sync. Nil tells no lies.
func New(lies func(path string) bool) *Disk {
	d := &Disk{off: make(chan struct{}), lies: lies}
	d.root = d.node(nil, "", syscall.S_IFDIR|0o755)
	return d
}

func (d *Disk) node(parent *node, name string, mode uint32) *node {
	d.inos++
	n := &node{ino: d.inos, mode: mode, parent: parent, name: name, mtime: time.Now()}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.dir = newListing()
	} else {
		n.file = newContent()
	}
	return n
}

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

// Off is closed when the power is off.
func (d *Disk) Off() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// PowerOff takes the power away: from now on everything is answered with EIO,
// and nothing lasts that does not yet.
func (d *Disk) PowerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.powerOff()
}

func (d *Disk) powerOff() {
	if !d.isOff() {
		close(d.off)
	}
}

func (d *Disk) isOff() bool {
	select {
	case <-d.off:
		return true
	default:
		return false
	}
}

// CutWhen takes the power away just before the change for which f returns true.
// It is asked at each: create, mkdir, rename (with the new name), remove, write,
// truncate and sync, with a path from the root of the disk. It must not call the
// disk. Nil asks nobody any more.
func (d *Disk) CutWhen(f func(op, path string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = f
}

// PowerOn brings a disk without power back, unmounted and with its processes
// gone: with what lasts, and what chance adds to that. With nil, chance adds
// nothing.
func (d *Disk) PowerOn(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lose(d.root, r)
	d.off, d.cut = make(chan struct{}), nil
}

func (d *Disk) lose(n *node, r *rand.Rand) {
	if n.file != nil {
		n.file.lose(r)
		return
	}
	n.dir.lose(r)
	for _, name := range slices.Sorted(maps.Keys(n.dir.names)) {
		child := n.dir.names[name]
		child.name = name // a rename may be undone
		d.lose(child, r)
	}
}

// change makes a change of a node, or of a name in it, unless the power is off.
func (d *Disk) change(op string, n *node, name string, f func() syscall.Errno) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isOff() && d.cut != nil && d.cut(op, path.Join(n.path(), name)) {
		d.powerOff()
	}
	if d.isOff() {
		return syscall.EIO
	}
	n.mtime = time.Now()
	return f()
}

// look reads, unless the power is off.
func (d *Disk) look(f func() syscall.Errno) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOff() {
		return syscall.EIO
	}
	return f()
}

// add makes a file or a directory.
func (d *Disk) add(op string, in *node, name string, mode uint32) (n *node, errno syscall.Errno) {
	errno = d.change(op, in, name, func() syscall.Errno {
		if in.dir.names[name] != nil {
			return syscall.EEXIST
		}
		n = d.node(in, name, mode)
		in.dir.change(map[string]*node{name: n})
		return 0
	})
	return n, errno
}

func (d *Disk) remove(in *node, name string) syscall.Errno {
	return d.change("remove", in, name, func() syscall.Errno {
		n := in.dir.names[name]
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.dir != nil && len(n.dir.names) > 0:
			return syscall.ENOTEMPTY
		}
		in.dir.change(map[string]*node{name: nil})
		return 0
	})
}

// rename changes both names at once. Between directories it refuses: which of
// the two changes lasts first would have to be modelled, and nothing needs it.
func (d *Disk) rename(in *node, from string, to *node, name string) syscall.Errno {
	return d.change("rename", to, name, func() syscall.Errno {
		n, over := in.dir.names[from], to.dir.names[name]
		switch {
		case n == nil:
			return syscall.ENOENT
		case in != to:
			return syscall.EXDEV
		case n == over:
			return 0
		case over != nil && over.dir != nil && len(over.dir.names) > 0:
			return syscall.ENOTEMPTY
		}
		in.dir.change(map[string]*node{from: nil, name: n})
		n.name = name
		return 0
	})
}

func (d *Disk) sync(n *node) syscall.Errno {
	return d.change("sync", n, "", func() syscall.Errno {
		switch {
		case d.lies != nil && d.lies(n.path()):
		case n.file != nil:
			n.file.sync()
		default:
			n.dir.sync()
		}
		return 0
	})
}
