package region

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"atoll/cell"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// snapshots serves the saving and restoring of the cell's state.
type snapshots struct {
	*reader
	cell   *cell.Cell
	region string
	clock  clock.Clock
	// leads says that this server answers for the region: then what it saves
	// holds every acknowledged write.
	leads func() bool
	stage stage
}

func (s *snapshots) bind(r *rpc.Server) {
	s.stage.forget() // what an earlier process left
	rpc.HandleStream(r, method.SnapshotSave, s.save)
	rpc.Handle(r, method.SnapshotStage, s.take)
	rpc.Handle(r, method.SnapshotRestore, s.restore)
}

// snapshotPiece is how much of an archive goes in a frame.
const snapshotPiece = 256 << 10

// save writes the archive twice: once for its sum, which its receiver must know
// first, and once to send it. It needs no place on the disk for that, which may
// be what there is too little of.
func (s *snapshots) save(ctx context.Context, _ *rpc.Inbound, _ *method.Empty, send func(*method.SnapshotFrame) error) error {
	if s.leads() {
		if err := s.verify(ctx); err != nil {
			return err
		}
	}
	snap, at := s.snapshot(), s.clock.Now()
	if snap.Cell(nil) == nil {
		// Nothing could be done with it: no cell would take it for its own.
		return model.Errorf(model.KindNoLeader, "cannot save the region's state: its cell is being formed; try again in a moment")
	}
	sum, size := sha256.New(), int64(0)
	count := writerFunc(func(b []byte) (int, error) {
		size += int64(len(b))
		return sum.Write(b)
	})
	if err := snap.WriteArchive(count, at); err != nil {
		return err
	}
	if err := send(&method.SnapshotFrame{
		SHA256: sum.Sum(nil), Size: size, Index: snap.Index(), LastContact: max(s.contact(), 0), KnownLeader: s.leader() != "",
	}); err != nil {
		return err
	}
	var piece bytes.Buffer
	flush := func() error {
		err := send(&method.SnapshotFrame{Data: piece.Bytes()})
		piece.Reset()
		return err
	}
	if err := snap.WriteArchive(writerFunc(func(b []byte) (int, error) {
		piece.Write(b)
		if piece.Len() < snapshotPiece {
			return len(b), nil
		}
		return len(b), flush()
	}), at); err != nil {
		return err
	}
	return flush()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (s *snapshots) take(_ context.Context, _ *rpc.Inbound, req *method.SnapshotPiece) (*method.SnapshotStaged, error) {
	size, err := s.stage.put(req)
	return &method.SnapshotStaged{Size: size}, err
}

func (s *snapshots) restore(ctx context.Context, _ *rpc.Inbound, req *method.SnapshotRestoreRequest) (*method.IndexResponse, error) {
	f, err := s.stage.finish(req)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	index, err := s.cell.Restore(ctx, f, s.region)
	return &method.IndexResponse{Index: index}, err
}

// stage holds the one upload that is under way, in a file.
type stage struct {
	dir string

	mu   sync.Mutex // guards what follows, and is held over writes to the file
	id   string
	file *os.File
	size int64
	// idle drops an upload whose sender has gone.
	idle *time.Timer
}

const (
	stageFile = "snapshot-upload"
	stageIdle = 10 * time.Minute
	// stageMax bounds an upload: compressed, ten million allocations take a
	// tenth of it.
	stageMax = 8 << 30
)

// put takes a piece and returns how much there is now.
func (s *stage) put(p *method.SnapshotPiece) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Offset == 0 && p.ID != "" && p.ID != s.id {
		s.drop()
		f, err := os.OpenFile(filepath.Join(s.dir, stageFile), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, fmt.Errorf("cannot take the snapshot: %w", err)
		}
		s.id, s.file, s.size = p.ID, f, 0
		s.idle = time.AfterFunc(stageIdle, func() { s.abandon(p.ID) })
	}
	end := p.Offset + int64(len(p.Data))
	switch {
	case s.file == nil || p.ID != s.id:
		return 0, errNotStaged
	case p.Offset < 0 || p.Offset > s.size:
		return 0, model.Invalidf("Offset", "cannot take the snapshot: a piece at %d does not follow the %d bytes that are there", p.Offset, s.size)
	case end > stageMax:
		return 0, model.Errorf(model.KindTooLarge, "cannot take the snapshot: it is over the limit of %d bytes", int64(stageMax))
	}
	s.idle.Reset(stageIdle)
	if _, err := s.file.WriteAt(p.Data, p.Offset); err != nil {
		return 0, fmt.Errorf("cannot take the snapshot: %w", err)
	}
	s.size = max(s.size, end)
	return s.size, nil
}

// errNotStaged is also what a new leader answers, which has none of the pieces.
var errNotStaged = &model.Error{Kind: model.KindConflict, Message: "cannot restore the snapshot: this server does not have the beginning of it, since the leader changed or another upload took its place; send it again"}

// finish gives the upload away, from its beginning, if it is whole. Whoever gets
// it closes it.
func (s *stage) finish(req *method.SnapshotRestoreRequest) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || req.ID != s.id {
		return nil, errNotStaged
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(s.file, 0, s.size))
	if err != nil {
		return nil, fmt.Errorf("cannot read the snapshot: %w", err)
	}
	if n != req.Size || !bytes.Equal(sum.Sum(nil), req.SHA256) {
		return nil, model.Invalidf("snapshot", "cannot restore the snapshot: what came is not what was sent; send it again")
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("cannot read the snapshot: %w", err)
	}
	f := s.file
	s.file = nil
	s.forget()
	return f, nil
}

func (s *stage) abandon(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == id {
		s.drop()
	}
}

// drop closes and forgets the upload.
func (s *stage) drop() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	s.forget()
}

// forget removes the file's name; who has it open reads on.
func (s *stage) forget() {
	if s.idle != nil {
		s.idle.Stop()
	}
	s.id, s.size = "", 0
	if err := os.Remove(filepath.Join(s.dir, stageFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return // it is overwritten by the next, and removed at the start
	}
}
