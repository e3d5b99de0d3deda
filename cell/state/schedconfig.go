package state

import "atoll/model"

// SchedulerConfig returns the scheduler configuration, the default one as long
// as none was set.
func (s *Snapshot) SchedulerConfig(ws Watch) model.SchedulerConfig {
	if c := first[*model.SchedulerConfig](s.tx, ws, tableScheduler); c != nil {
		return *c
	}
	return model.DefaultSchedulerConfig()
}

// Algorithm is by what nodes are ranked.
func (s *Snapshot) Algorithm() string { return s.SchedulerConfig(nil).SchedulerAlgorithm }

// SetSchedulerConfig writes the scheduler configuration.
func (t *Txn) SetSchedulerConfig(c model.SchedulerConfig) error {
	c.CreateIndex, c.ModifyIndex = t.index, t.index
	if have := first[*model.SchedulerConfig](t.tx, nil, tableScheduler); have != nil {
		c.CreateIndex = have.CreateIndex
	}
	return t.insert(tableScheduler, &c)
}
