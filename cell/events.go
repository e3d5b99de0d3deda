package cell

import "atoll/model"

// eventTypes are the types of the events about what a command changes. Those of
// other commands are by the topic: a job was registered, an allocation updated.
var eventTypes = map[Command]string{
	CmdJobRegister:       model.EventJobRegistered,
	CmdJobDeregister:     model.EventJobDeregistered,
	CmdPlan:              model.EventPlanResult,
	CmdEvals:             model.EventEvaluationUpdated,
	CmdEvalMove:          model.EventEvaluationUpdated,
	CmdEvalDelete:        model.EventEvaluationUpdated,
	CmdReap:              model.EventJobBatchDeregistered,
	CmdAllocReports:      model.EventAllocationUpdated,
	CmdAllocTransition:   model.EventAllocationDesired,
	CmdAllocReschedule:   model.EventAllocationDesired,
	CmdDeploymentStatus:  model.EventDeploymentStatus,
	CmdDeploymentPromote: model.EventDeploymentPromotion,
	CmdAllocHealth:       model.EventDeploymentAllocHealth,
	CmdNodeRegister:      model.EventNodeRegistration,
	CmdNodeStatus:        model.EventNode,
	CmdNodeEvaluate:      model.EventNode,
	CmdNodeEligibility:   model.EventNodeEligibility,
	CmdNodeQuarantine:    model.EventNodeEligibility,
	CmdNodeDrain:         model.EventNodeDrain,
	CmdNodePurge:         model.EventNodeDeregistration,
	CmdRolloutLearn:      model.EventDeploymentStatus,
}
