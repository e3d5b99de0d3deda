package rpc

import (
	"context"
	"time"

	"github.com/hashicorp/yamux"

	"atoll/model"
)

// A stream costs more than a short call on it: frames that open, accept, widen and
// close it, what both ends allocate for it, and a goroutine that begins with a small
// stack. So one whose call was answered whole carries its session's next call.
//
// The caller's envelope says that it would, and the server, by a frameAnswer, that
// it waits for that call: earlier versions say neither. Then only the caller closes
// the stream, so that what becomes of a call on it tells as much as on a new one. A
// call that ends in any other way, in an error also, closes its stream.

// maxIdle bounds the streams of a session that its caller keeps without a call.
// idleFor is how long it keeps one: calls that come one by one, as a node's
// heartbeats do, need none, and each is a goroutine at the server.
const maxIdle, idleFor = 64, 2 * time.Second

// maxWaiting bounds the streams on which a server waits for another call, over all
// its sessions: they count as no calls.
const maxWaiting = 4096

type idleStream struct {
	*yamux.Stream
	since time.Time
}

// reuse returns the stream that was used last, so that those that are not needed
// age; nil when there is none.
func (s *Session) reuse() *yamux.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle) - 1
	if n < 0 || s.closing || s.mux.IsClosed() {
		return nil
	}
	stream := s.idle[n].Stream
	s.idle = s.idle[:n]
	return stream
}

// keepIdle keeps a stream of open for another call, instead of its end.
func (s *Session) keepIdle(stream *yamux.Stream) {
	s.mu.Lock()
	if s.closing || len(s.idle) >= maxIdle {
		s.mu.Unlock()
		s.end(stream)
		return
	}
	defer s.mu.Unlock()
	s.idle = append(s.idle, idleStream{stream, time.Now()})
	switch {
	case s.sweeping:
		return
	case s.sweep == nil:
		s.sweep = time.AfterFunc(idleFor, s.endIdle)
	default:
		s.sweep.Reset(idleFor)
	}
	s.sweeping = true
}

// endIdle closes the streams that were kept long enough.
func (s *Session) endIdle() {
	s.mu.Lock()
	now, n := time.Now(), 0
	for n < len(s.idle) && now.Sub(s.idle[n].since) >= idleFor {
		n++
	}
	old := append([]idleStream(nil), s.idle[:n]...)
	s.idle = append(s.idle[:0], s.idle[n:]...)
	if s.sweeping = len(s.idle) > 0 && !s.closing; s.sweeping {
		s.sweep.Reset(idleFor - now.Sub(s.idle[0].since))
	}
	s.mu.Unlock()
	for _, i := range old {
		s.end(i.Stream)
	}
}

// awaitCall waits until something comes on a stream that the far end opened, and
// reports whether it did; it reads nothing of it.
func (s *Session) awaitCall(stream *yamux.Stream) bool {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return false
	}
	s.waiting[stream] = struct{}{} // so that Close wakes it
	_ = stream.SetReadDeadline(time.Time{})
	s.mu.Unlock()
	_, err := stream.Read(nil)
	return err == nil
}

// serveStream serves the calls that come over a stream, of which the first was
// admitted.
func (s *Server) serveStream(ctx context.Context, session *Session, stream *yamux.Stream) {
	defer session.end(stream)
	for {
		in := &incoming{stream: stream, limits: &s.limits, bodies: &s.bodies, idle: &s.idle}
		s.serveCall(ctx, session, in)
		s.calls.Add(-1)
		if !in.kept {
			return
		}
		if in.took > 0 {
			stream.Shrink() // of the buffer for a long body
		}
		more := in.broken == nil && session.awaitCall(stream)
		s.idle.give(1)
		if !more || !s.admit(stream) {
			return
		}
	}
}

// admit counts a call that begins, or refuses it.
func (s *Server) admit(stream *yamux.Stream) bool {
	if s.calls.Add(1) <= int64(s.limits.MaxCalls) {
		return true
	}
	s.calls.Add(-1)
	in := &incoming{stream: stream, limits: &s.limits}
	_ = in.write(errorFrame(model.Errorf(model.KindBusy, "this agent serves %d calls already; try again", s.limits.MaxCalls)))
	return false
}

// answer writes a call's one reply, and its end, in one piece: a system call less
// for each.
func (in *incoming) answer(body []byte) error {
	if in.reuse && in.idle.take(1) {
		in.kept = true
		return in.write(frame{frameAnswer, body})
	}
	return in.write(frame{frameBody, body}, frame{kind: frameEnd})
}
