package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Pool keeps a session to each address that was called.
type Pool struct {
	dial DialFunc
	log  hclog.Logger
	// serve takes the streams that the far end opens on a session; nil
	// refuses them.
	serve func(*Session)
	// ctx ends dials when the pool is closed.
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows
	sessions map[string]*pooled
	wg       sync.WaitGroup
}

// pooled is a session, or the dial that will make it: ready is closed when it
// is known which.
type pooled struct {
	ready   chan struct{}
	session *Session
	err     error
}

// dialTime bounds a dial whose caller has longer: it is shared by callers.
const dialTime = 5 * time.Second

// NewPool returns an empty pool.
func NewPool(dial DialFunc, log hclog.Logger) *Pool {
	p := &Pool{dial: dial, log: log, sessions: make(map[string]*pooled)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Session returns a session to addr. Callers that want one at the same time
// share a dial.
func (p *Pool) Session(ctx context.Context, addr string) (*Session, error) {
	for {
		p.mu.Lock()
		if p.ctx.Err() != nil {
			p.mu.Unlock()
			return nil, context.Canceled
		}
		e := p.sessions[addr]
		if e == nil {
			e = &pooled{ready: make(chan struct{})}
			p.sessions[addr] = e
			p.wg.Go(func() { p.connect(addr, e) })
		}
		p.mu.Unlock()
		select {
		case <-e.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err != nil {
			return nil, e.err
		}
		if !e.session.Closed() {
			return e.session, nil
		}
		p.drop(addr, e)
	}
}

func (p *Pool) connect(addr string, e *pooled) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTime)
	defer cancel()
	e.session, e.err = dialSession(ctx, p.dial, addr, p.log)
	if e.err != nil {
		p.drop(addr, e)
		close(e.ready)
		return
	}
	defer p.drop(addr, e)
	if p.serve == nil {
		// Nobody would accept the far end's streams, and what they bring would
		// lie there.
		_ = e.session.mux.GoAway()
	}
	defer context.AfterFunc(p.ctx, func() { _ = e.session.Close() })()
	close(e.ready)
	if p.serve != nil {
		p.serve(e.session)
	}
	<-e.session.Done()
	_ = e.session.Close()
}

func (p *Pool) drop(addr string, e *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[addr] == e {
		delete(p.sessions, addr)
	}
}

// Close ends every dial and session and waits for their goroutines.
func (p *Pool) Close() {
	p.mu.Lock()
	p.cancel()
	p.mu.Unlock()
	p.wg.Wait()
}
