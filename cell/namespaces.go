package cell

import (
	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

// NamespaceUpsert makes or changes a namespace; its Writer is the region, and its
// Write the request. It answers with a model.NamespaceTag.
type NamespaceUpsert struct{ Namespace *model.Namespace }

// NamespaceDelete deletes a namespace. It answers with a model.NamespaceTag, with
// a NotFound error when there is none, and with a Conflict while it has jobs that
// are not over.
type NamespaceDelete struct {
	Name   string
	Writer string
	Write  model.NamespaceWrite
}

// NamespaceLearn takes up what other regions have: rows that are newer than ours,
// and the requests that made them, whether they are or not. It answers with
// NamespaceLearned.
//
// A deletion that comes to a region where jobs have come to life meanwhile does
// not stand: the region changes the namespace back, and that spreads. So a job
// that is not over has its namespace in its region at any time.
type NamespaceLearn struct {
	// Own is the region.
	Own  string
	Rows []*model.Namespace
	// Forget are deleted namespaces of which no region needs to know any more.
	Forget []*model.Namespace
	Time   int64
}

// NamespaceLearned says which deletions did not stand.
type NamespaceLearned struct{ Kept []NamespaceKept }

// NamespaceKept is a namespace that is kept for a job.
type NamespaceKept struct{ Name, JobID string }

func applyNamespaceUpsert(tx *state.Txn, _ *state.Snapshot, _ uint64, c *NamespaceUpsert) (*model.NamespaceTag, error) {
	n, err := tx.UpsertNamespace(c.Namespace)
	if err != nil {
		return nil, err
	}
	return &model.NamespaceTag{Version: n.Version, Writer: n.Writer}, nil
}

func applyNamespaceDelete(tx *state.Txn, snap *state.Snapshot, index uint64, c *NamespaceDelete) (*model.NamespaceTag, error) {
	switch {
	case c.Name == model.DefaultNamespace:
		return nil, model.Invalidf("Name", "cannot delete namespace %q: it is always there", c.Name)
	case snap.Namespace(nil, c.Name) == nil:
		return nil, model.NotFound("namespace", c.Name)
	}
	if j := LiveJob(snap, c.Name); j != nil {
		return nil, model.Errorf(model.KindConflict, "cannot delete namespace %q: job %q in it is %s; stop its jobs first", c.Name, j.ID, j.Status)
	}
	return applyNamespaceUpsert(tx, snap, index, &NamespaceUpsert{&model.Namespace{Name: c.Name, Writer: c.Writer, Write: c.Write, Deleted: true}})
}

// LiveJob is a job of a namespace that is not over, nil when there is none.
func LiveJob(snap *state.Snapshot, namespace string) *model.Job {
	for j := range snap.Jobs(nil, namespace, "") {
		if j.Status != model.JobStatusDead {
			return j
		}
	}
	return nil
}

func applyNamespaceLearn(tx *state.Txn, snap *state.Snapshot, _ uint64, c *NamespaceLearn) (*NamespaceLearned, error) {
	out := &NamespaceLearned{}
	for _, row := range c.Rows {
		old := snap.NamespaceRow(nil, row.Name)
		if row.Deleted && row.Name != model.AllNamespaces && (old == nil || row.Compare(old) > 0) {
			if j := LiveJob(snap, row.Name); j != nil {
				back := &model.Namespace{Name: row.Name}
				if old != nil {
					back = model.Clone(old)
				}
				back.Version, back.Writer, back.Deleted = row.Version+1, c.Own, false
				back.Write = model.NamespaceWrite{Hash: back.Write.Hash, Time: c.Time}
				if _, err := tx.PutNamespace(back); err != nil {
					return nil, err
				}
				out.Kept = append(out.Kept, NamespaceKept{row.Name, j.ID})
			}
		}
		if _, err := tx.PutNamespace(row); err != nil {
			return nil, err
		}
		if err := rememberNamespace(tx, snap, row); err != nil {
			return nil, err
		}
	}
	for _, row := range c.Forget {
		if err := tx.ForgetNamespace(row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// NamespaceRequest is the request that made a change.
func NamespaceRequest(w *model.NamespaceWrite) *state.Request {
	return &state.Request{ID: w.ID, Namespace: model.DefaultNamespace, Hash: w.Hash, Issued: w.Issued}
}

// NewsOfNamespace reports whether a region would take anything up of a row.
func NewsOfNamespace(snap *state.Snapshot, row *model.Namespace) bool {
	have := snap.NamespaceRow(nil, row.Name)
	return have == nil || row.Compare(have) > 0 || unknownRequest(snap, &row.Write)
}

func unknownRequest(snap *state.Snapshot, w *model.NamespaceWrite) bool {
	if w.ID == "" {
		return false
	}
	kept, err := snap.Recall(NamespaceRequest(w))
	return kept == nil && err == nil
}

// rememberNamespace has the region know the request that made a change, should it
// come by this region's door.
func rememberNamespace(tx *state.Txn, snap *state.Snapshot, row *model.Namespace) error {
	if !unknownRequest(snap, &row.Write) {
		return nil
	}
	answer, err := wire.Encode(&model.NamespaceTag{Version: row.Version, Writer: row.Writer})
	if err != nil {
		return err
	}
	return tx.Remember(NamespaceRequest(&row.Write), answer)
}

// inNamespace refuses what would bring a job to life in a namespace that does not
// exist, or no longer.
func inNamespace(snap *state.Snapshot, j *model.Job) error {
	if snap.Namespace(nil, j.Namespace) == nil {
		return model.NoNamespace(j)
	}
	return nil
}
