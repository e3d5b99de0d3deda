package cell

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// streamLayer gives a StreamLayer the types that Raft wants, and closes what it
// accepted: Raft's transport leaves accepted connections to their other end,
// which may be cut off and never close them.
//
// A connection begins with the id of the server that it is for, in front of it
// a byte with the id's length. Raft itself knows an address only: a server that
// lost its data and listens where it did before would answer for the one that it
// was, and vote again, or take entries for safe, in terms in which that one had.
type streamLayer struct {
	StreamLayer
	id  string
	log hclog.Logger
	// raft is nil until Raft runs.
	raft atomic.Pointer[raft.Raft]

	mu     sync.Mutex // guards what follows
	open   map[net.Conn]struct{}
	closed bool
	// ids are those of members, by address; those of earlier ones too, which
	// must still be told that they are members no more.
	ids map[raft.ServerAddress]raft.ServerID
	// ended is signalled when an accepted connection has ended.
	ended chan struct{}
}

// preambleTime bounds how long the other end may take to say whom it wants.
const preambleTime = 5 * time.Second

// idAt returns the id of the member at an address.
func (s *streamLayer) idAt(addr raft.ServerAddress) (raft.ServerID, bool) {
	r := s.raft.Load()
	if r == nil {
		return "", false
	}
	f := r.GetConfiguration()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Error() == nil {
		for _, m := range f.Configuration().Servers {
			s.ids[m.Address] = m.ID
		}
	}
	id, ok := s.ids[addr]
	return id, ok
}

func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, ok := s.idAt(addr)
	if !ok || len(id) > 255 {
		return nil, fmt.Errorf("cannot dial %s: no member of the cell is there", addr)
	}
	conn, err := s.StreamLayer.Dial(string(addr), timeout)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
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
	return &acceptedConn{Conn: conn, layer: s}, nil
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

// acceptedConn reads whom it is for before anything else: the one goroutine that
// serves it does so, and not Accept, which must not wait.
type acceptedConn struct {
	net.Conn
	layer  *streamLayer
	forUs  bool
	failed error
}

func (c *acceptedConn) Read(b []byte) (int, error) {
	if !c.forUs && c.failed == nil {
		c.failed = c.begin()
		c.forUs = c.failed == nil
	}
	if c.failed != nil {
		return 0, c.failed
	}
	return c.Conn.Read(b)
}

func (c *acceptedConn) begin() error {
	_ = c.SetReadDeadline(time.Now().Add(preambleTime))
	var size [1]byte
	if _, err := io.ReadFull(c.Conn, size[:]); err != nil {
		return err
	}
	id := make([]byte, size[0])
	if _, err := io.ReadFull(c.Conn, id); err != nil {
		return err
	}
	if string(id) != c.layer.id {
		c.layer.log.Warn("a raft connection is for another server, which was at this address before", "for", string(id), "ours", c.layer.id, "from", c.RemoteAddr())
		return io.EOF // said already: the transport would log any other
	}
	return c.SetReadDeadline(time.Time{})
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
