package state

// Cell is what a cell knows of itself.
type Cell struct {
	// ID is made once, by the first leader.
	ID     string
	Region string
	// Created is in Unix nanoseconds.
	Created int64
	// Incarnation is made with the cell, and anew whenever an older state is
	// restored into it: what the cell promised since that state, it no longer
	// knows.
	Incarnation string
	// Restored is the Raft index at which the newest restore took place, 0 when
	// there was none: lower ones are of a state that is gone.
	Restored uint64
}

// Cell returns the cell's identity, nil before the first leader wrote it.
func (s *Snapshot) Cell(ws Watch) *Cell { return first[*Cell](s.tx, ws, tableCell) }

// Name names the state: indexes of two states of different names say nothing of each
// other. It is "" before the first leader wrote the cell's identity.
func (s *Snapshot) Name() string {
	if c := s.Cell(nil); c != nil {
		return c.ID + "/" + c.Incarnation
	}
	return ""
}

// Restored is the Raft index of the newest restore, 0 when there was none.
func (s *Snapshot) Restored() uint64 {
	if c := s.Cell(nil); c != nil {
		return c.Restored
	}
	return 0
}

// SetCell writes the cell's identity, unless there is one, and returns the one
// that stands.
func (t *Txn) SetCell(c *Cell) (*Cell, error) {
	if have := first[*Cell](t.tx, nil, tableCell); have != nil {
		return have, nil
	}
	return c, t.insert(tableCell, c)
}

// Reincarnate notes that this state was restored at the transaction's index.
func (t *Txn) Reincarnate(incarnation string) error {
	c := Cell{}
	if have := first[*Cell](t.tx, nil, tableCell); have != nil {
		c = *have
	}
	c.Incarnation, c.Restored = incarnation, t.index
	return t.insert(tableCell, &c)
}
