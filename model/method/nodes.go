package method

import (
	"time"

	"atoll/model"
)

var (
	NodeList       = read[ListRequest, NodeListResponse]("Node.List")
	NodeGet        = read[NodeRequest, NodeResponse]("Node.Get")
	NodeAllocs     = read[NodeRequest, AllocsResponse]("Node.Allocations")
	NodeRegister   = report[NodeRegisterRequest, NodeHeartbeatResponse]("Node.Register")
	NodeHeartbeat  = Method[NodeHeartbeatRequest, NodeHeartbeatResponse]{Spec{Name: "Node.Heartbeat", Place: AtLeader}}
	NodePullAllocs = read[NodeAllocsRequest, NodeAllocsResponse]("Node.PullAllocs")
	NodeUpdate     = report[NodeUpdateAllocsRequest, IndexResponse]("Node.UpdateAllocs")
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
		// TTL is within which the next heartbeat is due.
		TTL time.Duration
		// Registered is false when the servers do not know the node: it must
		// register anew.
		Registered bool
		Index      uint64
		// Servers are the RPC addresses of the region's servers, Regions
		// those of all regions.
		Servers []string
		Regions map[string][]string
	}
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
