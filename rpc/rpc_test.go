package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"go.uber.org/goleak"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type ping struct{ N int }

var (
	echo   = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Echo", Place: method.AtServer}}
	put    = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Put", Place: method.AtLeader, Write: true}}
	block  = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Block", Place: method.AtServer, Blocks: true}}
	count  = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Count", Place: method.AtServer, Stream: true}}
	refuse = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Refuse", Place: method.AtServer}}
)

// fakeRouter sends calls for other regions to the addresses it was told.
type fakeRouter struct {
	region string
	mu     sync.Mutex
	to     map[string][]string
	cell   string // of every other region
	came   string // the cell that the last call was for
	failed []string
	leader string // of another region, as last told
	// inOrder puts servers that failed behind the others, as the directory does.
	inOrder bool
}

// forget forgets what the router was told.
func (r *fakeRouter) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed, r.leader = nil, ""
}

func (r *fakeRouter) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failed)
}

func (r *fakeRouter) told() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader
}

func (r *fakeRouter) lastCell() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.came
}

func (r *fakeRouter) Region() string { return r.region }
func (r *fakeRouter) Route(_ context.Context, env *Envelope, _ method.Spec) (Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if env.Region == "" || env.Region == r.region {
		r.came = env.Cell
		return Decision{Local: true}, nil
	}
	servers := slices.Clone(r.to[env.Region])
	if r.inOrder {
		failed := func(addr string) int { return min(1, slices.Index(r.failed, addr)+1) }
		slices.SortStableFunc(servers, func(a, b string) int { return failed(a) - failed(b) })
	}
	return Decision{Servers: servers, Region: env.Region, Cell: r.cell}, nil
}
func (r *fakeRouter) Report(_, addr string, err error, _ time.Duration) {
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = append(r.failed, addr)
	}
}
func (r *fakeRouter) Leads(_, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = addr
}
func (r *fakeRouter) Unreachable(region string, cause error) *model.Error {
	return &model.Error{Kind: model.KindUnreachable, Region: region, Message: fmt.Sprintf("region %q is unreachable: %v", region, cause)}
}

// peer is a server of a region on loopback.
type peer struct {
	*Server
	router   *fakeRouter
	addr     string
	entered  chan struct{}
	left     chan error
	released chan struct{}
}

var testLimits = Limits{Silence: 1200 * time.Millisecond, Alive: 100 * time.Millisecond, MaxBody: 1 << 20, Handshake: 300 * time.Millisecond}

func newPeer(t testing.TB, region string) *peer {
	t.Helper()
	return newPeerWith(t, region, ServerConfig{Limits: testLimits})
}

func newPeerWith(t testing.TB, region string, cfg ServerConfig) *peer {
	t.Helper()
	p := &peer{router: &fakeRouter{region: region, to: map[string][]string{}}, entered: make(chan struct{}, 100), left: make(chan error, 100), released: make(chan struct{})}
	cfg.Router = p.router
	p.Server = NewServer(cfg)
	Handle(p.Server, echo, func(_ context.Context, c *Inbound, q *ping) (*ping, error) {
		return &ping{q.N + len(c.Envelope.Path)}, nil
	})
	Handle(p.Server, put, func(ctx context.Context, _ *Inbound, q *ping) (*ping, error) {
		p.entered <- struct{}{}
		return &ping{q.N}, nil
	})
	Handle(p.Server, block, func(ctx context.Context, _ *Inbound, q *ping) (*ping, error) {
		p.entered <- struct{}{}
		select {
		case <-ctx.Done():
			p.left <- ctx.Err()
			return nil, ctx.Err()
		case <-p.released:
			return q, nil
		}
	})
	HandleStream(p.Server, count, func(ctx context.Context, _ *Inbound, q *ping, send func(*ping) error) error {
		for i := range q.N {
			if err := send(&ping{i}); err != nil {
				p.left <- err
				return err
			}
		}
		if q.N < 0 {
			<-ctx.Done()
			p.left <- ctx.Err()
			return ctx.Err()
		}
		return nil
	})
	Handle(p.Server, refuse, func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, fmt.Errorf("cannot do it: %w", &model.Error{Kind: model.KindConflict, Message: "taken", Field: "f"})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.listen(t, l)
	return p
}

func (p *peer) listen(t testing.TB, l net.Listener) {
	mux := NewListener(l, l.Addr(), DialTCP, testLimits)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mux.Serve(ctx, p.ServeConn) }()
	t.Cleanup(func() {
		cancel()
		if err := p.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		_ = p.Shutdown(context.Background())
		<-done
	})
}

