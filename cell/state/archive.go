package state

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"
)

// An archive is a snapshot as operators keep it: the snapshot, whose every
// record has its sum, compressed with gzip, whose header has the time.

// WriteArchive writes the snapshot as an archive. The same snapshot and time
// give the same bytes.
func (s *Snapshot) WriteArchive(w io.Writer, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("cannot write archive: %w", err)
	}
	z.Name, z.ModTime = "atoll.snapshot", at
	if err := s.Persist(z); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("cannot write archive: %w", err)
	}
	return nil
}

// OpenArchive returns the snapshot in an archive, unchecked, and when it was
// written.
func OpenArchive(r io.Reader) (io.Reader, time.Time, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot read archive: this is no snapshot of Atoll: %w", err)
	}
	return z, z.ModTime, nil
}

// InspectArchive reads a whole archive and checks it, as Inspect does.
func InspectArchive(r io.Reader, ours string) (*SnapshotInfo, time.Time, error) {
	in, at, err := OpenArchive(r)
	if err != nil {
		return nil, at, err
	}
	info, err := Inspect(in, ours)
	var newer *Newer
	if err != nil && !errors.As(err, &newer) {
		err = fmt.Errorf("cannot read archive: %w", err)
	}
	return info, at, err
}
