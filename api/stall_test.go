package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections within the process, which work in a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// stalls serves answers of many pieces to a client that a test is, in a bubble, and
// gives the end of each request.
func stalls(t *testing.T, size int, f func(t *testing.T, client net.Conn, ended <-chan error)) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 10)
		a := New(Config{Region: "us"})
		a.routes = append(a.routes,
			exact("GET", "/list", func(r *request) (any, error) {
				to := r.response.begin("text/plain", false)
				_, err := io.WriteString(to, strings.Repeat("x", size))
				ended <- err
				return nil, nil
			}),
			exact("GET", "/tail", func(r *request) (any, error) {
				to := r.response.begin("text/plain", false)
				for {
					if _, err := io.WriteString(to, "line\n"); err != nil {
						ended <- err
						return nil, err
					}
					r.response.flush()
				}
			}),
			exact("PUT", "/put", func(r *request) (any, error) {
				_, err := io.ReadAll(r.Body)
				ended <- err
				return "done", nil
			}),
		)
		l := &pipes{make(chan net.Conn), make(chan struct{})}
		s := &http.Server{Handler: a}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		client, server := net.Pipe()
		l.conns <- server
		f(t, client, ended)
		client.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

func TestAClientThatReadsNothingIsBrokenOff(t *testing.T) {
	for _, path := range []string{"/list", "/tail"} {
		stalls(t, 30<<20, func(t *testing.T, client net.Conn, ended <-chan error) {
			fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			begun := time.Now()
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s ended with %v", path, err)
			}
			if took := time.Since(begun); took != stallTime {
				t.Errorf("%s ended after %s", path, took)
			}
		})
	}
}

func TestAClientThatIsSlowHasItsWholeAnswer(t *testing.T) {
	const size = 1 << 20
	stalls(t, size, func(t *testing.T, client net.Conn, ended <-chan error) {
		fmt.Fprint(client, "GET /list HTTP/1.1\r\nHost: x\r\n\r\n")
		in := bufio.NewReaderSize(client, 16)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for piece := make([]byte, 16<<10); ; time.Sleep(2 * time.Second) {
			got, err := io.ReadFull(resp.Body, piece)
			if n += got; err != nil {
				break
			}
		}
		if err := <-ended; err != nil || n != size {
			t.Errorf("%d bytes of %d, %v", n, size, err)
		}
		// The connection serves the next request, however much later.
		time.Sleep(10 * stallTime)
		go fmt.Fprint(client, "PUT /put HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
		if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusContinue {
			t.Fatal(resp, err)
		}
		time.Sleep(10 * stallTime)
		go fmt.Fprint(client, "{}")
		if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != `"done"` {
			t.Errorf("%q, %v", b, err)
		}
	})
}
