package method

import "atoll/model"

// Status and federation.
var (
	StatusPing    = server[Empty, PingResponse]("Status.Ping")
	StatusLeader  = server[Empty, LeaderResponse]("Status.Leader")
	StatusPeers   = server[Empty, PeersResponse]("Status.Peers")
	RegionList    = server[Empty, RegionsResponse]("Region.List")
	RegionMembers = server[Empty, MembersResponse]("Region.Members")
)

type (
	LeaderResponse struct {
		// Leader is the RPC address of the region's leader, "" when there is
		// none.
		Leader string
	}
	PeersResponse struct {
		// Peers are the RPC addresses of the cell's members.
		Peers []string
	}
	PingResponse struct {
		Region  string
		CellID  string
		Leader  bool
		Version string
	}
	RegionsResponse struct{ Regions []model.RegionStatus }
	MembersResponse struct {
		ServerName   string
		ServerRegion string
		ServerDC     string
		Members      []*model.Member
	}
	NodeSessionRequest  struct{ NodeID string }
	NodeSessionResponse struct{ Connected bool }
)
