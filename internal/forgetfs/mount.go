//go:build linux

package forgetfs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount mounts the disk on a directory. unmount fails while a process has
// something of it open.
func (d *Disk) Mount(dir string) (unmount func() error, err error) {
	server, err := fs.Mount(dir, &inode{d: d, n: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{
			FsName: "forgetfs", Name: "forgetfs", DirectMountStrict: true, DisableXAttrs: true, AllowOther: true,
			// All that changes goes through the kernel, which need not look
			// again. Its write-back cache is off unless asked for.
			ExplicitDataCacheControl: true,
		},
		RootStableAttr: &fs.StableAttr{Ino: d.root.ino},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot mount a disk on %s: %w", dir, err)
	}
	return func() error {
		if err := server.Unmount(); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", dir, err)
		}
		server.Wait()
		return nil
	}, nil
}

// inode shows a node to the kernel.
type inode struct {
	fs.Inode
	d *Disk
	n *node
}

var _ interface {
	fs.NodeLookuper
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeReaddirer
	fs.NodeCreater
	fs.NodeMkdirer
	fs.NodeMknoder
	fs.NodeRenamer
	fs.NodeUnlinker
	fs.NodeRmdirer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFlusher
	fs.NodeFsyncer
	fs.NodeStatfser
} = (*inode)(nil)

func (i *inode) attr(n *node, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Blksize = n.ino, n.mode, 1, 4096
	if n.file != nil {
		out.Size = uint64(len(n.file.data))
		out.Blocks = (out.Size + sector - 1) / sector
	}
	out.SetTimes(nil, &n.mtime, &n.mtime)
}

func (i *inode) shown(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	i.attr(n, &out.Attr)
	return i.NewInode(ctx, &inode{d: i.d, n: n}, fs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.ino})
}

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (found *fs.Inode, errno syscall.Errno) {
	errno = i.d.look(func() syscall.Errno {
		n := i.n.dir.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		found = i.shown(ctx, n, out)
		return 0
	})
	return found, errno
}

func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return i.d.look(func() syscall.Errno {
		i.attr(i.n, &out.Attr)
		return 0
	})
}

func (i *inode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	op := "chmod"
	size, sized := in.GetSize()
	if sized {
		op = "truncate"
	}
	return i.d.change(op, i.n, "", func() syscall.Errno {
		if sized && i.n.file != nil {
			i.n.file.truncate(int(size))
		}
		if mode, ok := in.GetMode(); ok {
			i.n.mode = i.n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		i.attr(i.n, &out.Attr)
		return 0
	})
}

func (i *inode) Readdir(context.Context) (stream fs.DirStream, errno syscall.Errno) {
	errno = i.d.look(func() syscall.Errno {
		var list []fuse.DirEntry
		for _, name := range slices.Sorted(maps.Keys(i.n.dir.names)) {
			n := i.n.dir.names[name]
			list = append(list, fuse.DirEntry{Name: name, Ino: n.ino, Mode: n.mode})
		}
		stream = fs.NewListDirStream(list)
		return 0
	})
	return stream, errno
}

func (i *inode) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, errno := i.made(ctx, "create", name, syscall.S_IFREG|mode&0o7777, out)
	return made, nil, 0, errno
}

func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.made(ctx, "mkdir", name, syscall.S_IFDIR|mode&0o7777, out)
}

// Mknod makes the name of a socket.
func (i *inode) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.made(ctx, "create", name, mode, out)
}

func (i *inode) made(ctx context.Context, op, name string, mode uint32, out *fuse.EntryOut) (shown *fs.Inode, errno syscall.Errno) {
	n, errno := i.d.add(op, i.n, name, mode)
	if errno != 0 {
		return nil, errno
	}
	errno = i.d.look(func() syscall.Errno {
		shown = i.shown(ctx, n, out)
		return 0
	})
	return shown, errno
}

func (i *inode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.EINVAL
	}
	return i.d.rename(i.n, name, to.(*inode).n, newName)
}

func (i *inode) Unlink(_ context.Context, name string) syscall.Errno { return i.d.remove(i.n, name) }
func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno  { return i.d.remove(i.n, name) }

func (i *inode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC == 0 {
		return nil, 0, i.d.look(func() syscall.Errno { return 0 })
	}
	return nil, 0, i.d.change("truncate", i.n, "", func() syscall.Errno {
		i.n.file.truncate(0)
		return 0
	})
}

func (i *inode) Read(_ context.Context, _ fs.FileHandle, into []byte, at int64) (r fuse.ReadResult, errno syscall.Errno) {
	errno = i.d.look(func() syscall.Errno {
		r = fuse.ReadResultData(into[:i.n.file.read(into, at)])
		return 0
	})
	return r, errno
}

func (i *inode) Write(_ context.Context, _ fs.FileHandle, b []byte, at int64) (uint32, syscall.Errno) {
	errno := i.d.change("write", i.n, "", func() syscall.Errno {
		i.n.file.write(b, at)
		return 0
	})
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(b)), 0
}

// Flush is called at each close; that syncs nothing.
func (i *inode) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

func (i *inode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return i.d.sync(i.n) }

// Statfs shows a disk with room.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 1 << 20
	out.Bsize, out.Blocks, out.Bfree, out.Bavail, out.NameLen = 4096, blocks, blocks, blocks, 255
	return 0
}
