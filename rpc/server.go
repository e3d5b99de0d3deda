package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"
	"github.com/hashicorp/yamux"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// ServerConfig wires a server.
type ServerConfig struct {
	Router  Router
	Dial    DialFunc
	Limits  Limits
	Log     hclog.Logger
	Metrics *metrics.Metrics // nil measures nothing
}

// Server serves calls and carries them on. It is the Caller of a server's own
// process: calls that belong here go straight to their handler.
type Server struct {
	dispatcher
	log      hclog.Logger
	handlers map[string]*handler

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	calls  atomic.Int64
	bodies budget
	idle   budget // of streams on which another call is awaited

	mu       sync.Mutex // guards sessions
	sessions map[*Session]struct{}
}

// handler is a bound method.
type handler struct {
	spec method.Spec
	// decode makes the request of a body; unary and stream serve it.
	decode func(body []byte) (any, error)
	unary  func(ctx context.Context, c *Inbound, req any) (any, error)
	stream func(ctx context.Context, c *Inbound, req any, send func(any) error) error
}

// Inbound is what a handler knows of its call beside the request.
type Inbound struct {
	Envelope *Envelope
	// Session is what the call came by; nil when it came from this process.
	Session *Session
}

// NewServer returns a server without handlers; Handle and HandleStream bind
// them before it serves.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Dial == nil {
		cfg.Dial = DialTCP
	}
	s := &Server{
		log:      cfg.Log.Named("rpc"),
		handlers: make(map[string]*handler), sessions: make(map[*Session]struct{}),
	}
	s.limits, s.router, s.traffic.metrics = cfg.Limits.withDefaults(), cfg.Router, cfg.Metrics
	s.bodies.max, s.idle.max = int64(s.limits.MaxBodies), maxWaiting
	s.pool = NewPool(cfg.Dial, s.log)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// SetRouter sets the router, before the server serves: router and server need
// each other.
func (s *Server) SetRouter(r Router) { s.router = r }

// Pool is the server's pool of sessions to other agents.
func (s *Server) Pool() *Pool { return s.pool }

// Handle binds a method with one reply. Requests must be treated as read-only:
// in-process callers pass their own. Binding a method twice panics.
func Handle[Q, R any](s *Server, m method.Method[Q, R], h func(ctx context.Context, c *Inbound, req *Q) (*R, error)) {
	s.bind(&handler{
		spec: m.Spec, decode: decodeTo[Q],
		unary: func(ctx context.Context, c *Inbound, req any) (any, error) {
			r, err := h(ctx, c, req.(*Q))
			if err != nil {
				return nil, err
			}
			return r, nil
		},
	})
}

// HandleStream binds a method with any number of replies, which h passes to
// send.
func HandleStream[Q, R any](s *Server, m method.Method[Q, R], h func(ctx context.Context, c *Inbound, req *Q, send func(*R) error) error) {
	s.bind(&handler{
		spec: m.Spec, decode: decodeTo[Q],
		stream: func(ctx context.Context, c *Inbound, req any, send func(any) error) error {
			return h(ctx, c, req.(*Q), func(r *R) error { return send(r) })
		},
	})
}

func (s *Server) bind(h *handler) {
	if _, twice := s.handlers[h.spec.Name]; twice {
		panic("rpc: method " + h.spec.Name + " is bound twice")
	}
	s.handlers[h.spec.Name] = h
}

func decodeTo[Q any](body []byte) (any, error) {
	q := new(Q)
	if err := wire.Receive(body, q); err != nil {
		return nil, model.Errorf(model.KindInvalid, "cannot read the request: %w", err)
	}
	return q, nil
}

func encodeEnvelope(env *Envelope) ([]byte, error) { return wire.Encode(env) }

// ServeConn serves the calls of a connection until it ends or ctx does.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	session, err := newSession(conn, yamux.Server, s.log)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	s.ServeSession(session)
}

