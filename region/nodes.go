package region

import (
	"context"
	"crypto/subtle"
	"maps"
	"reflect"
	"sync"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
	"atoll/scheduler"
)

// nodes serves the Node methods.
type nodes struct {
	*reader
	*writer
	sessions *sessions
	// beat records a heartbeat with the leader's loop and returns the TTL;
	// false when this server leads no more.
	beat     func(nodeID string) (time.Duration, bool)
	contacts *heartbeat.Contacts
	// directory is the region's servers and those of all regions.
	directory func() (own []string, all map[string][]string)
}

func (s *nodes) bind(r *rpc.Server) {
	rpc.Handle(r, method.NodeRegister, s.register)
	rpc.Handle(r, method.NodeHeartbeat, s.heartbeat)
	rpc.Handle(r, method.NodeContacts, s.lastContacts)
	rpc.Handle(r, method.NodeList, s.list)
	rpc.Handle(r, method.NodeGet, s.get)
	rpc.Handle(r, method.NodeAllocs, s.allocations)
	rpc.Handle(r, method.NodePullAllocs, s.pull)
	rpc.Handle(r, method.NodeUpdate, s.update)
	rpc.Handle(r, method.NodeEligibility, s.eligibility)
	rpc.Handle(r, method.NodeDrain, s.drain)
	rpc.Handle(r, method.NodePurge, s.purge)
	rpc.Handle(r, method.NodeEvaluate, s.evaluate)
}

func (s *nodes) register(ctx context.Context, _ *rpc.Inbound, req *method.NodeRegisterRequest) (*method.NodeHeartbeatResponse, error) {
	if req.Node == nil {
		return nil, model.Invalidf("Node", "cannot register: the request holds no node")
	}
	if _, ok := model.ParseUUID(req.Node.ID); !ok {
		return nil, model.Invalidf("Node.ID", "cannot register node %q: id %q is not a UUID", req.Node.Name, req.Node.ID)
	}
	if _, ok := model.ParseUUID(req.SecretID); !ok {
		return nil, model.Invalidf("SecretID", "cannot register node %q: its secret is not a UUID", req.Node.Name)
	}
	n := model.Clone(req.Node)
	n.SecretID, n.Status, n.StatusDescription = req.SecretID, model.NodeStatusReady, ""
	n.ComputedClass = scheduler.ComputedClass(n)
	if old := s.snapshot().Node(nil, n.ID); old != nil && same(n, old) {
		// Nodes that come again, all at once after an outage, cost no write.
		return s.heard(n.ID, old.ModifyIndex)
	}
	index, _, err := s.Apply(ctx, cell.CmdNodeRegister, &cell.NodeRegister{Node: n, Derive: cell.NewDerive(s.clock.Now().UnixNano())})
	if err != nil {
		return nil, err
	}
	return s.heard(n.ID, index)
}

// same reports whether registering n would change nothing of the stored node.
func same(n, old *model.Node) bool {
	next := *n
	// What is not the node's own.
	next.CreateIndex, next.ModifyIndex, next.SchedulingEligibility = old.CreateIndex, old.ModifyIndex, old.SchedulingEligibility
	next.StatusUpdatedAt, next.Events = old.StatusUpdatedAt, old.Events
	next.DrainStrategy, next.LastDrain = old.DrainStrategy, old.LastDrain
	return reflect.DeepEqual(&next, old)
}

func (s *nodes) heartbeat(ctx context.Context, _ *rpc.Inbound, req *method.NodeHeartbeatRequest) (*method.NodeHeartbeatResponse, error) {
	n, err := s.identify(req.NodeID, req.SecretID)
	if model.KindOf(err) == model.KindNotFound {
		return &method.NodeHeartbeatResponse{Registered: false}, nil
	}
	if err != nil {
		return nil, err
	}
	return s.alive(ctx, n)
}

// alive takes a sign of life of a node, which is ready from then on. It counts as
// heard before it is ready, so that it is not judged by what was before.
func (s *nodes) alive(ctx context.Context, n *model.Node) (*method.NodeHeartbeatResponse, error) {
	out, err := s.heard(n.ID, n.ModifyIndex)
	if err != nil {
		return nil, err
	}
	if n.Status == model.NodeStatusDown || n.Status == model.NodeStatusDisconnected {
		if out.Index, _, err = s.Apply(ctx, cell.CmdNodeStatus, &cell.NodeStatus{
			NodeID: n.ID, Status: model.NodeStatusReady, Why: "heartbeats are back",
			Derive: cell.NewDerive(s.clock.Now().UnixNano()),
		}); err != nil {
			return nil, err
		}
		// Only now is it sure that no more of them come to be so.
		out.Report = s.silent(n.ID)
	}
	return out, nil
}

// heard records a sign of life, and tells the node how to go on.
func (s *nodes) heard(nodeID string, index uint64) (*method.NodeHeartbeatResponse, error) {
	ttl, leads := s.beat(nodeID)
	if !leads {
		return nil, model.Errorf(model.KindNoLeader, "cannot take the heartbeat: this server ceased to be the leader")
	}
	own, all := s.directory()
	return &method.NodeHeartbeatResponse{TTL: ttl, Registered: true, Index: index, Servers: own, Regions: all, Report: s.silent(nodeID)}, nil
}

// silent reports whether a node that is in touch has not said yet how some of its
// allocations are.
func (s *nodes) silent(nodeID string) bool {
	id, _ := model.ParseUUID(nodeID)
	for r := range s.snapshot().AllocsOfNode(nil, id) {
		if r.Client == model.ClientUnknown && !r.ServerTerminal() {
			return true
		}
	}
	return false
}

