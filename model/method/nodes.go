package method

import (
	"time"

	"atoll/model"
)

var (
	NodeList        = read[ListRequest, NodeListResponse]("Node.List")
	NodeGet         = read[NodeRequest, NodeResponse]("Node.Get")
	NodeAllocs      = read[NodeRequest, AllocsResponse]("Node.Allocations")
	NodeRegister    = report[NodeRegisterRequest, NodeHeartbeatResponse]("Node.Register")
	NodeHeartbeat   = Method[NodeHeartbeatRequest, NodeHeartbeatResponse]{Spec{Name: "Node.Heartbeat", Place: AtLeader}}
	NodePullAllocs  = read[NodeAllocsRequest, NodeAllocsResponse]("Node.PullAllocs")
	NodeUpdate      = report[NodeUpdateAllocsRequest, IndexResponse]("Node.UpdateAllocs")
	NodeEligibility = write[NodeEligibilityRequest, NodeChangeResponse]("Node.Eligibility")
	NodeDrain       = write[NodeDrainRequest, NodeChangeResponse]("Node.Drain")
	NodePurge       = write[NodeIDRequest, NodeChangeResponse]("Node.Purge")
	NodeEvaluate    = write[NodeIDRequest, NodeChangeResponse]("Node.Evaluate")
	// NodeContacts asks one server when it knows nodes to have been heard.
	NodeContacts = server[NodeContactsRequest, NodeContactsResponse]("Node.Contacts")
	// NodeSession asks a server whether a node's session ends at it.
	NodeSession = server[NodeSessionRequest, NodeSessionResponse]("Node.Session")
)

type (
	NodeRequest struct {
		Query
		NodeID string
	}
	NodeResponse struct {
		Meta
		Node *model.Node
	}
	NodeListResponse struct {
		Meta
		Nodes []*model.NodeStub
	}
	// NodeRegisterRequest carries the secret beside the node so that the node
	// can be shown without it.
	NodeRegisterRequest struct {
		Node     *model.Node
		SecretID string
	}
	NodeHeartbeatRequest struct {
		NodeID, SecretID string
	}
	// NodeHeartbeatResponse tells a node how to go on. Its directory lets the
	// node reach any region when its own servers are gone.
	NodeHeartbeatResponse struct {
		// TTL is within which the next heartbeat is due; see BeatEarliest.
		TTL time.Duration
		// Registered is false when the servers do not know the node: it must
		// register anew.
		Registered bool
		Index      uint64
		// Servers are the RPC addresses of the region's servers, Regions
		// those of all regions.
		Servers []string
		Regions map[string][]string
		// Report says that the servers do not know how some of the node's
		// allocations are, which were out of touch: it should say so of all.
		Report bool
	}
	NodeIDRequest          struct{ NodeID string }
	NodeEligibilityRequest struct {
		NodeID string
		// Eligibility is one of the two of model.Node.
		Eligibility string
	}
	// NodeDrainRequest empties a node; a nil DrainSpec ends that.
	NodeDrainRequest struct {
		NodeID    string
		DrainSpec *model.DrainSpec
		// MarkEligible lets new work onto the node again when a drain is
		// ended.
		MarkEligible bool
		Meta         map[string]string
	}
	// NodeChangeResponse answers writes to a node. EvalIDs are of evaluations
	// that the change called for, EvalID the first of them.
	NodeChangeResponse struct {
		EvalID          string
		EvalIDs         []string
		EvalCreateIndex uint64
		NodeModifyIndex uint64
		Index           uint64
	}
	// NodeContactsRequest asks for the contacts of the last Within, 0 for all.
	NodeContactsRequest struct{ Within time.Duration }
	// NodeContactsResponse holds ages, never times: clocks differ.
	NodeContactsResponse struct {
		// Behind is for how long the server may have missed contacts; unless
		// Known is set, it knows nothing.
		Known  bool
		Behind time.Duration
		// Contacts are by node id.
		Contacts map[string]NodeContact
	}
	// NodeContact is how long ago a node was heard, and the TTL that it was
	// told then.
	NodeContact struct{ Age, TTL time.Duration }
	// NodeAllocsRequest is a node's blocking query for what it should run.
	NodeAllocsRequest struct {
		Query
		NodeID, SecretID string
	}
	// NodeAllocsResponse names every allocation of the node with its
	// AllocModifyIndex, and holds those changed by the server after
	// Query.MinIndex whole.
	NodeAllocsResponse struct {
		Meta
		Indexes map[string]uint64
		Changed []*model.Allocation
	}
	NodeUpdateAllocsRequest struct {
		NodeID, SecretID string
		Updates          []*model.AllocUpdate
	}
	IndexResponse struct{ Index uint64 }
)

// A node beats again after a part of its TTL that it draws between BeatEarliest
// and BeatLatest: well before the TTL is over, so that a heartbeat that was lost
// has a second chance, and spread, so that nodes do not beat together.
const (
	BeatEarliest = 0.5
	BeatLatest   = 0.75
	BeatMean     = (BeatEarliest + BeatLatest) / 2
)