// ServeSession serves the calls that the far end makes on a session, until it
// ends.
func (s *Server) ServeSession(session *Session) {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		_ = session.Close()
		return
	}
	s.sessions[session] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	// Calls end with their session: nobody is left to answer.
	ctx, cancel := context.WithCancel(s.ctx)
	var streams sync.WaitGroup
	defer func() {
		_ = session.Close()
		cancel()
		streams.Wait()
		s.mu.Lock()
		delete(s.sessions, session)
		s.mu.Unlock()
		s.wg.Done()
	}()
	for {
		stream, err := session.mux.AcceptStream()
		if err != nil {
			return
		}
		if !s.admit(stream) {
			_ = stream.Close()
			continue
		}
		streams.Go(func() { s.serveStream(ctx, session, stream) })
	}
}

// Shutdown cancels every call, closes every session and waits for their
// goroutines, until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.cancel()
	for session := range s.sessions {
		_ = session.Close()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.pool.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot stop rpc: calls are still being served: %w", ctx.Err())
	}
}

// serveCall serves one call that came over the wire.
func (s *Server) serveCall(ctx context.Context, session *Session, in *incoming) {
	defer in.release()
	env, body, err := in.receive()
	switch {
	case errors.Is(err, errFrame):
		_ = in.write(errorFrame(model.Errorf(model.KindInvalid, "cannot read the call: %w", err)))
		return
	case model.KindOf(err) == model.KindBusy:
		_ = in.write(errorFrame(err))
		return
	case err != nil:
		return
	}
	in.reuse = env.Reuse
	_ = in.stream.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if env.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, env.Timeout)
		defer stop()
	}
	stop := in.keepAfter(s.limits.Alive, env.signs(s.limits.Alive), cancel)
	err = s.serve(ctx, session, env, body, in)
	stop()
	if err != nil {
		_ = in.write(errorFrame(err), frame{kind: frameEnd})
	} else {
		_ = in.write(frame{kind: frameEnd})
	}
}

func (s *Server) serve(ctx context.Context, session *Session, env *Envelope, body []byte, in *incoming) error {
	var tries attempts
	for {
		h, dec, err := s.route(ctx, env)
		if err != nil {
			return tries.last(err)
		}
		tries.onto(&dec)
		start := time.Now()
		begun := false
		if dec.Local {
			begun, err = s.handle(ctx, h, &Inbound{Envelope: env, Session: session}, body, in)
		} else {
			begun, err = s.splice(ctx, h, dec, env, body, in)
		}
		s.measure(h, dec, err, start)
		if err == nil || begun || !tries.again(ctx, holds(s.router.Region(), h.spec, dec), s.router.Region(), env, h.spec, err) {
			return tries.last(err)
		}
	}
}

// handle serves a call here; begun says that it has answered in part.
func (s *Server) handle(ctx context.Context, h *handler, call *Inbound, body []byte, in *incoming) (begun bool, err error) {
	req, err := h.decode(body)
	if err != nil {
		return false, err
	}
	send := func(v any, write func(body []byte) error) error {
		b, err := wire.Encode(v)
		if err != nil {
			return err
		}
		if len(b) > s.limits.MaxBody {
			return model.Errorf(model.KindTooLarge, "the answer of %d bytes is over the limit of %d; ask for less", len(b), s.limits.MaxBody)
		}
		begun = true
		return write(b)
	}
	if h.stream != nil {
		body := func(b []byte) error { return in.write(frame{frameBody, b}) }
		err = s.guard(h, func() error { return h.stream(ctx, call, req, func(v any) error { return send(v, body) }) })
		return begun, err
	}
	var reply any
	if err = s.guard(h, func() (err error) { reply, err = h.unary(ctx, call, req); return err }); err != nil {
		return false, err
	}
	if call.Envelope.JSON {
		reply = s.rendered(reply)
	}
	err = send(reply, in.answer)
	return begun, err
}

// rendered is a reply with its body as JSON, where it has one and that is not over
// the limit: encoded here as it would be at its door, it is not encoded, decoded and
// encoded again on the way there.
func (s *Server) rendered(reply any) any {
	a, ok := reply.(method.Answer)
	if !ok {
		return reply
	}
	if r := method.Render(a); r != nil && len(r.JSON)+s.limits.MaxEnvelope <= s.limits.MaxBody {
		return r
	}
	return reply
}

