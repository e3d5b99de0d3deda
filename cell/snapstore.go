package cell

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/internal/wholefile"
)

// snapStore is Raft's store of snapshots in files, with three habits mended. It
// passes over a snapshot whose description it cannot read, and goes back to an
// older one that the log may not reach: here there is only the newest. It finds
// damage by one sum over the whole, after a snapshot is in its place and the
// older are gone: here what is written is read along, record by record, and is
// given no place before it was whole and of a version that is known. And it
// leaves the pieces of failed ones, which on a full disk keep it full.
type snapStore struct {
	*raft.FileSnapshotStore
	dir   string
	build string
	log   hclog.Logger
	fail  func(error) error
}

const (
	snapState = "state.bin"
	snapMeta  = "meta.json"
	// snapMetaSum is ours: the CRC-32C of meta.json, in hex.
	snapMetaSum = "meta.crc32c"
	snapTemp    = ".tmp"
	// snapKept is 2 so that a reader of the older one is not left without.
	snapKept = 2
)

// openSnapshots opens the snapshots of a raft directory and removes what failed
// ones left.
func openSnapshots(raftDir, build string, log hclog.Logger, fail func(error) error) (*snapStore, error) {
	inner, err := raft.NewFileSnapshotStoreWithLogger(raftDir, snapKept, log)
	if err != nil {
		return nil, fmt.Errorf("cannot open snapshots in %s: %w", raftDir, err)
	}
	// The log is cut short as soon as a snapshot is in its place, so that its
	// place must last.
	if err := wholefile.SyncDir(raftDir); err != nil {
		return nil, fmt.Errorf("cannot open snapshots in %s: %w", raftDir, err)
	}
	s := &snapStore{FileSnapshotStore: inner, dir: snapshotDir(raftDir), build: build, log: log, fail: fail}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open snapshots in %s: %w", raftDir, err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), snapTemp) {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("cannot remove what a failed snapshot left: %w", err)
			}
		}
	}
	return s, nil
}

func snapshotDir(raftDir string) string { return filepath.Join(raftDir, "snapshots") }

// List returns the newest snapshot.
func (s *snapStore) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.FileSnapshotStore.List()
	return all[:min(1, len(all))], err
}

// Open opens a snapshot whose every byte was checked. One that is damaged ends
// the member: it is the only one that this server has.
func (s *snapStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err == nil {
		return meta, r, nil
	}
	if d := checkSnapshot(filepath.Join(s.dir, id), s.build); d != nil {
		err = d
	}
	var damage *Damage
	if errors.As(err, &damage) {
		err = s.fail(err)
	}
	return nil, nil, fmt.Errorf("cannot open snapshot %s: %w", id, err)
}

// Create begins a snapshot.
func (s *snapStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	inner, err := s.FileSnapshotStore.Create(v, index, term, c, cIndex, t)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	sink := &snapSink{SnapshotSink: inner, store: s, pipe: pw, checked: make(chan error, 1)}
	go func() { // ended by Close or Cancel, of which Raft calls one
		_, err := state.Inspect(pr, s.build)
		_ = pr.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
		sink.checked <- err
	}()
	return sink, nil
}

// snapSink is a snapshot being written.
type snapSink struct {
	raft.SnapshotSink
	store   *snapStore
	pipe    *io.PipeWriter
	checked chan error
	ended   bool
}

func (s *snapSink) Write(b []byte) (int, error) {
	if _, err := s.pipe.Write(b); err != nil {
		return 0, err
	}
	return s.SnapshotSink.Write(b)
}

// Close puts the snapshot into its place if it is whole.
func (s *snapSink) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	if err := s.verdict(nil); err != nil {
		return errors.Join(fmt.Errorf("cannot take the snapshot: %w", err), s.remove())
	}
	// Raft syncs the files before it gives the snapshot its place, and not that
	// they are in it: after a loss of power it could be there without them.
	if err := wholefile.SyncDir(filepath.Join(s.store.dir, s.ID()+snapTemp)); err != nil {
		return errors.Join(err, s.remove())
	}
	if err := s.SnapshotSink.Close(); err != nil {
		return errors.Join(err, s.remove())
	}
	return sealMeta(filepath.Join(s.store.dir, s.ID()))
}