func (s *nodes) lastContacts(_ context.Context, _ *rpc.Inbound, req *method.NodeContactsRequest) (*method.NodeContactsResponse, error) {
	return s.contacts.Tell(req), nil
}

// identify returns the node of an id, if the secret is its.
func (s *nodes) identify(nodeID, secret string) (*model.Node, error) {
	n := s.snapshot().Node(nil, nodeID)
	if n == nil {
		return nil, model.NotFound("node", nodeID)
	}
	if subtle.ConstantTimeCompare([]byte(n.SecretID), []byte(secret)) != 1 {
		return nil, model.Errorf(model.KindForbidden, "the secret is not that of node %s", nodeID)
	}
	return n, nil
}

func (s *nodes) list(ctx context.Context, c *rpc.Inbound, req *method.ListRequest) (*method.NodeListResponse, error) {
	out := &method.NodeListResponse{}
	var err error
	out.Nodes, err = list(ctx, s.reader, c.Envelope.Method, &req.Query, req.Full, &out.Meta, func(ws state.Watch, snap *state.Snapshot) view[*model.Node, *model.NodeStub] {
		return view[*model.Node, *model.NodeStub]{snap.Nodes(ws, req.Prefix), lister[*model.Node, *model.NodeStub]{
			key:  func(n *model.Node) string { return n.ID },
			stub: func(n *model.Node) *model.NodeStub { return n.Stub(req.Full) },
		}, snap.NodesIndex()}
	})
	return out, err
}

func (s *nodes) get(ctx context.Context, _ *rpc.Inbound, req *method.NodeRequest) (*method.NodeResponse, error) {
	out := &method.NodeResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		n := snap.Node(ws, req.NodeID)
		if n == nil {
			out.Node = nil
			return snap.NodesIndex(), nil
		}
		shown := *n
		shown.SecretID = ""
		out.Node = &shown
		return n.ModifyIndex, nil
	})
}

func (s *nodes) allocations(ctx context.Context, _ *rpc.Inbound, req *method.NodeRequest) (*method.AllocsResponse, error) {
	id, ok := model.ParseUUID(req.NodeID)
	if !ok {
		return nil, model.NotFound("node", req.NodeID)
	}
	out := &method.AllocsResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Allocs = []*model.Allocation{}
		index := uint64(0)
		for r := range snap.AllocsOfNode(ws, id) {
			// The node's own reports do not wake watchers of its entry, but
			// they wake those of the row.
			snap.Alloc(ws, r.ID)
			out.Allocs = append(out.Allocs, snap.View(r))
			index = max(index, r.ModifyIndex)
		}
		return max(index, 1), nil
	})
}

// pull answers a node's blocking query for its work. The server that has the
// node's session always serves it, so that it knows the session by it.
func (s *nodes) pull(ctx context.Context, c *rpc.Inbound, req *method.NodeAllocsRequest) (*method.NodeAllocsResponse, error) {
	if _, err := s.identify(req.NodeID, req.SecretID); err != nil {
		return nil, err
	}
	if c.Session != nil && !c.Envelope.Forwarded {
		s.sessions.put(req.NodeID, c.Session)
	}
	id, _ := model.ParseUUID(req.NodeID)
	out := &method.NodeAllocsResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		since := req.MinIndex
		if since < snap.Restored() {
			since = 0 // what the node knows is of another state
		}
		rows, index := snap.AllocsOfNodeSince(ws, id, since)
		out.Changed = nil
		for r := range rows {
			if r.AllocModifyIndex > since {
				out.Changed = append(out.Changed, snap.View(r))
			}
		}
		out.Indexes = make(map[string]uint64)
		for r := range snap.AllocsOfNode(nil, id) {
			out.Indexes[r.ID.String()] = r.AllocModifyIndex
		}
		return index, nil
	})
}

func (s *nodes) update(ctx context.Context, _ *rpc.Inbound, req *method.NodeUpdateAllocsRequest) (*method.IndexResponse, error) {
	n, err := s.identify(req.NodeID, req.SecretID)
	if err != nil {
		return nil, err
	}
	// A report that came before the first heartbeat would be of allocations
	// that are out of touch still.
	if _, err := s.alive(ctx, n); err != nil {
		return nil, err
	}
	id, _ := model.ParseUUID(n.ID)
	index, _, err := s.Apply(ctx, cell.CmdAllocReports, &cell.AllocReports{
		NodeID: id, Updates: req.Updates, Derive: cell.NewDerive(s.clock.Now().UnixNano()),
	})
	if err != nil {
		return nil, err
	}
	return &method.IndexResponse{Index: index}, nil
}

// sessions remembers which session each node dialled, so that a server can
// call it back. A node's newest session counts.
type sessions struct {
	mu     sync.Mutex // guards what follows
	byNode map[string]*rpc.Session
	// live is how many there were when closed ones were last taken out.
	live int
}

func newSessions() *sessions { return &sessions{byNode: make(map[string]*rpc.Session)} }

func (s *sessions) put(nodeID string, session *rpc.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byNode[nodeID] = session
	// Of a node that is gone for good nobody asks for the session.
	if len(s.byNode) > 2*s.live+minSessions {
		maps.DeleteFunc(s.byNode, func(_ string, session *rpc.Session) bool { return session.Closed() })
		s.live = len(s.byNode)
	}
}

// minSessions are so few that closed ones may stay among them.
const minSessions = 64

// Session returns the node's session, nil when it has none at this server.
func (s *sessions) Session(nodeID string) *rpc.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.byNode[nodeID]
	if session != nil && session.Closed() {
		delete(s.byNode, nodeID)
		return nil
	}
	return session
}
