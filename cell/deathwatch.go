package cell

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose process has ended is known to be gone long before its
// heartbeats are missed: its connections end, and its port refuses. A follower
// that sees both stands for election at once, with Raft's own message for that
// (TimeoutNow, section 3.10 of the thesis, which leadership transfer uses). It is
// a hint about when to stand, and no more: terms, votes and logs decide as ever.
// A leader that is cut off or frozen refuses nothing, and is waited for until
// its heartbeats are overdue.

const (
	// refusalTime bounds the look at the leader's port.
	refusalTime = 200 * time.Millisecond
	// standApart is between the followers, in the order of their ids, so that
	// they do not split the vote.
	standApart = 100 * time.Millisecond
	// standTries is how often a follower looks and stands for one death.
	standTries = 3
)

// watchLeader stands for election when the leader's process is gone, until ctx
// ends.
func (c *Cell) watchLeader(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.stream.ended:
		}
		for range standTries {
			wait, gone := c.leaderGone(ctx)
			if !gone || !sleep(ctx, wait) {
				break
			}
			// Another may have been elected meanwhile.
			if _, gone = c.leaderGone(ctx); !gone {
				break
			}
			c.stand()
			if !sleep(ctx, standApart) {
				break
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// leaderGone reports whether the leader that this follower knows refuses
// connections, and after which wait the follower may stand.
func (c *Cell) leaderGone(ctx context.Context) (wait time.Duration, gone bool) {
	addr, id := c.raft.LeaderWithID()
	if addr == "" || id == c.id || c.raft.State() != raft.Follower {
		return 0, false
	}
	f := c.raft.GetConfiguration()
	if f.Error() != nil {
		return 0, false
	}
	var others []raft.ServerID
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != id {
			others = append(others, s.ID)
		}
	}
	slices.Sort(others)
	rank := slices.Index(others, c.id)
	if rank < 0 || ctx.Err() != nil {
		return 0, false
	}
	conn, err := c.stream.Dial(addr, refusalTime)
	if err == nil {
		_ = conn.Close()
		return 0, false
	}
	return time.Duration(rank) * standApart, errors.Is(err, syscall.ECONNREFUSED)
}

// stand asks this server's own Raft to stand for election.
func (c *Cell) stand() {
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.id), Addr: []byte(c.advertise),
	}}
	// Whether it came through shows in who leads next.
	_ = c.transport.TimeoutNow(c.id, c.advertise, req, new(raft.TimeoutNowResponse))
}
