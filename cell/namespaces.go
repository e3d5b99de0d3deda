package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// NamespaceUpsert makes or changes a namespace.
type NamespaceUpsert struct{ Namespace *model.Namespace }

// NamespaceDelete deletes a namespace. It answers with a NotFound error when there
// is none, and with a Conflict while it has jobs that are not over.
type NamespaceDelete struct{ Name string }

func applyNamespaceUpsert(tx *state.Txn, _ *state.Snapshot, _ uint64, c *NamespaceUpsert) (*None, error) {
	_, err := tx.UpsertNamespace(c.Namespace)
	return &None{}, err
}

func applyNamespaceDelete(tx *state.Txn, snap *state.Snapshot, _ uint64, c *NamespaceDelete) (*None, error) {
	switch {
	case c.Name == model.DefaultNamespace:
		return nil, model.Invalidf("Name", "cannot delete namespace %q: it is always there", c.Name)
	case snap.Namespace(nil, c.Name) == nil:
		return nil, model.NotFound("namespace", c.Name)
	}
	for j := range snap.Jobs(nil, c.Name, "") {
		if j.Status != model.JobStatusDead {
			return nil, model.Errorf(model.KindConflict, "cannot delete namespace %q: job %q in it is %s; stop its jobs first", c.Name, j.ID, j.Status)
		}
	}
	return &None{}, tx.DeleteNamespace(c.Name)
}

// inNamespace refuses what would bring a job to life in a namespace that does not
// exist, or no longer.
func inNamespace(snap *state.Snapshot, j *model.Job) error {
	if snap.Namespace(nil, j.Namespace) == nil {
		return model.NoNamespace(j)
	}
	return nil
}
