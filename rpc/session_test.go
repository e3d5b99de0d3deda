package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// pieces notes what is written at once.
type pieces struct {
	net.Conn
	wrote [][]byte
}

func (p *pieces) Write(b []byte) (int, error) {
	p.wrote = append(p.wrote, slices.Clone(b))
	return len(b), nil
}

// taken is what came since the last time, from a connection that writes later too.
func (p *pieces) taken(from *listening) [][]byte {
	from.mu.Lock()
	defer from.mu.Unlock()
	wrote := p.wrote
	p.wrote = nil
	return wrote
}

func (p *pieces) SetWriteDeadline(time.Time) error { return nil }

// yamuxFrame is the head of a frame.
func yamuxFrame(kind byte, flags uint16, length int) []byte {
	h := make([]byte, yamuxHead)
	h[1] = kind
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint32(h[8:], uint32(length))
	return h
}

func TestFramesAreSentWithTheirHeads(t *testing.T) {
	const data, window, ping, syn, ack, fin, rst = 0, 1, 2, 1, 2, 4, 8
	// A body that looks like a head with a body.
	sly := yamuxFrame(data, 0, 99)
	for name, c := range map[string]struct {
		writes [][]byte
		pieces []int // how many writes are in each
	}{
		"a call":                 {[][]byte{yamuxFrame(window, syn, 0), yamuxFrame(data, 0, 3), []byte("abc"), yamuxFrame(window, fin, 0), yamuxFrame(ping, syn, 1)}, []int{3, 2}},
		"an answer":              {[][]byte{yamuxFrame(window, ack, 0), yamuxFrame(data, 0, 3), []byte("abc"), yamuxFrame(window, fin, 0), yamuxFrame(data, 0, 1), []byte("d")}, []int{3, 3}},
		"two that open at once":  {[][]byte{yamuxFrame(window, syn, 0), yamuxFrame(window, syn, 0), yamuxFrame(data, 0, 1), []byte("a"), yamuxFrame(data, 0, 1), []byte("b")}, []int{4, 2}},
		"a body like a head":     {[][]byte{yamuxFrame(data, 0, yamuxHead), sly, yamuxFrame(ping, syn, 7)}, []int{2, 1}},
		"an empty frame":         {[][]byte{yamuxFrame(data, fin, 0), yamuxFrame(ping, ack, 1)}, []int{1, 1}},
		"one that is broken off": {[][]byte{yamuxFrame(window, syn, 0), yamuxFrame(window, fin|rst, 0)}, []int{2}},
		"room for more":          {[][]byte{yamuxFrame(window, 0, 1000), yamuxFrame(window, 0, 1000)}, []int{1, 1}},
	} {
		// Its clock stands still: nothing is late.
		synctest.Test(t, func(t *testing.T) {
			to := &pieces{}
			l := &listening{Conn: to}
			for _, w := range c.writes {
				if n, err := l.Write(w); n != len(w) || err != nil {
					t.Errorf("%s: %d, %v", name, n, err)
				}
			}
			var want [][]byte
			rest := c.writes
			for _, n := range c.pieces {
				want = append(want, bytes.Join(rest[:n], nil))
				rest = rest[n:]
			}
			if !slices.EqualFunc(to.wrote, want, bytes.Equal) {
				t.Errorf("%s: written as %q, want %q", name, to.wrote, want)
			}
		})
	}
	// However many open at once, they are not held for ever.
	to := &pieces{}
	l := &listening{Conn: to}
	for range 200 {
		_, _ = l.Write(yamuxFrame(window, syn, 0))
	}
	if len(to.wrote) < 2 {
		t.Error("two hundred frames were all held")
	}
	_, _ = l.Write(yamuxFrame(ping, syn, 0))
	if got := bytes.Join(to.wrote, nil); len(got) != 201*yamuxHead {
		t.Errorf("%d bytes were written of %d", len(got), 201*yamuxHead)
	}
}

func TestWhatNobodyWaitsForIsSentALittleLater(t *testing.T) {
	const window, ack, fin = 1, 2, 4
	synctest.Test(t, func(t *testing.T) {
		to := &pieces{}
		l := &listening{Conn: to}
		for range 2 {
			_, _ = l.Write(yamuxFrame(window, ack, 0))
			time.Sleep(patience / 2)
			_, _ = l.Write(yamuxFrame(window, fin, 0))
			synctest.Wait()
			if wrote := to.taken(l); len(wrote) != 0 {
				t.Fatalf("it was written at once: %q", wrote)
			}
			time.Sleep(patience)
			synctest.Wait()
			if wrote := to.taken(l); len(wrote) != 1 || len(wrote[0]) != 2*yamuxHead {
				t.Fatalf("a little later %q was written", wrote)
			}
		}
		end, far := net.Pipe()
		_ = far.Close()
		l = &listening{Conn: end}
		_, _ = l.Write(yamuxFrame(window, fin, 0))
		time.Sleep(2 * patience)
		synctest.Wait()
		if _, err := end.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("nothing can be written, and it reads still: %v", err)
		}
	})
}

// Bodies of every size go over real sessions, among them those that are as long
// as a head.
func TestStreamsOfEverySize(t *testing.T) {
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	session, err := us.Pool().Session(t.Context(), eu.addr)
	if err != nil {
		t.Fatal(err)
	}
	for size := range 3 * yamuxHead {
		stream, err := session.open(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := stream.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		// It is no call, and its end is seen at the other side.
		_ = stream.Close()
		if _, err := io.ReadAll(stream); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		session.end(stream)
	}
	if _, err := Call(t.Context(), us.Server, echo, To{}, &ping{}); err != nil || session.Closed() {
		t.Errorf("%v, the session is closed: %v", err, session.Closed())
	}
}
