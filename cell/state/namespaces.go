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

// NamespaceRow returns what is known of a name, be it that its namespace was
// deleted; nil when nothing is.
func (s *Snapshot) NamespaceRow(ws Watch, name string) *model.Namespace {
	return first[*model.Namespace](s.tx, ws, tableNamespaces, name)
}

// NamespaceRows yields all rows, those of deleted namespaces too, by name. The row
// of model.AllNamespaces stands for those that are forgotten, as if all of them
// were deleted: its version is the highest that one of them had.
func (s *Snapshot) NamespaceRows(ws Watch) iter.Seq[*model.Namespace] {
	return each[*model.Namespace](s.tx, ws, tableNamespaces, byID+"_prefix", "")
}

// UpsertNamespace makes, changes or deletes a namespace; its version and indexes
// are set here.
func (t *Txn) UpsertNamespace(given *model.Namespace) (*model.Namespace, error) {
	n := *given
	n.Version = 0
	for _, name := range []string{n.Name, model.AllNamespaces} {
		if old := first[*model.Namespace](t.tx, nil, tableNamespaces, name); old != nil {
			n.Version = max(n.Version, old.Version)
		}
	}
	n.Version++
	return t.PutNamespace(&n)
}

// PutNamespace writes a row whole, its version included; the indexes are this
// cell's own. It returns the row that stands: a row that is not newer than the
// one there changes nothing.
func (t *Txn) PutNamespace(row *model.Namespace) (*model.Namespace, error) {
	old := first[*model.Namespace](t.tx, nil, tableNamespaces, row.Name)
	if old != nil && row.Compare(old) <= 0 {
		return old, nil
	}
	n := *row
	n.CreateIndex, n.ModifyIndex = t.index, t.index
	if old != nil && !old.Deleted {
		n.CreateIndex = old.CreateIndex
	}
	return &n, t.insert(tableNamespaces, &n)
}

// ForgetNamespace drops what is left of a deleted namespace, unless it was
// changed since.
func (t *Txn) ForgetNamespace(row *model.Namespace) error {
	old := first[*model.Namespace](t.tx, nil, tableNamespaces, row.Name)
	if old == nil || !old.Deleted || old.Compare(row) != 0 {
		return nil
	}
	if err := t.delete(tableNamespaces, old); err != nil {
		return err
	}
	_, err := t.PutNamespace(&model.Namespace{Name: model.AllNamespaces, Version: old.Version, Deleted: true})
	return err
}
