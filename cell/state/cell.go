package state

// Cell is what a cell knows of itself.
type Cell struct {
	// ID is made once, by the first leader.
	ID     string
	Region string
	// Created is in Unix nanoseconds.
	Created int64
}

// Cell returns the cell's identity, nil before the first leader wrote it.
func (s *Snapshot) Cell(ws Watch) *Cell { return first[*Cell](s.tx, ws, tableCell) }

// SetCell writes the cell's identity, unless there is one, and returns the one
// that stands.
func (t *Txn) SetCell(c *Cell) (*Cell, error) {
	if have := first[*Cell](t.tx, nil, tableCell); have != nil {
		return have, nil
	}
	return c, t.insert(tableCell, c)
}
