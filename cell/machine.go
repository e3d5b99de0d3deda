package cell

import (
	"github.com/hashicorp/raft"

	"atoll/cell/state"
)

// Machine is a cell's state machine without Raft: simulations that drive many
// cells at once apply commands to it one by one. It is not safe for concurrent
// use, but for Snapshot.
type Machine struct {
	fsm   *fsm
	index uint64
	// Log holds what was applied, to be applied again elsewhere.
	Log [][]byte
}

// NewMachine returns a machine in the state of a new cell.
func NewMachine() (*Machine, error) {
	store, err := state.New()
	if err != nil {
		return nil, err
	}
	return &Machine{fsm: &fsm{store: store, replay: new(replay)}}, nil
}

// Snapshot is the state as it is.
func (m *Machine) Snapshot() *state.Snapshot { return m.fsm.store.Snapshot() }

// Apply applies a command as Cell.ApplyOnce does.
func (m *Machine) Apply(cmd Command, req *state.Request, body any) (uint64, any, error) {
	entry, err := encode(cmd, req, body)
	if err != nil {
		return 0, nil, err
	}
	out := m.replay(entry)
	return out.index, out.value, out.err
}

// Replay applies an entry of a Log.
func (m *Machine) Replay(entry []byte) { m.replay(entry) }

func (m *Machine) replay(entry []byte) answer {
	m.index++
	m.Log = append(m.Log, entry)
	return m.fsm.Apply(&raft.Log{Index: m.index, Data: entry}).(answer)
}
