package model

// Scheduler algorithms: whether nodes are to be filled one after another, or
// evenly.
const (
	AlgorithmBinpack = "binpack"
	AlgorithmSpread  = "spread"
)

// SchedulerConfig says how a region's work is placed, and whether any is.
type SchedulerConfig struct {
	// SchedulerAlgorithm is one of the algorithms above.
	SchedulerAlgorithm string
	PreemptionConfig   PreemptionConfig
	// MemoryOversubscriptionEnabled is not supported yet.
	MemoryOversubscriptionEnabled bool
	// RejectJobRegistration refuses users' jobs, new and changed. Jobs can be
	// stopped.
	RejectJobRegistration bool
	// PauseEvalBroker leaves evaluations lie, pending and blocked ones.
	PauseEvalBroker bool
	// NodeLimitForFeasibilityChecks is not supported; 0 is none.
	NodeLimitForFeasibilityChecks uint
	CreateIndex                   uint64
	ModifyIndex                   uint64
}

// PreemptionConfig says whose jobs may take the place of others of a lower
// priority. It is not supported yet.
type PreemptionConfig struct {
	SystemSchedulerEnabled   bool
	SysBatchSchedulerEnabled bool
	BatchSchedulerEnabled    bool
	ServiceSchedulerEnabled  bool
}

// DefaultSchedulerConfig is what a region has until somebody sets another.
// Preemption for system jobs, which Nomad begins with, is off: Atoll does not
// have it.
func DefaultSchedulerConfig() SchedulerConfig {
	return SchedulerConfig{SchedulerAlgorithm: AlgorithmBinpack}
}

// Validate says what is wrong, or not supported, by field. An empty algorithm
// becomes the default.
func (c *SchedulerConfig) Validate() error {
	if c.SchedulerAlgorithm == "" {
		c.SchedulerAlgorithm = AlgorithmBinpack
	}
	if c.SchedulerAlgorithm != AlgorithmBinpack && c.SchedulerAlgorithm != AlgorithmSpread {
		return Invalidf("SchedulerAlgorithm", "SchedulerAlgorithm %q is neither %q nor %q", c.SchedulerAlgorithm, AlgorithmBinpack, AlgorithmSpread)
	}
	p := &c.PreemptionConfig
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"PreemptionConfig.SystemSchedulerEnabled", p.SystemSchedulerEnabled}, {"PreemptionConfig.SysBatchSchedulerEnabled", p.SysBatchSchedulerEnabled},
		{"PreemptionConfig.BatchSchedulerEnabled", p.BatchSchedulerEnabled}, {"PreemptionConfig.ServiceSchedulerEnabled", p.ServiceSchedulerEnabled},
		{"MemoryOversubscriptionEnabled", c.MemoryOversubscriptionEnabled}, {"NodeLimitForFeasibilityChecks", c.NodeLimitForFeasibilityChecks != 0},
	} {
		if f.on {
			return &Error{Kind: KindUnsupported, Field: f.name, Message: "cannot set the scheduler configuration: this version of Atoll does not have " + f.name + "; leave it off"}
		}
	}
	return nil
}
