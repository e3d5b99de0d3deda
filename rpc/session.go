package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/yamux"
)

// First bytes of connections. On the wire: append only.
const (
	byteRaft byte = 1
	byteRPC  byte = 2
)

// Session is a connection that carries calls both ways.
type Session struct {
	mux   *yamux.Session
	heard *listening

	// dialled is true of one that we made: another can be had.
	dialled bool
	// silent is true once it was given up, since nothing came.
	silent atomic.Bool
	// opening are the goroutines that wait for yamux to open a stream.
	opening sync.WaitGroup

	mu sync.Mutex // guards what follows
	// waiting are the streams of calls made over it, and those on which another
	// is awaited.
	waiting map[*yamux.Stream]struct{}
	closing bool
	quiet   *time.Timer // looks whether the far end is still there
	// idle are streams without a call, by when they had one; sweep closes them,
	// and runs when sweeping.
	idle     []idleStream
	sweep    *time.Timer
	sweeping bool
}

// listening is a connection that knows when it last brought something, and that
// sends in one piece what yamux writes in several.
type listening struct {
	net.Conn
	begun time.Time
	last  atomic.Int64 // since begun
	deaf  atomic.Bool  // it took nothing more
	mu    sync.Mutex   // serialises writes, and guards what follows
	// held is what waits for the write that follows; body says that this is the
	// body of the frame whose head came last.
	held []byte
	body bool
	// due sends what is held when nothing follows; nil before anything waited so.
	due   *time.Timer
	armed bool
}

// yamux writes the head of a frame, of this many bytes, and its body apart: half
// of what a call costs are system calls.
const yamuxHead = 12

// Write holds back what is surely followed at once: the head of a frame with a
// body, and the frame that opens a stream, since whoever opens one writes to it. What
// nobody waits for, that a stream was accepted or is finished with, goes with the
// next write, or a little later.
func (l *listening) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(b)
}

// write is Write, with the lock held. Nothing sends what is held.
func (l *listening) write(b []byte) (int, error) {
	more := false
	if l.body || len(b) != yamuxHead {
		l.body = false
	} else {
		const typeData, typeWindow, flagSYN, flagACK, flagFIN, flagRST = 0, 1, 1, 2, 4, 8
		flags := binary.BigEndian.Uint16(b[2:])
		l.body = b[1] == typeData && binary.BigEndian.Uint32(b[8:]) > 0
		more = l.body || b[1] == typeWindow && flags&flagSYN != 0
		if b[1] == typeWindow && flags&(flagACK|flagFIN) != 0 && flags&flagRST == 0 {
			more = true
			l.sendSoon()
		}
	}
	if more && len(l.held) < maxHeld {
		l.held = append(l.held, b...)
		return len(b), nil
	}
	if len(l.held) == 0 {
		return len(b), l.send(b)
	}
	l.held = append(l.held, b...)
	err := l.send(l.held)
	if l.held = l.held[:0]; cap(l.held) > keptHeld {
		l.held = nil
	}
	return len(b), err
}

// patience is for how long what nobody waits for is held.
const patience = time.Millisecond

func (l *listening) sendSoon() {
	switch {
	case l.armed:
		return
	case l.due == nil:
		l.due = time.AfterFunc(patience, l.sendHeld)
	default:
		l.due.Reset(patience)
	}
	l.armed = true
}

// sendHeld sends what is held. A session that it cannot be sent on is over, and
// hears of that by its reads.
func (l *listening) sendHeld() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	if len(l.held) == 0 {
		return
	}
	body := l.body // which may be between its head and itself
	if _, err := l.write(nil); err != nil {
		_ = l.Close()
	}
	l.body = body
}

// maxHeld is after how many bytes of heads they are sent without waiting for more,
// keptHeld the largest buffer that is kept for the next frame: a piece with its head.
const maxHeld, keptHeld = 1 << 10, piece + 4<<10

// stalled is for how long a connection may take to take one piece before it is given
// up: shorter than Limits.Silence, so that calls that wait for their turn to be sent
// end in time. A link that is slower than that, 13 kB/s, is none. It is tried anew
// meanwhile, since the system tells of room only once there is much.
const stalled, askedAgain = 1500 * time.Millisecond, 3

var errStalled = fmt.Errorf("the connection did not take %d bytes in %s", piece, stalled)

// send writes, and fails once the connection takes nothing more: its far end is
// gone or frozen, and all that the system buffers is full. (What trickles into a
// frozen one's buffers is no progress.) yamux waits for a write whatever becomes of
// the call that it is for, but not longer than for the session.
func (l *listening) send(b []byte) error {
	for range askedAgain {
		_ = l.Conn.SetWriteDeadline(time.Now().Add(stalled / askedAgain))
		n, err := l.Conn.Write(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		b = b[n:]
	}
	l.deaf.Store(true)
	return errStalled
}

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.last.Store(int64(time.Since(l.begun)))
	}
	return n, err
}

// silence is for how long nothing came.
func (l *listening) silence() time.Duration {
	return time.Since(l.begun) - time.Duration(l.last.Load())
}

