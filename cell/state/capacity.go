package state

import (
	"cmp"
	"fmt"
	"slices"

	"atoll/model"
)

// Capacity says when something last happened that may have made room on the
// nodes of a computed class: a node that may take work came or changed, or an
// allocation on one ended. It is in the state, so that a new leader knows what
// the last one had not acted on yet.
type Capacity struct {
	Class string
	Index uint64
}

// Capacities returns when room may have been made, by class, the latest first.
func (s *Snapshot) Capacities(ws Watch) []Capacity {
	var out []Capacity
	for c := range each[*Capacity](s.tx, ws, tableCapacity, byID) {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Capacity) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(a.Class, b.Class))
	})
	return out
}

// nodeChanged notes the capacity of a node that is about to be written or, when
// n is nil, deleted. insert calls it for every node that is written, so that no
// writer can forget what may be waiting for the node.
func (t *Txn) nodeChanged(old, n *model.Node) error {
	if old != nil && (n == nil || old.ComputedClass != n.ComputedClass) {
		others := 0
		for range each[*model.Node](t.tx, nil, tableNodes, byClass, old.ComputedClass) {
			if others++; others > 1 {
				break
			}
		}
		// Nobody can be helped by a class without nodes, and there is no end
		// of classes in a region's life.
		if c := first[*Capacity](t.tx, nil, tableCapacity, old.ComputedClass); c != nil && others < 2 {
			t.dirty[tableCapacity] = true
			if err := t.tx.Delete(tableCapacity, c); err != nil {
				return fmt.Errorf("cannot write table %s: %w", tableCapacity, err)
			}
		}
	}
	if n == nil || !n.Ready() {
		return nil
	}
	return t.roomOn(n)
}

func (t *Txn) roomOn(n *model.Node) error {
	if c := first[*Capacity](t.tx, nil, tableCapacity, n.ComputedClass); c != nil && c.Index == t.index {
		return nil
	}
	return t.insert(tableCapacity, &Capacity{n.ComputedClass, t.index})
}

// freed notes the capacity of nodes on which allocations ended. A node that may
// take no work is noted when it may again.
func (t *Txn) freed(ids []model.UUID) error {
	for _, id := range ids {
		if n := first[*model.Node](t.tx, nil, tableNodes, id.String()); n != nil && n.Ready() {
			if err := t.roomOn(n); err != nil {
				return err
			}
		}
	}
	return nil
}
