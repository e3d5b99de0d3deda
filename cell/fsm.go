package cell

import (
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/internal/wire"
)

// fsm applies commands to the store.
type fsm struct {
	store  *state.Store
	replay *replay
}

// answer is what Apply gives back through Raft. index is where the command was
// applied, which is earlier than the entry for a request that came again.
type answer struct {
	index uint64
	value any
	err   error
}

// Apply applies one log entry. It panics on a command that this version does
// not know, or not in all: to pass over it would let this server's state diverge
// from the others' for good, and a restart on a newer version applies it rightly.
func (f *fsm) Apply(l *raft.Log) any {
	begun := time.Now()
	defer func() { f.replay.applying.Add(int64(time.Since(begun))) }()
	cmd, req, body, err := split(l.Data)
	if err != nil {
		panic(fmt.Sprintf("cell: log entry %d cannot be read by this version of Atoll: %v; start a newer version", l.Index, err))
	}
	do, ok := table[cmd]
	if !ok {
		panic(fmt.Sprintf("cell: log entry %d holds command %d, which this version of Atoll does not know; start a newer version", l.Index, cmd))
	}
	asks, err := do.read(body)
	if err != nil {
		panic(fmt.Sprintf("cell: log entry %d, command %d, cannot be read by this version of Atoll: %v; start a newer version", l.Index, cmd, err))
	}
	out := answer{index: l.Index}
	snap := f.store.Snapshot()
	if req != nil {
		kept, err := snap.Recall(req)
		if kept != nil {
			out.index = kept.Index
			out.value, out.err = do.recall(kept.Answer)
		} else {
			out.err = err
		}
		if kept != nil || err != nil {
			// The index moves on, so that whoever waits for it does not wait in
			// vain.
			if err := f.store.Write(l.Index, func(*state.Txn) error { return nil }); err != nil {
				panic("cell: " + err.Error())
			}
			return out
		}
	}
	out.err = f.store.Write(l.Index, func(tx *state.Txn) (err error) {
		tx.Cause(eventTypes[cmd], len(l.Data))
		if out.value, err = do.apply(tx, snap, l.Index, asks); err != nil || req == nil {
			return err
		}
		kept, err := wire.Encode(out.value)
		if err != nil {
			return err
		}
		return tx.Remember(req, kept)
	})
	return out
}

// Snapshot returns at once: a state snapshot is immutable.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.replay.applying.Store(0)
	return fsmSnapshot{f.store.Snapshot(), f.replay}, nil
}

// Restore replaces the state, or leaves it as it was.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.store.Restore(r)
}

type fsmSnapshot struct {
	*state.Snapshot
	replay *replay
}

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	begun := time.Now()
	defer func() { s.replay.writing.Store(int64(time.Since(begun))) }()
	if err := s.Snapshot.Persist(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (fsmSnapshot) Release() {}
