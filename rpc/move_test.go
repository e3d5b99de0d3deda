package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// faulty takes calls and answers each with what a test says; it closes the session
// when told so, else leaves the call as it is.
func faulty(t testing.TB, closes bool, answer ...frame) string {
	limits := testLimits.withDefaults()
	return accepting(t, func(session *yamux.Session) {
		for {
			stream, err := session.AcceptStream()
			if err != nil {
				return
			}
			in := &incoming{stream: stream, limits: &limits, bodies: &budget{}}
			if _, _, err := in.receive(); err != nil {
				return
			}
			if len(answer) > 0 {
				_ = in.write(answer...)
			}
			if closes {
				// What was written is on its way.
				_, _ = session.Ping()
				return
			}
		}
	})
}

func TestACallWhoseServerIsLostIsMovedToAnother(t *testing.T) {
	alive := frame{kind: frameAlive}
	faults := map[string]func() string{
		"dies":         func() string { return faulty(t, true, alive) },
		"dies at once": func() string { return faulty(t, true) },
		"freezes":      func() string { return faulty(t, false, alive) },
		"stops":        func() string { return faulty(t, false, errorFrame(context.Canceled), frame{kind: frameEnd}) },
	}
	methods := map[string]struct {
		m     method.Method[ping, ping]
		moves bool
		lost  model.Kind // when it is not moved
	}{
		"a read":                     {echo, true, model.KindUnreachable},
		"a blocking query":           {block, true, model.KindUnreachable},
		"a write that applies once":  {once, true, model.KindOutcomeUnknown},
		"a write that applies twice": {put, false, model.KindOutcomeUnknown},
	}
	for fault, broken := range faults {
		for what, c := range methods {
			t.Run(what+", its server "+fault, func(t *testing.T) {
				t.Parallel()
				for door, others := range map[string]bool{"in process": true, "over the wire": true, "with no other": false} {
					us, eu := takesOnce(newPeer(t, "us")), newPeer(t, "eu")
					Handle(eu.Server, once, func(_ context.Context, c *Inbound, q *ping) (*ping, error) {
						if c.Envelope.RequestID != "r1" {
							t.Errorf("the request id is %q", c.Envelope.RequestID)
						}
						return q, nil
					})
					close(eu.released)
					us.router.to["eu"] = []string{broken()}
					if others {
						us.router.to["eu"] = append(us.router.to["eu"], eu.addr)
					}
					var from Caller = us.Server
					if door == "over the wire" {
						cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
						defer func() { _ = cl.Shutdown(context.Background()) }()
						cl.SetServers([]string{us.addr})
						from = cl
					}
					us.router.inOrder = true
					begun := time.Now()
					_, err := Call(t.Context(), from, c.m, To{Region: "eu", RequestID: "r1"}, &ping{N: 1})
					if took := time.Since(begun); took > testLimits.Silence+500*time.Millisecond {
						t.Errorf("%s: it took %s", door, took)
					}
					if moved := others && c.moves; (err == nil) != moved || err != nil && model.KindOf(err) != c.lost {
						t.Errorf("%s: %v", door, err)
					}
					var e *model.Error
					if err != nil && (!errors.As(err, &e) || e.Kind == model.KindOutcomeUnknown && (e.Token != "") != c.m.Once) {
						t.Errorf("%s: %#v has no token, or one that is of no use", door, err)
					}
				}
			})
		}
	}
}

// takesOnce binds the write that is applied once.
func takesOnce(p *peer) *peer {
	Handle(p.Server, once, func(_ context.Context, _ *Inbound, q *ping) (*ping, error) { return q, nil })
	return p
}