func TestACallGoesHereThereAndOverTwoHops(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{us.addr})
	for name, c := range map[string]Caller{"in process": us.Server, "from a client": cl} {
		for region, hops := range map[string]int{"": 0, "us": 0, "eu": 1} {
			r, err := Call(t.Context(), c, echo, To{Region: region}, &ping{40})
			if err != nil || r.N != 40+hops {
				t.Errorf("%s to %q: %+v %v", name, region, r, err)
			}
		}
		s, err := Open(t.Context(), c, count, To{Region: "eu"}, &ping{1000})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			r, err := s.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || r.N != n {
				t.Fatalf("%s: reply %d: %+v %v", name, n, r, err)
			}
		}
		s.Close()
		if n != 1000 {
			t.Errorf("%s: %d replies", name, n)
		}
		_, err = Call(t.Context(), c, refuse, To{Region: "eu"}, &ping{})
		var e *model.Error
		if !errors.As(err, &e) || e.Kind != model.KindConflict || e.Field != "f" || !strings.Contains(e.Message, "cannot do it") {
			t.Errorf("%s: error %#v", name, err)
		}
	}
}

func TestACallAtAnAddressGoesThereAndNowhereElse(t *testing.T) {
	here, there := newPeer(t, "us"), newPeer(t, "us")
	if r, err := Call(t.Context(), here.At(there.addr), put, To{}, &ping{7}); err != nil || r.N != 7 {
		t.Errorf("the answer is %+v, %v", r, err)
	}
	if len(here.entered) != 0 || len(there.entered) != 1 {
		t.Errorf("%d calls were served here and %d there", len(here.entered), len(there.entered))
	}
	s, err := Open(t.Context(), here.At(there.addr), count, To{}, &ping{2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for want := range 2 {
		if r, err := s.Recv(); err != nil || r.N != want {
			t.Errorf("reply %d is %+v, %v", want, r, err)
		}
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	if _, err := Call(t.Context(), here.At(deadAddr(t)), echo, To{}, &ping{1}); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("at an address where nobody is: %v", err)
	}
}

func TestACallNamesTheCellThatItIsFor(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"], us.router.cell = []string{eu.addr}, "E"
	if _, err := Call(t.Context(), us, echo, To{Region: "eu"}, &ping{1}); err != nil {
		t.Fatal(err)
	}
	if got := eu.router.lastCell(); got != "E" {
		t.Errorf("it came for the cell %q, want E", got)
	}
}

func TestCancellingReachesTheFarEnd(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{us.addr})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Call(ctx, cl, block, To{Region: "eu"}, &ping{})
		done <- err
	}()
	<-eu.entered
	cancel()
	if err := <-done; model.KindOf(err) != model.KindCanceled {
		t.Errorf("caller: %v", err)
	}
	if err := <-eu.left; !errors.Is(err, context.Canceled) {
		t.Errorf("handler: %v", err)
	}
	s, err := Open(t.Context(), cl, count, To{Region: "eu"}, &ping{-1})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-eu.left
}

func TestABlockingCallOutlivesTheSilenceLimit(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	time.AfterFunc(3*testLimits.Silence, func() { close(eu.released) })
	if r, err := Call(t.Context(), us.Server, block, To{Region: "eu"}, &ping{7}); err != nil || r.N != 7 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestACallerThatBearsSilenceIsSentFewerSigns(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	// The second sign of life would come after two seconds.
	time.AfterFunc(2*testLimits.Silence, func() { close(eu.released) })
	if r, err := Call(t.Context(), us.Server, block, To{Region: "eu", Quiet: 6 * time.Second}, &ping{7}); err != nil || r.N != 7 {
		t.Errorf("%+v %v", r, err)
	}
	for quiet, want := range map[time.Duration]time.Duration{
		0: 500 * time.Millisecond, time.Second: 500 * time.Millisecond, 15 * time.Second: 5 * time.Second, -time.Hour: 500 * time.Millisecond, time.Hour: maxQuiet / 3,
	} {
		if got := (&Envelope{Quiet: quiet}).signs(500 * time.Millisecond); got != want {
			t.Errorf("who bears %s is sent a sign every %s, want %s", quiet, got, want)
		}
	}
}

// silent accepts connections and calls, and never answers.
func silent(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
			t.Cleanup(func() { _ = c.Close() })
		}
	})
	return l.Addr().String()
}

// busy takes calls and never gets round to answering them.
func busy(t testing.TB) string {
	return accepting(t, func(session *yamux.Session) {
		for {
			if _, err := session.AcceptStream(); err != nil {
				return
			}
		}
	})
}