// Cancel drops what was written.
func (s *snapSink) Cancel() error {
	if s.ended {
		return nil
	}
	s.ended = true
	_ = s.verdict(io.ErrUnexpectedEOF)
	return s.remove()
}

// verdict ends the check of what was written, and tells of a newer version's.
func (s *snapSink) verdict(end error) error {
	_ = s.pipe.CloseWithError(end)
	err := <-s.checked
	var newer *state.Newer
	if errors.As(err, &newer) {
		s.store.log.Error("a snapshot of the leader's is refused; this server stands still until it can be read", "error", err)
	}
	return err
}

// remove drops the pieces, which Raft's own Cancel leaves when the disk is full.
func (s *snapSink) remove() error {
	err := s.SnapshotSink.Cancel()
	return errors.Join(err, os.RemoveAll(filepath.Join(s.store.dir, s.ID()+snapTemp)))
}

// sealMeta writes the sum of a snapshot's description, which is the place of the
// state in the log.
func sealMeta(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, snapMeta))
	if err != nil {
		return err
	}
	return wholefile.Write(filepath.Join(dir, snapMetaSum), fmt.Appendf(nil, "%08x\n", crc32.Checksum(b, castagnoli)))
}

// newestSnapshot is the name of the newest snapshot's directory, "" when there
// is none: names are term-index-time.
func newestSnapshot(raftDir string) (string, error) {
	entries, err := os.ReadDir(snapshotDir(raftDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), snapTemp) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	return slices.MaxFunc(names, func(a, b string) int {
		at, ai, _ := placeOf(a)
		bt, bi, _ := placeOf(b)
		return cmp.Or(cmp.Compare(at, bt), cmp.Compare(ai, bi), cmp.Compare(a, b))
	}), nil
}

func placeOf(name string) (term, index uint64, err error) {
	_, err = fmt.Sscanf(name, "%d-%d-", &term, &index)
	return term, index, err
}

// checkSnapshot reads a snapshot whole. Errors are *Damage and *state.Newer.
func checkSnapshot(dir, build string) error {
	metaFile, stateFile := filepath.Join(dir, snapMeta), filepath.Join(dir, snapState)
	damaged := func(file string, offset int64, why string) error {
		return &Damage{File: file, Offset: offset, What: "the snapshot", Why: why}
	}
	b, err := os.ReadFile(metaFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return damaged(metaFile, 0, "it is missing")
	case err != nil:
		return fmt.Errorf("cannot read the snapshot: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(dir, snapMetaSum))
	unsealed := errors.Is(err, fs.ErrNotExist) // of an earlier version, or cut short
	if !unsealed && string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(b, castagnoli)) {
		return damaged(metaFile, 0, "its checksum is not that in "+snapMetaSum)
	}
	var meta struct {
		raft.SnapshotMeta
		CRC []byte
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return damaged(metaFile, 0, err.Error())
	}
	term, index, err := placeOf(filepath.Base(dir))
	if err != nil || term != meta.Term || index != meta.Index || meta.ID != filepath.Base(dir) {
		return damaged(metaFile, 0, fmt.Sprintf("it describes %s, at index %d of term %d", meta.ID, meta.Index, meta.Term))
	}
	f, err := os.Open(stateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return damaged(stateFile, 0, "it is missing")
	case err != nil:
		return fmt.Errorf("cannot read the snapshot: %w", err)
	}
	defer f.Close()
	whole := crc64.New(crc64.MakeTable(crc64.ECMA))
	info, err := state.Inspect(io.TeeReader(f, whole), build)
	var corrupt *state.Corrupt
	switch {
	case errors.As(err, &corrupt):
		return damaged(stateFile, corrupt.Offset, fmt.Sprintf("record %d: %s", corrupt.Record, corrupt.Why))
	case err != nil:
		return fmt.Errorf("cannot read %s: %w", stateFile, err)
	case info.Size != meta.Size || !bytes.Equal(whole.Sum(nil), meta.CRC):
		return damaged(stateFile, 0, "its size or checksum is not that in "+snapMeta)
	}
	if unsealed {
		return sealMeta(dir)
	}
	return nil
}
