package region

import (
	"cmp"
	"context"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// The making of children, by their users' wish.

func (s *jobs) dispatch(ctx context.Context, c *rpc.Inbound, req *method.JobDispatchRequest) (*method.JobDispatchResponse, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	payload, err := model.CompressPayload(req.Payload)
	if err != nil {
		return nil, err
	}
	// The token has a meaning of its own, and is no part of what is asked for: so
	// a dispatch of unknown outcome is found by whatever token it is sent again
	// with.
	asks := *req
	asks.IdempotencyToken = ""
	again, err := request(c.Envelope.Method, req.IdempotencyToken, key.Namespace, &asks)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	index, value, err := s.once(ctx, c, key.Namespace, &asks, cell.CmdJobDispatch, &cell.JobDispatch{
		Key: key,
		Dispatch: model.Dispatch{
			ChildID: model.DispatchedID(key.ID, req.IdPrefixTemplate, now, nil), Payload: payload, Meta: req.Meta,
			Priority: req.Priority, Token: req.IdempotencyToken, Time: now.UnixNano(),
		},
		Eval:  newEval(key, model.JobTypeBatch, model.JobDefaultPriority, model.TriggerJobRegister, now.UnixNano()),
		Again: again,
	})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobLaunched)
	return &method.JobDispatchResponse{
		DispatchedJobID: done.ChildID, EvalID: done.EvalID, EvalCreateIndex: evalIndex(done.EvalID, index),
		JobCreateIndex: done.JobCreateIndex, Index: index,
	}, nil
}

func (s *jobs) force(ctx context.Context, c *rpc.Inbound, req *method.JobPeriodicForceRequest) (*method.JobPeriodicForceResponse, error) {
	key := model.JobID{Namespace: cmp.Or(req.Namespace, model.DefaultNamespace), ID: req.JobID}
	now := s.clock.Now()
	index, value, err := s.once(ctx, c, key.Namespace, req, cell.CmdPeriodicLaunch, &cell.PeriodicLaunch{
		Key: key, Launch: now.Unix(), Force: true, Time: now.UnixNano(),
		Eval: newEval(key, model.JobTypeBatch, model.JobDefaultPriority, model.TriggerPeriodicJob, now.UnixNano()),
	})
	if err != nil {
		return nil, err
	}
	done := value.(*cell.JobLaunched)
	return &method.JobPeriodicForceResponse{EvalID: done.EvalID, EvalCreateIndex: index, Index: index}, nil
}
