package cell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"atoll/cell/state"
	"atoll/internal/wholefile"
)

// LogStore keeps Raft's log, its term and its vote. A write that returns nil is
// on the disk.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// openBolt is the log store that is used: raft-boltdb. Each of its writes is a
// bbolt transaction, which is synced twice (pages, then the meta page) before it
// returns, as long as nobody sets NoSync. Raft answers for an entry, to its
// leader or to the proposer, only after that, so an acked write survives a loss
// of power.
func openBolt(path string) (LogStore, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		// Made under another name, so that a file of that name is whole.
		if err := makeBolt(path); err != nil {
			return nil, err
		}
	}
	return raftboltdb.New(boltOptions(path))
}

func makeBolt(path string) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s, err := raftboltdb.New(boltOptions(fresh))
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	return wholefile.Rename(fresh, path)
}

func boltOptions(path string) raftboltdb.Options {
	return raftboltdb.Options{
		Path: path,
		// Another process on the same directory would hold the lock: say
		// so instead of waiting for ever.
		BoltOptions: &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed is a log entry as it is stored: with a CRC-32C of all its fields at the
// end of Extensions. There it costs a copy of a few bytes instead of one of the
// data, and Raft's own entries, which no command encodes, have it too. What
// stands before it in Extensions is the version of Atoll that wrote the entry.
func sealed(l *raft.Log) *raft.Log {
	s := *l
	s.Extensions = binary.BigEndian.AppendUint32(append(make([]byte, 0, len(l.Extensions)+4), l.Extensions...), logSum(l))
	return &s
}

// unseal takes the sum off an entry; it returns what is wrong with it, "" for
// nothing.
func unseal(l *raft.Log, index uint64) (why string) {
	at := len(l.Extensions) - 4
	if at < 0 {
		return "it has no checksum"
	}
	kept := binary.BigEndian.Uint32(l.Extensions[at:])
	if l.Extensions = l.Extensions[:at]; at == 0 {
		l.Extensions = nil
	}
	if l.Index != index {
		return fmt.Sprintf("it says that it is entry %d", l.Index)
	}
	if sum := logSum(l); sum != kept {
		return fmt.Sprintf("its checksum is %08x, and %08x was written with it", sum, kept)
	}
	return ""
}

func logSum(l *raft.Log) uint32 {
	head := make([]byte, 0, 8+8+8+1+4)
	head = binary.BigEndian.AppendUint64(head, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = binary.BigEndian.AppendUint64(head, uint64(l.AppendedAt.UnixNano()))
	head = append(head, byte(l.Type))
	head = binary.BigEndian.AppendUint32(head, uint32(len(l.Extensions)))
	sum := crc32.Update(0, castagnoli, head)
	sum = crc32.Update(sum, castagnoli, l.Extensions)
	return crc32.Update(sum, castagnoli, l.Data)
}

// sealedValue is a value of the stable store as it is stored: with a CRC-32C of
// key and value behind it.
func sealedValue(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, len(value)+4), value...), sum)
}

func unsealValue(key, kept []byte) (value []byte, why string) {
	at := len(kept) - 4
	if at < 0 {
		return nil, "it has no checksum"
	}
	if value = kept[:at:at]; !bytes.Equal(sealedValue(key, value), kept) {
		return nil, "its checksum is wrong"
	}
	return value, ""
}

// logDecoder reads entries as raft-boltdb writes them. A handle holds what it has
// learned of types, and is worth keeping.
type logDecoder struct{ d *codec.Decoder }

func newLogDecoder() logDecoder {
	return logDecoder{codec.NewDecoderBytes(nil, &codec.MsgpackHandle{})}
}

func (l logDecoder) decode(b []byte, into *raft.Log) error {
	l.d.ResetBytes(b)
	if err := l.d.Decode(into); err != nil {
		return err
	}
	if n := l.d.NumBytesRead(); n != len(b) {
		return fmt.Errorf("%d bytes follow it", len(b)-n)
	}
	return nil
}

// unknown returns the *state.Newer of an entry that this version cannot apply, or
// only in part, nil when it can. What this version wrote itself is not read for it.
func unknown(l *raft.Log, build string) error {
	if l.Type != raft.LogCommand {
		return nil
	}
	cmd, err := commandOf(l.Data)
	if err != nil {
		return fmt.Errorf("log entry %d cannot be read: %w", l.Index, err)
	}
	newer := &state.Newer{What: fmt.Sprintf("log entry %d, command %d", l.Index, cmd), Written: string(l.Extensions), Ours: build}
	do, known := table[cmd]
	switch {
	case !known:
		return newer
	case newer.Written == build:
		return nil
	}
	_, _, body, err := split(l.Data)
	if err == nil {
		_, err = do.read(body)
	}
	if err != nil {
		newer.What += fmt.Sprintf(" (%v)", err)
		return newer
	}
	return nil
}

// hangLimit is how long one write to the disk may take. A leader whose disk
// hangs goes on sending heartbeats, and so would stay the leader of a region that
// can write nothing (hashicorp/raft#503): it is to be gone within ten seconds. A
// healthy disk under six times its machine's load was seen to take four.
const hangLimit = 8 * time.Second

