package cell

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streamLayer gives a StreamLayer the types that Raft wants, and closes what it
// accepted: Raft's transport leaves accepted connections to their other end,
// which may be cut off and never close them.
type streamLayer struct {
	StreamLayer
	mu     sync.Mutex // guards open and closed
	open   map[net.Conn]struct{}
	closed bool
	// ended is signalled when an accepted connection has ended.
	ended chan struct{}
}

func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.StreamLayer.Dial(string(addr), timeout)
}

func (s *streamLayer) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	s.open[conn] = struct{}{}
	return &acceptedConn{conn, s}, nil
}

func (s *streamLayer) Close() error {
	err := s.StreamLayer.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.open {
		_ = conn.Close()
	}
	return err
}

type acceptedConn struct {
	net.Conn
	layer *streamLayer
}

func (c *acceptedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.open, c.Conn)
	c.layer.mu.Unlock()
	select {
	case c.layer.ended <- struct{}{}:
	default:
	}
	return c.Conn.Close()
}
