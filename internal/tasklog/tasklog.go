// Package tasklog writes a task's output as rotated files and reads it back.
//
// A stream's files are "<task>.<stdout|stderr>.<n>", n counting up; the highest
// n is written to, and those too many behind it are removed. Offsets count from
// the start of the oldest file that is left.
package tasklog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Streams of a task.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Base is what the names of a stream's files begin with.
func Base(task, stream string) string { return task + "." + stream }

// Limits bound a stream: MaxFiles files of MaxBytes each.
type Limits struct {
	MaxFiles int
	MaxBytes int64
}

// Writer appends to a stream and rotates its files. Write never fails: a task
// must not die of a full disk, so what cannot be written is dropped, and Err
// tells why.
type Writer struct {
	dir    string
	base   string
	limits Limits

	mu   sync.Mutex // guards what follows
	root *os.Root
	file *os.File
	n    int
	size int64
	err  error
}

// NewWriter continues the stream's newest file in dir, or starts the first.
func NewWriter(dir, base string, limits Limits) *Writer {
	w := &Writer{dir: dir, base: base, limits: Limits{max(limits.MaxFiles, 1), max(limits.MaxBytes, 1)}}
	if root, err := os.OpenRoot(dir); err == nil {
		if files, err := List(root, base); err == nil && len(files) > 0 {
			w.n = files[len(files)-1].N
		}
		_ = root.Close()
	}
	return w
}

// Write appends p, rotating between lines where it can.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		if w.file == nil {
			if w.err = w.open(); w.err != nil {
				break
			}
		}
		room := w.limits.MaxBytes - w.size
		piece := rest
		if int64(len(rest)) > room {
			piece = rest[:max(room, 0)]
			// A line that fits whole into the next file goes there.
			if cut := strings.LastIndexByte(string(piece), '\n') + 1; cut > 0 || w.size > 0 && int64(len(rest)) <= w.limits.MaxBytes {
				piece = piece[:cut]
			}
		}
		n, err := w.file.Write(piece)
		w.size += int64(n)
		if w.err = err; err != nil {
			break
		}
		if rest = rest[len(piece):]; len(rest) > 0 {
			w.rotate()
		}
	}
	return len(p), nil
}

// open opens the current file. A task may be able to write to the directory:
// links out of it are not followed, and a pipe is not waited for.
func (w *Writer) open() error {
	if w.root == nil {
		root, err := os.OpenRoot(w.dir)
		if err != nil {
			return err
		}
		w.root = root
	}
	name := fileName(w.base, w.n)
	f, err := w.root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.file, w.size = f, info.Size()
	return nil
}

func (w *Writer) rotate() {
	_ = w.file.Close()
	w.file, w.size = nil, 0
	w.n++
	_ = w.root.Remove(fileName(w.base, w.n-w.limits.MaxFiles))
}

// Err is why the last write was dropped, nil when it was not.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close closes the current file; a later Write opens it again.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.file != nil {
		errs = append(errs, w.file.Close())
	}
	if w.root != nil {
		errs = append(errs, w.root.Close())
	}
	w.file, w.root = nil, nil
	return errors.Join(errs...)
}

func fileName(base string, n int) string { return base + "." + strconv.Itoa(n) }

// File is one file of a stream.
type File struct {
	Name string
	N    int
	Size int64
}

// List returns a stream's files, oldest first. The directory is the task's to
// write, so it is read through root.
func List(root *os.Root, base string) ([]File, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("cannot list logs: %w", err)
	}
	var out []File
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), base+".")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // rotated away meanwhile
		}
		out = append(out, File{Name: e.Name(), N: n, Size: info.Size()})
	}
	slices.SortFunc(out, func(a, b File) int { return a.N - b.N })
	return out, nil
}

// Reader reads a stream across its files, following rotation.
type Reader struct {
	root *os.Root
	base string
	file *os.File
	n    int
	// offset is within the file.
	offset int64
	opened bool
}

// NewReader begins offset bytes after the stream's start or, when fromEnd is
// set, before its end. It owns neither root nor the files.
func NewReader(root *os.Root, base string, offset int64, fromEnd bool) (*Reader, error) {
	files, err := List(root, base)
	if err != nil {
		return nil, err
	}
	r := &Reader{root: root, base: base}
	if len(files) == 0 {
		return r, nil
	}
	total := int64(0)
	for _, f := range files {
		total += f.Size
	}
	at := min(offset, total)
	if fromEnd {
		at = max(total-offset, 0)
	}
	for i, f := range files {
		if at <= f.Size && (at < f.Size || i == len(files)-1) {
			r.n, r.offset, r.opened = f.N, at, true
			return r, nil
		}
		at -= f.Size
	}
	last := files[len(files)-1]
	r.n, r.offset, r.opened = last.N, last.Size, true
	return r, nil
}

// Piece is what one Next read.
type Piece struct {
	File string
	// Offset is the piece's end within the file.
	Offset int64
	Data   []byte
	// Truncated says that the file became shorter than what was read of it,
	// Deleted that it went before it was read to its end.
	Truncated, Deleted bool
}

// Next reads up to len(buf) bytes; io.EOF means that there is no more now.
func (r *Reader) Next(buf []byte) (Piece, error) {
	for {
		if r.file == nil {
			if err := r.open(); err != nil {
				return Piece{}, err
			}
		}
		name := fileName(r.base, r.n)
		n, err := r.file.ReadAt(buf, r.offset)
		if n > 0 {
			r.offset += int64(n)
			return Piece{File: name, Offset: r.offset, Data: buf[:n]}, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return Piece{}, fmt.Errorf("cannot read log %s: %w", name, err)
		}
		if info, err := r.file.Stat(); err == nil && info.Size() < r.offset {
			r.offset = 0
			return Piece{File: name, Truncated: true}, nil
		}
		next, ok, err := r.after(r.n)
		if err != nil {
			return Piece{}, err
		}
		if !ok {
			return Piece{}, io.EOF
		}
		// Written after our read and before the rotation?
		if n, _ := r.file.ReadAt(buf, r.offset); n > 0 {
			r.offset += int64(n)
			return Piece{File: name, Offset: r.offset, Data: buf[:n]}, nil
		}
		r.Close()
		skipped := next > r.n+1
		r.n, r.offset = next, 0
		if skipped {
			return Piece{File: fileName(r.base, next-1), Deleted: true}, nil
		}
	}
}

// open opens the file to read, or the oldest left when that is gone.
func (r *Reader) open() error {
	if !r.opened {
		n, ok, err := r.after(-1)
		if err != nil {
			return err
		}
		if !ok {
			return io.EOF
		}
		r.n, r.offset, r.opened = n, 0, true
	}
	f, err := r.root.OpenFile(fileName(r.base, r.n), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		n, ok, listErr := r.after(r.n)
		if listErr != nil {
			return listErr
		}
		if !ok {
			return io.EOF
		}
		r.n, r.offset = n, 0
		f, err = r.root.OpenFile(fileName(r.base, n), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot read log: %w", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("cannot read log %s: it is no regular file", fileName(r.base, r.n)), err, f.Close())
	}
	r.file = f
	return nil
}

// after returns the number of the file that follows n.
func (r *Reader) after(n int) (int, bool, error) {
	files, err := List(r.root, r.base)
	if err != nil {
		return 0, false, err
	}
	for _, f := range files {
		if f.N > n {
			return f.N, true, nil
		}
	}
	return 0, false, nil
}

// Close closes the file being read; Next opens it again.
func (r *Reader) Close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
