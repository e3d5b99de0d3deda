package state

import (
	"fmt"

	"atoll/model"
)

// JobScaling returns a job's scaling events, nil when there are none.
func (s *Snapshot) JobScaling(ws Watch, key model.JobID) *model.JobScaling {
	return first[*model.JobScaling](s.tx, ws, tableScaling, key.Namespace, key.ID)
}

// AddScalingEvent keeps a scaling event of a group; its index is set here.
func (t *Txn) AddScalingEvent(key model.JobID, group string, e model.ScalingEvent) error {
	e.CreateIndex = t.index
	old := first[*model.JobScaling](t.tx, nil, tableScaling, key.Namespace, key.ID)
	return t.insert(tableScaling, old.With(key, group, &e))
}

// purgeScaling forgets a job's scaling events.
func (t *Txn) purgeScaling(key model.JobID) error {
	old := first[*model.JobScaling](t.tx, nil, tableScaling, key.Namespace, key.ID)
	if old == nil {
		return nil
	}
	t.dirty[tableScaling] = true
	if err := t.tx.Delete(tableScaling, old); err != nil {
		return fmt.Errorf("cannot purge job %q: %w", key.ID, err)
	}
	return nil
}
