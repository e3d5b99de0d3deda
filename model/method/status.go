package method

import (
	"time"

	"atoll/model"
)

// Status and federation.
var (
	StatusPing   = server[Empty, PingResponse]("Status.Ping")
	StatusLeader = server[Empty, LeaderResponse]("Status.Leader")
	StatusPeers  = server[Empty, PeersResponse]("Status.Peers")
	// StatusCommit has a leader commit an entry that changes nothing; another
	// server refuses.
	StatusCommit  = server[Empty, Empty]("Status.Commit")
	RegionList    = server[Empty, RegionsResponse]("Region.List")
	RegionMembers = server[Empty, MembersResponse]("Region.Members")
	// StatusServer asks one particular server about itself.
	StatusServer = server[Empty, ServerStatusResponse]("Status.Server")
	RegionJoin   = server[JoinRequest, JoinResponse]("Region.Join")
	// RegionForceLeave declares a failed server of any region gone.
	RegionForceLeave = server[ForceLeaveRequest, Empty]("Region.ForceLeave")
	RegionAccept     = server[RegionAcceptRequest, RegionAcceptResponse]("Region.Accept")
	// RegionForget drops a region that is lost from what servers remember.
	RegionForget = server[RegionForgetRequest, RegionForgetResponse]("Region.Forget")
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
	// ServerStatusResponse is a server's word about itself.
	ServerStatusResponse struct {
		// ID is the server's in Raft.
		ID string
		// LastContact is how long ago it heard its leader, 0 when it leads,
		// negative when it never did.
		LastContact time.Duration
		// LastTerm and LastIndex are of the end of its log; LastIndex is 0 for
		// one that was never in a cell.
		LastTerm, LastIndex uint64
		// Starters are the ids of the servers with which it would start the
		// region's cell, in order.
		Starters []string
	}
	// JoinRequest names gossip addresses.
	JoinRequest  struct{ Addrs []string }
	JoinResponse struct{ Joined int }
	// ForceLeaveRequest names a member, as name.region, or as name when it is
	// of the region asked. Prune forgets it at once.
	ForceLeaveRequest struct {
		Name  string
		Prune bool
	}
	// RegionAcceptRequest makes the cell of an id the one that the region of a
	// name is. Alone asks one server to do so, else that server asks all of its
	// region.
	RegionAcceptRequest struct {
		Name, CellID string
		Alone        bool
	}
	// RegionAcceptResponse names the servers that took it, and why others did
	// not.
	RegionAcceptResponse struct {
		Accepted []string
		Failed   map[string]string
	}
	// RegionForgetRequest names a region. Alone is as for RegionAcceptRequest.
	RegionForgetRequest struct {
		Name  string
		Alone bool
	}
	// RegionForgetResponse names the servers that forgot it, and why others did
	// not.
	RegionForgetResponse struct {
		Forgotten []string
		Failed    map[string]string
	}
	NodeSessionRequest  struct{ NodeID string }
	NodeSessionResponse struct{ Connected bool }
)
