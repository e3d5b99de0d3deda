package cell

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// StreamLayer carries Raft's connections: a listener for those that come, Dial
// for those that go.
type StreamLayer interface {
	net.Listener
	Dial(addr string, timeout time.Duration) (net.Conn, error)
}

// streamLayer is one member's part of a StreamLayer, which outlives it: a cell
// may close a member and open another. It closes whatever it opened: Raft's
// transport leaves accepted connections to their other end, which may be cut off
// and never close them.
//
// A connection begins with the id of the member that it is for (a byte of
// length, the id), and another member does not take it. Raft names members by id
// and reaches them by address; a server that comes back without its data comes
// back at its old address, with another id, and must not be taken for the member
// that it was, who has voted and acked.
type streamLayer struct {
	under    StreamLayer
	self     string
	log      hclog.Logger
	accepted chan net.Conn
	done     chan struct{}
	// ended is signalled when an accepted connection has ended.
	ended chan struct{}

	mu     sync.Mutex // guards open and closed
	open   map[net.Conn]struct{}
	closed bool
}

func newStreamLayer(under StreamLayer, self string, log hclog.Logger) *streamLayer {
	return &streamLayer{
		under: under, self: self, log: log, accepted: make(chan net.Conn), done: make(chan struct{}),
		ended: make(chan struct{}, 1), open: make(map[net.Conn]struct{}),
	}
}

// memberAddr is the address under which Dial reaches a member of a given id.
func memberAddr(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + addr
}

func (s *streamLayer) Addr() net.Addr { return s.under.Addr() }

func (s *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	at := strings.LastIndexByte(string(to), '@')
	if at < 0 || at > 255 {
		return nil, fmt.Errorf("cannot dial %q: it names no member", to)
	}
	id, addr := string(to[:at]), string(to[at+1:])
	conn, err := s.under.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	if conn = s.keep(conn); conn == nil {
		return nil, net.ErrClosed
	}
	_ = conn.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := conn.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// offer hands an accepted connection over, which is closed when the layer is.
func (s *streamLayer) offer(conn net.Conn) {
	if conn = s.keep(conn); conn == nil {
		return
	}
	select {
	case s.accepted <- &incoming{Conn: conn, layer: s}:
	case <-s.done:
	}
}

func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// keep notes a connection to close; nil when the layer is closed already.
func (s *streamLayer) keep(conn net.Conn) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil
	}
	s.open[conn] = struct{}{}
	return &keptConn{conn, s}
}

// Close ends Accept and Dial and closes every connection: from then on nothing
// that Raft says reaches anyone.
func (s *streamLayer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for conn := range s.open {
		_ = conn.Close()
		delete(s.open, conn)
	}
	return nil
}

type keptConn struct {
	net.Conn
	layer *streamLayer
}

func (c *keptConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.open, c.Conn)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

// preambleTime bounds how long the other end may take to say whom it wants.
const preambleTime = 5 * time.Second

// incoming is a connection whose first bytes say whom it is for. It is read by
// one goroutine.
type incoming struct {
	net.Conn
	layer *streamLayer
	known bool
}

func (c *incoming) Read(b []byte) (int, error) {
	if !c.known {
		_ = c.SetReadDeadline(time.Now().Add(preambleTime))
		var n [1]byte
		if _, err := io.ReadFull(c.Conn, n[:]); err != nil {
			return 0, err
		}
		id := make([]byte, n[0])
		if _, err := io.ReadFull(c.Conn, id); err != nil {
			return 0, err
		}
		if string(id) != c.layer.self {
			c.layer.log.Warn("a raft connection for another server is refused", "for", string(id), "this is", c.layer.self, "from", c.RemoteAddr())
			return 0, io.EOF // said already: the transport would log any other
		}
		_ = c.SetReadDeadline(time.Time{})
		c.known = true
	}
	return c.Conn.Read(b)
}

func (c *incoming) Close() error {
	select {
	case c.layer.ended <- struct{}{}:
	default:
	}
	return c.Conn.Close()
}

// transport is Raft's, with connections that say which member they are for.
type transport struct{ *raft.NetworkTransport }

func (t transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, memberAddr(id, to))
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

func (t transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, memberAddr(id, to), q, r)
}

func (t transport) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, memberAddr(id, to), q, r)
}

func (t transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, memberAddr(id, to), q, r)
}

func (t transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, memberAddr(id, to), q, r, data)
}

func (t transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, memberAddr(id, to), q, r)
}
