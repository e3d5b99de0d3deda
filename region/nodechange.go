package region

import (
	"context"
	"time"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// What operators do to nodes.

func (s *nodes) eligibility(ctx context.Context, c *rpc.Inbound, req *method.NodeEligibilityRequest) (*method.NodeChangeResponse, error) {
	if req.Eligibility != model.NodeEligible && req.Eligibility != model.NodeIneligible {
		return nil, model.Invalidf("Eligibility", "cannot change node %s: eligibility %q is neither %q nor %q", req.NodeID, req.Eligibility, model.NodeEligible, model.NodeIneligible)
	}
	return s.change(ctx, c, req, cell.CmdNodeEligibility, &cell.NodeEligibility{
		NodeID: req.NodeID, Eligible: req.Eligibility == model.NodeEligible, Derive: s.derive(),
	})
}

// maxDeadline keeps a deadline a time that can be written.
const maxDeadline = 10 * 365 * 24 * time.Hour

func (s *nodes) drain(ctx context.Context, c *rpc.Inbound, req *method.NodeDrainRequest) (*method.NodeChangeResponse, error) {
	if req.DrainSpec != nil && req.DrainSpec.Deadline > maxDeadline {
		return nil, model.Invalidf("DrainSpec.Deadline", "cannot drain node %s: a deadline of %s is too long; 0 has none", req.NodeID, req.DrainSpec.Deadline)
	}
	return s.change(ctx, c, req, cell.CmdNodeDrain, &cell.NodeDrain{
		NodeID: req.NodeID, Spec: req.DrainSpec, MarkEligible: req.MarkEligible, Meta: req.Meta, Derive: s.derive(),
	})
}

func (s *nodes) purge(ctx context.Context, c *rpc.Inbound, req *method.NodeIDRequest) (*method.NodeChangeResponse, error) {
	return s.change(ctx, c, req, cell.CmdNodePurge, &cell.NodePurge{NodeID: req.NodeID, Derive: s.derive()})
}

func (s *nodes) evaluate(ctx context.Context, c *rpc.Inbound, req *method.NodeIDRequest) (*method.NodeChangeResponse, error) {
	return s.change(ctx, c, req, cell.CmdNodeEvaluate, &cell.NodeEvaluate{NodeID: req.NodeID, Derive: s.derive()})
}

func (s *nodes) derive() cell.Derive { return cell.NewDerive(s.clock.Now().UnixNano()) }

// change applies a command that answers with cell.NodeChanged.
func (s *nodes) change(ctx context.Context, c *rpc.Inbound, asks any, cmd cell.Command, body any) (*method.NodeChangeResponse, error) {
	index, value, err := s.once(ctx, c, "", asks, cmd, body)
	if err != nil {
		return nil, err
	}
	done := value.(*cell.NodeChanged)
	out := &method.NodeChangeResponse{NodeModifyIndex: done.NodeModifyIndex, EvalIDs: done.EvalIDs, Index: index}
	if len(done.EvalIDs) > 0 {
		out.EvalID, out.EvalCreateIndex = done.EvalIDs[0], index
	}
	return out, nil
}
