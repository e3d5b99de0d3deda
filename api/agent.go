package api

import (
	"maps"
	"net/http"
	"sort"
	"strings"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

func statusLeader(r *request) (any, error) {
	out, err := call(r, method.StatusLeader, &method.Empty{}, nil)
	if err != nil {
		return nil, err
	}
	if out.Leader == "" {
		return nil, model.Errorf(model.KindNoLeader, "No cluster leader")
	}
	return out.Leader, nil
}

func statusPeers(r *request) (any, error) {
	out, err := call(r, method.StatusPeers, &method.Empty{}, nil)
	if err != nil {
		return nil, err
	}
	return orEmpty(out.Peers), nil
}

// listRegions names all regions, lost ones too.
func listRegions(r *request) (any, error) {
	regions, err := r.regions(r.Context())
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, st := range regions {
		names = append(names, st.Name)
	}
	sort.Strings(names)
	return names, nil
}

func members(r *request) (*method.MembersResponse, error) {
	return call(r, method.RegionMembers, &method.Empty{}, nil)
}

func agentMembers(r *request) (any, error) {
	out, err := members(r)
	if err != nil {
		return nil, err
	}
	shown := *out
	shown.Members = orEmpty(out.Members)
	return shown, nil
}

func agentSelf(r *request) (any, error) {
	cfg := &r.api.cfg
	self := struct {
		Config map[string]any               `json:"config"`
		Member *model.Member                `json:"member"`
		Stats  map[string]map[string]string `json:"stats"`
	}{Config: maps.Clone(cfg.Shown), Member: &model.Member{}, Stats: map[string]map[string]string{}}
	if cfg.Server != nil {
		self.Stats["raft"] = cfg.Server.Stats()
		self.Stats["nomad"] = map[string]string{"server": "true", "leader": boolText(cfg.Server.IsLeader())}
		if all, err := rpc.Call(r.Context(), cfg.Caller, method.RegionMembers, rpc.To{}, &method.Empty{}); err == nil {
			for _, m := range all.Members {
				if m.Name == cfg.Name+"."+cfg.Region {
					self.Member = m
				}
			}
		}
	}
	if cfg.Node != nil {
		self.Stats["client"] = map[string]string{"node_id": cfg.Node.NodeID(), "known_servers": strings.Join(cfg.Node.Servers(), ",")}
	}
	return self, nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

type health struct {
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

// agentHealth tells whether server and node can do their work: 500 when one
// that was asked for cannot.
func agentHealth(r *request) (any, error) {
	cfg := &r.api.cfg
	kind := r.query.Get("type")
	if kind != "" && kind != "client" && kind != "server" {
		return nil, model.Invalidf("type", "type %q is neither client nor server", kind)
	}
	var out struct {
		Client *health `json:"client,omitempty"`
		Server *health `json:"server,omitempty"`
	}
	if kind != "client" && cfg.Server != nil {
		out.Server = &health{cfg.Server.Ready(), "ok"}
		if !out.Server.OK {
			out.Server.Message = "No cluster leader"
		}
	}
	if kind != "server" && cfg.Node != nil {
		out.Client = &health{len(cfg.Node.Servers()) > 0, "ok"}
		if !out.Client.OK {
			out.Client.Message = "no known servers"
		}
	}
	for name, h := range map[string]*health{"server": out.Server, "client": out.Client} {
		if kind == name && h == nil {
			h = &health{false, name + " not enabled"}
			if kind == "server" {
				out.Server = h
			} else {
				out.Client = h
			}
		}
		if h != nil && !h.OK {
			r.response.status = http.StatusInternalServerError
		}
	}
	return out, nil
}

// agentServers are the servers that this agent's node knows.
func agentServers(r *request) (any, error) {
	if r.api.cfg.Node == nil {
		return nil, model.Errorf(model.KindUnsupported, "this agent has no client")
	}
	return orEmpty(r.api.cfg.Node.Servers()), nil
}

// agentJoin makes a server join the gossip of others.
func agentJoin(r *request) (any, error) {
	addrs := r.query["address"]
	if len(addrs) == 0 {
		return nil, model.Invalidf("address", "missing address to join: add address=HOST:PORT")
	}
	var out struct {
		Joined int    `json:"num_joined"`
		Error  string `json:"error"`
	}
	joined, err := call(r, method.RegionJoin, &method.JoinRequest{Addrs: addrs}, nil)
	if err != nil {
		out.Error = strings.Join(strings.Fields(err.Error()), " ")
		return out, nil
	}
	out.Joined = joined.Joined
	return out, nil
}

// agentForceLeave declares a server that failed gone.
func agentForceLeave(r *request) (any, error) {
	prune := r.query.Has("prune")
	if s := r.query.Get("prune"); s != "" {
		var err error
		if prune, err = r.flag("prune"); err != nil {
			return nil, err
		}
	}
	_, err := call(r, method.RegionForceLeave, &method.ForceLeaveRequest{Name: r.query.Get("node"), Prune: prune}, nil)
	return nil, err
}

// acceptRegion makes a cell that claims a region's name the one that the servers
// asked know it as.
func acceptRegion(r *request) (any, error) {
	return call(r, method.RegionAccept, &method.RegionAcceptRequest{Name: r.id, CellID: r.query.Get("cell")}, nil)
}

func showMetrics(r *request) (any, error) {
	cfg := &r.api.cfg
	if r.query.Get("format") == "prometheus" {
		if cfg.Prometheus == nil {
			return nil, &model.Error{Kind: model.KindUnsupported, Message: "Prometheus is not enabled: set telemetry { prometheus_metrics = true }"}
		}
		r.response.begun = true
		cfg.Prometheus.ServeHTTP(r.response.ResponseWriter, r.Request)
		return nil, nil
	}
	return cfg.Metrics.DisplayMetrics(r.response.ResponseWriter, r.Request)
}
