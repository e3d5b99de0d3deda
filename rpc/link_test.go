package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/yamux"

	"atoll/internal/relay"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// blob is a long request, or asks for a long reply.
type blob struct {
	Size int
	Data [][]byte
}

// long is bytes, as many as are asked for, in parts as a list of rows has.
func long(size int) (rows [][]byte) {
	row := bytes.Repeat([]byte{7}, 16<<10)
	for range size / len(row) {
		rows = append(rows, row)
	}
	return rows
}

var (
	fetch = method.Method[blob, blob]{Spec: method.Spec{Name: "Test.Fetch", Place: method.AtServer, Blocks: true}}
	store = method.Method[blob, ping]{Spec: method.Spec{Name: "Test.Store", Place: method.AtLeader, Write: true, Blocks: true}}
)

// carrying binds the methods of long bodies.
func carrying(p *peer) *peer {
	Handle(p.Server, fetch, func(_ context.Context, _ *Inbound, q *blob) (*blob, error) {
		return &blob{Data: long(q.Size)}, nil
	})
	Handle(p.Server, store, func(_ context.Context, _ *Inbound, q *blob) (*ping, error) {
		p.entered <- struct{}{}
		if q.Size > 0 {
			<-p.released
		}
		return &ping{len(q.Data)}, nil
	})
	return p
}

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

func TestALongBodyOnALongOrSlowRoadIsNoSilence(t *testing.T) {
	for name, c := range map[string]struct {
		link relay.Link
		size int
		took time.Duration // at least, or the road is none
	}{
		"a tenth of a second there and back": {relay.Link{Delay: 50 * time.Millisecond}, 20 << 20, 0},
		"half a megabyte a second":           {relay.Link{Delay: 10 * time.Millisecond, Rate: 512 << 10}, 1536 << 10, 2500 * time.Millisecond},
	} {
		for _, others := range []bool{false, true} {
			way := map[bool]string{false: "one server", true: "two servers"}[others]
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				us, eu := carrying(newPeerWith(t, "us", ServerConfig{})), carrying(newPeerWith(t, "eu", ServerConfig{}))
				r, err := relay.New("127.0.0.1:0", eu.addr, c.link)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(r.Close)
				us.router.to["eu"] = []string{r.Addr()}
				if others {
					us.router.to["eu"] = append(us.router.to["eu"], deadAddr(t))
				}
				cl := NewClient(ClientConfig{Region: "us"})
				defer func() { _ = cl.Shutdown(context.Background()) }()
				cl.SetServers([]string{us.addr})
				begun := time.Now()
				if got, err := Call(t.Context(), cl, fetch, To{Region: "eu"}, &blob{Size: c.size}); err != nil || len(got.Data) != c.size>>14 {
					t.Errorf("a long reply: %v", err)
				}
				if took := time.Since(begun); took < c.took {
					t.Errorf("a long reply took %s", took)
				}
				if got, err := Call(t.Context(), cl, store, To{Region: "eu"}, &blob{Data: long(c.size)}); err != nil || got.N != c.size>>14 {
					t.Errorf("a long request: %+v, %v", got, err)
				}
				if failed := us.router.failures(); len(failed) > 0 {
					t.Errorf("%q failed", failed)
				}
			})
		}
	}
}

// halting answers each call with the beginning of a frame, and nothing more.
func halting(t *testing.T, size, sent int) string {
	return accepting(t, func(session *yamux.Session) {
		for {
			stream, err := session.AcceptStream()
			if err != nil {
				return
			}
			head := make([]byte, headLen, headLen+sent)
			binary.BigEndian.PutUint32(head, uint32(size))
			head[4] = frameBody
			_, _ = stream.Write(append(head, make([]byte, sent)...))
		}
	})
}

