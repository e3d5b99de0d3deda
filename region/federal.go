package region

import (
	"context"
	"strings"
	"sync"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// federal serves what changes this server's view of who is there: the pool of
// servers and the identity of regions. Nothing of it is in the cell's state.
type federal struct {
	region, self, selfAddr string
	gossip                 *federation.Gossip
	dir                    *federation.Directory
	calls                  *rpc.Server
	status                 func() *method.ServerStatusResponse
}

func (s *federal) bind(r *rpc.Server) {
	rpc.Handle(r, method.StatusServer, s.server)
	rpc.Handle(r, method.RegionJoin, s.join)
	rpc.Handle(r, method.RegionForceLeave, s.forceLeave)
	rpc.Handle(r, method.RegionAccept, s.accept)
}

func (s *federal) server(context.Context, *rpc.Inbound, *method.Empty) (*method.ServerStatusResponse, error) {
	return s.status(), nil
}

func (s *federal) join(_ context.Context, _ *rpc.Inbound, req *method.JoinRequest) (*method.JoinResponse, error) {
	n, err := s.gossip.Join(req.Addrs)
	return &method.JoinResponse{Joined: n}, err
}

// forceLeave declares a server gone; its region's leader takes it out of the cell
// when gossip tells it so. One that is forgotten at once is taken out first:
// gossip would tell nobody.
func (s *federal) forceLeave(ctx context.Context, _ *rpc.Inbound, req *method.ForceLeaveRequest) (*method.Empty, error) {
	if req.Name == "" {
		return nil, model.Invalidf("node", "missing the name of the server that is gone")
	}
	if req.Prune {
		peers, _ := s.gossip.Peers()
		for _, p := range peers {
			if (p.Name != req.Name && p.Name != req.Name+"."+s.region) || p.Alive || p.Cell == "" || p.Cell != s.dir.CellOf(p.Region) {
				continue
			}
			_, err := rpc.Call(ctx, s.calls, method.RaftRemovePeer, rpc.To{Region: p.Region}, &method.RaftPeerRequest{ID: p.ID})
			if err != nil && model.KindOf(err) != model.KindNotFound {
				return nil, err
			}
		}
	}
	return &method.Empty{}, s.gossip.ForceLeave(req.Name, req.Prune)
}

// accept pins the cell of a region here and, unless this server alone was asked,
// at the other servers of our region that are there.
func (s *federal) accept(ctx context.Context, _ *rpc.Inbound, req *method.RegionAcceptRequest) (*method.RegionAcceptResponse, error) {
	if _, ok := model.ParseUUID(req.CellID); !ok {
		return nil, model.Invalidf("cell", "%q is not the id of a cell; atoll region list shows those that claim a region", req.CellID)
	}
	if err := s.dir.Accept(req.Name, strings.ToLower(req.CellID)); err != nil {
		return nil, err
	}
	out := &method.RegionAcceptResponse{Accepted: []string{s.self + "." + s.region}, Failed: map[string]string{}}
	if req.Alone {
		return out, nil
	}
	var mu sync.Mutex // guards out
	var wg sync.WaitGroup
	peers, _ := s.dir.Own()
	for _, p := range peers {
		if p.RPC == s.selfAddr || p.Left {
			continue
		}
		wg.Go(func() {
			_, err := rpc.Call(ctx, s.calls.At(p.RPC), method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: req.Name, CellID: req.CellID, Alone: true})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Failed[p.Name] = err.Error()
				return
			}
			out.Accepted = append(out.Accepted, p.Name)
		})
	}
	wg.Wait()
	return out, nil
}
