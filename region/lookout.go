package region

import (
	"context"
	"sync/atomic"
	"time"

	"atoll/cell"
	"atoll/federation"
	"atoll/model/method"
)

// lookout knows the region's leader also while this server takes no part in the
// cell: then it asks the other servers. Calls that come to this one still find
// their way by it, and damaged data are given up only when it has seen that the
// cell goes on without them.
type lookout struct {
	self string // our address
	cell *cell.Cell
	// peers are the region's servers that may be of our cell, whose id is
	// cellID, "" while that is not known.
	peers  func() []federation.Peer
	cellID func() string
	ping   func(ctx context.Context, p federation.Peer) (*method.PingResponse, error)
	// seen is the leader's address as last asked, "" when there was none.
	seen atomic.Pointer[string]
}

// lookEvery is between looks while the server is out, pingTime the time of one.
const (
	lookEvery = 500 * time.Millisecond
	pingTime  = time.Second
)

// Leads reports whether this server may answer for the region.
func (l *lookout) Leads() bool { return l.cell.Leads() }

// Leader is the leader's address, "" when none is known.
func (l *lookout) Leader() string {
	if l.cell.Down() == nil {
		return l.cell.Leader()
	}
	if seen := l.seen.Load(); seen != nil {
		return *seen
	}
	return ""
}

// run looks out for the leader while this server is out of the cell.
func (l *lookout) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if l.cell.Down() != nil {
				l.look(ctx)
			}
		}
	}
}

// led reports whether another server says that it leads now.
func (l *lookout) led(ctx context.Context) bool { return l.look(ctx) != "" }

func (l *lookout) look(ctx context.Context) string {
	leader := ""
	for _, p := range l.peers() {
		if p.RPC == l.self || !p.Alive || ctx.Err() != nil {
			continue
		}
		pingCtx, cancel := context.WithTimeout(ctx, pingTime)
		pong, err := l.ping(pingCtx, p)
		cancel()
		if ours := l.cellID(); err == nil && pong.Leader && (ours == "" || pong.CellID == ours) {
			leader = p.RPC
			break
		}
	}
	l.seen.Store(&leader)
	return leader
}
