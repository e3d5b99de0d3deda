package federation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// Cell is what routing must know of our own region's Raft.
type Cell interface {
	// Leads reports whether this server may answer for the region.
	Leads() bool
	// Leader is the leader's RPC address, "" when none is known.
	Leader() string
	// Turn is closed once what the others say may have changed.
	Turn() <-chan struct{}
}

// Sessions finds the session that a node dialled; nil when it has none here.
type Sessions interface {
	Session(nodeID string) *rpc.Session
}

// Router decides where calls go, from their envelopes. It is a server's
// rpc.Router.
type Router struct {
	dir      *Directory
	cell     Cell
	sessions Sessions
}

// NewRouter returns a router over a directory.
func NewRouter(dir *Directory, cell Cell, sessions Sessions) *Router {
	return &Router{dir, cell, sessions}
}

// leaderWait is how long a call waits for its region to have a leader: longer
// than an election, shorter than a plain call's deadline.
const leaderWait = 5 * time.Second

// Region is our own.
func (r *Router) Region() string { return r.dir.cfg.Region }

// Report takes up how an attempt to reach a server went.
func (r *Router) Report(region, addr string, err error, _ time.Duration) {
	r.dir.Report(region, addr, err)
}

// Leads takes up which server of a region is said to lead it.
func (r *Router) Leads(region, addr string) { r.dir.Leads(region, addr) }

// Unreachable words what it means that a region did not answer.
func (r *Router) Unreachable(region string, cause error) *model.Error {
	return r.dir.Unreachable(region, cause)
}

// Route decides on a call. Errors are UnknownRegion, Unreachable (for a region
// that is known to be down), NoLeader, and NotFound for a node without session.
func (r *Router) Route(ctx context.Context, env *rpc.Envelope, spec method.Spec) (rpc.Decision, error) {
	own := r.Region()
	for _, from := range env.Path {
		if !allowed(r.dir.cfg.Regions, own, from) {
			return rpc.Decision{}, &model.Error{Kind: model.KindForbidden, Region: own, Message: fmt.Sprintf(
				"region %q does not speak with region %q, over which the request came: it is not among its federation.regions", own, from)}
		}
	}
	if env.Region != "" && env.Region != model.GlobalRegion && env.Region != own {
		return r.toRegion(env, spec)
	}
	// Gossip may not have told the caller yet that this is another cell under a
	// name that it knows.
	if ours := r.dir.cfg.Cell(); env.Cell != "" && ours != "" && env.Cell != ours {
		return rpc.Decision{}, &model.Error{Kind: model.KindUnreachable, Region: own, Message: fmt.Sprintf(
			"region %q is unreachable: the server that has the call is of the cell %s, and the call is for the cell %s; see atoll region list", own, ours, env.Cell)}
	}
	switch spec.Place {
	case method.AtServer:
		return rpc.Decision{Local: true, Region: own}, nil
	case method.AtNode:
		return r.toNode(env)
	case method.AtLeaderOrStale:
		if env.AllowStale {
			return rpc.Decision{Local: true, Region: own}, nil
		}
	}
	return r.toLeader(ctx, env)
}

func (r *Router) toRegion(env *rpc.Envelope, spec method.Spec) (rpc.Decision, error) {
	name := env.Region
	leader := spec.Place == method.AtLeader || spec.Place == method.AtLeaderOrStale && !env.AllowStale
	dec, known, down := r.dir.route(name, leader)
	if !known {
		var names []string
		for _, st := range r.dir.Regions() {
			names = append(names, st.Name)
		}
		return rpc.Decision{}, &model.Error{
			Kind: model.KindUnknownRegion, Region: name,
			Message: fmt.Sprintf("No path to region %q: it is not in this agent's directory, which has %s", name, strings.Join(names, ", ")),
		}
	}
	if down != nil {
		return rpc.Decision{}, down
	}
	return dec, nil
}

func decision(region string, servers []Peer) rpc.Decision {
	d := rpc.Decision{Region: region}
	for _, p := range servers {
		d.Servers = append(d.Servers, p.RPC)
	}
	return d
}

// toLeader waits a while for the region to have a leader: an election is no
// reason to fail a call.
func (r *Router) toLeader(ctx context.Context, env *rpc.Envelope) (rpc.Decision, error) {
	own := r.Region()
	if r.cell.Leads() { // as for most calls, which then need no timer
		return rpc.Decision{Local: true, Region: own}, nil
	}
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		turn := r.cell.Turn()
		if r.cell.Leads() {
			return rpc.Decision{Local: true, Region: own}, nil
		}
		leader := r.cell.Leader()
		ours := leader == r.dir.cfg.Self
		if leader != "" && !ours && !env.Forwarded {
			return rpc.Decision{Servers: []string{leader}, Region: own}, nil
		}
		// A call that a server of this region passed on is not passed on
		// again: that server asks for the leader anew. But when this server is
		// about to answer for the region, it is in the right place.
		if env.Forwarded && !ours {
			return rpc.Decision{}, r.noLeader()
		}
		select {
		case <-wait.Done():
			if ctx.Err() == nil {
				return rpc.Decision{}, r.noLeader()
			}
			return rpc.Decision{}, &model.Error{Kind: model.KindNoLeader, Region: own, Message: fmt.Sprintf("region %q had no leader before the call's time ended", own)}
		case <-turn:
		}
	}
}

func (r *Router) noLeader() error {
	own := r.Region()
	return &model.Error{Kind: model.KindNoLeader, Region: own, Message: fmt.Sprintf("region %q has no leader at the moment; try again", own)}
}

// toNode finds the node's session here, or tries the region's other servers,
// of which one should have it.
func (r *Router) toNode(env *rpc.Envelope) (rpc.Decision, error) {
	own := r.Region()
	if s := r.sessions.Session(env.NodeID); s != nil {
		return rpc.Decision{Session: s, Region: own}, nil
	}
	if !env.Forwarded {
		if servers, _ := r.dir.Servers(own); len(servers) > 0 {
			return decision(own, servers), nil
		}
	}
	return rpc.Decision{}, &model.Error{Kind: model.KindUnreachable, Region: own, Message: fmt.Sprintf("node %s has no connection to any server of region %q; its agent may be down", env.NodeID, own)}
}
