package rpc

import (
	"context"
	"io"
	"sync"
	"time"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// Caller makes calls: a *Server in a server's process, a *Client elsewhere.
type Caller interface {
	// call answers a unary call with a *R as any when it was served in
	// this process, and with encoded bytes otherwise.
	call(ctx context.Context, env *Envelope, spec method.Spec, req any) (any, []byte, error)
	// open starts a stream.
	open(ctx context.Context, env *Envelope, spec method.Spec, req any) (receiver, error)
	plainDeadline() time.Duration
}

// receiver yields a stream's replies, as values or encoded.
type receiver interface {
	recv() (any, []byte, error)
	close()
}

// To says where a call should go.
type To struct {
	// Region is the target; "" means the agent's own.
	Region     string
	AllowStale bool
	// Timeout bounds the call; 0 means the context's deadline, else ten
	// seconds, and none for methods that wait by design.
	Timeout time.Duration
	// RequestID is made up for a write when empty.
	RequestID string
	// NodeID is the node, for methods that nodes serve.
	NodeID string
	// Quiet is for how long a call that waits may be silent: longer than
	// Limits.Silence for a caller that has other ways to learn that its server
	// is gone, since signs of life cost a server of thousands of them most of
	// what it does. 0 means Limits.Silence.
	Quiet time.Duration
	// JSON asks for the answer's body as JSON when it comes from elsewhere; see
	// method.Answer.
	JSON bool
}

func (to To) envelope(ctx context.Context, spec method.Spec, plain time.Duration) (*Envelope, context.Context, context.CancelFunc) {
	env := &Envelope{Method: spec.Name, Region: to.Region, AllowStale: to.AllowStale, RequestID: to.RequestID, NodeID: to.NodeID, Quiet: to.Quiet, JSON: to.JSON}
	// Only writes are told apart by it, and randomness costs a read more than its
	// routing.
	if env.RequestID == "" && spec.Write {
		env.RequestID = model.NewRequestID(time.Now(), nil)
	}
	timeout := to.Timeout
	if _, bounded := ctx.Deadline(); timeout == 0 && !bounded && !spec.Blocks && !spec.Stream {
		timeout = plain
	}
	cancel := context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	env.Timeout = remaining(ctx)
	return env, ctx, cancel
}

// Call makes a call with one reply. Errors keep their kind over any number of
// hops; the end of the call's time is KindDeadline.
func Call[Q, R any](ctx context.Context, c Caller, m method.Method[Q, R], to To, req *Q) (*R, error) {
	env, ctx, cancel := to.envelope(ctx, m.Spec, c.plainDeadline())
	defer cancel()
	v, body, err := c.call(ctx, env, m.Spec, req)
	if err != nil {
		return nil, err
	}
	return reply[R](v, body)
}

func reply[R any](v any, body []byte) (*R, error) {
	if v != nil {
		return v.(*R), nil
	}
	r := new(R)
	if err := wire.Decode(body, r); err != nil {
		return nil, model.Errorf(model.KindInternal, "cannot read the answer: %w", err)
	}
	return r, nil
}

// Stream is a call with any number of replies.
type Stream[R any] struct {
	r      receiver
	cancel context.CancelFunc
}

// Open starts a call with any number of replies. Close must be called.
func Open[Q, R any](ctx context.Context, c Caller, m method.Method[Q, R], to To, req *Q) (*Stream[R], error) {
	env, ctx, cancel := to.envelope(ctx, m.Spec, c.plainDeadline())
	ctx, stop := context.WithCancel(ctx)
	r, err := c.open(ctx, env, m.Spec, req)
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	return &Stream[R]{r, func() { stop(); cancel() }}, nil
}

// Recv returns the next reply, io.EOF after the last.
func (s *Stream[R]) Recv() (*R, error) {
	v, body, err := s.r.recv()
	if err != nil {
		return nil, err
	}
	return reply[R](v, body)
}

// Close ends the call, finished or not.
func (s *Stream[R]) Close() {
	s.cancel()
	s.r.close()
}

// At returns a caller whose calls all go to the server of this region at an
// address, whatever the router knows of it. They are for AtServer methods: that
// server does not pass them on.
func (s *Server) At(addr string) Caller { return &direct{s, addr} }

type direct struct {
	*Server
	addr string
}

func (d *direct) decision() Decision {
	return Decision{Servers: []string{d.addr}, Region: d.router.Region()}
}

func (d *direct) call(ctx context.Context, env *Envelope, spec method.Spec, req any) (any, []byte, error) {
	b, err := d.callAway(ctx, spec, d.decision(), env, req)
	return nil, b, err
}

func (d *direct) open(ctx context.Context, env *Envelope, spec method.Spec, req any) (receiver, error) {
	x, err := d.carry(ctx, spec, d.decision(), env, req)
	if err != nil {
		return nil, err
	}
	return &remoteStream{ctx, x}, nil
}

func (s *Server) plainDeadline() time.Duration { return s.limits.Plain }

func (s *Server) call(ctx context.Context, env *Envelope, spec method.Spec, req any) (v any, body []byte, err error) {
	var tries attempts
	for {
		h, dec, err := s.route(ctx, env)
		if err != nil {
			return nil, nil, tries.last(err)
		}
		tries.onto(&dec)
		start := time.Now()
		if dec.Local {
			err = s.guard(h, func() (err error) { v, err = h.unary(ctx, &Inbound{Envelope: env}, req); return err })
		} else {
			body, err = s.callAway(ctx, spec, dec, env, req)
		}
		s.measure(h, dec, err, start)
		if err == nil {
			return v, body, nil
		}
		if !tries.again(ctx, holds(s.router.Region(), spec, dec), s.router.Region(), env, spec, err) {
			return nil, nil, tries.last(err)
		}
	}
}

func (s *Server) callAway(ctx context.Context, spec method.Spec, dec Decision, env *Envelope, req any) ([]byte, error) {
	x, err := s.carry(ctx, spec, dec, env, req)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	body, err := x.body(ctx)
	if err == io.EOF {
		err = model.Errorf(model.KindInternal, "the far end gave no answer")
	}
	return body, err
}

func (s *Server) carry(ctx context.Context, spec method.Spec, dec Decision, env *Envelope, req any) (*exchange, error) {
	b, err := wire.Encode(req)
	if err != nil {
		return nil, err
	}
	if len(b) > s.limits.MaxBody {
		return nil, model.Errorf(model.KindTooLarge, "the request of %d bytes is over the limit of %d", len(b), s.limits.MaxBody)
	}
	return s.forward(ctx, spec, dec, env, b)
}

// body returns the next reply, io.EOF after the last.
func (x *exchange) body(ctx context.Context) ([]byte, error) {
	f, err := x.next(ctx, false)
	if err != nil {
		return nil, err
	}
	switch f.kind {
	case frameBody, frameAnswer:
		return f.payload, nil
	case frameError:
		return nil, x.refusal(ctx, f.payload)
	}
	return nil, io.EOF
}

func (s *Server) open(ctx context.Context, env *Envelope, spec method.Spec, req any) (receiver, error) {
	held := false
	return openHeld(func(tries *attempts) (receiver, error) {
		held = false // what the router says is final
		h, dec, err := s.route(ctx, env)
		if err != nil {
			return nil, err
		}
		if dec.Local {
			return s.stream(ctx, h, env, req), nil
		}
		held = holds(s.router.Region(), spec, dec)
		tries.onto(&dec)
		x, err := s.carry(ctx, spec, dec, env, req)
		if err != nil {
			return nil, err
		}
		return &remoteStream{ctx, x}, nil
	}, func(tries *attempts, err error) bool {
		return tries.again(ctx, held, s.router.Region(), env, spec, err)
	})
}

func (s *Server) stream(ctx context.Context, h *handler, env *Envelope, req any) *localStream {
	l := &localStream{ctx: ctx, replies: make(chan any), done: make(chan struct{})}
	l.wg.Go(func() {
		defer close(l.done)
		l.err = s.guard(h, func() error {
			return h.stream(ctx, &Inbound{Envelope: env}, req, func(v any) error {
				select {
				case l.replies <- v:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	})
	return l
}

// heldStream is a stream that is begun anew, perhaps elsewhere, when its server
// is lost before the first reply.
type heldStream struct {
	begin func(*attempts) (receiver, error)
	again func(*attempts, error) bool
	tries attempts
	begun bool

	mu     sync.Mutex // guards what follows, and is not held while one is begun
	cur    receiver
	closed bool
}

func openHeld(begin func(*attempts) (receiver, error), again func(*attempts, error) bool) (receiver, error) {
	h := &heldStream{begin: begin, again: again}
	return h, h.start()
}

// start begins the stream, until it has begun or must not be tried again.
func (h *heldStream) start() error {
	for {
		next, err := h.begin(&h.tries)
		if err != nil {
			if h.again(&h.tries, err) {
				continue
			}
			return h.tries.last(err)
		}
		h.mu.Lock()
		old := h.cur
		h.cur = next
		closed := h.closed
		h.mu.Unlock()
		if old != nil {
			old.close()
		}
		if closed {
			next.close()
			return context.Canceled
		}
		return nil
	}
}

func (h *heldStream) recv() (any, []byte, error) {
	for {
		v, b, err := h.cur.recv()
		if err == nil || err == io.EOF || h.begun || !h.again(&h.tries, err) {
			h.begun = true
			return v, b, h.tries.last(err)
		}
		if err := h.start(); err != nil {
			return nil, nil, err
		}
	}
}

func (h *heldStream) close() {
	h.mu.Lock()
	h.closed = true
	cur := h.cur
	h.mu.Unlock()
	cur.close()
}

// localStream is a stream served in this process.
type localStream struct {
	ctx     context.Context
	replies chan any
	done    chan struct{}
	err     error // set before done is closed
	wg      sync.WaitGroup
}

func (l *localStream) recv() (any, []byte, error) {
	select {
	case v := <-l.replies:
		return v, nil, nil
	case <-l.done:
		if l.err != nil {
			return nil, nil, l.err
		}
		return nil, nil, io.EOF
	}
}

// close follows the context's end, which ends the handler.
func (l *localStream) close() { l.wg.Wait() }

type remoteStream struct {
	ctx context.Context
	x   *exchange
}

func (r *remoteStream) recv() (any, []byte, error) {
	b, err := r.x.body(r.ctx)
	return nil, b, err
}

func (r *remoteStream) close() { r.x.Close() }
