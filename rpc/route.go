package rpc

import (
	"context"
	"errors"
	"fmt"
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
	// answered at all.
	Report(region, addr string, err error, rtt time.Duration)
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
	// answered is true once a body or an error came.
	answered bool
}

// dispatcher carries calls to other agents.
type dispatcher struct {
	limits Limits
	pool   *Pool
	router Router
}

// notTaken marks a failure after which the far end surely did not act.
type notTaken struct{ error }

func (e notTaken) Unwrap() error { return e.error }

func taken(err error) bool { return !errors.As(err, &notTaken{}) }

// send brings a call to where the decision says: to the session, else to the
// first of the servers that takes it.
func (d *dispatcher) send(ctx context.Context, dec Decision, env *Envelope, spec method.Spec, body []byte) (*exchange, error) {
	if dec.Session != nil {
		x, err := d.over(ctx, dec.Session, d.limits.Silence, env, spec, body)
		if err != nil {
			return nil, &model.Error{Kind: model.KindUnreachable, Message: fmt.Sprintf("node %s does not answer: %v", env.NodeID, err)}
		}
		return x, nil
	}
	if len(dec.Servers) == 0 {
		return nil, d.router.Unreachable(dec.Region, errors.New("no server of it is known"))
	}
	// Two candidates share the time in which the caller must have heard.
	deadline := time.Now().Add(d.limits.Silence)
	last := errors.New("its time was over before it could be asked")
	applied := false
	for i, addr := range dec.Servers[:min(2, len(dec.Servers))] {
		wait := time.Until(deadline)
		if i == 0 && len(dec.Servers) > 1 && (!spec.Write || spec.Once) {
			wait /= 2
		}
		if wait <= 0 && i > 0 {
			break
		}
		start := time.Now()
		x, err := d.attempt(ctx, addr, wait, env, spec, body)
		if ctx.Err() != nil && err != nil {
			// A caller in a hurry still learned that this server is slow.
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(start) > d.limits.Silence/4 {
				d.router.Report(dec.Region, addr, err, time.Since(start))
			}
			return nil, d.interrupted(ctx, env, spec, err)
		}
		d.router.Report(dec.Region, addr, err, time.Since(start))
		if err == nil {
			x.addr, x.region = addr, dec.Region
			return x, nil
		}
		last = err
		if applied = applied || taken(err); applied && spec.Write && !spec.Once {
			break
		}
	}
	if applied && spec.Write {
		return nil, outcomeUnknown(env, dec.Region, last)
	}
	return nil, d.router.Unreachable(dec.Region, last)
}

// interrupted is the error of a call whose own time ended first.
func (d *dispatcher) interrupted(ctx context.Context, env *Envelope, spec method.Spec, err error) error {
	if spec.Write && taken(err) {
		return outcomeUnknown(env, env.Region, ctx.Err())
	}
	return ctx.Err()
}

func outcomeUnknown(env *Envelope, region string, cause error) error {
	return &model.Error{
		Kind: model.KindOutcomeUnknown, Region: region, Token: env.RequestID,
		Message: fmt.Sprintf("region %q may or may not have applied the write: %v; send it again with the idempotency token %s, or look first", region, cause, env.RequestID),
	}
}

func (d *dispatcher) attempt(ctx context.Context, addr string, wait time.Duration, env *Envelope, spec method.Spec, body []byte) (*exchange, error) {
	dialCtx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	start := time.Now()
	session, err := d.pool.Session(dialCtx, addr)
	if err != nil {
		return nil, notTaken{err}
	}
	x, err := d.over(ctx, session, wait-time.Since(start), env, spec, body)
	if err != nil && ctx.Err() == nil && taken(err) {
		session.giveUp(start)
	}
	return x, err
}

// over sends the call on a session and waits for the first frame.
func (d *dispatcher) over(ctx context.Context, session *Session, wait time.Duration, env *Envelope, spec method.Spec, body []byte) (*exchange, error) {
	stream, err := session.open(ctx)
	if err != nil {
		return nil, notTaken{err}
	}
	x := &exchange{stream: stream, session: session, limits: &d.limits, d: d, env: env, spec: spec}
	// Closing the stream is what cancels the call at the far end.
	x.stop = context.AfterFunc(ctx, func() { _ = stream.SetReadDeadline(time.Now()) })
	head, err := encodeEnvelope(env)
	if err != nil {
		x.Close()
		return nil, notTaken{err}
	}
	_ = stream.SetWriteDeadline(time.Now().Add(max(wait, d.limits.Silence)))
	if err := writeFrames(stream, frame{frameEnvelope, head}, frame{frameBody, body}); err != nil {
		x.Close()
		// What was written in part cannot have been acted on.
		return nil, notTaken{err}
	}
	_ = stream.SetReadDeadline(time.Now().Add(max(wait, time.Millisecond)))
	if ctx.Err() != nil {
		_ = stream.SetReadDeadline(time.Now())
	}
	kind, payload, err := readFrame(stream, &d.limits)
	if err != nil {
		x.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err = session.ended(err); isTimeout(err) {
			err = fmt.Errorf("no answer within %s", d.limits.Silence.Round(100*time.Millisecond))
		}
		return nil, err
	}
	x.first = &frame{kind, payload}
	return x, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// next returns the next frame that is no sign of life, unless alive frames are
// asked for.
func (x *exchange) next(ctx context.Context, alive bool) (frame, error) {
	for {
		f, err := x.read(ctx)
		if err != nil {
			return frame{}, err
		}
		if f.kind == frameAlive && !alive {
			continue
		}
		x.answered = x.answered || f.kind == frameBody || f.kind == frameError
		return f, nil
	}
}

func (x *exchange) read(ctx context.Context) (frame, error) {
	if f := x.first; f != nil {
		x.first = nil
		return *f, nil
	}
	start := time.Now()
	silence := max(x.limits.Silence, min(x.env.Quiet, maxQuiet))
	_ = x.stream.SetReadDeadline(start.Add(silence))
	if ctx.Err() != nil {
		return frame{}, x.d.interrupted(ctx, x.env, x.spec, ctx.Err())
	}
	kind, payload, err := readFrame(x.stream, x.limits)
	switch {
	case err == nil:
		return frame{kind, payload}, nil
	case ctx.Err() != nil:
		return frame{}, x.d.interrupted(ctx, x.env, x.spec, ctx.Err())
	}
	if err = x.session.ended(err); isTimeout(err) {
		err = fmt.Errorf("nothing was heard for %s", silence.Round(100*time.Millisecond))
	}
	if x.addr != "" {
		x.session.giveUp(start)
		x.d.router.Report(x.region, x.addr, err, 0)
	}
	if x.spec.Write && !x.answered {
		return frame{}, outcomeUnknown(x.env, x.region, err)
	}
	if x.addr == "" {
		return frame{}, &model.Error{Kind: model.KindUnreachable, Message: fmt.Sprintf("node %s is gone: %v", x.env.NodeID, err)}
	}
	return frame{}, x.d.router.Unreachable(x.region, err)
}

// Close ends the call; the far end's handler is cancelled if it still works.
func (x *exchange) Close() {
	x.stop()
	x.session.end(x.stream)
}