func TestABusyServersSessionIsKeptAndASilentOnesIsNot(t *testing.T) {
	us := newPeer(t, "us")
	for name, c := range map[string]struct {
		addr string
		kept bool
	}{"busy": {busy(t), true}, "silent": {silent(t), false}} {
		us.router.mu.Lock()
		us.router.to["eu"] = []string{c.addr}
		us.router.mu.Unlock()
		session, err := us.Pool().Session(t.Context(), c.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Call(t.Context(), us.Server, echo, To{Region: "eu"}, &ping{}); model.KindOf(err) != model.KindUnreachable {
			t.Errorf("%s: %v", name, err)
		}
		if session.Closed() == c.kept {
			t.Errorf("%s: its session is closed: %v", name, session.Closed())
		}
	}
}

func deadAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestSilenceAndRefusalEndInTheRightError(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	for name, c := range map[string]struct {
		servers []string
		m       method.Method[ping, ping]
		want    model.Kind
		ok      bool
	}{
		"a read, all silent":                        {[]string{silent(t)}, echo, model.KindUnreachable, false},
		"a read, first silent, second answers":      {[]string{silent(t), eu.addr}, echo, 0, true},
		"a read, first refuses, second answers":     {[]string{deadAddr(t), eu.addr}, echo, 0, true},
		"a read, nobody there":                      {[]string{deadAddr(t), deadAddr(t)}, echo, model.KindUnreachable, false},
		"a write, silent: it may have been applied": {[]string{silent(t), eu.addr}, put, model.KindOutcomeUnknown, false},
		"a write, first refuses, second takes it":   {[]string{deadAddr(t), eu.addr}, put, 0, true},
		"a write, nobody there":                     {[]string{deadAddr(t)}, put, model.KindUnreachable, false},
		"no server known":                           {nil, echo, model.KindUnreachable, false},
	} {
		us.router.mu.Lock()
		us.router.to["eu"] = c.servers
		us.router.mu.Unlock()
		start := time.Now()
		_, err := Call(t.Context(), us.Server, c.m, To{Region: "eu", RequestID: "r1"}, &ping{})
		if (err == nil) != c.ok || err != nil && model.KindOf(err) != c.want {
			t.Errorf("%s: %v, want kind %s", name, err, c.want)
		}
		if took := time.Since(start); took > 10*testLimits.Silence {
			t.Errorf("%s: took %s", name, took)
		}
		var e *model.Error
		if errors.As(err, &e) && e.Kind == model.KindOutcomeUnknown && e.Token != "" {
			t.Errorf("%s: token %q, by which it would be applied twice", name, e.Token)
		}
	}
}

func TestALoopIsRefused(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["ap"] = []string{eu.addr}
	eu.router.to["ap"] = []string{us.addr}
	// Each believes that the other is a server of ap: us → eu would go back.
	_, err := Call(t.Context(), us.Server, echo, To{Region: "ap"}, &ping{})
	if model.KindOf(err) != model.KindLoop {
		t.Errorf("%v, want a loop", err)
	}
}

func TestHostileBytesCostNothing(t *testing.T) {
	us := newPeer(t, "us")
	deep := append([]byte{}, make([]byte, 0)...)
	for range 10_000 {
		deep = append(deep, 0x91)
	}
	env, _ := wire.Encode(&Envelope{Method: "Test.Echo"})
	fr := func(kind byte, size int, payload []byte) []byte {
		return append([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), kind}, payload...)
	}
	for name, b := range map[string][]byte{
		"lying envelope length": fr(frameEnvelope, 0x7fffffff, nil),
		"unknown type":          fr(77, 1, []byte{1}),
		"truncated":             fr(frameEnvelope, 100, []byte{1, 2}),
		"array32 as envelope":   fr(frameEnvelope, 5, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}),
		"array32 as body":       append(fr(frameEnvelope, len(env), env), fr(frameBody, 5, []byte{0xdd, 0xff, 0xff, 0xff, 0xff})...),
		"deep body":             append(fr(frameEnvelope, len(env), env), fr(frameBody, len(deep), deep)...),
		"lying body length":     append(fr(frameEnvelope, len(env), env), fr(frameBody, 1<<20, []byte{1})...),
		"a string of 1 GB":      append(fr(frameEnvelope, len(env), env), fr(frameBody, 5, []byte{0xdb, 0x3f, 0xff, 0xff, 0xff})...),
	} {
		session, err := dialSession(t.Context(), DialTCP, us.addr, us.log)
		if err != nil {
			t.Fatal(err)
		}
		before := mem()
		stream, err := session.open(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = stream.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, _ := io.ReadAll(stream)
		if grown := int64(mem()) - int64(before); grown > 4<<20 {
			t.Errorf("%s: %d bytes were allocated", name, grown)
		}
		_ = stream.Close()
		// The session is still good.
		if strings.Contains(name, "truncated") || strings.Contains(name, "lying body") {
			if len(answer) != 0 {
				t.Errorf("%s: was answered %q", name, answer)
			}
		}
		if session.Closed() {
			t.Errorf("%s: cost the session", name)
		}
		_ = session.Close()
	}
	if _, err := Call(t.Context(), us.Server, echo, To{}, &ping{}); err != nil {
		t.Error(err)
	}
}

