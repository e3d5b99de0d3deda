package state

import "iter"

// vector is a persistent array: a new version shares what it did not change
// with the old. Leaves hold 32 elements and inner nodes 64 children, so that a
// million rows are four levels deep and a lone change copies about 5 kB.
//
// A writer passes its edit mark: nodes it has copied or made carry the mark
// and are changed in place for the rest of the transaction.
//
// A leaf may be released, and is then nil, until one of its elements is owned
// again; the last one is always there.
type vector[T any] struct {
	root  *vnode[T]
	depth int // levels above the leaves
	n     int
}

const (
	leafBits  = 5
	leafSize  = 1 << leafBits
	innerBits = 6
	innerSize = 1 << innerBits
)

// edit is the mark of one transaction, and collects the channels of the leaves
// that it replaced.
type edit struct{ woken []*lazyChan }

type vnode[T any] struct {
	edit  *edit
	watch lazyChan
	rows  []T         // leaves only
	kids  []*vnode[T] // inner nodes only
}

// leaf returns the leaf of element i, nil when it was released.
func (v *vector[T]) leaf(i int) *vnode[T] {
	node := v.root
	for d := v.depth; d > 0; d-- {
		node = node.kids[i>>(leafBits+innerBits*(d-1))&(innerSize-1)]
	}
	return node
}

// at returns element i, which must exist and must not be changed.
func (v *vector[T]) at(i int) *T { return &v.leaf(i).rows[i&(leafSize-1)] }

// own returns element i for the holder of e to change.
func (v *vector[T]) own(i int, e *edit) *T {
	v.root = v.root.owned(e)
	node := v.root
	for d := v.depth; d > 0; d-- {
		at := i >> (leafBits + innerBits*(d-1)) & (innerSize - 1)
		if node.kids[at] == nil {
			node.kids[at] = &vnode[T]{edit: e, rows: make([]T, leafSize)}
		} else {
			node.kids[at] = node.kids[at].owned(e)
		}
		node = node.kids[at]
	}
	return &node.rows[i&(leafSize-1)]
}

// release drops the leaf of element i, which nothing may read until it is owned
// again.
func (v *vector[T]) release(i int, e *edit) {
	if i>>leafBits == (v.n-1)>>leafBits {
		return
	}
	v.own(i, e)
	node := v.root
	for d := v.depth; d > 1; d-- {
		node = node.kids[i>>(leafBits+innerBits*(d-1))&(innerSize-1)]
	}
	node.kids[i>>leafBits&(innerSize-1)] = nil
}

func (n *vnode[T]) owned(e *edit) *vnode[T] {
	if n.edit == e {
		return n
	}
	e.woken = append(e.woken, &n.watch)
	c := &vnode[T]{edit: e}
	if n.kids != nil {
		c.kids = append(make([]*vnode[T], 0, innerSize), n.kids...)
	} else {
		c.rows = append(make([]T, 0, leafSize), n.rows...)
	}
	return c
}

// add appends x and returns its place.
func (v *vector[T]) add(x T, e *edit) int {
	i := v.n
	if v.root == nil {
		v.root = &vnode[T]{edit: e, rows: make([]T, 0, leafSize)}
	} else if i == leafSize<<(innerBits*v.depth) {
		v.root = &vnode[T]{edit: e, kids: append(make([]*vnode[T], 0, innerSize), v.root)}
		v.depth++
	} else {
		v.root = v.root.owned(e)
	}
	node := v.root
	for d := v.depth; d > 0; d-- {
		at := i >> (leafBits + innerBits*(d-1)) & (innerSize - 1)
		switch {
		case at < len(node.kids):
			node.kids[at] = node.kids[at].owned(e)
		case d == 1:
			node.kids = append(node.kids, &vnode[T]{edit: e, rows: make([]T, 0, leafSize)})
		default:
			node.kids = append(node.kids, &vnode[T]{edit: e, kids: make([]*vnode[T], 0, innerSize)})
		}
		node = node.kids[at]
	}
	node.rows = append(node.rows, x)
	v.n++
	return i
}

// all yields the elements in order, but for those of released leaves.
func (v *vector[T]) all() iter.Seq2[int, *T] {
	return func(yield func(int, *T) bool) {
		for i := 0; i < v.n; {
			leaf := v.leaf(i)
			if leaf == nil {
				i += leafSize
				continue
			}
			for k := range leaf.rows {
				if !yield(i, &leaf.rows[k]) {
					return
				}
				i++
			}
		}
	}
}
