package summary

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// Copy is what is known of one region; immutable.
type Copy struct {
	Region string
	// State names the state that Index is of, up to which the rows are complete.
	State string
	Index uint64
	// Report is the region's word about itself, nil until it was heard.
	Report      *model.RegionReport
	Jobs        *Table[*model.JobRow]
	Nodes       *Table[*model.NodeRow]
	Deployments *Table[*model.DeploymentRow]
	// Size is about how many bytes the rows take. Dropped is the number of rows
	// that were not taken, since they would have been too many.
	Size    int64
	Dropped int
	// asked is when we asked for the newest answer, by our clock, and contact
	// for how long before that the answering server had not heard its leader.
	asked   time.Time
	contact time.Duration
}

// Age is how old the rows are at the most.
func (c *Copy) Age(now time.Time) time.Duration { return now.Sub(c.asked) + c.contact }

// Delta is an answer to a question what changed; see method.SummaryFrame.
type Delta struct {
	State       string
	Full        bool
	Index       uint64
	LastContact time.Duration
	Report      *model.RegionReport
	Rows        method.SummaryRows
	// dropped is the number of rows that were too many on the way.
	dropped int
}

// maxSize bounds what the rows of one region may take: far more than the 10,000
// jobs for which regions are meant, and what a server can spare for a region that
// tells nonsense.
const maxSize = 128 << 20

// next is the copy that an answer makes of an older one, nil for none.
func (c *Copy) next(region string, d *Delta, asked time.Time, limit int64) *Copy {
	out := &Copy{Region: region, State: d.State, Index: d.Index, Report: d.Report, asked: asked, contact: d.LastContact}
	if c != nil && d.Report == nil {
		out.Report = c.Report
	}
	if c == nil || d.Full {
		out.Jobs, out.Nodes, out.Deployments = newTable[*model.JobRow](), newTable[*model.NodeRow](), newTable[*model.DeploymentRow]()
	} else {
		out.Size, out.Dropped = c.Size, c.Dropped
		// A server that is behind the one asked before takes nothing back.
		out.Index = max(c.Index, d.Index)
		out.Jobs, out.Nodes, out.Deployments = c.Jobs, c.Nodes, c.Deployments
	}
	out.Dropped += d.dropped
	r := &d.Rows
	out.Jobs = change(out, out.Jobs, r.Jobs, r.GoneJobs, limit)
	out.Nodes = change(out, out.Nodes, r.Nodes, r.GoneNodes, limit)
	out.Deployments = change(out, out.Deployments, r.Deployments, r.GoneDeployments, limit)
	return out
}

// change returns a table with rows put and dropped, as far as the copy's limit
// allows.
func change[R Row](c *Copy, t *Table[R], rows []R, gone []model.RowKey, limit int64) *Table[R] {
	if len(rows)+len(gone) == 0 {
		return t
	}
	t = t.clone()
	for _, key := range gone {
		c.Size -= int64(t.drop(key))
	}
	for _, row := range rows {
		row.OfRegion(c.Region)
		// Without room for the new one, an older one would be taken for what is.
		c.Size -= int64(t.drop(row.Key()))
		if c.Size+int64(row.Size()) > limit {
			c.Dropped++
			continue
		}
		c.Size += int64(t.put(row))
	}
	return t
}

// Pieces of an answer: of each kind, rows in a frame, and about how many bytes of
// them, unless one is larger; and what all may be inflated to.
const (
	frameRows   = 1000
	frameSize   = 2 << 20
	maxInflated = 16 << 20
)

// Send sends an answer in frames.
func Send(d *Delta, send func(*method.SummaryFrame) error) error {
	head := &method.SummaryFrame{State: d.State, Full: d.Full, Index: d.Index, LastContact: d.LastContact, Report: d.Report}
	rest := d.Rows
	for {
		piece := method.SummaryRows{
			Jobs: take(&rest.Jobs), Nodes: take(&rest.Nodes), Deployments: take(&rest.Deployments),
			GoneJobs: takeKeys(&rest.GoneJobs), GoneNodes: takeKeys(&rest.GoneNodes), GoneDeployments: takeKeys(&rest.GoneDeployments),
		}
		if count(&piece) > 0 {
			b, err := pack(&piece)
			if err != nil {
				return err
			}
			head.Rows = b
		}
		if err := send(head); err != nil {
			return err
		}
		if count(&rest) == 0 {
			return nil
		}
		head = &method.SummaryFrame{}
	}
}