// keepAlive is for how long a session may be silent before its far end is asked
// for a sign of life.
const keepAlive = 15 * time.Second

// newSession makes a session of a connection; mux is yamux.Client or Server.
func newSession(conn net.Conn, mux func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error), log hclog.Logger) (*Session, error) {
	s := &Session{heard: &listening{Conn: conn, begun: time.Now()}, waiting: make(map[*yamux.Stream]struct{})}
	var err error
	if s.mux, err = mux(s.heard, yamuxConfig(log)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = time.AfterFunc(keepAlive, s.keep)
	return s, nil
}

// keep closes the session when its far end is gone. yamux's own keep-alive would
// close that of a far end which is only busy, and has a goroutine for it.
func (s *Session) keep() {
	if s.Closed() {
		return
	}
	next := keepAlive - s.heard.silence()
	if next <= 0 {
		asked := time.Now()
		if _, err := s.mux.Ping(); err != nil {
			s.giveUp(asked)
		}
		next = keepAlive
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.quiet.Reset(next)
	}
}

// giveUp closes the session if nothing at all came over it since then: it may be
// a dead connection. One that brought something is a busy server's, which a new
// one would only keep busier.
func (s *Session) giveUp(since time.Time) {
	if time.Duration(s.heard.last.Load()) < since.Sub(s.heard.begun) {
		s.silent.Store(true)
		_ = s.Close()
	}
}

// ended is err as the cause of a failed read, by whoever closed the session.
func (s *Session) ended(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return yamux.ErrSessionShutdown
	}
	return err
}

// Closed reports whether the session has ended.
func (s *Session) Closed() bool { return s.mux.IsClosed() }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// RemoteAddr is the far end's address.
func (s *Session) RemoteAddr() net.Addr { return s.mux.RemoteAddr() }

// Close ends the session and every call on it.
func (s *Session) Close() error {
	s.mu.Lock()
	s.closing = true
	s.quiet.Stop()
	if s.sweeping {
		s.sweep.Stop()
	}
	// A read that waits while yamux closes spins until it has; thousands of
	// them keep it from ever getting there. (hashicorp/yamux#176)
	for stream := range s.waiting {
		_ = stream.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	err := s.mux.Close()
	s.opening.Wait()
	return err
}

// open returns a stream for a call, one that had calls before if there is one; it
// fails when ctx or the wait ends first. end or keepIdle must be called.
func (s *Session) open(ctx context.Context, wait time.Duration) (*yamux.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if stream := s.reuse(); stream != nil {
		return stream, nil
	}
	stream, err := s.openWithin(ctx, wait)
	if errors.Is(err, yamux.ErrStreamsExhausted) {
		// Two thousand million calls were made: the next dials another.
		_ = s.Close()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		_ = stream.Close()
		return nil, yamux.ErrSessionShutdown
	}
	s.waiting[stream] = struct{}{}
	return stream, nil
}

// openWithin opens a stream. yamux waits, for no ctx, when as many as its backlog
// wait to be accepted: unless there are surely less, the waiting is left to a
// goroutine.
func (s *Session) openWithin(ctx context.Context, wait time.Duration) (*yamux.Stream, error) {
	if s.mux.NumStreams() < backlog/2 {
		return s.mux.OpenStream()
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	type opened struct {
		stream *yamux.Stream
		err    error
	}
	done := make(chan opened)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil, yamux.ErrSessionShutdown
	}
	s.opening.Go(func() {
		stream, err := s.mux.OpenStream()
		select {
		case done <- opened{stream, err}:
		case <-ctx.Done():
			if err == nil {
				_ = stream.Close()
			}
		}
	})
	s.mu.Unlock()
	select {
	case o := <-done:
		return o.stream, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// end closes a stream of open.
func (s *Session) end(stream *yamux.Stream) {
	s.mu.Lock()
	delete(s.waiting, stream)
	s.mu.Unlock()
	_ = stream.Close()
}

// backlog is how many streams of a session may wait to be accepted.
const backlog = 1024

func yamuxConfig(log hclog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.Logger, c.LogOutput = nil, log.Named("yamux").StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Trace})
	c.AcceptBacklog = backlog
	c.EnableKeepAlive = false // Session.keep does that
	c.ConnectionWriteTimeout = 5 * time.Second
	// What is under way of one call at once: 10 MB/s over 100 ms there and back. A
	// stream that nobody reads holds as much.
	c.MaxStreamWindowSize = 1 << 20
	// It would end the session of a far end that is only busy; each call has
	// its own time-out.
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 30 * time.Second
	return c
}

// dialSession connects to addr and says that calls follow.
func dialSession(ctx context.Context, dial DialFunc, addr string, log hclog.Logger) (*Session, error) {
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", addr, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write([]byte{byteRPC}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot greet %s: %w", addr, err), conn.Close())
	}
	s, err := newSession(conn, yamux.Client, log)
	if err == nil {
		s.dialled = true
	}
	return s, err
}

// DialFunc connects to an agent's RPC address.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// DialTCP is the DialFunc of production.
func DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", addr)
}
