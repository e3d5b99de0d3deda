package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"atoll/internal/wire"
)

// SnapshotVersion is the format that Persist writes. Restore refuses a newer
// one before it touches anything, and reads the older ones.
const SnapshotVersion = 2

// From version 2 on a snapshot begins with snapshotMagic, and each record has a
// CRC-32C of its head and body, so that a damaged byte is found wherever it is
// and named by its place. A version-1 snapshot begins with its header record,
// whose first byte is a 1, and has no sums.
const snapshotMagic = "ATOLLSNP"

// recordName is what a record holds, "" for one that this version does not
// know.
func recordName(rec byte) string {
	switch rec {
	case recHeader:
		return "header"
	case recEnd:
		return "end"
	case recJobAllocs, recNodeAllocs, recAllocJob, recShared, recRows:
		return tableAllocs
	}
	for _, t := range tables {
		if t.rec == rec {
			return t.name
		}
	}
	return ""
}

// maxRecord bounds a record that is read; rows come in batches well below it,
// and a job is bounded where it is accepted.
const maxRecord = 64 << 20

type snapHeader struct {
	Version int
	Index   uint64
	// Written is the version of Atoll that wrote it, "" before that was kept.
	Written string
}

type snapEnd struct{ Records uint64 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const recordHead = 1 + 4 + 4

// appendRecordHead appends what stands before a record's body.
func appendRecordHead(b []byte, rec byte, body []byte) []byte {
	at := len(b)
	b = append(b, rec)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	sum := crc32.Update(crc32.Checksum(b[at:], castagnoli), castagnoli, body)
	return binary.BigEndian.AppendUint32(b, sum)
}

// Corrupt says where a snapshot is damaged.
type Corrupt struct {
	// Offset is of the record's beginning, or of what was expected there, in
	// bytes from the beginning.
	Offset int64
	Record uint64
	Why    string
}

func (e *Corrupt) Error() string {
	return fmt.Sprintf("damaged at byte %d (record %d): %s", e.Offset, e.Record, e.Why)
}

// Newer says that something was written by a version of Atoll whose format this
// one does not know. It is no damage: a newer Atoll reads it.
type Newer struct {
	// What it is, such as "snapshot format 3".
	What string
	// Written is the version that wrote it, Ours this one; either may be "".
	Written, Ours string
}

func (e *Newer) Error() string {
	name := func(version string) string {
		if version == "" {
			return "an unnamed version"
		}
		return "version " + version
	}
	return fmt.Sprintf("%s, written by %s of Atoll, is not known to this one, %s; start that version or a newer one", e.What, name(e.Written), name(e.Ours))
}

// recordReader reads a snapshot's records and checks their order and sums.
// Errors are *Corrupt and *Newer.
type recordReader struct {
	r      *bufio.Reader
	ours   string
	header snapHeader
	// plain says that records have no sums.
	plain   bool
	offset  int64 // of the record that next returns
	records uint64
	body    bytes.Buffer
	ended   bool
}

func newRecordReader(r io.Reader, ours string) *recordReader {
	return &recordReader{r: bufio.NewReaderSize(r, 64<<10), ours: ours}
}

// next returns a record, io.EOF after the last; the first is the header's. The
// body is overwritten by the next call.
func (r *recordReader) next() (rec byte, body []byte, err error) {
	if r.ended {
		if _, err := r.r.ReadByte(); err == nil {
			return 0, nil, r.corrupt("something follows the end")
		} else if !errors.Is(err, io.EOF) {
			return 0, nil, r.corrupt(err.Error())
		}
		return 0, nil, io.EOF
	}
	if r.records == 0 {
		if err := r.begin(); err != nil {
			return 0, nil, err
		}
	}
	rec, err = r.read()
	if err != nil {
		return 0, nil, err
	}
	body = r.body.Bytes()
	switch {
	case (rec == recHeader) != (r.records == 0):
		return 0, nil, r.corrupt("the header is not the first record")
	case rec == recHeader:
		if err := wire.Decode(body, &r.header); err != nil {
			return 0, nil, r.corrupt(err.Error())
		}
		if r.header.Version > SnapshotVersion {
			return 0, nil, &Newer{What: fmt.Sprintf("snapshot format %d", r.header.Version), Written: r.header.Written, Ours: r.oursWithFormat()}
		}
	case recordName(rec) == "":
		if r.plain {
			return 0, nil, r.corrupt(fmt.Sprintf("there is no record type %d", rec))
		}
		return 0, nil, &Newer{What: fmt.Sprintf("snapshot record type %d", rec), Written: r.header.Written, Ours: r.ours}
	case rec == recEnd:
		var end snapEnd
		if err := wire.Decode(body, &end); err != nil {
			return 0, nil, r.corrupt(err.Error())
		}
		if end.Records != r.records {
			return 0, nil, r.corrupt(fmt.Sprintf("%d records were written, %d read", end.Records, r.records))
		}
		r.ended = true
	}
	r.records++
	r.offset += int64(r.headSize() + len(body))
	return rec, body, nil
}

func (r *recordReader) oursWithFormat() string {
	return fmt.Sprintf("%s (format %d)", r.ours, SnapshotVersion)
}

func (r *recordReader) headSize() int {
	if r.plain {
		return 5
	}
	return recordHead
}

// begin tells a version-1 snapshot from the later ones.
func (r *recordReader) begin() error {
	magic, err := r.r.Peek(len(snapshotMagic))
	switch {
	case string(magic) == snapshotMagic:
		_, err = r.r.Discard(len(snapshotMagic))
		r.offset = int64(len(snapshotMagic))
		if err != nil {
			return r.corrupt(err.Error())
		}
		return nil
	case len(magic) > 0 && magic[0] == recHeader:
		r.plain = true
		return nil
	case err != nil:
		return r.short(err)
	}
	return r.corrupt("this is no snapshot of Atoll")
}

// read reads one record into the buffer, which grows only with what arrives.
func (r *recordReader) read() (byte, error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r.r, head[:r.headSize()]); err != nil {
		return 0, r.short(err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxRecord {
		return 0, r.corrupt(fmt.Sprintf("a length of %d bytes is over the limit of %d", size, maxRecord))
	}
	r.body.Reset()
	if _, err := io.CopyN(&r.body, r.r, int64(size)); err != nil {
		return 0, r.short(err)
	}
	if !r.plain {
		sum := crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, r.body.Bytes())
		if kept := binary.BigEndian.Uint32(head[5:]); sum != kept {
			return 0, r.corrupt(fmt.Sprintf("its checksum is %08x, and %08x was written with it", sum, kept))
		}
	}
	return head[0], nil
}

func (r *recordReader) corrupt(why string) error { return &Corrupt{r.offset, r.records, why} }

func (r *recordReader) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.corrupt("the snapshot ends early")
	}
	return r.corrupt(err.Error())
}

