package cell

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/model"
)

// restoreGap is by how much a restore moves the log's index on. What Raft
// writes while the restore is prepared must stay below, and when the snapshot is
// of another cell, so must what that cell did after it: nodes have seen those
// indexes, and act on no answer with a lower one.
const restoreGap = 1 << 20

// Restore replaces the whole cell's state by the snapshot in an archive, through
// Raft: every member has it when it returns, and its index. Only the leader can.
// The cell becomes the one in the snapshot, in a new incarnation. Nothing is
// changed unless all of the archive is right; its errors are Invalid, and
// Conflict for one of another region.
func (c *Cell) Restore(ctx context.Context, archive io.Reader, region string) (uint64, error) {
	m, err := c.up()
	if err != nil {
		return 0, err
	}
	// Into a store of its own first: Raft ends the process when its FSM cannot
	// take a restored snapshot.
	next, err := state.New()
	if err != nil {
		return 0, err
	}
	next.Build = c.cfg.Version
	in, _, err := state.OpenArchive(archive)
	if err == nil {
		err = next.Restore(in)
	}
	if err != nil {
		return 0, model.Invalidf("snapshot", "%v", err)
	}
	switch of := next.Snapshot().Cell(nil); {
	case of == nil:
		return 0, model.Invalidf("snapshot", "cannot restore snapshot: it is of a cell without identity")
	case of.Region != region:
		return 0, model.Errorf(model.KindConflict, "cannot restore snapshot: it is of region %q, and this is region %q", of.Region, region)
	}
	index := max(next.Snapshot().Index(), m.raft.LastIndex()) + restoreGap
	if err := next.Write(index, func(tx *state.Txn) error { return tx.Reincarnate(model.NewUUID(nil).String()) }); err != nil {
		return 0, fmt.Errorf("cannot restore snapshot: %w", err)
	}
	err = m.promise(restoring(func() error { return m.restore(next.Snapshot(), index) }), nil).wait(ctx)
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return 0, model.Errorf(model.KindNoLeader, "cannot restore snapshot: this server is not the leader")
	case err != nil:
		return 0, model.Errorf(model.KindOutcomeUnknown, "cannot tell whether the snapshot was restored: %w", err)
	}
	// The leader's loops hold what the old state had: they begin anew.
	if m.raft.State() == raft.Leader {
		c.tell(true)
	}
	return index, nil
}

// restoring makes one of Raft's futures of its call that is none.
type restoring func() error

func (f restoring) Error() error { return f() }

func (m *member) restore(snap *state.Snapshot, index uint64) error {
	var size counter
	if err := snap.Persist(&size); err != nil {
		return err
	}
	pr, pw := io.Pipe()
	go func() { _ = pw.CloseWithError(snap.Persist(pw)) }() // ended by the reader's end
	defer pr.Close()
	// Raft takes the next index after the given one, as long as its own are
	// below.
	return m.raft.Restore(&raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index - 1, Size: int64(size)}, pr, 0)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
