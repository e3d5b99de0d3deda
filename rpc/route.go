package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"atoll/model"
	"atoll/model/method"
)

// Router says where calls belong. The federation implements it.
type Router interface {
	// Region is this agent's own.
	Region() string
	// Route decides on one call. It may wait, for a leader say, until ctx
	// ends.
	Route(ctx context.Context, env *Envelope, spec method.Spec) (Decision, error)
	// Report tells of an attempt to reach a server: err is nil when it
	// answered at all, and is ErrBroken when its connection ended meanwhile,
	// which does not say that there is none to be had.
	Report(region, addr string, err error, rtt time.Duration)
	// Leads tells that a region's leader is said to be at an address.
	Leads(region, addr string)
	// Unreachable makes the error for a region whose servers did not answer.
	Unreachable(region string, cause error) *model.Error
}

// Decision is where a call goes: here, over a session, or to one of a
// region's servers, best first.
type Decision struct {
	Local   bool
	Session *Session
	Servers []string
	Region  string
	// Cell is the region's, as far as it is known here.
	Cell string
	// by is when the caller must have heard something, when its silence began
	// with another server; zero gives the call all of Limits.Silence. again says
	// that the call was sent before.
	by    time.Time
	again bool
}

// exchange is a call on its way to another agent: the stream, and its first
// frame, which was read to know that the agent has it.
type exchange struct {
	stream  *yamux.Stream
	limits  *Limits
	first   *frame
	stop    func() bool
	session *Session
	// addr and region are of a server that was dialled.
	addr   string
	region string
	d      *dispatcher
	env    *Envelope
	spec   method.Spec
	// others is true when another server may be asked the same, once this one is
	// lost.
	others bool
	// count is of what is open to the region of a server that was dialled.
	count  *regionTraffic
	closed atomic.Bool
	// since is when the wait for what comes next began.
	since time.Time
	// answered is true once a body or an error came, whole when that was all and
	// the far end awaits another call.
	answered, whole bool
}

// dispatcher carries calls to other agents.
type dispatcher struct {
	limits Limits
	pool   *Pool
	router Router
	// traffic measures what is sent.
	traffic traffic
}

// notTaken marks a failure after which the far end surely did not act.
type notTaken struct{ error }

func (e notTaken) Unwrap() error { return e.error }

func taken(err error) bool { return !errors.As(err, &notTaken{}) }

// lost marks the end of a call whose server took it and then was gone, with
// nothing answered: by, unless zero, is when the caller must have heard from
// another.
type lost struct {
	err error
	by  time.Time
}

func (e *lost) Error() string { return e.err.Error() }

func (e *lost) Unwrap() error { return e.err }

// ErrBroken marks the end of a connection with a call under way on it.
var ErrBroken = errors.New("the connection broke off")

// repeatable reports whether a call may be sent again though a server may have
// acted on it.
func repeatable(spec method.Spec) bool { return !spec.Write || spec.Once }

// send brings a call to where the decision says: to the session, else to the
// first of the servers that takes it. Servers that refuse cost no time; of those
// that say nothing there is time for two. One whose connection broke off under a
// call that may be sent again is asked once more, after the others.
func (d *dispatcher) send(ctx context.Context, dec Decision, env *Envelope, spec method.Spec, body []byte) (x *exchange, err error) {
	if dec.Session != nil {
		x, err := d.over(ctx, dec.Session, d.limits.Silence, env, spec, body)
		if err != nil {
			return nil, &model.Error{Kind: model.KindUnreachable, Message: fmt.Sprintf("node %s does not answer: %v", env.NodeID, err)}
		}
		return x, nil
	}
	defer func() {
		if err != nil {
			d.traffic.failed(dec.Region, err)
		}
	}()
	if len(dec.Servers) == 0 {
		return nil, d.router.Unreachable(dec.Region, errors.New("no server of it is known"))
	}
	deadline := time.Now().Add(d.limits.Silence)
	if !dec.by.IsZero() && dec.by.Before(deadline) {
		deadline = dec.by
	}
	last := errors.New("its time was over before it could be asked")
	applied, halved := false, false
	servers, broken := dec.Servers, false
	for i := 0; i < len(servers); i++ {
		addr := servers[i]
		wait := time.Until(deadline)
		if wait < time.Millisecond && i > 0 {
			break
		}
		if !halved && i+1 < len(servers) && repeatable(spec) {
			wait /= 2
		}
		start := time.Now()
		d.traffic.sent(dec.Region, dec.again || i > 0)
		x, err := d.attempt(ctx, addr, wait, env, spec, body)
		if ctx.Err() != nil && err != nil {
			// A caller in a hurry still learned that this server is slow: its first
			// sign of life was due.
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(start) > d.limits.Silence/2 {
				d.router.Report(dec.Region, addr, err, time.Since(start))
			}
			return nil, d.interrupted(ctx, env, spec, applied || taken(err))
		}
		d.router.Report(dec.Region, addr, err, time.Since(start))
		if err == nil {
			x.addr, x.region = addr, dec.Region
			x.others = len(dec.Servers) > 1 && repeatable(spec)
			x.count = d.traffic.of(dec.Region)
			x.count.open.Add(1)
			if answers(x.first.kind) {
				d.traffic.answered(dec.Region, time.Since(start))
			}
			return x, nil
		}
		last = err
		halved = halved || time.Since(start) > wait/2
		if errors.Is(err, ErrBroken) && !broken {
			broken = true
			servers = append(slices.Clone(servers), addr)
		}
		if applied = applied || taken(err); applied && !repeatable(spec) {
			break
		}
	}
	if applied && spec.Write {
		return nil, outcomeUnknown(env, spec, dec.Region, last)
	}
	return nil, d.router.Unreachable(dec.Region, last)
}

