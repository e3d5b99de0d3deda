package state

import "atoll/model"

// AutopilotConfig returns autopilot's configuration, nil before the first
// leader wrote it.
func (s *Snapshot) AutopilotConfig(ws Watch) *model.AutopilotConfig {
	return first[*model.AutopilotConfig](s.tx, ws, tableAutopilot)
}

// SetAutopilotConfig writes autopilot's configuration.
func (t *Txn) SetAutopilotConfig(c model.AutopilotConfig) error {
	c.CreateIndex, c.ModifyIndex = t.index, t.index
	if have := first[*model.AutopilotConfig](t.tx, nil, tableAutopilot); have != nil {
		c.CreateIndex = have.CreateIndex
	}
	return t.insert(tableAutopilot, &c)
}
