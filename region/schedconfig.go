package region

import (
	"context"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model/method"
	"atoll/rpc"
)

// schedulers serves the methods of the scheduler configuration.
type schedulers struct {
	*reader
	*writer
}

func (s *schedulers) bind(r *rpc.Server) {
	rpc.Handle(r, method.SchedulerGet, s.get)
	rpc.Handle(r, method.SchedulerSet, s.set)
}

func (s *schedulers) get(ctx context.Context, _ *rpc.Inbound, req *method.Query) (*method.SchedulerResponse, error) {
	out := &method.SchedulerResponse{}
	return out, s.read(ctx, req, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		out.Config = snap.SchedulerConfig(ws)
		return out.Config.ModifyIndex, nil
	})
}

func (s *schedulers) set(ctx context.Context, c *rpc.Inbound, req *method.SchedulerSetRequest) (*method.SchedulerSetResponse, error) {
	config := req.Config
	if err := config.Validate(); err != nil {
		return nil, err
	}
	index, value, err := s.once(ctx, c, "", req, cell.CmdSchedulerConfig, &cell.SchedulerConfig{Config: config, CheckIndex: req.CheckIndex})
	if err != nil {
		return nil, err
	}
	return &method.SchedulerSetResponse{Updated: value.(*cell.SchedulerSet).Updated, Index: index}, nil
}
