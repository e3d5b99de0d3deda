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
