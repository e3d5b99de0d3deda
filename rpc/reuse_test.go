package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/yamux"

	"atoll/model"
	"atoll/model/method"
)

// idling is how many streams a session keeps without a call.
func idling(s *Session) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

// session is the one from a peer to an address.
func (p *peer) session(t *testing.T, addr string) *Session {
	t.Helper()
	s, err := p.Pool().Session(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCallsOneAfterAnotherShareAStream(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{us.addr})
	for i := range 20 {
		if r, err := Call(t.Context(), cl, echo, To{Region: "eu"}, &ping{i}); err != nil || r.N != i+1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err := Call(t.Context(), cl, put, To{Region: "eu"}, &ping{i}); err != nil || r.N != i {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	near, err := cl.Pool().Session(t.Context(), us.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Session{near, us.session(t, eu.addr)} {
		if n, idle := s.mux.NumStreams(), idling(s); n != 1 || idle != 1 {
			t.Errorf("%d streams, %d of them idle", n, idle)
		}
		if stream := s.reuse(); stream == nil || stream.StreamID() != 1 {
			t.Errorf("it is not the first stream: %+v", stream)
		} else {
			s.keepIdle(stream)
		}
	}
}

func TestAThousandCallsAtOnceAreToldApart(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	var calls sync.WaitGroup
	for i := range 1000 {
		calls.Go(func() {
			for n := i * 1000; n < i*1000+5; n++ {
				to := To{Region: "eu"}
				if n%7 == 0 {
					to.Timeout = time.Duration(n%1000) * 10 * time.Microsecond // some end too late
				}
				r, err := Call(t.Context(), us.Server, echo, to, &ping{n})
				if to.Timeout > 0 && model.KindOf(err) == model.KindDeadline {
					continue
				}
				if err != nil || r.N != n+1 {
					t.Errorf("%d became %+v, %v", n, r, err)
				}
			}
		})
	}
	calls.Wait()
	s := us.session(t, eu.addr)
	if n := idling(s); n < 1 || n > maxIdle {
		t.Errorf("%d idle streams", n)
	}
	wait(t, "all streams but the idle ones are closed", func() bool { return s.mux.NumStreams() == idling(s) && int(eu.idle.held.Load()) == idling(s) })
	if n := eu.calls.Load(); n != 0 {
		t.Errorf("%d calls are being served", n)
	}
}

func TestOnlyACallThatWasAnsweredLeavesItsStream(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	s := us.session(t, eu.addr)
	for name, call := range map[string]func(){
		"an error": func() {
			if _, err := Call(t.Context(), us.Server, refuse, To{Region: "eu"}, &ping{}); model.KindOf(err) != model.KindConflict {
				t.Error(err)
			}
		},
		"cancelled": func() {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-eu.entered; cancel() }()
			if _, err := Call(ctx, us.Server, block, To{Region: "eu"}, &ping{}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			<-eu.left // its handler is too
		},
		"too late": func() {
			if _, err := Call(t.Context(), us.Server, block, To{Region: "eu", Timeout: 50 * time.Millisecond}, &ping{}); model.KindOf(err) != model.KindDeadline {
				t.Error(err)
			}
			<-eu.entered
			<-eu.left
		},
		"a stream": func() {
			r, err := Open(t.Context(), us.Server, count, To{Region: "eu"}, &ping{2})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for range 2 {
				_, _ = r.Recv()
			}
			if _, err := r.Recv(); err != io.EOF {
				t.Error(err)
			}
		},
		"answered, and then cancelled": func() {
			ctx, cancel := context.WithCancel(t.Context())
			x, err := us.carry(ctx, echo.Spec, Decision{Servers: []string{eu.addr}, Region: "eu"}, &Envelope{Method: echo.Name, Region: "eu"}, &ping{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := x.body(ctx); err != nil || !x.whole {
				t.Errorf("whole: %t, %v", x.whole, err)
			}
			cancel()
			x.Close()
		},
	} {
		call()
		if n := idling(s); n != 0 {
			t.Errorf("%s: %d idle streams", name, n)
		}
		// It works on a stream that had a call as it does on a new one.
		if _, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{}); err != nil || idling(s) != 1 {
			t.Errorf("before %s: %v", name, err)
		}
		call()
		if n := idling(s); n != 0 {
			t.Errorf("%s on a used stream: %d idle streams", name, n)
		}
		wait(t, "its streams are closed", func() bool { return s.mux.NumStreams() == 0 && eu.idle.held.Load() == 0 && eu.calls.Load() == 0 })
	}
}

// What a sign of life looks for must not be the beginning of the next call.
func TestASignOfLifeTakesNothingOfTheNextCall(t *testing.T) {
	near, far := net.Pipe()
	server, err := newSession(near, yamux.Server, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := newSession(far, yamux.Client, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	out, err := client.open(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.end(out)
	env, err := encodeEnvelope(&Envelope{Method: "Test.Echo"})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrames(out, func(failed error) error { return failed }, frame{frameEnvelope, env}, frame{frameBody, []byte("b")}); err != nil {
		t.Fatal(err)
	}
	stream, err := server.mux.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	defer server.end(stream)
	if !server.awaitCall(stream) {
		t.Fatal("nothing came")
	}
	limits := testLimits.withDefaults()
	in := &incoming{stream: stream, limits: &limits, bodies: &budget{}}
	_ = in.abandoned()
	if env, body, err := in.receive(); err != nil || env.Method != "Test.Echo" || string(body) != "b" {
		t.Errorf("%+v, %q, %v", env, body, err)
	}
}

func TestAnIdleStreamIsClosedAfterAWhile(t *testing.T) {
	t.Parallel()
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	s := us.session(t, eu.addr)
	call := func() {
		t.Helper()
		if _, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{}); err != nil {
			t.Fatal(err)
		}
	}
	// Two calls at once leave two streams.
	done := make(chan error, 1)
	go func() {
		_, err := Call(t.Context(), us.Server, block, To{Region: "eu"}, &ping{})
		done <- err
	}()
	<-eu.entered
	call()
	close(eu.released)
	if err := <-done; err != nil || idling(s) != 2 {
		t.Fatalf("%v, %d idle", err, idling(s))
	}
	s.mu.Lock()
	first, last := s.idle[0].Stream, s.idle[1].Stream
	s.mu.Unlock()
	call()
	s.mu.Lock()
	if s.idle[0].Stream != first || s.idle[1].Stream != last {
		t.Error("one call at a time needs more than the stream that was used last")
	}
	s.idle[0].since = s.idle[0].since.Add(-idleFor)
	s.mu.Unlock()
	s.endIdle()
	if n := idling(s); n != 1 || s.mux.NumStreams() > 2 {
		t.Errorf("one is old, and %d are kept", n)
	}
	call()
	since := time.Now()
	// It is there for longer than a new stream may be without its call.
	wait(t, "it is closed", func() bool {
		awaited := eu.idle.held.Load()
		if idling(s) > 0 && awaited == 0 {
			t.Fatal("the server waits no more on a stream that has its caller")
		}
		return awaited == 0 && s.mux.NumStreams() == 0
	})
	if took := time.Since(since); took < idleFor-100*time.Millisecond {
		t.Errorf("it was closed after %s", took)
	}
	call()
	if n := idling(s); n != 1 {
		t.Errorf("the next call left %d", n)
	}
}

func TestIdleStreamsAreNoCallsAndAreBounded(t *testing.T) {
	limits := testLimits
	limits.MaxCalls = 1
	us, eu := newPeer(t, "us"), newPeerWith(t, "eu", ServerConfig{Limits: limits})
	us.router.to["eu"] = []string{eu.addr}
	s := us.session(t, eu.addr)
	ask := func() error {
		_, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{})
		return err
	}
	if err := ask(); err != nil || idling(s) != 1 {
		t.Fatalf("%v, %d idle", err, idling(s))
	}
	idle := s.reuse()
	wait(t, "no call is under way", func() bool { return eu.calls.Load() == 0 })
	blocked := make(chan error, 1)
	go func() {
		_, err := Call(t.Context(), us.Server, block, To{Region: "eu"}, &ping{})
		blocked <- err
	}()
	<-eu.entered
	s.keepIdle(idle)
	if err := ask(); model.KindOf(err) != model.KindBusy || idling(s) != 0 {
		t.Errorf("one too many, on a used stream: %v", err)
	}
	if err := ask(); model.KindOf(err) != model.KindBusy {
		t.Errorf("one too many, on a new stream: %v", err)
	}
	// As many as there may be are awaited.
	if !eu.idle.take(maxWaiting) {
		t.Fatal("some streams are awaited")
	}
	close(eu.released)
	if err := <-blocked; err != nil || idling(s) != 0 {
		t.Errorf("%v, %d idle", err, idling(s))
	}
	eu.idle.give(maxWaiting)
	wait(t, "no call is under way", func() bool { return eu.calls.Load() == 0 })
	if err := ask(); err != nil || idling(s) != 1 {
		t.Errorf("%v, %d idle", err, idling(s))
	}
}

// leaving answers calls as a server does, but one, counted from the first, with
// which it does what a test says.
func leaving(t *testing.T, at int64, leave func(*yamux.Session, *yamux.Stream), answer ...frame) string {
	limits := testLimits.withDefaults()
	var calls atomic.Int64
	return accepting(t, func(session *yamux.Session) {
		for {
			stream, err := session.AcceptStream()
			if err != nil {
				return
			}
			for again := true; again; {
				in := &incoming{stream: stream, limits: &limits, bodies: &budget{}}
				if _, _, err := in.receive(); err != nil {
					break
				}
				if calls.Add(1) == at {
					leave(session, stream)
					break
				}
				again = in.write(answer...) == nil && answer[len(answer)-1].kind == frameAnswer
			}
			_ = stream.Close()
		}
	})
}

func TestACallOnAUsedStreamThatBreaksIsAsOneOnANew(t *testing.T) {
	for name, leave := range map[string]func(*yamux.Session, *yamux.Stream){
		"the stream":  func(_ *yamux.Session, stream *yamux.Stream) { _ = stream.Close() },
		"the session": func(session *yamux.Session, _ *yamux.Stream) { _ = session.Close() },
	} {
		for m, want := range map[*method.Method[ping, ping]]model.Kind{&echo: 0, &once: 0, &put: model.KindOutcomeUnknown} {
			us := takesOnce(newPeer(t, "us"))
			addr := leaving(t, 2, leave, frame{frameAnswer, []byte{0x81, 0xa1, 'N', 1}})
			us.router.to["eu"] = []string{addr}
			if _, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{}); err != nil || idling(us.session(t, addr)) != 1 {
				t.Fatal(err)
			}
			_, err := Call(t.Context(), us.Server, *m, To{Region: "eu"}, &ping{})
			if want == 0 && err != nil || want != 0 && model.KindOf(err) != want {
				t.Errorf("%s ends under %s: %v", name, m.Name, err)
			}
		}
	}
}

func TestAServerThatCameBackIsCalledAnew(t *testing.T) {
	us := newPeer(t, "us")
	eu := newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	old := us.session(t, eu.addr)
	if _, err := Call(t.Context(), us.Server, put, To{Region: "eu"}, &ping{}); err != nil || idling(old) != 1 {
		t.Fatalf("%v, %d idle", err, idling(old))
	}
	begun := time.Now()
	if err := eu.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("an idle stream held the server up for %s", took)
	}
	<-old.Done()
	again := newPeer(t, "eu")
	us.router.to["eu"] = []string{again.addr}
	if _, err := Call(t.Context(), us.Server, put, To{Region: "eu"}, &ping{}); err != nil {
		t.Error(err)
	}
	if stream := old.reuse(); stream != nil {
		t.Error("a session that ended has a stream for a call")
	}
}

func TestEarlierVersionsEndEachCallsStream(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	// An earlier server does not know what the envelope asks for.
	addr := leaving(t, 0, nil, frame{frameBody, []byte{0x81, 0xa1, 'N', 1}}, frame{kind: frameEnd})
	us.router.to["eu"] = []string{addr}
	for range 2 {
		if r, err := Call(t.Context(), us.Server, put, To{Region: "eu"}, &ping{}); err != nil || r.N != 1 || idling(us.session(t, addr)) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// An earlier caller asks for nothing.
	s := us.session(t, eu.addr)
	stream, err := s.open(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer s.end(stream)
	env, err := encodeEnvelope(&Envelope{Method: echo.Name})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrames(stream, func(failed error) error { return failed }, frame{frameEnvelope, env}, frame{frameBody, []byte{0x80}}); err != nil {
		t.Fatal(err)
	}
	limits := testLimits.withDefaults()
	_ = stream.SetReadDeadline(time.Now().Add(5 * time.Second))
	for _, want := range []byte{frameBody, frameEnd} {
		if kind, _, err := readFrame(stream, &limits, func(int) error { return nil }); err != nil || kind != want {
			t.Errorf("a frame of type %d, %v; want %d", kind, err, want)
		}
	}
	if _, err := stream.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}