func TestServersThatFreezeCostTwoSecondsOfSilenceNotMore(t *testing.T) {
	alive := frame{kind: frameAlive}
	for name, c := range map[string]struct {
		servers []string
		within  time.Duration
	}{
		"before any sign of life": {[]string{faulty(t, false), faulty(t, false), faulty(t, false)}, testLimits.Silence},
		// Each is given half of the time, from its last sign of life.
		"after one":                {[]string{faulty(t, false, alive), faulty(t, false, alive), faulty(t, false, alive)}, testLimits.Silence},
		"while others refuse":      {[]string{deadAddr(t), faulty(t, false), deadAddr(t), faulty(t, false)}, testLimits.Silence},
		"and is the only one left": {[]string{deadAddr(t), faulty(t, false, alive)}, 2 * testLimits.Silence},
	} {
		for m, want := range map[method.Method[ping, ping]]model.Kind{block: model.KindUnreachable, once: model.KindOutcomeUnknown} {
			t.Run(m.Name+" "+name, func(t *testing.T) {
				t.Parallel()
				us := takesOnce(newPeer(t, "us"))
				us.router.to["eu"], us.router.inOrder = c.servers, true
				begun := time.Now()
				_, err := Call(t.Context(), us.Server, m, To{Region: "eu"}, &ping{})
				took := time.Since(begun)
				if model.KindOf(err) != want || took < testLimits.Silence/2 || took > c.within+300*time.Millisecond {
					t.Errorf("%v after %s, want kind %s within %s", err, took, want, c.within)
				}
			})
		}
	}
}

func TestServersThatRefuseCostNoTime(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{deadAddr(t), deadAddr(t), deadAddr(t), deadAddr(t), deadAddr(t), eu.addr}
	for _, m := range []method.Method[ping, ping]{echo, put} {
		begun := time.Now()
		if _, err := Call(t.Context(), us.Server, m, To{Region: "eu"}, &ping{}); err != nil || time.Since(begun) > testLimits.Silence/2 {
			t.Errorf("%s: five of six refuse: %v after %s", m.Name, err, time.Since(begun))
		}
	}
}

func TestAStreamIsMovedBeforeItsFirstReplyAndEndsAfterIt(t *testing.T) {
	first, err := wire.Encode(&ping{N: 41})
	if err != nil {
		t.Fatal(err)
	}
	alive, reply := frame{kind: frameAlive}, frame{frameBody, first}
	for name, c := range map[string]struct {
		addr  string
		moved bool
	}{
		"dies first":                  {faulty(t, true, alive), true},
		"freezes first":               {faulty(t, false, alive), true},
		"dies after a reply":          {faulty(t, true, reply), false},
		"freezes after a reply":       {faulty(t, false, reply), false},
		"freezes after signs of life": {faulty(t, false, alive, alive, reply, alive), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			us, eu := newPeer(t, "us"), newPeer(t, "eu")
			us.router.to["eu"], us.router.inOrder = []string{c.addr, eu.addr}, true
			cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
			defer func() { _ = cl.Shutdown(context.Background()) }()
			cl.SetServers([]string{us.addr})
			for door, from := range map[string]Caller{"in process": us.Server, "over the wire": cl} {
				us.router.forget()
				s, err := Open(t.Context(), from, count, To{Region: "eu"}, &ping{N: 3})
				if err != nil {
					t.Fatal(err)
				}
				var got []int
				begun := time.Now()
				for {
					r, e := s.Recv()
					if err = e; err != nil {
						break
					}
					got = append(got, r.N)
				}
				s.Close()
				if took := time.Since(begun); took > testLimits.Silence+500*time.Millisecond {
					t.Errorf("%s: it took %s", door, took)
				}
				if c.moved && (err != io.EOF || !slices.Equal(got, []int{0, 1, 2})) {
					t.Errorf("%s: replies %v, then %v", door, got, err)
				}
				if !c.moved && (model.KindOf(err) != model.KindUnreachable || !slices.Equal(got, []int{41})) {
					t.Errorf("%s: replies %v, then %v", door, got, err)
				}
			}
		})
	}
}

