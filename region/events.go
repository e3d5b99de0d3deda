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
	// leads reports whether this server leads, and is behind no other; newest asks
	// the leader for the index of its state.
	leads  func() bool
	newest func(ctx context.Context) (uint64, error)
}

func (s *events) bind(r *rpc.Server) {
	rpc.HandleStream(r, method.EventStream, s.stream)
}

// frameEvents bounds the events of a frame, and so what a reader keeps in
// memory: what is sent is waited for. A job may be as large as many others, so
// that it ends its frame.
const frameEvents = 64

func (s *events) stream(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
	reader, first, err := s.begin(ctx, req)
	if err != nil {
		return err
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

// begin finds where a stream begins, and its first frame. An index that this server
// has not reached is one of another state, from which it must not be waited for,
// or this server is behind its leader, and waits.
func (s *events) begin(ctx context.Context, req *method.EventStreamRequest) (*state.EventReader, *method.EventFrame, error) {
	var newest uint64
	for {
		leads := s.leads() // before the state is read, which has everything then
		ws := make(state.Watch)
		snap := s.snapshot()
		snap.WatchAny(ws)
		name := snap.Name()
		ahead := req.Index > snap.Index()+1 && req.State != name
		if name != "" && (!ahead || leads || newest > 0 && snap.Index() >= newest) {
			reader, after := snap.Changes(req.Index)
			another := ahead || req.State != "" && req.State != name
			if another {
				reader, after = snap.Changes(0)
			}
			first := &method.EventFrame{Index: after, State: name}
			if another || req.Index > 0 && req.Index <= after {
				first.Gap = &model.EventGap{From: req.Index, To: after}
			}
			return reader, first, nil
		}
		if newest == 0 && !leads {
			var err error
			if newest, err = s.newest(ctx); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := ws.WatchCtx(ctx); err != nil {
			return nil, nil, err
		}
	}
}
