package api

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"atoll/federation"
	"atoll/model"
)

// allEventsPath is where index is of many regions: index=us:120,eu:97, each with the
// name of its state where that is known: us:120:STATE.
const allEventsPath = "/v1/federation/event/stream"

// streamAllEvents streams the events of all regions, a JSON object a line: each
// says of which region and index it is. A region that falls away, or comes back, is
// told of by a line with Freshness. A stream is taken up again from the indexes of
// its last line of each region, and the State of the last line that had one, which tells
// them from those of a cell that is gone; events of those may come a second time.
func streamAllEvents(r *request) (any, error) {
	topics, err := model.ParseTopics(r.query["topic"])
	if err != nil {
		return nil, err
	}
	req := &federation.EventRequest{EventFilter: model.EventFilter{Topics: topics, Namespace: r.read.Namespace}}
	if req.From, err = parsePositions(r.query.Get("index")); err != nil {
		return nil, err
	}
	var wanted []string
	for _, name := range strings.Split(r.query.Get("region"), ",") {
		if name == model.GlobalRegion {
			name = r.api.cfg.Region
		}
		if name != "" && name != model.AllRegions {
			wanted = append(wanted, name)
		}
	}
	first, err := r.regions(r.Context())
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Concat(wanted, slices.Sorted(maps.Keys(req.From))) {
		if !slices.ContainsFunc(first, func(st model.RegionStatus) bool { return st.Name == name }) {
			return nil, &model.Error{Kind: model.KindUnknownRegion, Region: name, Message: "region \"" + name + "\" is not in this agent's directory"}
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	known := first
	regions := func() []model.RegionStatus {
		// What cannot be asked now may be at the next time.
		if now, err := r.regions(ctx); err == nil {
			known = now
		}
		return slices.DeleteFunc(slices.Clone(known), func(st model.RegionStatus) bool { return wanted != nil && !slices.Contains(wanted, st.Name) })
	}

	out := json.NewEncoder(r.response.begin("application/json", false))
	var mu sync.Mutex // serialises lines
	line := func(v any) error {
		mu.Lock()
		defer mu.Unlock()
		err := out.Encode(v)
		r.response.flush()
		return err
	}
	if err := line(struct{}{}); err != nil {
		return nil, err
	}
	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel(nil)
	beats.Go(func() {
		tick := time.NewTicker(eventBeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := line(struct{}{}); err != nil {
					cancel(err)
				}
			}
		}
	})
	err = federation.FollowEvents(ctx, r.api.cfg.Caller, req, regions, func(e *model.RegionEvents) error { return line(e) })
	return nil, err
}

// parsePositions reads the positions of regions: "us:120,eu:97", with or without the
// names of their states, "us:120:STATE".
func parsePositions(s string) (map[string]federation.EventPosition, error) {
	out := make(map[string]federation.EventPosition)
	if s == "" {
		return out, nil
	}
	for _, part := range strings.Split(s, ",") {
		name, last := cutLast(part)
		var at federation.EventPosition
		// Names of states have a slash, which no number has.
		if strings.Contains(last, "/") {
			at.State = last
			name, last = cutLast(name)
		}
		var err error
		if at.Index, err = strconv.ParseUint(last, 10, 64); err != nil || name == "" {
			return nil, model.Invalidf("index", "Invalid index: %q is none of a region; write the indexes of regions as us:120,eu:97", part)
		}
		out[name] = at
	}
	return out, nil
}

// cutLast cuts at the last colon: names of regions may have some.
func cutLast(s string) (before, after string) {
	at := strings.LastIndexByte(s, ':')
	return s[:max(at, 0)], s[at+1:]
}
