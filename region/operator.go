package region

import (
	"context"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/autopilot"
	"atoll/rpc"
)

// operator serves the Operator methods.
type operator struct {
	*reader
	*writer
	cell  *cell.Cell
	peers func() []federation.Peer
	// pilot is the present term's, nil when this server does not lead.
	pilot func() *autopilot.Pilot
}

func (s *operator) bind(r *rpc.Server) {
	rpc.Handle(r, method.RaftConfiguration, s.raft)
	rpc.Handle(r, method.RaftRemovePeer, s.removePeer)
	rpc.Handle(r, method.RaftTransfer, s.transfer)
	rpc.Handle(r, method.AutopilotGet, s.getAutopilot)
	rpc.Handle(r, method.AutopilotSet, s.setAutopilot)
	rpc.Handle(r, method.AutopilotCellHealth, s.health)
}

// members are the cell's, with the names that gossip has for them.
func (s *operator) members() (*model.RaftConfiguration, error) {
	conf, err := s.cell.Configuration()
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, p := range s.peers() {
		names[p.ID] = p.Name
	}
	for _, m := range conf.Servers {
		if m.Node = names[m.ID]; m.Node == "" {
			m.Node = "(unknown)"
		}
	}
	return conf, nil
}

// member finds the one member that a request names.
func (s *operator) member(req *method.RaftPeerRequest) (m, leader model.RaftServer, err error) {
	if (req.ID == "") == (req.Address == "") {
		return m, leader, model.Invalidf("id", "name the server by either id or address")
	}
	conf, err := s.members()
	if err != nil {
		return m, leader, err
	}
	for _, have := range conf.Servers {
		if have.Leader {
			leader = *have
		}
		if have.ID == req.ID || have.Address == req.Address {
			m = *have
		}
	}
	switch {
	case m.ID == "" && req.ID != "":
		err = &model.Error{Kind: model.KindNotFound, Message: "the cell has no server of the id \"" + req.ID + "\""}
	case m.ID == "":
		err = &model.Error{Kind: model.KindNotFound, Message: "the cell has no server at the address \"" + req.Address + "\""}
	}
	return m, leader, err
}

func (s *operator) raft(context.Context, *rpc.Inbound, *method.Empty) (*method.RaftConfigurationResponse, error) {
	conf, err := s.members()
	if err != nil {
		return nil, err
	}
	return &method.RaftConfigurationResponse{
		Meta: method.Meta{Index: conf.Index, LastContact: max(s.contact(), 0), KnownLeader: s.leader() != ""}, Config: *conf,
	}, nil
}

func (s *operator) removePeer(_ context.Context, _ *rpc.Inbound, req *method.RaftPeerRequest) (*method.RaftPeerResponse, error) {
	m, _, err := s.member(req)
	if err != nil {
		return nil, err
	}
	return &method.RaftPeerResponse{Removed: m}, s.cell.RemoveServer(m.ID)
}

func (s *operator) transfer(_ context.Context, _ *rpc.Inbound, req *method.RaftPeerRequest) (*method.RaftTransferResponse, error) {
	to, from, err := s.member(req)
	switch {
	case err != nil:
		return nil, err
	case to.ID == from.ID:
		return &method.RaftTransferResponse{From: from, To: to, Noop: true}, nil
	case !to.Voter:
		return nil, model.Errorf(model.KindConflict, "server %s has no vote yet and cannot lead", to.Node)
	}
	return &method.RaftTransferResponse{From: from, To: to}, s.cell.HandOverTo(cell.Server{ID: to.ID, Addr: to.Address})
}

func (s *operator) getAutopilot(ctx context.Context, _ *rpc.Inbound, req *method.Query) (*method.AutopilotResponse, error) {
	out := &method.AutopilotResponse{}
	return out, s.read(ctx, req, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		c := snap.AutopilotConfig(ws)
		if c == nil {
			return 0, &model.Error{Kind: model.KindNoLeader, Message: "the cell has had no leader yet"}
		}
		out.Config = *c
		return c.ModifyIndex, nil
	})
}

func (s *operator) setAutopilot(ctx context.Context, c *rpc.Inbound, req *method.AutopilotSetRequest) (*method.AutopilotSetResponse, error) {
	if err := req.Config.Validate(); err != nil {
		return nil, err
	}
	index, value, err := s.once(ctx, c, "", req, cell.CmdAutopilotConfig, &cell.AutopilotConfig{Config: req.Config, CheckIndex: req.CheckIndex})
	if err != nil {
		return nil, err
	}
	return &method.AutopilotSetResponse{Updated: value.(*cell.AutopilotSet).Updated, Index: index}, nil
}

func (s *operator) health(context.Context, *rpc.Inbound, *method.Empty) (*method.AutopilotHealthResponse, error) {
	p := s.pilot()
	if p == nil {
		return nil, &model.Error{Kind: model.KindNoLeader, Message: "this server does not lead, or only begins to"}
	}
	h := p.Health()
	if h == nil {
		return nil, &model.Error{Kind: model.KindNoLeader, Message: "the cell's health was not measured yet"}
	}
	return &method.AutopilotHealthResponse{Health: *h}, nil
}