// accepting is the address of an agent of which a test says how it treats a session.
func accepting(t testing.TB, treat func(*yamux.Session)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	mux := NewListener(l, l.Addr(), DialTCP, testLimits)
	go func() {
		done <- mux.Serve(ctx, func(ctx context.Context, conn net.Conn) {
			session, err := yamux.Server(conn, yamuxConfig(hclog.NewNullLogger()))
			if err != nil {
				return
			}
			defer session.Close()
			defer context.AfterFunc(ctx, func() { _ = session.Close() })()
			treat(session)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

func TestAServerThatStopsWithinAFrameIsSilent(t *testing.T) {
	us := carrying(newPeer(t, "us"))
	addr := halting(t, 512<<10, 100<<10)
	us.router.to["eu"] = []string{addr}
	begun := time.Now()
	_, err := Call(t.Context(), us, fetch, To{Region: "eu"}, &blob{})
	if took := time.Since(begun); model.KindOf(err) != model.KindUnreachable || took < testLimits.Silence || took > testLimits.Silence+500*time.Millisecond {
		t.Errorf("%v after %s", err, took)
	}
	if failed := us.router.failures(); len(failed) != 1 || failed[0] != addr {
		t.Errorf("%q failed", failed)
	}
}

// deaf accepts connections and reads nothing.
func deaf(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
			t.Cleanup(func() { _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// narrow dials with as small a buffer as the system has.
func narrow(ctx context.Context, addr string) (net.Conn, error) {
	c, err := DialTCP(ctx, addr)
	if err == nil {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return c, err
}

func TestAConnectionThatTakesNothingMoreHoldsNoCallUp(t *testing.T) {
	us := carrying(newPeerWith(t, "us", ServerConfig{Dial: narrow}))
	us.router.to["eu"] = []string{deaf(t)}
	session, err := us.Pool().Session(t.Context(), us.router.to["eu"][0])
	if err != nil {
		t.Fatal(err)
	}
	// Nothing that is sent gets through any more once this one's body fills all buffers.
	var full sync.WaitGroup
	defer full.Wait()
	filling, stop := context.WithCancel(t.Context())
	defer stop()
	full.Go(func() {
		_, _ = Call(filling, us, fetch, To{Region: "eu"}, &blob{Data: long(8 << 20)})
	})
	wait(t, "the long call has begun", func() bool { return session.mux.NumStreams() > 0 })
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() {
			begun := time.Now()
			_, err := Call(t.Context(), us, echo, To{Region: "eu"}, &ping{})
			if took := time.Since(begun); model.KindOf(err) != model.KindUnreachable || took > 2500*time.Millisecond {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
	calls.Wait()
}

func TestACallInAHurryWaitsForNoConnection(t *testing.T) {
	us := newPeer(t, "us")
	// The far end lives, and accepts no streams: as many as may wait do.
	addr := accepting(t, func(session *yamux.Session) { <-session.CloseChan() })
	session, err := us.Pool().Session(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	for range backlog {
		stream, err := session.mux.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
	}
	us.router.to["eu"] = []string{addr}
	begun := time.Now()
	_, err = Call(t.Context(), us, echo, To{Region: "eu", Timeout: 100 * time.Millisecond}, &ping{})
	if took := time.Since(begun); model.KindOf(err) != model.KindDeadline || took > testLimits.Silence/2 {
		t.Errorf("%v after %s", err, took)
	}
}

// breaking takes so many writes and fails the next, of which it writes a part.
type breaking struct {
	writes int
	part   int
	err    error
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.writes--; b.writes < 0 {
		return b.part, b.err
	}
	return len(p), nil
}

func TestWhatWasSurelyNotSentIsNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		body  int
		w     breaking
		taken bool
	}{
		"the session ends while it waits to be sent":           {100, breaking{0, 0, yamux.ErrSessionShutdown}, true},
		"it waits to be sent for too long":                     {100, breaking{0, 0, yamux.ErrConnectionWriteTimeout}, true},
		"the connection breaks":                                {100, breaking{0, 0, io.ErrClosedPipe}, true},
		"the far end has no room for it":                       {100, breaking{0, 0, yamux.ErrTimeout}, false},
		"the far end has room for some":                        {100, breaking{0, 50, yamux.ErrTimeout}, false},
		"the session ends with pieces left":                    {3 * piece, breaking{1, 0, yamux.ErrSessionShutdown}, false},
		"the session ends with the last piece":                 {3 * piece, breaking{3, 0, yamux.ErrSessionShutdown}, true},
		"the session ends within the last, of which some went": {3 * piece, breaking{3, 5, yamux.ErrSessionShutdown}, true},
	} {
		err := writeFrames(&c.w, func(failed error) error { return failed }, frame{frameEnvelope, []byte("e")}, frame{frameBody, make([]byte, c.body)})
		if !errors.Is(err, c.w.err) || taken(err) != c.taken {
			t.Errorf("%s: %v, taken: %t", name, err, taken(err))
		}
	}
	// A call whose time ends between two pieces was not sent.
	n := 0
	err := writeFrames(&breaking{writes: 9}, func(error) error {
		if n++; n > 2 {
			return context.Canceled
		}
		return nil
	}, frame{frameBody, make([]byte, 3*piece)})
	if !errors.Is(err, context.Canceled) || taken(err) {
		t.Errorf("%v, taken: %t", err, taken(err))
	}
}

func TestAnAttemptThatMayHaveBeenAppliedIsNotForgottenAtTheDeadline(t *testing.T) {
	dead := faulty(t, true)
	us := takesOnce(newPeerWith(t, "us", ServerConfig{Limits: testLimits, Dial: func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == dead {
			return DialTCP(ctx, addr)
		}
		<-ctx.Done() // nobody is there, and nobody says so
		return nil, ctx.Err()
	}}))
	us.router.to["eu"] = []string{dead, "127.0.0.1:1"}
	_, err := Call(t.Context(), us, once, To{Region: "eu", RequestID: "r1", Timeout: testLimits.Silence / 4}, &ping{})
	var e *model.Error
	if !errors.As(err, &e) || e.Kind != model.KindOutcomeUnknown || e.Token != "r1" {
		t.Errorf("%#v", err)
	}
	// One that no token makes apply once is given none.
	us.router.to["eu"] = []string{dead}
	if _, err := Call(t.Context(), us, put, To{Region: "eu", RequestID: "r1"}, &ping{}); !errors.As(err, &e) || e.Kind != model.KindOutcomeUnknown || e.Token != "" || strings.Contains(e.Message, "r1") {
		t.Errorf("%#v", err)
	}
}

func TestACallersHurryIsNoServersFailure(t *testing.T) {
	us := newPeer(t, "us")
	us.router.to["eu"] = []string{faulty(t, false)}
	for timeout, failed := range map[time.Duration]bool{testLimits.Silence * 2 / 5: false, testLimits.Silence * 3 / 4: true} {
		us.router.forget()
		if _, err := Call(t.Context(), us, echo, To{Region: "eu", Timeout: timeout}, &ping{}); model.KindOf(err) != model.KindDeadline {
			t.Errorf("%v", err)
		}
		if (len(us.router.failures()) > 0) != failed {
			t.Errorf("after %s %q failed", timeout, us.router.failures())
		}
	}
}

// What was written in part is followed by nothing, and its reader knows.
func TestAPartOfAFrameIsFollowedByNothing(t *testing.T) {
	// yamux shares its timers among all sessions, and those of a bubble must not be
	// used outside: two rounds empty its pool.
	defer func() { runtime.GC(); runtime.GC() }()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server, err := yamux.Server(near, yamuxConfig(hclog.NewNullLogger()))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := yamux.Client(far, yamuxConfig(hclog.NewNullLogger()))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		reader, err := client.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		stream, err := server.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		limits := Limits{}.withDefaults()
		in := &incoming{stream: stream, limits: &limits}
		if err := in.write(frame{frameBody, make([]byte, 3<<20)}); !errors.Is(err, yamux.ErrTimeout) {
			t.Errorf("nobody reads: %v", err)
		}
		got := make(chan error, 1)
		go func() {
			_, _, err := readFrame(reader, &limits, func(int) error { return nil })
			got <- err
		}()
		synctest.Wait()
		if err := in.write(errorFrame(context.Canceled), frame{kind: frameEnd}); !errors.Is(err, yamux.ErrTimeout) {
			t.Errorf("after a part: %v", err)
		}
		_ = stream.Close()
		if err := <-got; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the reader has %v", err)
		}
	})
}

func TestAPoolThatIsClosedDialsNoMore(t *testing.T) {
	dialling := make(chan struct{})
	c := NewClient(ClientConfig{Region: "us", Limits: testLimits, Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	c.SetServers([]string{"127.0.0.1:1"})
	begun := time.Now()
	if _, err := Call(t.Context(), c, echo, To{Timeout: 50 * time.Millisecond}, &ping{}); model.KindOf(err) != model.KindDeadline {
		t.Errorf("%v", err)
	}
	<-dialling
	_ = c.Shutdown(context.Background())
	if took := time.Since(begun); took > dialTime/2 {
		t.Errorf("it took %s", took)
	}
	if _, err := c.Pool().Session(t.Context(), "127.0.0.1:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("a closed pool: %v", err)
	}
}

func TestALongErrorKeepsItsKind(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	m := method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Wordy", Place: method.AtLeader, Write: true}}
	Handle(eu.Server, m, func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, model.Invalidf(strings.Repeat("f", 50<<10), "%s", strings.Repeat("ä", 100<<10))
	})
	Handle(us.Server, m, func(context.Context, *Inbound, *ping) (*ping, error) { return nil, nil })
	_, err := Call(t.Context(), us, m, To{Region: "eu"}, &ping{})
	if model.KindOf(err) != model.KindInvalid || !strings.HasPrefix(err.Error(), "ää") || strings.ContainsRune(err.Error(), '\uFFFD') {
		t.Errorf("kind %s, %.40q", model.KindOf(err), err)
	}
}

func TestASessionOfOneThatServesNothingTakesNoStreams(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	sessions := make(chan *Session, 1)
	hello := method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Hello", Place: method.AtServer}}
	for _, p := range []*peer{us, eu} {
		Handle(p.Server, hello, func(_ context.Context, c *Inbound, q *ping) (*ping, error) {
			sessions <- c.Session
			return q, nil
		})
	}
	us.router.to["eu"] = []string{eu.addr}
	if _, err := Call(t.Context(), us, hello, To{Region: "eu"}, &ping{}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err := eu.over(t.Context(), <-sessions, time.Second, &Envelope{Method: echo.Name}, echo.Spec, nil)
	if err == nil || taken(err) || time.Since(begun) > 500*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

func TestBodiesOfCallsBeingServedAreBounded(t *testing.T) {
	us := carrying(newPeer(t, "us"))
	limits := testLimits
	limits.MaxBodies = 300 << 10
	eu := carrying(newPeerWith(t, "eu", ServerConfig{Limits: limits}))
	us.router.to["eu"] = []string{eu.addr}
	much := long(200 << 10)
	held := make(chan error, 1)
	go func() {
		_, err := Call(t.Context(), us, store, To{Region: "eu"}, &blob{Size: 1, Data: much})
		held <- err
	}()
	select {
	case <-eu.entered:
	case err := <-held:
		t.Fatal(err)
	}
	if _, err := Call(t.Context(), us, store, To{Region: "eu"}, &blob{Data: much}); model.KindOf(err) != model.KindBusy {
		t.Errorf("with too much: %v", err)
	}
	if _, err := Call(t.Context(), us, store, To{Region: "eu"}, &blob{Data: much[:3]}); err != nil {
		t.Errorf("a short one with too much: %v", err)
	}
	close(eu.released)
	if err := <-held; err != nil {
		t.Error(err)
	}
	if _, err := Call(t.Context(), us, store, To{Region: "eu"}, &blob{Data: much}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// The caller has its answer before the call has ended here.
	wait(t, "nothing is held", func() bool { return eu.bodies.held.Load() == 0 })
}

// A body is refused by how much of it came, not by what is claimed.
func TestALyingLengthTakesNoRoom(t *testing.T) {
	us := newPeer(t, "us")
	session, err := us.Pool().Session(t.Context(), us.addr)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := session.open(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer session.end(stream)
	env, err := wire.Encode(&Envelope{Method: echo.Name})
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{0, 16, 0, 0, frameBody} // one megabyte
	if err := writeFrames(stream, func(err error) error { return err }, frame{frameEnvelope, env}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(append(head, 1)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the first piece is held", func() bool { return us.bodies.held.Load() > 0 })
	if held := us.bodies.held.Load(); held > piece {
		t.Errorf("%d bytes are held for one", held)
	}
}
