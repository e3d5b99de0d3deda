package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	memdb "github.com/hashicorp/go-memdb"

	"atoll/internal/wire"
	"atoll/model"
)

// SnapshotVersion is the format that Persist writes. Restore refuses a newer
// one before it touches anything.
const SnapshotVersion = 1

// A snapshot is a stream of records: a type byte, a four-byte length, msgpack.
// The numbers are on disk: append only.
const (
	recHeader     byte = 1
	recCell       byte = 2
	recIndex      byte = 3
	recJob        byte = 4
	recJobVersion byte = 5
	recNode       byte = 6
	recEval       byte = 7
	recJobAllocs  byte = 8
	recNodeAllocs byte = 9
	recAllocJob   byte = 10
	recShared     byte = 11
	recRows       byte = 12
	recEnd        byte = 13
	recRequest    byte = 14
	recCapacity   byte = 19
)

// maxRecord bounds a record that Restore will read; rows come in batches well
// below it, and a job is bounded where it is accepted.
const maxRecord = 64 << 20

// rowsPerRecord keeps a batch of rows below 512 kB, without extras.
const rowsPerRecord = 4096

type snapHeader struct {
	Version int
	Index   uint64
}

type snapEnd struct{ Records uint64 }

type snapJobAllocs struct {
	Key         model.JobID
	Modified    uint64
	Incarnation uint64
}

type snapNodeAllocs struct {
	ID       model.UUID
	Name     string
	Modified uint64
}

// snapShared is a model.AllocShared whose job is a number of an earlier
// recAllocJob.
type snapShared struct {
	Job    uint32
	Shared model.AllocShared
}

type snapRows struct {
	Rows   []byte
	Extras map[uint32]*model.AllocExtra
}

// Persist writes every table of the snapshot to w.
func (s *Snapshot) Persist(w io.Writer) error {
	p := &persister{w: bufio.NewWriterSize(w, 1<<20)}
	p.put(recHeader, &snapHeader{SnapshotVersion, s.Index()})
	for _, t := range tables {
		t.persist(p, s.tx)
	}
	p.putAllocs(s.allocs)
	p.put(recEnd, &snapEnd{p.records})
	if p.err == nil {
		p.err = p.w.Flush()
	}
	if p.err != nil {
		return fmt.Errorf("cannot write snapshot: %w", p.err)
	}
	return nil
}

// persister writes records until one fails.
type persister struct {
	w       *bufio.Writer
	records uint64
	err     error
}

func (p *persister) put(rec byte, v any) {
	if p.err != nil {
		return
	}
	b, err := wire.Encode(v)
	if err != nil {
		p.err = err
		return
	}
	var head [5]byte
	head[0] = rec
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	if _, p.err = p.w.Write(head[:]); p.err == nil {
		_, p.err = p.w.Write(b)
	}
	p.records++
}

func putAll[T any](p *persister, tx *memdb.Txn, rec byte, table string) {
	for row := range each[T](tx, nil, table, byID) {
		p.put(rec, row)
	}
}

// putAllocs writes the job versions that allocations refer to once each,
// likewise what allocations share, and then the rows.
func (p *persister) putAllocs(t *allocTable) {
	t.jobs.Ascend(func(j *jobAllocs) bool {
		p.put(recJobAllocs, &snapJobAllocs{j.key, j.modified, j.incarnation})
		return p.err == nil
	})
	t.nodes.Ascend(func(n *nodeAllocs) bool {
		p.put(recNodeAllocs, &snapNodeAllocs{n.id, n.name, n.modified})
		return p.err == nil
	})
	type version struct {
		key              model.JobID
		created, version uint64
	}
	jobs := make(map[version]uint32)
	shared := make(map[*model.AllocShared]uint32)
	batch := snapRows{Rows: make([]byte, 0, rowsPerRecord*packedRow)}
	flush := func() {
		if len(batch.Rows) > 0 {
			p.put(recRows, &batch)
			batch = snapRows{Rows: batch.Rows[:0]}
		}
	}
	for _, r := range t.rows.all() {
		s := r.Shared
		num, seen := shared[s]
		if !seen {
			v := version{s.Job.Key(), s.Job.CreateIndex, s.Job.Version}
			jobNum, seen := jobs[v]
			if !seen {
				jobNum = uint32(len(jobs))
				jobs[v] = jobNum
				p.put(recAllocJob, s.Job)
			}
			num = uint32(len(shared))
			shared[s] = num
			bare := *s
			bare.Job = nil
			p.put(recShared, &snapShared{jobNum, bare})
		}
		if r.Extra != nil {
			if batch.Extras == nil {
				batch.Extras = make(map[uint32]*model.AllocExtra)
			}
			batch.Extras[uint32(len(batch.Rows)/packedRow)] = r.Extra
		}
		batch.Rows = packRow(batch.Rows, r, num)
		if len(batch.Rows) >= rowsPerRecord*packedRow || len(batch.Extras) >= 1024 {
			flush()
		}
		if p.err != nil {
			return
		}
	}
	flush()
}

