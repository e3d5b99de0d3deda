// Package relay is a piece of bad network for tests and benchmarks: it carries TCP
// connections and UDP packets to an address, each way with a delay, and loses what
// a test says. It stands in for a WAN where the system's own shaping cannot be had.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Link says what is wrong with the network.
type Link struct {
	// Delay is how long everything takes, each way.
	Delay time.Duration
	// Rate is how many bytes a second a connection carries, each way; what is
	// over that waits. 0 bounds nothing.
	Rate int
	// LoseReply is asked of each piece that comes back over TCP: true breaks the
	// connection off in its stead. Nil loses none.
	LoseReply func() bool
	// LosePacket is asked of each UDP packet, both ways. Nil loses none.
	LosePacket func() bool
}

// Relay listens on one port of TCP and UDP.
type Relay struct {
	link   Link
	target string
	tcp    net.Listener
	udp    net.PacketConn
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	open   map[io.Closer]struct{}
	back   map[string]net.Conn // to the target, by the UDP address that it is for
	closed bool
}

// New listens on an address, and carries what comes there to target.
func New(listen, target string, link Link) (*Relay, error) {
	tcp, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("cannot relay from %s: %w", listen, err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot relay from %s: %w", listen, err), tcp.Close())
	}
	r := &Relay{link: link, target: target, tcp: tcp, udp: udp, open: make(map[io.Closer]struct{}), back: make(map[string]net.Conn)}
	r.wg.Go(r.accept)
	r.wg.Go(r.packets)
	return r, nil
}

// Addr is where the relay listens.
func (r *Relay) Addr() string { return r.tcp.Addr().String() }

// Close breaks off whatever is open, and waits for it to have ended.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	_, _ = r.tcp.Close(), r.udp.Close()
	r.wg.Wait()
}

// hold notes what Close must end; false says that it was called already.
func (r *Relay) hold(c io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return false
	}
	r.open[c] = struct{}{}
	return true
}

func (r *Relay) drop(c io.Closer) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *Relay) accept() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.connect(c) })
	}
}

// connect carries one connection until either end closes it.
func (r *Relay) connect(near net.Conn) {
	if !r.hold(near) {
		return
	}
	defer r.drop(near)
	far, err := net.Dial("tcp", r.target)
	if err != nil || !r.hold(far) {
		return
	}
	defer r.drop(far)
	var ways sync.WaitGroup
	ways.Go(func() { r.carry(far, near, nil) })
	ways.Go(func() { r.carry(near, far, r.link.LoseReply) })
	ways.Wait()
}

// piece is what was read at once, and when it is due; nil bytes are the end.
type piece struct {
	due   time.Time
	bytes []byte
}

// carry copies until one end closes, and then closes the other, each when it is
// due.
func (r *Relay) carry(to, from net.Conn, lose func() bool) {
	defer to.Close()
	if r.link.Delay == 0 && r.link.Rate == 0 && lose == nil {
		_, _ = io.Copy(to, from)
		return
	}
	// What is under way at once is bounded by the pieces here, some megabytes.
	way := make(chan piece, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		failed := false
		for p := range way {
			if failed {
				continue
			}
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				failed = true
				_ = from.Close()
			}
		}
	})
	var free time.Time // when what came before has gone
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if n > 0 && lose != nil && lose() {
			_ = from.Close()
			break
		}
		if n > 0 {
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if r.link.Rate > 0 {
				free = free.Add(time.Duration(n) * time.Second / time.Duration(r.link.Rate))
			}
			way <- piece{free.Add(r.link.Delay), b[:n]}
		}
		if err != nil {
			break
		}
	}
	close(way)
	writing.Wait()
}

// packets carries what comes by UDP; answers go back to whom they are for.
func (r *Relay) packets() {
	b := make([]byte, 64<<10)
	for {
		n, from, err := r.udp.ReadFrom(b)
		if err != nil {
			return
		}
		far := r.backFor(from)
		if far == nil || r.lost() {
			continue
		}
		r.later(b[:n], func(p []byte) { _, _ = far.Write(p) })
	}
}

func (r *Relay) lost() bool { return r.link.LosePacket != nil && r.link.LosePacket() }

// later does something with a copy of a packet once it is due. Whatever is still
// due when the relay is closed finds its way closed.
func (r *Relay) later(b []byte, do func([]byte)) {
	p := append([]byte(nil), b...)
	if r.link.Delay == 0 {
		do(p)
		return
	}
	time.AfterFunc(r.link.Delay, func() { do(p) })
}

// backFor is the socket whose answers are for an address.
func (r *Relay) backFor(from net.Addr) net.Conn {
	r.mu.Lock()
	c := r.back[from.String()]
	r.mu.Unlock()
	if c != nil {
		return c
	}
	c, err := net.Dial("udp", r.target)
	if err != nil || !r.hold(c) {
		return nil
	}
	r.mu.Lock()
	r.back[from.String()] = c
	r.mu.Unlock()
	r.wg.Go(func() {
		defer r.drop(c)
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && !r.lost() {
				r.later(b[:n], func(p []byte) { _, _ = r.udp.WriteTo(p, from) })
			}
		}
	})
	return c
}
