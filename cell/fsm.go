package cell

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"atoll/cell/state"
)

// fsm applies commands to the store.
type fsm struct{ store *state.Store }

// answer is what Apply gives back through Raft.
type answer struct {
	value any
	err   error
}

// Apply applies one log entry. It panics on a command that this version does
// not know: to pass over it would let this server's state diverge from the
// others' for good, and a restart on a newer version applies it rightly.
func (f *fsm) Apply(l *raft.Log) any {
	if len(l.Data) == 0 {
		panic(fmt.Sprintf("cell: log entry %d is empty", l.Index))
	}
	do, ok := table[Command(l.Data[0])]
	if !ok {
		panic(fmt.Sprintf("cell: log entry %d holds command %d, which this version of Atoll does not know; start a newer version", l.Index, l.Data[0]))
	}
	var value any
	snap := f.store.Snapshot()
	err := f.store.Write(l.Index, func(tx *state.Txn) (err error) {
		value, err = do(tx, snap, l.Index, l.Data[1:])
		return err
	})
	return answer{value, err}
}

// Snapshot returns at once: a state snapshot is immutable.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return fsmSnapshot{f.store.Snapshot()}, nil
}

// Restore replaces the state, or leaves it as it was.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.store.Restore(r)
}

type fsmSnapshot struct{ *state.Snapshot }

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.Snapshot.Persist(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (fsmSnapshot) Release() {}
