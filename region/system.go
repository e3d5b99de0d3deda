package region

import (
	"context"
	"errors"
	"time"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/gc"
	"atoll/rpc"
)

// system serves the System methods.
type system struct {
	*writer
	// collector is the present term's, nil when this server does not lead.
	collector func() *gc.Collector
}

func (s *system) bind(r *rpc.Server) {
	rpc.Handle(r, method.SystemGC, s.gc)
	rpc.Handle(r, method.SystemReconcile, s.reconcile)
}

// maxForce is how long a caller waits for a pass, which goes on then.
const maxForce = 5 * time.Second

func (s *system) gc(ctx context.Context, _ *rpc.Inbound, _ *method.Empty) (*method.Empty, error) {
	c := s.collector()
	if c == nil {
		return nil, model.Errorf(model.KindNoLeader, "cannot collect garbage: this server ceased to be the leader")
	}
	wait, cancel := context.WithTimeout(ctx, maxForce)
	defer cancel()
	err := c.Force(wait)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, model.Errorf(model.KindBusy, "cannot collect garbage: another pass has taken longer than %s and goes on", maxForce)
	}
	return &method.Empty{}, err
}

func (s *system) reconcile(ctx context.Context, c *rpc.Inbound, req *method.Empty) (*method.IndexResponse, error) {
	index, _, err := s.once(ctx, c, "", req, cell.CmdRecount, &cell.Recount{})
	if err != nil {
		return nil, err
	}
	return &method.IndexResponse{Index: index}, nil
}