// interrupted is the error of a call whose own time ended first; applied says that
// a server may have acted on it.
func (d *dispatcher) interrupted(ctx context.Context, env *Envelope, spec method.Spec, applied bool) error {
	if spec.Write && applied {
		return outcomeUnknown(env, spec, env.Region, ctx.Err())
	}
	return ctx.Err()
}

// outcomeUnknown has a token only for a write that is applied once: by another's it
// could be sent again, and applied twice.
func outcomeUnknown(env *Envelope, spec method.Spec, region string, cause error) error {
	e := &model.Error{Kind: model.KindOutcomeUnknown, Region: region}
	e.Message = fmt.Sprintf("region %q may or may not have applied the write: %v; look before you repeat it", region, cause)
	if spec.Once {
		e.Token = env.RequestID
		e.Message = fmt.Sprintf("region %q may or may not have applied the write: %v; send it again with the idempotency token %s, or look first", region, cause, env.RequestID)
	}
	return e
}

func (d *dispatcher) attempt(ctx context.Context, addr string, wait time.Duration, env *Envelope, spec method.Spec, body []byte) (*exchange, error) {
	dialCtx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	start := time.Now()
	session, err := d.pool.Session(dialCtx, addr)
	if err != nil {
		return nil, notTaken{err}
	}
	return d.over(ctx, session, wait-time.Since(start), env, spec, body)
}

// over sends the call on a session and waits for the first frame.
func (d *dispatcher) over(ctx context.Context, session *Session, wait time.Duration, env *Envelope, spec method.Spec, body []byte) (*exchange, error) {
	env.Reuse = !spec.Stream
	head, err := encodeEnvelope(env)
	if err != nil {
		return nil, notTaken{err}
	}
	wait = max(wait, time.Millisecond)
	start := time.Now()
	stream, err := session.open(ctx, wait)
	if err != nil {
		return nil, notTaken{d.failure(ctx, session, start, err)}
	}
	x := &exchange{stream: stream, session: session, limits: &d.limits, d: d, env: env, spec: spec, since: start}
	x.stop = context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Now()) })
	if err = x.write(ctx, wait, frame{frameEnvelope, head}, frame{frameBody, body}); err == nil {
		var f frame
		if f, err = x.receive(ctx, wait); err == nil {
			x.first = &f
			return x, nil
		}
	}
	cause := d.failure(ctx, session, x.since, err)
	if !taken(err) {
		cause = notTaken{cause}
	}
	// Closing the stream is what cancels the call at the far end. On a session that
	// takes nothing it would wait: that one was given up.
	x.Close()
	return nil, cause
}