// guard turns a handler's panic into an error of its call.
func (s *Server) guard(h *handler, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a handler panicked", "method", h.spec.Name, "panic", p, "stack", hclog.Stacktrace())
			err = model.Errorf(model.KindInternal, "%s failed within the server; its log says why", h.spec.Name)
		}
	}()
	return f()
}

// route finds a call's handler and where it belongs.
func (s *Server) route(ctx context.Context, env *Envelope) (*handler, Decision, error) {
	h := s.handlers[env.Method]
	if h == nil {
		// A method that is served by nodes only is still carried to them.
		spec, known := method.Lookup(env.Method)
		if !known {
			return nil, Decision{}, model.Errorf(model.KindUnsupported, "the method %q is not known to this version", env.Method)
		}
		h = &handler{spec: spec}
	}
	dec, err := s.router.Route(ctx, env, h.spec)
	if err != nil {
		if env.Region != "" && env.Region != s.router.Region() && model.KindOf(err) == model.KindUnreachable {
			s.traffic.failed(env.Region, err)
		}
		return nil, Decision{}, err
	}
	if dec.Local && h.decode == nil {
		return nil, Decision{}, model.Errorf(model.KindUnsupported, "the method %q is not served by this agent", env.Method)
	}
	return h, dec, nil
}

// splice passes the frames of a call on, undecoded; begun says that some of the
// answer was.
func (s *Server) splice(ctx context.Context, h *handler, dec Decision, env *Envelope, body []byte, in *incoming) (begun bool, err error) {
	x, err := s.forward(ctx, h.spec, dec, env, body)
	if err != nil {
		return false, err
	}
	defer x.Close()
	if len(env.Path) > 0 && dec.Region == s.router.Region() && holds(dec.Region, h.spec, dec) {
		// It came from another region, and this is not where its like belong.
		if err := in.write(frame{frameLeader, []byte(x.addr)}); err != nil {
			return true, err
		}
	}
	for {
		f, err := x.next(ctx, true)
		if err != nil {
			return begun, err
		}
		switch f.kind {
		case frameEnd:
			return begun, nil
		case frameAnswer:
			return true, in.answer(f.payload)
		case frameError:
			return begun, x.refusal(ctx, f.payload)
		case frameBody:
			begun = true
		}
		if err := in.write(f); err != nil {
			return true, err
		}
	}
}

// forward sends a call on towards its place.
func (s *Server) forward(ctx context.Context, spec method.Spec, dec Decision, env *Envelope, body []byte) (*exchange, error) {
	own := s.router.Region()
	target := dec.Region
	if dec.Session != nil {
		target = own
	}
	next, err := env.forward(own, target, remaining(ctx))
	if err != nil {
		return nil, err
	}
	if dec.Cell != "" {
		next.Cell = dec.Cell
	}
	return s.send(ctx, dec, next, spec, body)
}

// remaining is the time that ctx has, 0 when it has no end.
func remaining(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline), time.Millisecond)
}

func (s *Server) measure(h *handler, dec Decision, err error, start time.Time) {
	to := s.traffic.metrics
	if to == nil {
		return
	}
	labels := []metrics.Label{{Name: "method", Value: h.spec.Name}}
	if !dec.Local {
		labels = append(labels, metrics.Label{Name: "region", Value: dec.Region})
	}
	if err != nil {
		to.IncrCounterWithLabels([]string{"rpc", "errors"}, 1, append(labels, metrics.Label{Name: "kind", Value: model.KindOf(err).String()}))
	}
	to.MeasureSinceWithLabels([]string{"rpc", "call"}, start, labels)
}

// budget bounds how many bytes are held at once.
type budget struct {
	held atomic.Int64
	max  int64
}

func (b *budget) take(n int) bool {
	if b.held.Add(int64(n)) <= b.max {
		return true
	}
	b.give(n)
	return false
}

func (b *budget) give(n int) { b.held.Add(-int64(n)) }

// stuck is for how long a stream may take none of what is written, though its
// session is alive: who calls does not read.
const stuck = 10 * time.Second

