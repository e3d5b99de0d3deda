package cell

import (
	"atoll/cell/state"
	"atoll/model"
)

// AutopilotConfig sets autopilot's configuration. It answers with AutopilotSet.
type AutopilotConfig struct {
	Config model.AutopilotConfig
	// CheckIndex changes nothing unless the stored ModifyIndex is
	// Config.ModifyIndex, 0 meaning that there is none stored.
	CheckIndex bool
}

// AutopilotSet says whether the configuration was set.
type AutopilotSet struct{ Updated bool }

func applyAutopilotConfig(tx *state.Txn, snap *state.Snapshot, _ uint64, c *AutopilotConfig) (*AutopilotSet, error) {
	var have uint64
	if old := snap.AutopilotConfig(nil); old != nil {
		have = old.ModifyIndex
	}
	if c.CheckIndex && have != c.Config.ModifyIndex {
		return &AutopilotSet{}, nil
	}
	return &AutopilotSet{Updated: true}, tx.SetAutopilotConfig(c.Config)
}