// failure is the cause for which a call could not be sent on a session, or has no
// answer, nothing having come since then. A far end that took nothing is as silent as
// one that says nothing, and is not tried again on another session.
func (d *dispatcher) failure(ctx context.Context, session *Session, since time.Time, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Another call has given the session up: this one has waited in vain too, unless
	// it has just begun.
	vain := session.silent.Load() && time.Since(since) > d.limits.Silence/4
	if err = session.ended(err); isTimeout(err) || vain || session.heard.deaf.Load() {
		if session.dialled {
			session.giveUp(since)
		}
		return fmt.Errorf("no answer within %s", d.limits.Silence.Round(100*time.Millisecond))
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// write sends frames. The far end may take long for them, as long as it takes some,
// or is heard at all: it tells that it is there while it receives.
func (x *exchange) write(ctx context.Context, silence time.Duration, frames ...frame) error {
	moved := time.Now()
	return writeFrames(x.stream, func(failed error) error {
		switch {
		case failed == nil:
			moved = time.Now()
		case !errors.Is(failed, yamux.ErrTimeout), x.session.heard.silence() > silence, time.Since(moved) > stuck:
			return failed
		}
		_ = x.stream.SetWriteDeadline(time.Now().Add(silence))
		return ctx.Err()
	}, frames...)
}

// receive reads a frame, which must come within a time; of a long one, each piece.
func (x *exchange) receive(ctx context.Context, silence time.Duration) (f frame, err error) {
	_ = x.stream.SetReadDeadline(time.Now().Add(silence))
	if ctx.Err() != nil {
		return frame{}, ctx.Err()
	}
	f.kind, f.payload, err = readFrame(x.stream, x.limits, func(int) error {
		x.since = time.Now()
		_ = x.stream.SetReadDeadline(x.since.Add(max(silence, x.limits.Silence/2)))
		return ctx.Err()
	})
	return f, err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() || errors.Is(err, yamux.ErrConnectionWriteTimeout)
}

// next returns the next frame that is no sign of life, unless alive frames are
// asked for.
func (x *exchange) next(ctx context.Context, alive bool) (frame, error) {
	for {
		f, err := x.read(ctx)
		if err != nil {
			return frame{}, err
		}
		switch {
		case f.kind == frameLeader:
			x.d.router.Leads(x.region, string(f.payload))
			continue
		case f.kind == frameAlive && !alive:
			continue
		}
		x.answered = x.answered || answers(f.kind)
		if f.kind == frameAnswer && x.env.Reuse {
			x.whole = true
			if len(f.payload) > trusted {
				x.stream.Shrink() // of the buffer for a long body
			}
		}
		return f, nil
	}
}

func answers(kind byte) bool {
	return kind == frameBody || kind == frameAnswer || kind == frameError
}

func (x *exchange) read(ctx context.Context) (frame, error) {
	if f := x.first; f != nil {
		x.first = nil
		return *f, nil
	}
	silence := max(x.limits.Silence, min(x.env.Quiet, maxQuiet))
	if x.others && !x.answered && x.env.Quiet == 0 {
		// The other half is for another server.
		silence = x.limits.Silence / 2
	}
	x.since = time.Now()
	f, err := x.receive(ctx, silence)
	switch {
	case err == nil:
		return f, nil
	case ctx.Err() != nil:
		return frame{}, x.d.interrupted(ctx, x.env, x.spec, true)
	}
	if err = x.session.ended(err); isTimeout(err) {
		err = fmt.Errorf("nothing was heard for %s", silence.Round(100*time.Millisecond))
	} else {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if x.addr != "" {
		x.session.giveUp(x.since)
		x.d.router.Report(x.region, x.addr, err, 0)
	}
	if x.spec.Write && !x.answered {
		err = outcomeUnknown(x.env, x.spec, x.region, err)
	} else if x.addr == "" {
		err = &model.Error{Kind: model.KindUnreachable, Message: fmt.Sprintf("node %s is gone: %v", x.env.NodeID, err)}
	} else {
		err = x.d.router.Unreachable(x.region, err)
	}
	if x.addr != "" {
		x.d.traffic.failed(x.region, err)
	}
	if x.addr != "" && !x.answered {
		err = &lost{err, x.since.Add(x.limits.Silence)}
	}
	return frame{}, err
}

// refusal is the error that the far end answers with. One that stops cancels what
// it has under way, and is lost to the call as if it had died.
func (x *exchange) refusal(ctx context.Context, payload []byte) error {
	err := decodeError(payload)
	kind := model.KindOf(err)
	if x.addr != "" {
		x.d.traffic.failed(x.region, err)
	}
	if ctx.Err() != nil || x.addr == "" || kind != model.KindCanceled && kind != model.KindOutcomeUnknown {
		return err
	}
	if kind == model.KindCanceled {
		err = fmt.Errorf("the server at %s stops", x.addr)
		x.d.router.Report(x.region, x.addr, err, 0)
		if x.spec.Write {
			err = outcomeUnknown(x.env, x.spec, x.region, err)
		} else {
			err = x.d.router.Unreachable(x.region, err)
		}
	}
	return &lost{err: err}
}

// Close ends the call; the far end's handler is cancelled if it still works. Once
// ctx has ended, what that does to the stream may come at any time.
func (x *exchange) Close() {
	if !x.closed.CompareAndSwap(false, true) {
		return
	}
	if x.stop() && x.whole {
		x.session.keepIdle(x.stream)
	} else {
		x.session.end(x.stream)
	}
	if x.count != nil {
		x.count.open.Add(-1)
	}
}