// SnapshotInfo is what a snapshot says of itself.
type SnapshotInfo struct {
	Version int
	Index   uint64
	// Written is the version of Atoll that wrote it, "" when it does not say.
	Written string
	// Cell is nil in the snapshot of a cell without identity.
	Cell *Cell
	// Tables are in the order in which they stand in the snapshot.
	Tables []TableSize
	Size   int64
}

// TableSize is what a table takes of a snapshot.
type TableSize struct {
	Name    string
	Records uint64
	Bytes   int64
}

// Inspect reads a whole snapshot and checks each record. ours is this version of
// Atoll, for the error of a newer one. Errors are *Corrupt and *Newer.
func Inspect(r io.Reader, ours string) (*SnapshotInfo, error) {
	in := newRecordReader(r, ours)
	out := &SnapshotInfo{}
	for {
		before := in.offset
		rec, body, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			out.Version, out.Index, out.Written, out.Size = in.header.Version, in.header.Index, in.header.Written, in.offset
			return out, nil
		case err != nil:
			return nil, err
		case rec == recHeader, rec == recEnd:
			continue
		case rec == recCell:
			out.Cell = new(Cell)
			if err := wire.Decode(body, out.Cell); err != nil {
				return nil, &Corrupt{before, in.records - 1, err.Error()}
			}
		}
		name := recordName(rec)
		if n := len(out.Tables); n == 0 || out.Tables[n-1].Name != name {
			out.Tables = append(out.Tables, TableSize{Name: name})
		}
		t := &out.Tables[len(out.Tables)-1]
		t.Records++
		t.Bytes += in.offset - before
	}
}
