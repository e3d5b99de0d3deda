package rpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Listener tells Raft's connections from calls on one port. Serve accepts; Raft
// is the half that a cell listens on.
type Listener struct {
	inner  net.Listener
	limits Limits
	raft   *RaftLayer

	mu    sync.Mutex // guards conns and perIP
	conns map[net.Conn]string
	perIP map[string]int
}

// NewListener wraps a listener; advertise is its address as others see it, and
// dial how Raft connects to others.
func NewListener(inner net.Listener, advertise net.Addr, dial DialFunc, limits Limits) *Listener {
	l := &Listener{inner: inner, limits: limits.withDefaults(), conns: make(map[net.Conn]string), perIP: make(map[string]int)}
	l.raft = &RaftLayer{addr: advertise, dial: dial, accepted: make(chan net.Conn), done: make(chan struct{})}
	return l
}

// Raft is the stream layer for Raft's connections.
func (l *Listener) Raft() *RaftLayer { return l.raft }

// Serve accepts connections until ctx ends, hands Raft's to the Raft layer and
// the others to serve, which returns when the connection is done with. Serve
// returns when all have returned.
func (l *Listener) Serve(ctx context.Context, serve func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.inner.Close() })
	defer stop()
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, most likely: accepted ones will end.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if !l.admit(conn) {
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer l.forget(conn)
			l.sort(ctx, conn, serve)
		})
	}
}

func (l *Listener) sort(ctx context.Context, conn net.Conn, serve func(context.Context, net.Conn)) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	_ = conn.SetReadDeadline(time.Now().Add(l.limits.Handshake))
	var first [1]byte
	_, err := conn.Read(first[:])
	if !stop() || err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	switch first[0] {
	case byteRaft:
		l.raft.deliver(ctx, conn)
	case byteRPC:
		serve(ctx, conn)
	default:
		_ = conn.Close()
	}
}

func (l *Listener) admit(conn net.Conn) bool {
	ip, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		ip = conn.RemoteAddr().String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.limits.MaxConns || l.perIP[ip] >= l.limits.MaxConnsPerIP {
		return false
	}
	l.conns[conn] = ip
	l.perIP[ip]++
	return true
}

func (l *Listener) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ip := l.conns[conn]
	delete(l.conns, conn)
	if l.perIP[ip]--; l.perIP[ip] <= 0 {
		delete(l.perIP, ip)
	}
}

// RaftLayer is the part of the port that Raft uses: a net.Listener for its
// connections and Dial for those it makes.
type RaftLayer struct {
	addr     net.Addr
	dial     DialFunc
	accepted chan net.Conn
	once     sync.Once
	done     chan struct{}
}

// deliver waits for Raft to take the connection, and then until it is closed,
// so that the listener counts it; once ctx has ended nobody counts any more, and
// the connection is Raft's alone.
func (r *RaftLayer) deliver(ctx context.Context, conn net.Conn) {
	c := &countedConn{Conn: conn, closed: make(chan struct{})}
	select {
	case r.accepted <- c:
	case <-r.done:
		_ = conn.Close()
		return
	case <-ctx.Done():
		_ = conn.Close()
		return
	}
	select {
	case <-c.closed:
	case <-r.done:
	case <-ctx.Done():
	}
}

type countedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *countedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Accept returns Raft's next connection.
func (r *RaftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-r.accepted:
		return c, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. It closes no connection and not the port.
func (r *RaftLayer) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

// Addr is the advertised address.
func (r *RaftLayer) Addr() net.Addr { return r.addr }

// Dial connects to another server's Raft.
func (r *RaftLayer) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := r.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{byteRaft}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
