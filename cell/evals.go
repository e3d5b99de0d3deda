package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// EvalMove gives the status To to those evaluations that have the status From
// when it is applied. It answers with EvalsMoved.
type EvalMove struct {
	IDs      []model.UUID
	From, To string
	Why      string
	// Time is the proposer's, in Unix nanoseconds.
	Time int64
}

// EvalsMoved counts evaluations whose status changed.
type EvalsMoved struct{ Count int }

func applyEvalMove(tx *state.Txn, _ *state.Snapshot, _ uint64, c *EvalMove) (*EvalsMoved, error) {
	n, err := tx.MoveEvals(c.IDs, c.From, c.To, c.Why, c.Time)
	return &EvalsMoved{n}, err
}

// EvalDelete deletes evaluations of a namespace ("*" is any), but for those that
// allocations which are not over name. Strict makes these a conflict, and those
// that are not there an error. It answers with EvalsDeleted.
type EvalDelete struct {
	Namespace string
	IDs       []model.UUID
	Strict    bool
	// Before counts those that earlier commands deleted for the same request.
	Before int
}

// EvalsDeleted counts what a request deleted.
type EvalsDeleted struct{ Count int }

func applyEvalDelete(tx *state.Txn, _ *state.Snapshot, _ uint64, c *EvalDelete) (*EvalsDeleted, error) {
	n, err := tx.DeleteEvals(c.Namespace, c.IDs, c.Strict)
	return &EvalsDeleted{c.Before + n}, err
}

func applyReap(tx *state.Txn, _ *state.Snapshot, _ uint64, c *state.Reap) (*state.Reaped, error) {
	return tx.Reap(c)
}
