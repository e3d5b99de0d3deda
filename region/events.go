package region

import (
	"context"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// events serves the Event methods.
type events struct {
	snapshot func() *state.Snapshot
}

func (s *events) bind(r *rpc.Server) {
	rpc.HandleStream(r, method.EventStream, s.stream)
}

// frameEvents bounds the events of a frame, and so what a reader keeps in
// memory: what is sent is waited for. A job may be as large as many others, so
// that it ends its frame.
const frameEvents = 64

func (s *events) stream(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
	reader, after := s.snapshot().Changes(req.Index)
	first := &method.EventFrame{Index: after}
	if req.Index > 0 && req.Index <= after {
		first.Gap = &model.EventGap{From: req.Index, To: after}
	}
	if err := send(first); err != nil {
		return err
	}
	for {
		changes, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		frame := &method.EventFrame{Index: changes.Index}
		for e := range changes.Events(&req.EventFilter, s.snapshot()) {
			frame.Events = append(frame.Events, e)
			if len(frame.Events) == frameEvents || e.Payload.Job != nil {
				if err := send(frame); err != nil {
					return err
				}
				frame = &method.EventFrame{Index: changes.Index}
			}
		}
		if len(frame.Events) > 0 {
			if err := send(frame); err != nil {
				return err
			}
		}
	}
}