// checkedLog is a LogStore with sums, which says once when it is of no more use:
// when a write failed or hangs, or a record is damaged. From then on it writes
// nothing.
type checkedLog struct {
	inner LogStore
	path  string
	build string
	log   hclog.Logger
	hang  time.Duration
	// broken is the first failure; faults has it too, for the one who closes
	// the member.
	broken  atomic.Pointer[error]
	faults  chan error
	refused atomic.Uint64 // the last entry that was refused as newer
}

func newCheckedLog(inner LogStore, path, build string, log hclog.Logger) *checkedLog {
	return &checkedLog{inner: inner, path: path, build: build, log: log, hang: hangLimit, faults: make(chan error, 1)}
}

// fail notes a failure and returns the first.
func (c *checkedLog) fail(err error) error {
	if c.broken.CompareAndSwap(nil, &err) {
		c.faults <- err
	}
	return *c.broken.Load()
}

// end is for failures that Raft answers with a panic: of writing its term, and
// of reading an entry that is committed. Its goroutines are not ours to recover
// in, so the one that meets such a failure ends here. What it deferred still
// runs: callers are answered, and nothing is claimed that did not happen. The
// rest of the member is closed by whoever reads faults.
func (c *checkedLog) end() error {
	runtime.Goexit()
	return nil
}

// guarded runs f and makes an error of a panic of bbolt's, or of a fault in its
// map: a page went bad since it was walked.
func (c *checkedLog) guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &Damage{File: c.path, Offset: -1, What: "a page", Why: fmt.Sprint(p)}
		}
	}()
	return f()
}

func (c *checkedLog) write(what string, f func() error) error {
	if err := c.broken.Load(); err != nil {
		return *err
	}
	late := time.AfterFunc(c.hang, func() {
		_ = c.fail(fmt.Errorf("cannot write %s to %s: the disk did nothing for %s", what, c.path, c.hang))
	})
	defer late.Stop()
	err := c.guarded(f)
	var d *Damage
	if err != nil && !errors.As(err, &d) {
		err = fmt.Errorf("cannot write %s to %s: %w", what, c.path, err)
	}
	if err != nil {
		return c.fail(err)
	}
	return nil
}

func (c *checkedLog) FirstIndex() (i uint64, err error) {
	if err = c.guarded(func() error { i, err = c.inner.FirstIndex(); return err }); err != nil {
		err = c.fail(err)
	}
	return i, err
}

func (c *checkedLog) LastIndex() (i uint64, err error) {
	if err = c.guarded(func() error { i, err = c.inner.LastIndex(); return err }); err != nil {
		err = c.fail(err)
	}
	return i, err
}

func (c *checkedLog) GetLog(index uint64, l *raft.Log) error {
	err := c.guarded(func() error { return c.inner.GetLog(index, l) })
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err == nil {
		if why := unseal(l, index); why != "" {
			err = &Damage{File: c.path, Offset: -1, What: fmt.Sprintf("log entry %d", index), Why: why}
		}
	}
	if err != nil {
		_ = c.fail(err)
		return c.end()
	}
	return nil
}

func (c *checkedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

func (c *checkedLog) StoreLogs(logs []*raft.Log) error {
	out := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if err := unknown(l, c.build); err != nil {
			// The leader sends it again and again.
			if c.refused.Swap(l.Index) != l.Index {
				c.log.Error("an entry of the leader's is refused; this server stands still until it can be read", "error", err)
			}
			return err
		}
		out[i] = sealed(l)
	}
	return c.write("the log", func() error { return c.inner.StoreLogs(out) })
}

func (c *checkedLog) DeleteRange(min, max uint64) error {
	return c.write("the log", func() error { return c.inner.DeleteRange(min, max) })
}

func (c *checkedLog) Set(key, value []byte) error {
	return c.write(string(key), func() error { return c.inner.Set(key, sealedValue(key, value)) })
}

func (c *checkedLog) Get(key []byte) (value []byte, err error) {
	err = c.guarded(func() error { value, err = c.inner.Get(key); return err })
	if err != nil {
		return nil, err // "not found", most often, which Raft knows by its text
	}
	value, why := unsealValue(key, value)
	if why != "" {
		return nil, c.fail(&Damage{File: c.path, Offset: -1, What: string(key), Why: why})
	}
	return value, nil
}

func (c *checkedLog) SetUint64(key []byte, v uint64) error {
	err := c.Set(key, binary.BigEndian.AppendUint64(nil, v))
	if err != nil && string(key) == keyTerm {
		return c.end()
	}
	return err
}

func (c *checkedLog) GetUint64(key []byte) (uint64, error) {
	b, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, c.fail(&Damage{File: c.path, Offset: -1, What: string(key), Why: fmt.Sprintf("it has %d bytes", len(b))})
	}
	return binary.BigEndian.Uint64(b), nil
}

func (c *checkedLog) Close() error { return c.inner.Close() }

// The keys of Raft's stable store.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"
)

// beginAnew undoes what is left of a bootstrap that the loss of power interrupted:
// Raft writes the term 1 and then the first entry, and takes the term alone for a
// cell that has begun. Nobody votes or leads in term 1, so that nothing was promised.
func beginAnew(s LogStore, dir string) error {
	last, err := s.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	if snapshot, err := newestSnapshot(dir); err != nil || snapshot != "" {
		return err
	}
	if _, err := s.Get([]byte(keyVoteTerm)); err == nil {
		return nil
	}
	if term, err := s.GetUint64([]byte(keyTerm)); err != nil || term != 1 {
		return nil // there is none, most often
	}
	return s.SetUint64([]byte(keyTerm), 0)
}
