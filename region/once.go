package region

import (
	"cmp"
	"context"
	"crypto/sha256"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/rpc"
)

// applier is what a cell offers for changing its state.
type applier interface {
	Apply(ctx context.Context, cmd cell.Command, body any) (uint64, any, error)
	ApplyOnce(ctx context.Context, cmd cell.Command, req *state.Request, body any) (uint64, any, error)
}

// writer is the one way in which services change the state.
type writer struct {
	applier
	clock clock.Clock
}

// maxRequestID bounds a request id of a caller's own, in bytes.
const maxRequestID = 256

// once applies a command for a call whose request is asks, or gives the answer
// of the first time when the same request was applied before. What asks holds
// of the moment it came, such as a submit time, must be left out of it.
func (w *writer) once(ctx context.Context, c *rpc.Inbound, namespace string, asks any, cmd cell.Command, body any) (uint64, any, error) {
	env := c.Envelope
	req, err := w.request(c, namespace, asks)
	if err != nil {
		return 0, nil, err
	}
	index, value, err := w.ApplyOnce(ctx, cmd, req, body)
	if model.KindOf(err) == model.KindOutcomeUnknown {
		e := *model.AsError(err)
		e.Token = env.RequestID
		return 0, nil, &e
	}
	return index, value, err
}

// request names what a call asks for.
func (w *writer) request(c *rpc.Inbound, namespace string, asks any) (*state.Request, error) {
	req, err := request(c.Envelope.Method, c.Envelope.RequestID, namespace, asks)
	if err != nil {
		return nil, err
	}
	req.Issued, req.Taken = model.RequestIssued(req.ID), w.clock.Now().UnixNano()
	return req, nil
}

// request names what a call of a method asks for by an id.
func request(method, id, namespace string, asks any) (*state.Request, error) {
	if len(id) > maxRequestID {
		return nil, model.Invalidf("idempotency_token", "the idempotency token of %d bytes is over the limit of %d", len(id), maxRequestID)
	}
	b, err := wire.Encode(asks)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte(method+"\x00"), b...))
	req := &state.Request{ID: id, Namespace: cmp.Or(namespace, model.DefaultNamespace)}
	copy(req.Hash[:], sum[:])
	return req, nil
}
