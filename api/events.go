package api

import (
	"encoding/json"
	"fmt"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

const (
	// eventBeat is between heartbeats of an event stream.
	eventBeat = 10 * time.Second
	// gapHeader names the indexes of which events may be missing, in the form
	// "FROM-TO".
	gapHeader = "X-Atoll-Event-Gap"
)

// eventLine is a line of an event stream. A heartbeat is an empty object.
type eventLine struct {
	Index  uint64
	Events []*model.Event
	// Gap is in the first line when events may be missing before those that
	// follow.
	Gap *model.EventGap `json:",omitempty"`
}

// eventError is the last line of a stream that ends by a failure.
type eventError struct{ Error string }

// streamEvents streams a region's events, a JSON object a line, from an index
// on. Errors have a status until it has begun; then they are its last line, and
// the connection is broken off.
func streamEvents(r *request) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	topics, err := model.ParseTopics(r.query["topic"])
	if err != nil {
		return nil, err
	}
	stream, err := rpc.Open(r.Context(), r.api.cfg.Caller, method.EventStream, r.to, &method.EventStreamRequest{
		EventFilter: model.EventFilter{Topics: topics, Namespace: r.read.Namespace}, Index: r.read.MinIndex,
	})
	if err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		stream.Close()
		return nil, err
	}
	if g := first.Gap; g != nil {
		r.response.Header().Set(gapHeader, fmt.Sprintf("%d-%d", g.From, g.To))
	}
	out := json.NewEncoder(r.response.begin("application/json", false))
	line := func(v any) error {
		err := out.Encode(v)
		r.response.flush()
		return err
	}
	beat := func() error { return line(struct{}{}) }
	event := func(f *method.EventFrame) error { return line(&eventLine{f.Index, f.Events, f.Gap}) }
	if first.Gap == nil {
		err = beat()
	} else {
		first.Events = []*model.Event{}
		err = event(first)
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	err = each(r, stream, eventBeat, event, beat)
	if err != nil && r.Context().Err() == nil {
		_ = line(&eventError{err.Error()})
	}
	return nil, err
}
