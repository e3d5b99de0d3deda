package federation

import (
	"context"
	"errors"
	"sync"
	"time"

	"atoll/internal/backoff"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// EventRequest says which events of which regions are wanted.
type EventRequest struct {
	model.EventFilter
	// From says from where on events are wanted, by region; of a region that is not
	// in it those are the oldest that its server has.
	From map[string]EventPosition
}

// EventPosition is an index of a region's state, which State names; "" when its name
// is not known.
type EventPosition struct {
	Index uint64
	State string
}

// FollowEvents hands the events of all regions to take, one call at a time, until
// ctx ends or take fails, and returns why. Each region's come in their order.
// regions are those that are known at the moment: ones that come later are
// followed too, and ones that are forgotten no more.
//
// A region that falls away is told of, once, with its last contact, and so is its
// return; it goes on after what it told last. Whatever may be missing is named, as
// a gap.
func FollowEvents(ctx context.Context, c rpc.Caller, req *EventRequest, regions func() []model.RegionStatus, take func(*model.RegionEvents) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer cancel(nil)
	var mu sync.Mutex // held over take
	one := func(e *model.RegionEvents) error {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := take(e)
		if err != nil {
			cancel(err)
		}
		return err
	}
	followed := make(map[string]*eventFollower)
	tick := time.NewTicker(newRegions)
	defer tick.Stop()
	for {
		known := make(map[string]bool)
		for _, st := range regions() {
			known[st.Name] = true
			f := followed[st.Name]
			if f == nil {
				from := req.From[st.Name]
				f = &eventFollower{region: st.Name, next: from.Index, state: from.State, take: one, idle: make(chan struct{}, 1)}
				f.idle <- struct{}{}
				followed[st.Name] = f
			}
			select {
			case <-f.idle:
				f.begin(ctx, c, &req.EventFilter, st, &loops)
			default:
			}
		}
		for name, f := range followed {
			if !known[name] {
				f.stop()
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// newRegions is how often a stream of events looks for regions that came.
const newRegions = 2 * time.Second

// followAgain is the wait after a region's stream ended.
var followAgain = backoff.Policy{Min: 200 * time.Millisecond, Max: 2 * time.Second}

// eventFollower follows the events of one region.
type eventFollower struct {
	region string
	// next is the index from which on events are wanted. Of those of that index,
	// had were told already: every server tells them in the same order.
	next uint64
	had  int
	// state names the state that next is of, "" while that is not known.
	state string
	// live says that the region was told to be, told that it was told anything.
	live, told bool
	// contact is when it was last heard, if known.
	contact time.Time
	known   bool
	take    func(*model.RegionEvents) error
	// stop ends run, which puts something into idle when it returns.
	stop context.CancelFunc
	idle chan struct{}
}

// begin runs the follower of a region that is known, for the first time or again: one
// that was forgotten goes on where it was when it comes back.
func (f *eventFollower) begin(ctx context.Context, c rpc.Caller, filter *model.EventFilter, st model.RegionStatus, loops *sync.WaitGroup) {
	ctx, f.stop = context.WithCancel(ctx)
	f.live, f.told = false, false
	f.contact, f.known = time.Now(), st.LastContact >= 0
	if f.known {
		f.contact = f.contact.Add(-st.LastContact)
	}
	loops.Go(func() {
		f.run(ctx, c, filter)
		f.idle <- struct{}{}
	})
}

func (f *eventFollower) run(ctx context.Context, c rpc.Caller, filter *model.EventFilter) {
	for n := 0; ; n++ {
		begun, err := f.stream(ctx, c, filter)
		if ctx.Err() != nil {
			return
		}
		if begun {
			n = 0
		}
		// A region whose stream breaks off is there as long as another can be had:
		// its server gives a stream up that is not read for seconds, and all regions
		// wait for one reader. So is one that has another state.
		if (f.live || !f.told) && !begun && model.KindOf(err) != model.KindGone {
			f.live, f.told = false, true
			e := &model.RegionEvents{Region: f.region, Freshness: model.Unreachable, Age: -1, Error: err.Error()}
			var unreachable *model.Error
			switch {
			case errors.As(err, &unreachable) && unreachable.LastContact > 0:
				e.Age = unreachable.LastContact
			case f.known:
				e.Age = time.Since(f.contact)
			}
			if f.take(e) != nil {
				return
			}
		}
		if !followAgain.Sleep(ctx, n) {
			return
		}
	}
}

// stream reads the region's events until their stream ends; begun says that the
// region answered.
func (f *eventFollower) stream(ctx context.Context, c rpc.Caller, filter *model.EventFilter) (begun bool, err error) {
	stream, err := rpc.Open(ctx, c, method.EventStream, rpc.To{Region: f.region}, &method.EventStreamRequest{EventFilter: *filter, Index: f.next, State: f.state})
	if err != nil {
		return false, err
	}
	defer stream.Close()
	skip := f.had
	for first := true; ; first = false {
		frame, err := stream.Recv()
		if err != nil {
			return begun, err
		}
		begun = true
		f.contact, f.known = time.Now(), true
		out := &model.RegionEvents{Region: f.region, Index: frame.Index, Events: frame.Events, Gap: frame.Gap}
		if first {
			f.state = frame.State
			if frame.Gap != nil {
				f.next, f.had, skip = frame.Index+1, 0, 0
			} else if f.next == 0 {
				f.next = frame.Index + 1
			}
			if f.live && frame.Gap == nil {
				continue
			}
			f.live, f.told = true, true
			out.Freshness, out.State = model.Live, frame.State
		} else {
			if frame.Index != f.next {
				f.next, f.had, skip = frame.Index, 0, 0
			}
			f.had += max(0, len(frame.Events)-skip)
			n := min(skip, len(frame.Events))
			out.Events, skip = frame.Events[n:], skip-n
			if len(out.Events) == 0 {
				continue
			}
		}
		if err := f.take(out); err != nil {
			return begun, err
		}
	}
}
