package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// SchedulerConfig sets the scheduler configuration. It answers with
// SchedulerSet.
type SchedulerConfig struct {
	Config model.SchedulerConfig
	// CheckIndex changes nothing unless the stored ModifyIndex is
	// Config.ModifyIndex, 0 meaning that there is none stored.
	CheckIndex bool
}

// SchedulerSet says whether the configuration was set.
type SchedulerSet struct{ Updated bool }

func applySchedulerConfig(tx *state.Txn, snap *state.Snapshot, _ uint64, c *SchedulerConfig) (*SchedulerSet, error) {
	if c.CheckIndex && snap.SchedulerConfig(nil).ModifyIndex != c.Config.ModifyIndex {
		return &SchedulerSet{}, nil
	}
	return &SchedulerSet{Updated: true}, tx.SetSchedulerConfig(c.Config)
}

// admitsJobs is a Forbidden error while users' jobs are refused. It is asked
// when the command is applied, so that a request which was accepted before, and
// comes again, has its first answer.
func admitsJobs(snap *state.Snapshot) error {
	if snap.SchedulerConfig(nil).RejectJobRegistration {
		return &model.Error{Kind: model.KindForbidden, Message: "the region takes no jobs at present: its scheduler configuration has RejectJobRegistration; an operator can change that"}
	}
	return nil
}
