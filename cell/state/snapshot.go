package state

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	memdb "github.com/hashicorp/go-memdb"

	"atoll/internal/wire"
	"atoll/model"
)

// A record is a type byte, a four-byte length, the sum, msgpack. The header
// record keeps this shape in every later version: it says which one it is.
//
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
	recAutopilot  byte = 15
	recDeployment byte = 16
	recParent     byte = 17
	recScheduler  byte = 18
	recCapacity   byte = 19
	recNamespace  byte = 25
	recScaling    byte = 30
	recRollout    byte = 26
)

// rowsPerRecord keeps a batch of rows below 512 kB, without extras.
const rowsPerRecord = 4096

type snapJobAllocs struct {
	Key         model.JobID
	Modified    uint64
	Incarnation uint64
	Counts      []snapCount
}

type snapCount struct {
	Group string
	By    []int32
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
	_, p.err = p.w.WriteString(snapshotMagic)
	p.put(recHeader, &snapHeader{SnapshotVersion, s.Index(), s.store.Build})
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
	head    [recordHead]byte
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
	if _, p.err = p.w.Write(appendRecordHead(p.head[:0], rec, b)); p.err == nil {
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
		v := &snapJobAllocs{Key: j.key, Modified: j.modified, Incarnation: j.incarnation}
		for _, c := range j.counts {
			v.Counts = append(v.Counts, snapCount{c.group, c.by[:]})
		}
		p.put(recJobAllocs, v)
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
		if s == nil {
			continue // a free place
		}
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
