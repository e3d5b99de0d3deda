package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers on TCP and UDP with what it was sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
		done <- struct{}{}
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				break
			}
			_, _ = p.WriteTo(b[:n], from)
		}
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		_, _ = l.Close(), p.Close()
		<-done
		<-done
	})
	return l.Addr().String()
}

func relayed(t *testing.T, link Link) *Relay {
	t.Helper()
	r, err := New("127.0.0.1:0", echo(t), link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestWhatIsCarriedIsDelayedEachWay(t *testing.T) {
	const delay = 40 * time.Millisecond
	for _, link := range []Link{{}, {Delay: delay}} {
		r := relayed(t, link)
		for _, network := range []string{"tcp", "udp"} {
			c, err := net.Dial(network, r.Addr())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			for range 3 {
				begun := time.Now()
				if _, err := c.Write([]byte("ping")); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
					t.Fatalf("%s: %q, %v", network, b, err)
				}
				if took := time.Since(begun); took < 2*link.Delay {
					t.Errorf("%s with a delay of %s: there and back in %s", network, link.Delay, took)
				}
			}
			_ = c.Close()
		}
	}
}

func TestADelayDoesNotBoundWhatIsUnderWay(t *testing.T) {
	r := relayed(t, Link{Delay: 50 * time.Millisecond})
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	begun := time.Now()
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("a megabyte came back changed, or not: %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("a megabyte took %s", took)
	}
}

func TestARateBoundsWhatAConnectionCarries(t *testing.T) {
	r := relayed(t, Link{Rate: 1 << 20})
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	go func() { _, _ = c.Write(make([]byte, 512<<10)) }()
	if _, err := io.ReadFull(c, make([]byte, 512<<10)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 450*time.Millisecond || took > 5*time.Second {
		t.Errorf("half a megabyte at one a second took %s", took)
	}
}

func TestALostReplyBreaksTheConnectionOff(t *testing.T) {
	var n atomic.Int64
	r := relayed(t, Link{LoseReply: func() bool { return n.Add(1) == 2 }, LosePacket: func() bool { return n.Add(1)%2 == 0 }})
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 1)
	for i, lost := range []bool{false, true} {
		_, _ = c.Write([]byte{'x'})
		if _, err := io.ReadFull(c, b); (err != nil) != lost {
			t.Errorf("reply %d: %v", i, err)
		}
	}
}

func TestTheEndOfOneSideEndsTheOther(t *testing.T) {
	r, err := New("127.0.0.1:0", "127.0.0.1:1", Link{Delay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var late net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
		t.Errorf("with nobody behind it: %v", err)
	}
}
