package method

import (
	"time"

	"atoll/model"
)

// Query is what every read carries.
type Query struct {
	Namespace string
	// MinIndex makes the read wait until the result's index is higher, or
	// MaxWait is over; 0 does not wait.
	MinIndex uint64
	MaxWait  time.Duration
	// Prefix selects by the beginning of the id.
	Prefix string
	// Filter is a go-bexpr expression over the stored objects.
	Filter    string
	PerPage   int
	NextToken string
	Reverse   bool
}

// Meta is what every read answers with.
type Meta struct {
	// Index is of the state that the result was read from, as far as the
	// result goes: it can be waited on.
	Index uint64
	// LastContact is how long ago the answering server heard its leader.
	LastContact time.Duration
	KnownLeader bool
	NextToken   string
}

// Empty is the request or reply with nothing in it.
type Empty struct{}

// Jobs.
type (
	JobRegisterRequest struct {
		Job *model.Job
		// EnforceIndex refuses the write unless the job's JobModifyIndex is
		// as given; 0 means that the job must not exist.
		EnforceIndex   bool
		JobModifyIndex uint64
		EvalPriority   int
	}
	JobRegisterResponse struct {
		EvalID          string
		EvalCreateIndex uint64
		JobModifyIndex  uint64
		Warnings        string
		Index           uint64
	}
	JobDeregisterRequest struct {
		Namespace, JobID string
		// Purge forgets the job and its history instead of stopping it.
		Purge        bool
		EvalPriority int
	}
	JobDeregisterResponse struct {
		EvalID          string
		EvalCreateIndex uint64
		JobModifyIndex  uint64
		Index           uint64
	}
	JobRequest struct {
		Query
		JobID string
	}
	// JobResponse has a nil Job when there is none: a blocking query can wait
	// for one.
	JobResponse struct {
		Meta
		Job *model.Job
	}
	JobListResponse struct {
		Meta
		Jobs []*model.JobStub
	}
	JobSummaryResponse struct {
		Meta
		Summary *model.JobSummary
	}
	JobVersionsResponse struct {
		Meta
		// Versions are newest first.
		Versions []*model.Job
	}
	// ListRequest asks for a list; Full for what its rows may leave out.
	ListRequest struct {
		Query
		Full bool
	}
	// JobAllocsRequest asks for a job's allocations; All includes those of
	// earlier jobs of the same id.
	JobAllocsRequest struct {
		Query
		JobID string
		All   bool
	}
	AllocListResponse struct {
		Meta
		Allocs []*model.AllocStub
	}
	EvalListResponse struct {
		Meta
		Evals []*model.Evaluation
	}
)

// Allocations and evaluations.
type (
	AllocRequest struct {
		Query
		AllocID string
	}
	AllocResponse struct {
		Meta
		Alloc *model.Allocation
	}
	AllocsResponse struct {
		Meta
		Allocs []*model.Allocation
	}
	EvalRequest struct {
		Query
		EvalID string
	}
	EvalResponse struct {
		Meta
		Eval *model.Evaluation
	}
)

// Nodes.
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

// Logs of a task, streamed from its node.
type (
	LogsRequest struct {
		AllocID, Task string
		// Type is "stdout" or "stderr".
		Type string
		// Origin is "start" or "end"; Offset counts bytes from there.
		Origin string
		Offset int64
		Follow bool
	}
	// LogFrame is a piece of a log, of at most 64 KiB; one without data or
	// event is a sign of life. FileEvent is "file deleted" or
	// "file truncated".
	LogFrame struct {
		Offset    int64
		Data      []byte
		File      string
		FileEvent string
	}
)

// Status and federation.
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

// The table. Names are on the wire: append only.
var (
	JobRegister    = write[JobRegisterRequest, JobRegisterResponse]("Job.Register")
	JobDeregister  = write[JobDeregisterRequest, JobDeregisterResponse]("Job.Deregister")
	JobGet         = read[JobRequest, JobResponse]("Job.Get")
	JobList        = read[ListRequest, JobListResponse]("Job.List")
	JobSummary     = read[JobRequest, JobSummaryResponse]("Job.Summary")
	JobVersions    = read[JobRequest, JobVersionsResponse]("Job.Versions")
	JobAllocations = read[JobAllocsRequest, AllocListResponse]("Job.Allocations")
	JobEvaluations = read[JobRequest, EvalListResponse]("Job.Evaluations")

	AllocList = read[ListRequest, AllocListResponse]("Alloc.List")
	AllocGet  = read[AllocRequest, AllocResponse]("Alloc.Get")
	AllocLogs = Method[LogsRequest, LogFrame]{Spec{Name: "Alloc.Logs", Place: AtServer, Stream: true}}

	EvalList   = read[ListRequest, EvalListResponse]("Eval.List")
	EvalGet    = read[EvalRequest, EvalResponse]("Eval.Get")
	EvalAllocs = read[EvalRequest, AllocListResponse]("Eval.Allocations")

	NodeList       = read[ListRequest, NodeListResponse]("Node.List")
	NodeGet        = read[NodeRequest, NodeResponse]("Node.Get")
	NodeAllocs     = read[NodeRequest, AllocsResponse]("Node.Allocations")
	NodeRegister   = write[NodeRegisterRequest, NodeHeartbeatResponse]("Node.Register")
	NodeHeartbeat  = Method[NodeHeartbeatRequest, NodeHeartbeatResponse]{Spec{Name: "Node.Heartbeat", Place: AtLeader}}
	NodePullAllocs = read[NodeAllocsRequest, NodeAllocsResponse]("Node.PullAllocs")
	NodeUpdate     = write[NodeUpdateAllocsRequest, IndexResponse]("Node.UpdateAllocs")
	// NodeSession asks a server whether a node's session ends at it.
	NodeSession = server[NodeSessionRequest, NodeSessionResponse]("Node.Session")
	// NodeLogs is AllocLogs as served by the node itself.
	NodeLogs = Method[LogsRequest, LogFrame]{Spec{Name: "Node.Logs", Place: AtNode, Stream: true}}

	StatusPing    = server[Empty, PingResponse]("Status.Ping")
	StatusLeader  = server[Empty, LeaderResponse]("Status.Leader")
	StatusPeers   = server[Empty, PeersResponse]("Status.Peers")
	RegionList    = server[Empty, RegionsResponse]("Region.List")
	RegionMembers = server[Empty, MembersResponse]("Region.Members")
)