const packedRow = 16 + 16 + 4 + 5*8 + 4 + 2

func packRow(b []byte, r *model.AllocRow, shared uint32) []byte {
	b = append(b, r.ID[:]...)
	b = append(b, r.NodeID[:]...)
	b = binary.BigEndian.AppendUint32(b, shared)
	for _, v := range [...]uint64{r.CreateIndex, r.ModifyIndex, r.AllocModifyIndex, uint64(r.CreateTime), uint64(r.ModifyTime)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, r.Index)
	return append(b, byte(r.Desired), byte(r.Client))
}

func unpackRow(b []byte) (r model.AllocRow, shared uint32) {
	copy(r.ID[:], b)
	copy(r.NodeID[:], b[16:])
	shared = binary.BigEndian.Uint32(b[32:])
	b = b[36:]
	r.CreateIndex = binary.BigEndian.Uint64(b)
	r.ModifyIndex = binary.BigEndian.Uint64(b[8:])
	r.AllocModifyIndex = binary.BigEndian.Uint64(b[16:])
	r.CreateTime = int64(binary.BigEndian.Uint64(b[24:]))
	r.ModifyTime = int64(binary.BigEndian.Uint64(b[32:]))
	r.Index = binary.BigEndian.Uint32(b[40:])
	r.Desired, r.Client = model.AllocState(b[44]), model.AllocState(b[45])
	return r, shared
}

// Restore replaces every table by what Persist wrote. When it fails the tables
// are as before. Whoever watched anything is woken.
func (s *Store) Restore(r io.Reader) error {
	tx := s.db.Txn(true)
	defer tx.Abort()
	before := first[*allocRoot](tx, nil, tableAllocs).table
	rest := &restorer{r: bufio.NewReaderSize(r, 1<<20), tx: tx, allocs: newAllocTable().begin(0)}
	if err := rest.run(); err != nil {
		return fmt.Errorf("cannot restore snapshot: record %d: %w", rest.records, err)
	}
	table, _ := rest.allocs.publish()
	if err := tx.Insert(tableAllocs, &allocRoot{table: table}); err != nil {
		return fmt.Errorf("cannot restore snapshot: %w", err)
	}
	tx.Commit()
	before.wakeAll()
	return nil
}

func (t *allocTable) wakeAll() {
	t.jobs.Ascend(func(j *jobAllocs) bool { j.watch.replaced(); return true })
	t.nodes.Ascend(func(n *nodeAllocs) bool { n.watch.replaced(); return true })
	for i := 0; i < t.rows.n; i += leafSize {
		t.rows.leaf(i).watch.replaced()
	}
}

type restorer struct {
	r       *bufio.Reader
	tx      *memdb.Txn
	allocs  *allocTxn
	jobs    []*model.Job
	shared  []*model.AllocShared
	records uint64
}

func (r *restorer) run() error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(r.r, head[:]); err != nil {
			return fmt.Errorf("the snapshot ends early: %w", err)
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size > maxRecord {
			return fmt.Errorf("a length of %d bytes is over the limit of %d", size, maxRecord)
		}
		body, err := io.ReadAll(io.LimitReader(r.r, int64(size)))
		if err != nil || len(body) != int(size) {
			return fmt.Errorf("the snapshot ends early: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		if (head[0] == recHeader) != (r.records == 0) {
			return errors.New("the header is not the first record")
		}
		if head[0] == recEnd {
			var end snapEnd
			if err := wire.Decode(body, &end); err != nil {
				return err
			}
			if end.Records != r.records {
				return fmt.Errorf("%d records were written, %d read", end.Records, r.records)
			}
			return nil
		}
		if err := r.record(head[0], body); err != nil {
			return err
		}
		r.records++
	}
}

