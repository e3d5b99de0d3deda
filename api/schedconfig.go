package api

import (
	"strconv"
	"time"

	"atoll/model"
	"atoll/model/method"
)

// schedulerRead is what Nomad answers a read of the configuration with: beside
// it, what other reads have in their headers alone.
type schedulerRead struct {
	SchedulerConfig *model.SchedulerConfig
	Index           uint64
	LastContact     time.Duration
	KnownLeader     bool
}

func schedulerConfiguration(r *request) (any, error) {
	out, err := call(r, method.SchedulerGet, &r.read, func(out *method.SchedulerResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	return &schedulerRead{&out.Config, out.Index, out.LastContact, out.KnownLeader}, nil
}

// setSchedulerConfiguration answers whether it was set: it was not when cas is no
// longer the stored index. What the body leaves out becomes the default.
func setSchedulerConfiguration(r *request) (any, error) {
	req := &method.SchedulerSetRequest{Config: model.DefaultSchedulerConfig()}
	if err := r.body(&req.Config); err != nil {
		return nil, err
	}
	req.Config.CreateIndex, req.Config.ModifyIndex = 0, 0
	if cas := r.query.Get("cas"); cas != "" {
		index, err := strconv.ParseUint(cas, 10, 64)
		if err != nil {
			return nil, model.Invalidf("cas", "Error parsing cas value: %q is no index", cas)
		}
		req.CheckIndex, req.Config.ModifyIndex = true, index
	}
	out, err := write(r, method.SchedulerSet, req, func(out *method.SchedulerSetResponse) uint64 { return out.Index })
	if err != nil {
		return nil, err
	}
	return out, nil
}