func take[R Row](rest *[]R) []R {
	n, size := 0, 0
	for n < min(len(*rest), frameRows) && size < frameSize {
		size += (*rest)[n].Size()
		n++
	}
	out := (*rest)[:n]
	*rest = (*rest)[n:]
	return out
}

func takeKeys(rest *[]model.RowKey) []model.RowKey {
	n := min(len(*rest), frameRows)
	out := (*rest)[:n]
	*rest = (*rest)[n:]
	return out
}

func count(r *method.SummaryRows) int {
	return len(r.Jobs) + len(r.Nodes) + len(r.Deployments) + len(r.GoneJobs) + len(r.GoneNodes) + len(r.GoneDeployments)
}

// pack deflates rows: they repeat the names of their fields, and much else.
func pack(rows *method.SummaryRows) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err == nil {
		err = wire.EncodeTo(w, rows)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot pack rows: %w", err)
	}
	return out.Bytes(), nil
}

func unpack(b []byte) (*method.SummaryRows, error) {
	out := new(method.SummaryRows)
	if len(b) == 0 {
		return out, nil
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("cannot unpack rows: %w", err)
	}
	if len(plain) > maxInflated {
		return nil, fmt.Errorf("cannot unpack rows: they are over the limit of %d bytes", maxInflated)
	}
	if err := wire.Receive(plain, out); err != nil {
		return nil, err
	}
	if slices.Contains(out.Jobs, nil) || slices.Contains(out.Nodes, nil) || slices.Contains(out.Deployments, nil) {
		return nil, errors.New("cannot unpack rows: one of them is missing")
	}
	return out, nil
}

// receive reads an answer of which no more than about limit bytes are kept, and
// returns how many bytes of rows it took on the way. Rows above that are named
// among those that are gone, so that no older ones are taken for them.
func receive(next func() (*method.SummaryFrame, error), limit int64) (d *Delta, transferred int, err error) {
	size := int64(0)
	for {
		f, err := next()
		if errors.Is(err, io.EOF) && d != nil {
			return d, transferred, nil
		}
		if err != nil {
			return nil, transferred, err
		}
		transferred += len(f.Rows)
		if d == nil {
			d = &Delta{State: f.State, Full: f.Full, Index: f.Index, LastContact: min(max(f.LastContact, 0), maxContact), Report: f.Report}
			if tooLarge(f.Report) {
				d.Report = nil // as if it had not been told
			}
		}
		piece, err := unpack(f.Rows)
		if err != nil {
			return nil, transferred, err
		}
		d.Rows.GoneJobs = append(d.Rows.GoneJobs, piece.GoneJobs...)
		d.Rows.GoneNodes = append(d.Rows.GoneNodes, piece.GoneNodes...)
		d.Rows.GoneDeployments = append(d.Rows.GoneDeployments, piece.GoneDeployments...)
		for _, keys := range [][]model.RowKey{piece.GoneJobs, piece.GoneNodes, piece.GoneDeployments} {
			for _, k := range keys {
				size += keySize(k)
			}
		}
		d.dropped += collect(&d.Rows.Jobs, &d.Rows.GoneJobs, piece.Jobs, &size, limit)
		d.dropped += collect(&d.Rows.Nodes, &d.Rows.GoneNodes, piece.Nodes, &size, limit)
		d.dropped += collect(&d.Rows.Deployments, &d.Rows.GoneDeployments, piece.Deployments, &size, limit)
		// Keys alone do not make an honest answer this long.
		if size > 2*limit {
			return nil, transferred, fmt.Errorf("the answer is over the limit of %d bytes", 2*limit)
		}
	}
}

// maxContact bounds what a region says of how long it did not hear its leader, so that
// ages stay ages; maxReport the bytes of what it says of itself.
const (
	maxContact = 10 * 365 * 24 * time.Hour
	maxReport  = 64 << 10
)

func tooLarge(r *model.RegionReport) bool {
	if r == nil {
		return false
	}
	size := len(r.CellID) + len(r.Leader)
	for name := range r.RTT {
		size += 48 + len(name)
	}
	return size > maxReport
}

func collect[R Row](rows *[]R, gone *[]model.RowKey, more []R, size *int64, limit int64) (dropped int) {
	for _, row := range more {
		if *size+int64(row.Size()) > limit {
			key := row.Key()
			*gone = append(*gone, key)
			*size += keySize(key)
			dropped++
			continue
		}
		*rows = append(*rows, row)
		*size += int64(row.Size())
	}
	return dropped
}

func keySize(k model.RowKey) int64 { return 32 + int64(len(k.Namespace)+len(k.ID)) }
