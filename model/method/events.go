package method

import "atoll/model"

// EventStream streams the events of a region, from whichever server has the
// call: each has them all.
var EventStream = Method[EventStreamRequest, EventFrame]{Spec{Name: "Event.Stream", Place: AtServer, Stream: true}}

type (
	EventStreamRequest struct {
		model.EventFilter
		// Index is of the first events that are wanted; 0 means the oldest that
		// the server has.
		Index uint64
		// State names the state that Index is of, as a frame did; "" says that
		// the asker does not know.
		State string
	}
	// EventFrame has events of one index, not always all of them. The first
	// frame has none: its Index says that the server has all events after it, of
	// the state that State names, and Gap, when not nil, that this is too late for
	// the request, or that the request is of another state.
	EventFrame struct {
		Index  uint64
		Events []*model.Event
		Gap    *model.EventGap
		State  string
	}
)
