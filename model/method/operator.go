package method

import "atoll/model"

// What operators ask of a cell.
var (
	RaftConfiguration   = Method[Empty, RaftConfigurationResponse]{Spec{Name: "Operator.RaftConfiguration", Place: AtLeaderOrStale}}
	RaftRemovePeer      = membership[RaftPeerRequest, RaftPeerResponse]("Operator.RaftRemovePeer")
	RaftTransfer        = membership[RaftPeerRequest, RaftTransferResponse]("Operator.RaftTransferLeadership")
	AutopilotGet        = read[Query, AutopilotResponse]("Operator.AutopilotConfiguration")
	AutopilotSet        = write[AutopilotSetRequest, AutopilotSetResponse]("Operator.AutopilotSetConfiguration")
	AutopilotCellHealth = Method[Empty, AutopilotHealthResponse]{Spec{Name: "Operator.AutopilotHealth", Place: AtLeader}}
)

// membership is a change of Raft's own, which no FSM applies: it is not sent
// again when its outcome is not known.
func membership[Req, Reply any](name string) Method[Req, Reply] {
	return Method[Req, Reply]{Spec{Name: name, Place: AtLeader, Write: true}}
}

type (
	RaftConfigurationResponse struct {
		Meta
		Config model.RaftConfiguration
	}
	// RaftPeerRequest names a member of the cell by its id or by its address.
	RaftPeerRequest  struct{ ID, Address string }
	RaftPeerResponse struct{ Removed model.RaftServer }
	// RaftTransferResponse has Noop when To led already.
	RaftTransferResponse struct {
		From, To model.RaftServer
		Noop     bool
	}
	AutopilotResponse struct {
		Meta
		Config model.AutopilotConfig
	}
	// AutopilotSetRequest sets nothing when CheckIndex and the stored
	// ModifyIndex is not Config's.
	AutopilotSetRequest struct {
		Config     model.AutopilotConfig
		CheckIndex bool
	}
	AutopilotSetResponse struct {
		Updated bool
		Index   uint64
	}
	AutopilotHealthResponse struct{ Health model.CellHealth }
)
