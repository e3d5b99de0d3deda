package api

import (
	"net/http"
	"strconv"

	"atoll/model"
	"atoll/model/method"
)

func raftConfiguration(r *request) (any, error) {
	out, err := call(r, method.RaftConfiguration, &method.Empty{}, func(out *method.RaftConfigurationResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	return out.Config, nil
}

// raftPeer reads which member of the cell is meant.
func (r *request) raftPeer() *method.RaftPeerRequest {
	return &method.RaftPeerRequest{ID: r.query.Get("id"), Address: r.query.Get("address")}
}

func raftRemovePeer(r *request) (any, error) {
	_, err := call(r, method.RaftRemovePeer, r.raftPeer(), nil)
	return nil, err
}

func raftTransferLeadership(r *request) (any, error) {
	return call(r, method.RaftTransfer, r.raftPeer(), nil)
}

func autopilotConfiguration(r *request) (any, error) {
	out, err := call(r, method.AutopilotGet, &r.read, func(out *method.AutopilotResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	return &out.Config, nil
}

// setAutopilotConfiguration answers whether it was set: it was not when cas is no
// longer the stored index. What the body leaves out becomes the default.
func setAutopilotConfiguration(r *request) (any, error) {
	req := &method.AutopilotSetRequest{Config: model.DefaultAutopilot()}
	if err := r.body(&req.Config); err != nil {
		return nil, err
	}
	if cas := r.query.Get("cas"); cas != "" {
		index, err := strconv.ParseUint(cas, 10, 64)
		if err != nil {
			return nil, model.Invalidf("cas", "Error parsing cas value: %q is no index", cas)
		}
		req.CheckIndex, req.Config.ModifyIndex = true, index
	}
	out, err := call(r, method.AutopilotSet, req, nil)
	if err != nil {
		return nil, err
	}
	r.index(out.Index)
	return out.Updated, nil
}

// autopilotHealth is 429 when a server is not healthy.
func autopilotHealth(r *request) (any, error) {
	out, err := call(r, method.AutopilotCellHealth, &method.Empty{}, nil)
	if err != nil {
		return nil, err
	}
	if !out.Health.Healthy {
		r.response.status = http.StatusTooManyRequests
	}
	return &out.Health, nil
}
