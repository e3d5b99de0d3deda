package region

import (
	"context"

	"atoll/federation"
	"atoll/model/method"
	"atoll/rpc"
)

// status serves the Status and Region methods.
type status struct {
	*reader
	self       method.MembersResponse // our names, without members
	version    string
	isLeader   func() bool
	peers      func() ([]string, error)
	gossip     *federation.Gossip
	dir        *federation.Directory
	cellID     func() string
	commit     func() error
	hasSession func(nodeID string) bool
}

func (s *status) bind(r *rpc.Server) {
	rpc.Handle(r, method.StatusPing, s.ping)
	rpc.Handle(r, method.StatusLeader, s.leaderOf)
	rpc.Handle(r, method.StatusPeers, s.peersOf)
	rpc.Handle(r, method.StatusCommit, s.commits)
	rpc.Handle(r, method.RegionList, s.regions)
	rpc.Handle(r, method.RegionMembers, s.members)
	rpc.Handle(r, method.NodeSession, s.session)
}

func (s *status) ping(context.Context, *rpc.Inbound, *method.Empty) (*method.PingResponse, error) {
	return &method.PingResponse{Region: s.self.ServerRegion, CellID: s.cellID(), Leader: s.isLeader(), Version: s.version}, nil
}

func (s *status) leaderOf(context.Context, *rpc.Inbound, *method.Empty) (*method.LeaderResponse, error) {
	return &method.LeaderResponse{Leader: s.leader()}, nil
}

func (s *status) peersOf(context.Context, *rpc.Inbound, *method.Empty) (*method.PeersResponse, error) {
	peers, err := s.peers()
	return &method.PeersResponse{Peers: peers}, err
}

func (s *status) commits(context.Context, *rpc.Inbound, *method.Empty) (*method.Empty, error) {
	return &method.Empty{}, s.commit()
}

func (s *status) regions(context.Context, *rpc.Inbound, *method.Empty) (*method.RegionsResponse, error) {
	return &method.RegionsResponse{Regions: s.dir.Regions()}, nil
}

func (s *status) members(context.Context, *rpc.Inbound, *method.Empty) (*method.MembersResponse, error) {
	out := s.self
	out.Members = s.gossip.Members()
	return &out, nil
}

func (s *status) session(_ context.Context, _ *rpc.Inbound, req *method.NodeSessionRequest) (*method.NodeSessionResponse, error) {
	return &method.NodeSessionResponse{Connected: s.hasSession(req.NodeID)}, nil
}