func (r *restorer) record(rec byte, body []byte) error {
	switch rec {
	case recHeader:
		return r.header(body)
	case recJobAllocs:
		var v snapJobAllocs
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		j := r.allocs.ownJob(v.Key)
		j.modified, j.incarnation = v.Modified, v.Incarnation
		return nil
	case recNodeAllocs:
		var v snapNodeAllocs
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		n := r.allocs.ownNode(v.ID)
		n.name, n.modified, n.forgotten = v.Name, v.Modified, v.Modified
		return nil
	case recAllocJob:
		var j model.Job
		if err := wire.Decode(body, &j); err != nil {
			return err
		}
		r.jobs = append(r.jobs, r.known(&j))
		return nil
	case recShared:
		var v snapShared
		if err := wire.Decode(body, &v); err != nil {
			return err
		}
		if int(v.Job) >= len(r.jobs) {
			return fmt.Errorf("allocations refer to job record %d of %d", v.Job, len(r.jobs))
		}
		v.Shared.Job = r.jobs[v.Job]
		r.shared = append(r.shared, &v.Shared)
		return nil
	case recRows:
		return r.rows(body)
	}
	for _, t := range tables {
		if t.rec == rec {
			return t.restore(r, body)
		}
	}
	return fmt.Errorf("record type %d is unknown to this version", rec)
}

// header checks the version, then empties the tables of the transaction.
func (r *restorer) header(body []byte) error {
	var h snapHeader
	if err := wire.Decode(body, &h); err != nil {
		return err
	}
	if h.Version > SnapshotVersion {
		return fmt.Errorf("its format %d is newer than %d, the newest that this version of Atoll reads; start a newer version", h.Version, SnapshotVersion)
	}
	for _, t := range tables {
		if _, err := r.tx.DeleteAll(t.name, byID); err != nil {
			return err
		}
	}
	return nil
}

// known returns the job of the versions' table that j is, so that allocations
// and table share one copy, else j.
func (r *restorer) known(j *model.Job) *model.Job {
	v := first[*model.Job](r.tx, nil, tableVersions, j.Namespace, j.ID, j.Version)
	if v != nil && v.CreateIndex == j.CreateIndex {
		return v
	}
	return j
}

func (r *restorer) rows(body []byte) error {
	var v snapRows
	if err := wire.Decode(body, &v); err != nil {
		return err
	}
	if len(v.Rows)%packedRow != 0 {
		return fmt.Errorf("%d bytes are no whole number of rows", len(v.Rows))
	}
	for i := 0; i*packedRow < len(v.Rows); i++ {
		row, shared := unpackRow(v.Rows[i*packedRow:])
		if int(shared) >= len(r.shared) {
			return fmt.Errorf("row %d refers to shared record %d of %d", i, shared, len(r.shared))
		}
		row.Shared, row.Extra = r.shared[shared], v.Extras[uint32(i)]
		if err := r.allocs.restore(row); err != nil {
			return err
		}
	}
	return nil
}

// restore adds a row as it was, without the marks of a change.
func (t *allocTxn) restore(row model.AllocRow) error {
	if row.Desired > model.DesiredEvict || row.Client > model.ClientUnknown {
		return fmt.Errorf("allocation %s has the unknown status %d/%d", row.ID, row.Desired, row.Client)
	}
	j, n := t.job(row.Shared.Job.Key()), t.node(row.NodeID)
	if j == nil || n == nil {
		return fmt.Errorf("allocation %s has no job or node record", row.ID)
	}
	if _, exists := t.byID.Get(idPlace{id: row.ID}); exists {
		return fmt.Errorf("allocation %s is there twice", row.ID)
	}
	place := uint32(t.rows.add(row, t.edit))
	t.byID.ReplaceOrInsert(idPlace{row.ID, place})
	j.places, n.places = append(j.places, place), append(n.places, place)
	j.count(&row, +1)
	n.hold(&row, +1)
	return nil
}

func restoreRow[T any](r *restorer, table string, body []byte) error {
	v := new(T)
	if err := wire.Decode(body, v); err != nil {
		return err
	}
	return r.tx.Insert(table, v)
}