// incoming is the server's side of a call on its stream. Its writes are serialised, since
// signs of life come from another goroutine.
type incoming struct {
	stream *yamux.Stream
	limits *Limits
	bodies *budget
	// took is what the body has of bodies.
	took int
	// sign is when the caller was last told that we receive.
	sign time.Time
	// reuse says that the caller would send another call on the stream; kept, that
	// it was told to, and that idle counts the stream.
	reuse, kept bool
	idle        *budget
	mu          sync.Mutex // serialises writes, and guards what follows
	// ended is true once the end was written: nothing comes after it.
	ended bool
	// broken is why a write failed. What follows would be taken for the rest of
	// what was written in part.
	broken error
}

// receive reads a call. A caller that must wait until it has sent it hears that we
// are here.
func (in *incoming) receive() (*Envelope, []byte, error) {
	in.sign = time.Now()
	_ = in.stream.SetReadDeadline(in.sign.Add(in.limits.Handshake))
	kind, payload, err := readFrame(in.stream, in.limits, in.more)
	if err != nil {
		return nil, nil, err
	}
	if kind != frameEnvelope {
		return nil, nil, fmt.Errorf("%w: a call begins with its envelope", errFrame)
	}
	env := new(Envelope)
	if err := wire.Receive(payload, env); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	kind, payload, err = readFrame(in.stream, in.limits, in.more)
	if err != nil {
		return nil, nil, err
	}
	if kind != frameBody {
		return nil, nil, fmt.Errorf("%w: an envelope is followed by its body", errFrame)
	}
	return env, payload, nil
}

// more gives the next piece of a long body time and room. Where there is no room
// the rest is read all the same: the caller hears of it when it has sent all.
func (in *incoming) more(left int) error {
	if n := min(left, piece); in.bodies.take(n) {
		in.took += n
		return in.wait()
	}
	for left > 0 {
		if err := in.wait(); err != nil {
			return err
		}
		n, err := io.CopyN(io.Discard, in.stream, int64(min(left, piece)))
		if err != nil {
			return err
		}
		left -= int(n)
	}
	return model.Errorf(model.KindBusy, "this agent serves calls whose bodies have %d bytes already, as many as it can; try again", in.bodies.max)
}

// wait gives the next piece time.
func (in *incoming) wait() error {
	now := time.Now()
	_ = in.stream.SetReadDeadline(now.Add(in.limits.Handshake))
	if now.Sub(in.sign) < in.limits.Alive {
		return nil
	}
	in.sign = now
	return in.write(frame{kind: frameAlive})
}

// release gives back what the body took.
func (in *incoming) release() { in.bodies.give(in.took) }

func (in *incoming) write(frames ...frame) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended || in.broken != nil {
		return in.broken
	}
	last := frames[len(frames)-1].kind
	in.ended = last == frameEnd || last == frameAnswer
	in.broken = writeFrames(in.stream, func(failed error) error {
		_ = in.stream.SetWriteDeadline(time.Now().Add(stuck))
		return failed
	}, frames...)
	return in.broken
}

// keepAfter sends signs of life, the first once a call has lasted for a while, and
// cancels it when its caller went away, which it sees as often. It costs no goroutine
// between them: a server has a waiting call of each of its nodes. The returned
// function ends that, and waits for one under way.
func (in *incoming) keepAfter(first, every time.Duration, cancel context.CancelFunc) (stop func()) {
	var mu sync.Mutex // guards what follows, and is held while a sign is sent
	var timer *time.Timer
	stopped := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(first, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if in.abandoned() || in.write(frame{kind: frameAlive}) != nil {
			cancel()
			return
		}
		timer.Reset(every)
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
}

// abandoned reports whether the caller closed the stream. Until it has its answer
// nothing follows the body, so that anything but nothing to read means that; what
// follows the answer is another call's, and is not read here.
func (in *incoming) abandoned() bool {
	_ = in.stream.SetReadDeadline(time.Now())
	_, err := in.stream.Read(nil)
	return !isTimeout(err)
}
