package state

import (
	"iter"
	"slices"
	"strings"

	"atoll/model"
)

// Namespace returns a namespace, nil when there is none. The default one is
// always there.
func (s *Snapshot) Namespace(ws Watch, name string) *model.Namespace {
	n := first[*model.Namespace](s.tx, ws, tableNamespaces, name)
	switch {
	case n != nil && !n.Deleted:
		return n
	case name == model.DefaultNamespace:
		return model.TheDefaultNamespace()
	}
	return nil
}

// Namespaces yields the namespaces that begin with prefix, by name.
func (s *Snapshot) Namespaces(ws Watch, prefix string) iter.Seq[*model.Namespace] {
	var out []*model.Namespace
	for n := range each[*model.Namespace](s.tx, ws, tableNamespaces, byID+"_prefix", prefix) {
		if !n.Deleted {
			out = append(out, n)
		}
	}
	at, there := slices.BinarySearchFunc(out, model.DefaultNamespace, func(n *model.Namespace, name string) int { return strings.Compare(n.Name, name) })
	if !there && strings.HasPrefix(model.DefaultNamespace, prefix) {
		out = slices.Insert(out, at, model.TheDefaultNamespace())
	}
	return slices.Values(out)
}

// NamespacesIndex is the index of the last change of any namespace.
func (s *Snapshot) NamespacesIndex() uint64 { return s.tableIndex(tableNamespaces) }

// UpsertNamespace makes or changes a namespace; its version and indexes are set
// here.
func (t *Txn) UpsertNamespace(given *model.Namespace) (*model.Namespace, error) {
	n := *given
	n.Version = t.namespaceVersion(n.Name) + 1
	return t.PutNamespace(&n)
}

// DeleteNamespace leaves of a namespace its name and version.
func (t *Txn) DeleteNamespace(name string) error {
	_, err := t.PutNamespace(&model.Namespace{Name: name, Version: t.namespaceVersion(name) + 1, Deleted: true})
	return err
}

// PutNamespace writes a row whole, its version included; the indexes are this
// cell's own. It returns the row that stands: a row of no higher version than the
// one there changes nothing.
func (t *Txn) PutNamespace(row *model.Namespace) (*model.Namespace, error) {
	old := first[*model.Namespace](t.tx, nil, tableNamespaces, row.Name)
	if old != nil && row.Version <= old.Version {
		return old, nil
	}
	n := *row
	n.CreateIndex, n.ModifyIndex = t.index, t.index
	if old != nil && !old.Deleted {
		n.CreateIndex = old.CreateIndex
	}
	return &n, t.insert(tableNamespaces, &n)
}

func (t *Txn) namespaceVersion(name string) uint64 {
	if n := first[*model.Namespace](t.tx, nil, tableNamespaces, name); n != nil {
		return n.Version
	}
	return 0
}
