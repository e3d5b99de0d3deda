package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	mux *yamux.Session
	// heard is nil of a session that the far end dialled.
	heard *listening
}

// listening is a connection that knows when it last brought something.
type listening struct {
	net.Conn
	begun time.Time
	last  atomic.Int64 // since begun
}

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.last.Store(int64(time.Since(l.begun)))
	}
	return n, err
}

// giveUp closes a session that was dialled if nothing at all came over it since
// then: it may be a dead connection. One that brought something is a busy
// server's, which a new one would only keep busier.
func (s *Session) giveUp(since time.Time) {
	if time.Duration(s.heard.last.Load()) < since.Sub(s.heard.begun) {
		_ = s.Close()
	}
}

// Closed reports whether the session has ended.
func (s *Session) Closed() bool { return s.mux.IsClosed() }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// RemoteAddr is the far end's address.
func (s *Session) RemoteAddr() net.Addr { return s.mux.RemoteAddr() }

// Close ends the session and every call on it.
func (s *Session) Close() error { return s.mux.Close() }

// open opens a stream, or fails when ctx ends first. yamux blocks when too
// many streams wait to be accepted.
func (s *Session) open(ctx context.Context) (*yamux.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.mux.OpenStream()
}

func yamuxConfig(log hclog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.Logger, c.LogOutput = nil, log.Named("yamux").StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Trace})
	c.AcceptBacklog = 1024
	c.KeepAliveInterval = 15 * time.Second
	c.ConnectionWriteTimeout = 5 * time.Second
	c.StreamOpenTimeout = 5 * time.Second
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
	_ = conn.SetWriteDeadline(time.Time{})
	heard := &listening{Conn: conn, begun: time.Now()}
	mux, err := yamux.Client(heard, yamuxConfig(log))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Session{mux: mux, heard: heard}, nil
}

// DialFunc connects to an agent's RPC address.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// DialTCP is the DialFunc of production.
func DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", addr)
}
