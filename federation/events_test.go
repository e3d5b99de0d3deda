package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// eventSource is a region's events, some to each index.
type eventSource struct {
	mu     sync.Mutex // guards what follows
	events map[uint64]int
	last   uint64
	after  uint64
	state  string
	wake   chan struct{}
	// cut fails every stream, soon does once the next frame was sent.
	cut, soon error
}

func newEventSource() *eventSource {
	return &eventSource{events: map[uint64]int{}, wake: make(chan struct{})}
}

// change changes the source and wakes its streams.
func (s *eventSource) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.wake)
	s.wake = make(chan struct{})
}

// happen makes so many events of the next index.
func (s *eventSource) happen(n int) {
	s.change(func() { s.last++; s.events[s.last] = n })
}

// stream sends two events a frame.
func (s *eventSource) stream(ctx context.Context, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
	s.mu.Lock()
	first := &method.EventFrame{Index: s.after, State: s.state}
	another := req.State != "" && req.State != s.state
	if another || req.Index > 0 && req.Index <= s.after {
		first.Gap = &model.EventGap{From: req.Index, To: s.after}
	}
	cut, at := s.cut, max(req.Index, s.after+1)
	if another {
		at = s.after + 1
	}
	s.mu.Unlock()
	if cut != nil {
		return cut
	}
	if err := send(first); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		n, there, wake, cut := s.events[at], at <= s.last, s.wake, s.cut
		s.mu.Unlock()
		if cut != nil {
			return cut
		}
		if !there {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-wake:
			}
			continue
		}
		for i := 0; i < n; i += 2 {
			f := &method.EventFrame{Index: at}
			for j := i; j < min(n, i+2); j++ {
				f.Events = append(f.Events, &model.Event{Index: at, Key: fmt.Sprintf("%d.%d", at, j)})
			}
			if err := send(f); err != nil {
				return err
			}
			s.mu.Lock()
			if s.soon != nil {
				s.cut, s.soon = s.soon, nil
			}
			cut := s.cut
			s.mu.Unlock()
			if cut != nil {
				return cut
			}
		}
		at++
	}
}

func TestTheEventsOfAllRegionsInOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources := map[string]*eventSource{"us": newEventSource(), "eu": newEventSource(), "ap": newEventSource()}
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		rpc.HandleStream(s, method.EventStream, func(ctx context.Context, c *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
			return sources[c.Envelope.Region].stream(ctx, req, send)
		})
		us, eu := sources["us"], sources["eu"]
		us.happen(3)
		us.happen(1)
		for range 9 {
			eu.happen(1)
		}
		eu.after = 5

		var mu sync.Mutex
		var lines []string
		known := []model.RegionStatus{{Name: "us"}, {Name: "eu", LastContact: -1}}
		take := func(e *model.RegionEvents) error {
			mu.Lock()
			defer mu.Unlock()
			line := e.Region
			if e.Freshness != "" {
				line += " " + string(e.Freshness)
			}
			if e.Freshness == model.Unreachable {
				line += fmt.Sprintf(" %s (%s)", e.Age, e.Error)
			}
			if e.Gap != nil {
				line += fmt.Sprintf(" gap %d-%d", e.Gap.From, e.Gap.To)
			}
			for _, ev := range e.Events {
				if ev.Index != e.Index {
					t.Errorf("an event of %d in a line of %d", ev.Index, e.Index)
				}
				line += " " + ev.Key
			}
			lines = append(lines, line)
			return nil
		}
		// told checks what was told of a region since.
		told := func(region string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			var got []string
			lines = slices.DeleteFunc(lines, func(l string) bool {
				of, rest, _ := strings.Cut(l, " ")
				if of == region {
					got = append(got, rest)
				}
				return of == region
			})
			if !slices.Equal(got, want) {
				t.Errorf("of %s:\n%q\nwant\n%q", region, got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- FollowEvents(ctx, s, &EventRequest{From: map[string]EventPosition{"eu": {Index: 3}}}, func() []model.RegionStatus {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(known)
			}, take)
		}()
		told("us", "live", "1.0 1.1", "1.2", "2.0")
		told("eu", "live gap 3-5", "6.0", "7.0", "8.0", "9.0")

		// A region that comes later.
		mu.Lock()
		known = append(known, model.RegionStatus{Name: "ap"})
		mu.Unlock()
		time.Sleep(newRegions)
		told("ap", "live")

		// It falls away amid an index, and is told of once.
		eu.change(func() {
			eu.last++
			eu.events[10] = 5
			eu.soon = &model.Error{Kind: model.KindUnreachable, Message: "no answer", LastContact: 2 * time.Second}
		})
		us.happen(1)
		time.Sleep(10 * time.Second)
		told("us", "3.0")
		told("eu", "10.0 10.1", "unreachable 2s (no answer)")
		// Back, it goes on where it was, without telling twice.
		eu.change(func() { eu.cut = nil })
		time.Sleep(followAgain.Max)
		told("eu", "live", "10.2 10.3", "10.4")
		eu.change(func() { eu.cut = model.Errorf(model.KindGone, "too slow") })
		time.Sleep(time.Second)
		eu.change(func() { eu.cut = nil; eu.last++; eu.events[11] = 1 })
		time.Sleep(followAgain.Max)
		told("eu", "11.0")
		// What was forgotten meanwhile is named.
		eu.change(func() { eu.cut = errors.New("gone") })
		time.Sleep(time.Second)
		eu.change(func() { eu.cut, eu.last, eu.after = nil, 30, 20; eu.events[30] = 1 })
		time.Sleep(followAgain.Max)
		synctest.Wait()
		mu.Lock()
		lines[0] = strings.Split(lines[0], " ")[0] + " away"
		mu.Unlock()
		told("eu", "away", "live gap 11-20", "30.0")
		told("us")
		told("ap")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	})
}

func TestAStreamOfAllRegionsEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newEventSource()
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		rpc.HandleStream(s, method.EventStream, func(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
			return source.stream(ctx, req, send)
		})
		full := errors.New("the reader is gone")
		err := FollowEvents(t.Context(), s, &EventRequest{}, func() []model.RegionStatus { return []model.RegionStatus{{Name: "us"}, {Name: "eu"}} }, func(*model.RegionEvents) error { return full })
		if !errors.Is(err, full) {
			t.Errorf("it ends with %v", err)
		}
	})
}

// All regions wait for one reader, and a server gives a stream up that is not read:
// that says nothing of its region.
func TestAStreamThatBreaksOffIsNoOutageWhileAnotherCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newEventSource()
		for range 4 {
			source.happen(1)
		}
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		rpc.HandleStream(s, method.EventStream, func(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
			frames := 0
			return source.stream(ctx, req, func(f *method.EventFrame) error {
				if frames++; frames > 3 {
					return &model.Error{Kind: model.KindUnreachable, Message: "broken off"}
				}
				return send(f)
			})
		})
		var mu sync.Mutex // guards lines
		var lines []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- FollowEvents(ctx, s, &EventRequest{}, func() []model.RegionStatus { return []model.RegionStatus{{Name: "eu"}} }, func(e *model.RegionEvents) error {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, fmt.Sprint(e.Index, " ", e.Freshness, e.Error))
				return nil
			})
		}()
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		// The last event that was told is sent again, and passed over.
		if want := []string{"0 live", "1 ", "2 ", "3 ", "4 "}; !slices.Equal(lines, want) {
			t.Errorf("it told %q, want %q", lines, want)
		}
		cancel()
		<-done
	})
}

func TestAStreamGoesOnInAnotherStateAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newEventSource()
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		rpc.HandleStream(s, method.EventStream, func(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
			return source.stream(ctx, req, send)
		})
		source.state = "one"
		for range 3 {
			source.happen(1)
		}
		var mu sync.Mutex // guards lines
		var lines []string
		told := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(lines, want) {
				t.Errorf("it told\n%q\nwant\n%q", lines, want)
			}
			lines = nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- FollowEvents(ctx, s, &EventRequest{From: map[string]EventPosition{"eu": {Index: 2, State: "one"}}}, func() []model.RegionStatus { return []model.RegionStatus{{Name: "eu"}} }, func(e *model.RegionEvents) error {
				mu.Lock()
				defer mu.Unlock()
				line := fmt.Sprint(e.Index, " ", e.Freshness, e.State)
				if e.Gap != nil {
					line += fmt.Sprintf(" gap %d-%d", e.Gap.From, e.Gap.To)
				}
				lines = append(lines, line)
				return nil
			})
		}()
		told("0 liveone", "2 ", "3 ")
		// A cell that begins anew, while the stream is taken to be live.
		source.change(func() { source.cut = model.Errorf(model.KindGone, "replaced") })
		synctest.Wait()
		source.change(func() {
			source.cut, source.state, source.events, source.last = nil, "two", map[uint64]int{1: 1, 2: 1}, 2
		})
		time.Sleep(followAgain.Max)
		told("0 livetwo gap 3-0", "1 ", "2 ")
		cancel()
		<-done
	})
}

func TestARegionThatIsForgottenIsFollowedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newEventSource()
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		var open atomic.Int32
		rpc.HandleStream(s, method.EventStream, func(ctx context.Context, _ *rpc.Inbound, req *method.EventStreamRequest, send func(*method.EventFrame) error) error {
			defer open.Add(-1)
			open.Add(1)
			return source.stream(ctx, req, send)
		})
		var known atomic.Bool
		known.Store(true)
		lines := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- FollowEvents(ctx, s, &EventRequest{}, func() []model.RegionStatus {
				if known.Load() {
					return []model.RegionStatus{{Name: "eu"}}
				}
				return nil
			}, func(e *model.RegionEvents) error { lines <- fmt.Sprint(e.Index, e.Freshness); return nil })
		}()
		told := func(want ...string) {
			t.Helper()
			time.Sleep(2 * newRegions)
			synctest.Wait()
			for _, w := range want {
				if len(lines) == 0 {
					t.Fatalf("nothing is told, want %s", w)
				}
				if got := <-lines; got != w {
					t.Errorf("it told %s, want %s", got, w)
				}
			}
			if len(lines) > 0 {
				t.Errorf("it told %s too", <-lines)
			}
		}
		source.happen(1)
		told("0live", "1")
		known.Store(false)
		told()
		source.happen(1)
		if told(); open.Load() != 0 {
			t.Errorf("%d streams of a region that was forgotten", open.Load())
		}
		// It goes on where it was when it is back.
		known.Store(true)
		told("0live", "2")
		cancel()
		<-done
	})
}
