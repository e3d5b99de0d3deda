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
	rpc.Handle(r, method.RegionForget, s.forget)
}

func (s *federal) server(context.Context, *rpc.Inbound, *method.Empty) (*method.ServerStatusResponse, error) {
	return s.status(), nil
}

func (s *federal) join(ctx context.Context, _ *rpc.Inbound, req *method.JoinRequest) (*method.JoinResponse, error) {
	n, err := s.gossip.Join(ctx, req.Addrs)
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
	done, failed := s.everywhere(ctx, req.Alone, func(c rpc.Caller) error {
		_, err := rpc.Call(ctx, c, method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: req.Name, CellID: req.CellID, Alone: true})
		return err
	})
	return &method.RegionAcceptResponse{Accepted: done, Failed: failed}, nil
}

// forget drops a lost region here and, unless this server alone was asked, at the
// other servers of our region that are there. Its dead servers are taken out of
// gossip, everywhere.
func (s *federal) forget(ctx context.Context, _ *rpc.Inbound, req *method.RegionForgetRequest) (*method.RegionForgetResponse, error) {
	if err := s.dir.Forget(req.Name); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	prune := func(name, region string, alive bool) {
		if region == req.Name && !alive {
			// One that another server takes out at the same time is gone too.
			wg.Go(func() { _ = s.gossip.ForceLeave(name, true) })
		}
	}
	peers, refused := s.gossip.Peers()
	for _, p := range peers {
		prune(p.Name, p.Region, p.Alive)
	}
	for _, r := range refused {
		prune(r.Name, r.Region, r.Alive)
	}
	wg.Wait()
	done, failed := s.everywhere(ctx, req.Alone, func(c rpc.Caller) error {
		_, err := rpc.Call(ctx, c, method.RegionForget, rpc.To{}, &method.RegionForgetRequest{Name: req.Name, Alone: true})
		if model.KindOf(err) == model.KindNotFound {
			return nil // it never knew it
		}
		return err
	})
	return &method.RegionForgetResponse{Forgotten: done, Failed: failed}, nil
}

// everywhere has the other servers of our region do what this one did, unless it
// alone was asked. It returns those that did, this one too, and why others did not.
func (s *federal) everywhere(ctx context.Context, alone bool, do func(rpc.Caller) error) (done []string, failed map[string]string) {
	done, failed = []string{s.self + "." + s.region}, map[string]string{}
	if alone {
		return done, failed
	}
	var mu sync.Mutex // guards the results
	var wg sync.WaitGroup
	peers, _ := s.dir.Own()
	for _, p := range peers {
		if p.RPC == s.selfAddr || p.Left {
			continue
		}
		wg.Go(func() {
			err := do(s.calls.At(p.RPC))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[p.Name] = err.Error()
				return
			}
			done = append(done, p.Name)
		})
	}
	wg.Wait()
	return done, failed
}
