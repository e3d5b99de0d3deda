package cell

import (
	"errors"
	"fmt"

	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

// Command names a change in the log. The numbers are on disk: append only.
type Command uint8

// The commands; each has a body type of the same name, in the file of its noun.
const (
	CmdCellInit      Command = 1
	CmdJobRegister   Command = 2
	CmdJobDeregister Command = 3
	CmdPlan          Command = 4
	CmdEvals         Command = 5
	CmdNodeRegister  Command = 6
	CmdNodeStatus    Command = 7
	CmdAllocReports  Command = 8

	CmdAutopilotConfig Command = 9
	CmdNodeEligibility Command = 12
	CmdNodeDrain       Command = 13
	CmdNodePurge       Command = 14
	CmdAllocTransition Command = 15
	CmdNodeEvaluate    Command = 16
	CmdPeriodicLaunch  Command = 18
	CmdJobDispatch     Command = 19
	CmdEvalDelete      Command = 22
	CmdReap            Command = 23
	CmdEvalMove        Command = 24
	CmdNodeQuarantine  Command = 25

	CmdDeploymentStatus  Command = 26
	CmdDeploymentPromote Command = 27
	CmdAllocHealth       Command = 28
	CmdJobStability      Command = 29
	CmdJobVersionTag     Command = 30
	CmdJobRevert         Command = 31
	CmdAllocReschedule   Command = 32
	CmdSchedulerConfig   Command = 33
	CmdRecount           Command = 37
	CmdJobScale          Command = 38
	CmdNamespaceUpsert   Command = 41
	CmdNamespaceDelete   Command = 42
	CmdNamespaceLearn    Command = 43

	CmdRolloutVote   Command = 44
	CmdRolloutLearn  Command = 45
	CmdRolloutShare  Command = 46
	CmdRolloutForget Command = 47
)

// table leads from each command to what applies it.
var table = map[Command]command{
	CmdCellInit:      typed(applyCellInit),
	CmdJobRegister:   typed(applyJobRegister),
	CmdJobDeregister: typed(applyJobDeregister),
	CmdPlan:          typed(applyPlan),
	CmdEvals:         typed(applyEvals),
	CmdNodeRegister:  typed(applyNodeRegister),
	CmdNodeStatus:    typed(applyNodeStatus),
	CmdAllocReports:  typed(applyAllocReports),

	CmdAutopilotConfig: typed(applyAutopilotConfig),
	CmdNodeEligibility: typed(applyNodeEligibility),
	CmdNodeDrain:       typed(applyNodeDrain),
	CmdNodePurge:       typed(applyNodePurge),
	CmdAllocTransition: typed(applyAllocTransition),
	CmdNodeEvaluate:    typed(applyNodeEvaluate),
	CmdPeriodicLaunch:  typed(applyPeriodicLaunch),
	CmdJobDispatch:     typed(applyJobDispatch),
	CmdEvalDelete:      typed(applyEvalDelete),
	CmdReap:            typed(applyReap),
	CmdEvalMove:        typed(applyEvalMove),
	CmdNodeQuarantine:  typed(applyNodeQuarantine),

	CmdDeploymentStatus:  typed(applyDeploymentStatus),
	CmdDeploymentPromote: typed(applyDeploymentPromote),
	CmdAllocHealth:       typed(applyAllocHealth),
	CmdJobStability:      typed(applyJobStability),
	CmdJobVersionTag:     typed(applyJobVersionTag),
	CmdJobRevert:         typed(applyJobRevert),
	CmdAllocReschedule:   typed(applyAllocReschedule),
	CmdSchedulerConfig:   typed(applySchedulerConfig),
	CmdRecount:           typed(applyRecount),
	CmdJobScale:          typed(applyJobScale),
	CmdNamespaceUpsert:   typed(applyNamespaceUpsert),
	CmdNamespaceDelete:   typed(applyNamespaceDelete),
	CmdNamespaceLearn:    typed(applyNamespaceLearn),

	CmdRolloutVote:   typed(applyRolloutVote),
	CmdRolloutLearn:  typed(applyRolloutLearn),
	CmdRolloutShare:  typed(applyRolloutShare),
	CmdRolloutForget: typed(applyRolloutForget),
}

// command is what a command does in a transaction at a Raft index, given the
// state before it. Its answer goes to the proposer, and is kept for whoever
// sends the same request again; an error leaves the state as it was.
type command struct {
	// read makes an entry's body what apply takes. It fails for one that has more
	// to it than this version knows.
	read  func(body []byte) (any, error)
	apply func(tx *state.Txn, snap *state.Snapshot, index uint64, body any) (any, error)
	// recall makes a kept answer of its bytes.
	recall func(kept []byte) (any, error)
}

// None is the answer of commands that have nothing to say.
type None struct{}

func typed[T, R any](f func(*state.Txn, *state.Snapshot, uint64, *T) (*R, error)) command {
	return command{
		read: func(body []byte) (any, error) {
			v := new(T)
			return v, wire.DecodeAll(body, v)
		},
		apply: func(tx *state.Txn, snap *state.Snapshot, index uint64, body any) (any, error) {
			return f(tx, snap, index, body.(*T))
		},
		recall: func(kept []byte) (any, error) {
			v := new(R)
			return v, wire.Decode(kept, v)
		},
	}
}

// CellInit names the cell; the first that is applied stands.
type CellInit struct{ Cell state.Cell }

func applyCellInit(tx *state.Txn, _ *state.Snapshot, _ uint64, c *CellInit) (*state.Cell, error) {
	return tx.SetCell(&c.Cell)
}

// entryOnce marks a log entry whose command is to be applied once for its
// request: the mark, a length in two bytes, the encoded state.Request, and the
// entry proper.
const entryOnce = 0xff

// encode makes a log entry. A request of nil applies the command whenever the
// entry is met. What could not be read again is refused as Invalid: an entry that no
// server can read stops them all, for good.
func encode(cmd Command, req *state.Request, body any) ([]byte, error) {
	b, err := wire.Encode(body)
	if err != nil {
		return nil, fmt.Errorf("cannot encode command %d: %w", cmd, err)
	}
	if err := wire.Keeps(b); err != nil {
		return nil, model.Errorf(model.KindInvalid, "cannot write: %w", err)
	}
	var entry []byte
	if req != nil {
		r, err := wire.Encode(req)
		if err != nil {
			return nil, fmt.Errorf("cannot encode command %d: %w", cmd, err)
		}
		if len(r) > 0xffff {
			return nil, fmt.Errorf("cannot encode command %d: the request's id and namespace take %d bytes", cmd, len(r))
		}
		entry = append(append(entry, entryOnce, byte(len(r)>>8), byte(len(r))), r...)
	}
	return append(append(entry, byte(cmd)), b...), nil
}

var errShortEntry = errors.New("the entry is too short")

// commandOf is the command of an entry, read without the rest.
func commandOf(entry []byte) (Command, error) {
	if len(entry) > 0 && entry[0] == entryOnce {
		if len(entry) < 3 {
			return 0, errShortEntry
		}
		entry = entry[min(len(entry), 3+int(entry[1])<<8+int(entry[2])):]
	}
	if len(entry) == 0 {
		return 0, errShortEntry
	}
	return Command(entry[0]), nil
}

// split reads what encode wrote, but for the body.
func split(entry []byte) (cmd Command, req *state.Request, body []byte, err error) {
	if len(entry) > 0 && entry[0] == entryOnce {
		if len(entry) < 3 {
			return 0, nil, nil, errShortEntry
		}
		size := int(entry[1])<<8 | int(entry[2])
		if entry = entry[3:]; len(entry) < size {
			return 0, nil, nil, errShortEntry
		}
		req = new(state.Request)
		if err := wire.DecodeAll(entry[:size], req); err != nil {
			return 0, nil, nil, err
		}
		entry = entry[size:]
	}
	if len(entry) == 0 {
		return 0, nil, nil, errShortEntry
	}
	return Command(entry[0]), req, entry[1:], nil
}
