package model

import (
	"encoding/binary"
	"fmt"
)

// Plan is what a scheduler proposes for one evaluation, and, cut down by the
// plan applier to what still fits, the body of the Raft command that applies
// it: a few shared values and a compact row for each allocation.
type Plan struct {
	EvalID   UUID
	Priority int
	// JobKey and JobVersion name the placed job; the FSM finds the spec in
	// its own tables.
	JobKey     JobID
	JobVersion uint64
	// SnapshotIndex is of the state that the plan was made on.
	SnapshotIndex uint64
	// AllAtOnce plans are applied whole or not at all.
	AllAtOnce bool
	// Groups are what placements of one group share.
	Groups []PlanGroup
	Place  Placements
	Stop   []PlanStop
	// Update moves allocations that go on running to the plan's job version.
	Update []PlanUpdate
	// JobModifyIndex is of the placed spec: a job purged and registered anew
	// counts its versions from 0 again.
	JobModifyIndex uint64
	// Deployment is made with the plan, before its placements count towards
	// it; nil for none. Its indexes are the store's to set.
	Deployment        *Deployment
	DeploymentUpdates []DeploymentUpdate
	// Disconnect are allocations that are unknown from now on, Reconnect
	// those that were and go on.
	Disconnect []PlanDisconnect
	Reconnect  []UUID
	// Followup names the evaluations that failed allocations wait for.
	Followup []PlanFollowup
}

// PlanGroup is what the placements of one group share.
type PlanGroup struct {
	Name      string
	Resources *AllocatedResources
	Metrics   *AllocMetric
	// DeploymentID is the deployment that placements and updates belong to;
	// zero for none.
	DeploymentID UUID
	// JobVersion, when not nil, is placed instead of the plan's: what
	// replaces the old version while canaries of the new are looked at.
	JobVersion *uint64
}

// Placement is one new allocation.
type Placement struct {
	ID     UUID
	NodeID UUID
	// Group is an index into Plan.Groups, Index the number in the name.
	Group uint16
	Index uint32
	// Extra is nil for a first placement without ports.
	Extra *AllocExtra
}

// PlanStop ends an allocation. Client is set with Lost when its node cannot
// say so itself.
type PlanStop struct {
	ID          UUID
	Evict       bool
	Lost        bool
	Description string
	// FollowupEval will place what this stop leaves to do.
	FollowupEval UUID
}

// PlanUpdate moves an allocation in place to the plan's version of its job.
type PlanUpdate struct {
	ID    UUID
	Group uint16
}

// PlanDisconnect makes an allocation unknown: its client status changes, and
// AllocExtra.Disconnected says since when.
type PlanDisconnect struct {
	ID UUID
	// FollowupEval looks whether it came back; zero when it may take for
	// ever.
	FollowupEval UUID
}

// PlanFollowup says which evaluation an allocation waits for. It changes
// nothing else of it, its ModifyTime included, from which its delay is counted.
type PlanFollowup struct {
	ID   UUID
	Eval UUID
}

// NoOp reports whether applying p would change nothing.
func (p *Plan) NoOp() bool {
	return len(p.Place) == 0 && len(p.Stop) == 0 && len(p.Update) == 0 && p.Deployment == nil && len(p.DeploymentUpdates) == 0 &&
		len(p.Disconnect) == 0 && len(p.Reconnect) == 0 && len(p.Followup) == 0
}

// PlanResult is what the applier made of a plan.
type PlanResult struct {
	// Placed counts the placements that were committed, of Asked.
	Placed, Asked int
	// AllocIndex is the Raft index of the commit; 0 when nothing was.
	AllocIndex uint64
	// RefreshIndex, when not 0, is the state that a worker must have seen
	// before it plans again, since some of its placements were refused.
	RefreshIndex uint64
	// Rejected are the nodes that refused.
	Rejected []UUID
}

// Full reports whether everything asked for was committed.
func (r *PlanResult) Full() bool { return r.Placed == r.Asked && r.RefreshIndex == 0 }

// Placements travel packed: a table of distinct nodes, then 26 bytes a row,
// then the extras, sparsely. A thousand placements of a plan take about 30 kB
// and a tenth of the time of one msgpack map each.
type Placements []Placement

const placementSize = 16 + 4 + 2 + 4

// Pack returns the rows without their extras, which Extras returns.
func (ps Placements) Pack() []byte {
	nodes := make(map[UUID]uint32)
	var order []UUID
	for i := range ps {
		if _, seen := nodes[ps[i].NodeID]; !seen {
			nodes[ps[i].NodeID] = uint32(len(order))
			order = append(order, ps[i].NodeID)
		}
	}
	b := make([]byte, 0, 8+16*len(order)+placementSize*len(ps))
	b = binary.BigEndian.AppendUint32(b, uint32(len(order)))
	for i := range order {
		b = append(b, order[i][:]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(ps)))
	for i := range ps {
		p := &ps[i]
		b = append(b, p.ID[:]...)
		b = binary.BigEndian.AppendUint32(b, nodes[p.NodeID])
		b = binary.BigEndian.AppendUint16(b, p.Group)
		b = binary.BigEndian.AppendUint32(b, p.Index)
	}
	return b
}

// UnpackPlacements reads what Pack wrote. It refuses lengths that the bytes do
// not bear out.
func UnpackPlacements(b []byte) (Placements, error) {
	short := func() error { return fmt.Errorf("cannot unpack placements: %d bytes are too few", len(b)) }
	take := func(size, count uint64) ([]byte, bool) {
		if count > uint64(len(b))/size {
			return nil, false
		}
		out := b[:size*count]
		b = b[size*count:]
		return out, true
	}
	head, ok := take(4, 1)
	if !ok {
		return nil, short()
	}
	nodes, ok := take(16, uint64(binary.BigEndian.Uint32(head)))
	if !ok {
		return nil, short()
	}
	if head, ok = take(4, 1); !ok {
		return nil, short()
	}
	n := uint64(binary.BigEndian.Uint32(head))
	rows, ok := take(placementSize, n)
	if !ok || len(b) != 0 {
		return nil, short()
	}
	ps := make(Placements, n)
	for i := range ps {
		row := rows[i*placementSize:]
		p := &ps[i]
		copy(p.ID[:], row)
		at := int(binary.BigEndian.Uint32(row[16:]))
		if at >= len(nodes)/16 {
			return nil, fmt.Errorf("cannot unpack placements: row %d names node %d of %d", i, at, len(nodes)/16)
		}
		copy(p.NodeID[:], nodes[at*16:])
		p.Group = binary.BigEndian.Uint16(row[20:])
		p.Index = binary.BigEndian.Uint32(row[22:])
	}
	return ps, nil
}