func TestAClientMovesItsCallToAnotherOfItsServers(t *testing.T) {
	us := takesOnce(newPeer(t, "us"))
	close(us.released)
	for name, closes := range map[string]bool{"dies": true, "freezes": false} {
		broken := faulty(t, closes, frame{kind: frameAlive})
		for _, m := range []method.Method[ping, ping]{block, once} {
			cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
			cl.SetServers([]string{broken, us.addr})
			if _, err := Call(t.Context(), cl, m, To{}, &ping{}); err != nil {
				t.Errorf("%s, its server %s: %v", m.Name, name, err)
			}
			if err := cl.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestACallersCancellingIsNoReasonToMove(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{faulty(t, false, frame{kind: frameAlive}), eu.addr}
	ctx, cancel := context.WithTimeout(t.Context(), testLimits.Silence/4)
	defer cancel()
	if _, err := Call(ctx, us.Server, block, To{Region: "eu"}, &ping{}); model.KindOf(err) != model.KindDeadline {
		t.Errorf("%v", err)
	}
	if len(eu.entered) != 0 {
		t.Error("it was sent on")
	}
}

func TestTheNextCallGoesToTheLeaderOfTheOtherRegion(t *testing.T) {
	us, follower, leader := newPeer(t, "us"), newPeer(t, "eu"), newPeer(t, "eu")
	follower.SetRouter(&electing{fakeRouter: follower.router, roads: []Decision{{Servers: []string{leader.addr}}}})
	us.router.to["eu"] = []string{follower.addr}
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{us.addr})
	for door, from := range map[string]Caller{"in process": us.Server, "over the wire": cl} {
		us.router.forget()
		if r, err := Call(t.Context(), from, put, To{Region: "eu"}, &ping{N: 7}); err != nil || r.N != 7 {
			t.Fatalf("%+v %v", r, err)
		}
		if told := us.router.told(); told != leader.addr {
			t.Errorf("%s: told that %q leads, want %q", door, told, leader.addr)
		}
	}
	// One that came to the leader, and one of another kind, tell nothing.
	us.router.forget()
	if _, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{}); err != nil || us.router.told() != "" {
		t.Errorf("%v, told that %q leads", err, us.router.told())
	}
	us.router.mu.Lock()
	us.router.to["eu"] = []string{leader.addr}
	us.router.mu.Unlock()
	if _, err := Call(t.Context(), us.Server, put, To{Region: "eu"}, &ping{}); err != nil || us.router.told() != "" {
		t.Errorf("%v, told that %q leads", err, us.router.told())
	}
}

func TestRegionsThatContradictEachOther(t *testing.T) {
	// Each takes the others' servers for those of a third region.
	us, eu, ap := takesOnce(newPeer(t, "us")), takesOnce(newPeer(t, "eu")), takesOnce(newPeer(t, "ap"))
	us.router.to["mars"] = []string{eu.addr}
	eu.router.to["mars"] = []string{ap.addr}
	ap.router.to["mars"] = []string{us.addr}
	// And these two say that the other is eu.
	us.router.to["eu"] = []string{ap.addr}
	ap.router.to["eu"] = []string{us.addr}
	for _, region := range []string{"mars", "eu"} {
		for _, m := range []method.Method[ping, ping]{echo, put, once, block} {
			begun := time.Now()
			_, err := Call(t.Context(), us.Server, m, To{Region: region}, &ping{})
			if model.KindOf(err) != model.KindLoop || time.Since(begun) > testLimits.Silence {
				t.Errorf("%s for %s: %v after %s", m.Name, region, err, time.Since(begun))
			}
		}
		s, err := Open(t.Context(), us.Server, count, To{Region: region}, &ping{N: 1})
		if err == nil {
			_, err = s.Recv()
			s.Close()
		}
		if model.KindOf(err) != model.KindLoop {
			t.Errorf("a stream for %s: %v", region, err)
		}
	}
	if n := len(us.entered) + len(eu.entered) + len(ap.entered); n > 0 {
		t.Errorf("%d calls were served", n)
	}
}