func mem() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestASilentConnectionIsClosed(t *testing.T) {
	us := newPeer(t, "us")
	c, err := net.Dial("tcp", us.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want the far end to hang up", err)
	}
}

func TestAServerCallsTheNodeThatDialledIt(t *testing.T) {
	us := newPeer(t, "us")
	sessions := make(chan *Session, 1)
	hello := method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Hello", Place: method.AtServer}}
	Handle(us.Server, hello, func(_ context.Context, c *Inbound, q *ping) (*ping, error) {
		sessions <- c.Session
		return q, nil
	})
	node := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = node.Shutdown(context.Background()) }()
	tail := method.Method[ping, ping]{Spec: method.Spec{Name: method.NodeLogs.Name, Place: method.AtNode, Stream: true}}
	HandleStream(node.Server, tail, func(_ context.Context, _ *Inbound, q *ping, send func(*ping) error) error {
		return send(&ping{q.N * 2})
	})
	node.SetServers([]string{us.addr})
	if _, err := Call(t.Context(), node, hello, To{}, &ping{}); err != nil {
		t.Fatal(err)
	}
	session := <-sessions
	x, err := us.over(t.Context(), session, time.Second, &Envelope{Method: tail.Name}, tail.Spec, []byte{0x81, 0xa1, 'N', 21})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	b, err := x.body(t.Context())
	var r ping
	if err != nil || wire.Decode(b, &r) != nil || r.N != 42 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestAClientWithoutServersUsesTheDirectory(t *testing.T) {
	eu := newPeer(t, "eu")
	c := NewClient(ClientConfig{Region: "us", Limits: testLimits, Directory: func(region string) []string {
		return map[string][]string{"eu": {eu.addr}}[region]
	}})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{deadAddr(t)})
	if r, err := Call(t.Context(), c, echo, To{Region: "eu"}, &ping{1}); err != nil || r.N != 1 {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := Call(t.Context(), c, echo, To{}, &ping{1}); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("own region: %v", err)
	}
}

func TestAClientThatKnowsItsServersSilentAsksOthersAtOnce(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	c := NewClient(ClientConfig{Region: "us", Limits: testLimits, Directory: func(region string) []string {
		return map[string][]string{"eu": {eu.addr}}[region]
	}})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{us.addr})
	if _, err := Call(t.Context(), c, echo, To{}, &ping{1}); err != nil || c.Lost() {
		t.Fatalf("lost %t, %v", c.Lost(), err)
	}
	c.SetServers([]string{silent(t)})
	_, err := Call(t.Context(), c, echo, To{}, &ping{1})
	var e *model.Error
	if !errors.As(err, &e) || e.Kind != model.KindUnreachable || e.Region != "us" || e.LastContact <= 0 || strings.Contains(e.Message, "not taken") {
		t.Errorf("its own region: %+v; want us unreachable, and since when", e)
	}
	if !c.Lost() {
		t.Error("its only server is silent, and it does not know")
	}
	start := time.Now()
	if _, err := Call(t.Context(), c, echo, To{Region: "eu"}, &ping{1}); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > testLimits.Silence/2 {
		t.Errorf("the other region was asked after %s", took)
	}
	c.SetServers([]string{us.addr})
	if _, err := Call(t.Context(), c, echo, To{}, &ping{1}); err != nil || c.Lost() {
		t.Errorf("with a server that answers: lost %t, %v", c.Lost(), err)
	}
}

// What HTTP passes on is encoded once, by the server that has it.
func TestAnAnswerComesAsJSONToThoseWhoAskForThat(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	serve := func(s *Server) {
		Handle(s, method.JobGet, func(_ context.Context, _ *Inbound, q *method.JobRequest) (*method.JobResponse, error) {
			out := &method.JobResponse{Meta: method.Meta{Index: 7, KnownLeader: true}}
			if size, err := strconv.Atoi(q.JobID); err == nil {
				out.Job = &model.Job{ID: q.JobID, Name: strings.Repeat("n", size)}
			}
			return out, nil
		})
	}
	serve(us.Server)
	serve(eu.Server)
	for _, c := range []struct {
		name, id string
		to       To
		rendered bool
		size     int // of the name of the job, -1 for none
	}{
		{"asked for", "3", To{Region: "eu", JSON: true}, true, 3},
		{"not asked for", "3", To{Region: "eu"}, false, 3},
		{"of this process", "3", To{Region: "us", JSON: true}, false, 3},
		{"of nothing", "none", To{Region: "eu", JSON: true}, false, -1},
		{"above the limit with what is beside it", strconv.Itoa(testLimits.MaxBody - 1<<10), To{Region: "eu", JSON: true}, false, testLimits.MaxBody - 1<<10},
	} {
		out, err := Call(t.Context(), us.Server, method.JobGet, c.to, &method.JobRequest{JobID: c.id})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if out.Index != 7 || !out.KnownLeader || (out.JSON != "") != c.rendered {
			t.Errorf("%s: %+v", c.name, out.Meta)
		}
		job := out.Job
		if c.rendered {
			if out.Job != nil {
				t.Errorf("%s: it came twice", c.name)
			}
			if err := json.Unmarshal([]byte(out.JSON), &job); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		size := -1
		if job != nil {
			size = len(job.Name)
		}
		if size != c.size {
			t.Errorf("%s: a name of %d bytes, want %d", c.name, size, c.size)
		}
	}
}

func TestACallToAnAddressIsServedThere(t *testing.T) {
	one, other := newPeer(t, "us"), newPeer(t, "us")
	if r, err := Call(t.Context(), one.At(other.addr), put, To{}, &ping{3}); err != nil || r.N != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	if len(other.entered) != 1 || len(one.entered) != 0 {
		t.Errorf("served %d times there and %d times here", len(other.entered), len(one.entered))
	}
	if _, err := Call(t.Context(), one.At(deadAddr(t)), echo, To{}, &ping{}); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("nobody there: %v", err)
	}
}

func TestACallWhoseTimeIsOverBeforeItIsSentFails(t *testing.T) {
	c := NewClient(ClientConfig{Region: "us", Limits: Limits{Silence: 1}})
	defer func() { _ = c.Shutdown(context.Background()) }()
	c.SetServers([]string{deadAddr(t), deadAddr(t)})
	if _, err := Call(t.Context(), c, echo, To{}, &ping{}); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("%v", err)
	}
}

func TestShutdownEndsWhatIsUnderWay(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.router.to["eu"] = []string{eu.addr}
	done := make(chan error, 1)
	go func() {
		_, err := Call(context.Background(), us.Server, block, To{Region: "eu"}, &ping{})
		done <- err
	}()
	<-eu.entered
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := eu.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the caller has an answer from a server that was stopped")
	}
}

func TestAPanicIsAnError(t *testing.T) {
	us := newPeer(t, "us")
	m := method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Panic"}}
	Handle(us.Server, m, func(context.Context, *Inbound, *ping) (*ping, error) { panic("boom") })
	if _, err := Call(t.Context(), us.Server, m, To{}, &ping{}); model.KindOf(err) != model.KindInternal || err == nil {
		t.Errorf("%v", err)
	}
}

func FuzzReceive(f *testing.F) {
	env, _ := wire.Encode(&Envelope{Method: "Test.Echo"})
	f.Add(append([]byte{0, 0, 0, byte(len(env)), frameEnvelope}, env...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, frameBody})
	limits := testLimits.withDefaults()
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, payload, err := readFrame(strings.NewReader(string(b)), &limits, func(int) error { return nil })
		if err != nil {
			return
		}
		if len(payload) > len(b) {
			t.Fatalf("%d bytes out of %d", len(payload), len(b))
		}
		if kind == frameEnvelope {
			_ = wire.Decode(payload, new(Envelope))
		}
	})
}

func BenchmarkCall(b *testing.B) {
	us, eu := newPeer(b, "us"), newPeer(b, "eu")
	us.router.to["eu"] = []string{eu.addr}
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{us.addr})
	for _, c := range []struct {
		name   string
		caller Caller
		region string
	}{{"in process", us.Server, "us"}, {"one hop", cl, "us"}, {"two hops", cl, "eu"}} {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/callers=%d", c.name, callers), func(b *testing.B) {
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := Call(context.Background(), c.caller, echo, To{Region: c.region}, &ping{1}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			})
		}
	}
}
