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
	// looks is how often the port is looked at, first after lookAgain and then
	// after twice as long each time.
	looks     = 5
	lookAgain = 5 * time.Millisecond
	// standTries is how often a follower looks and stands for one death.
	standTries = 3
)

// watchLeader stands for election when the leader's process is gone, until ctx
// ends.
func (m *member) watchLeader(ctx context.Context) {
	// Raft forgets its leader as soon as another stands: that one may lose, so
	// who led last is remembered here.
	leaders := make(chan raft.Observation, 16)
	observer := raft.NewObserver(leaders, false, func(o *raft.Observation) bool {
		l, ok := o.Data.(raft.LeaderObservation)
		return ok && l.LeaderID != ""
	})
	m.raft.RegisterObserver(observer)
	defer m.raft.DeregisterObserver(observer)
	var last raft.LeaderObservation
	last.LeaderAddr, last.LeaderID = m.raft.LeaderWithID()
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-leaders:
			last = o.Data.(raft.LeaderObservation)
		case <-m.stream.ended:
			for len(leaders) > 0 {
				last = (<-leaders).Data.(raft.LeaderObservation)
			}
			m.succeed(ctx, last)
		}
	}
}

// succeed stands for election in this follower's turn, if the leader refuses
// connections, until somebody leads.
func (m *member) succeed(ctx context.Context, leader raft.LeaderObservation) {
	rank, voters := m.rank(leader.LeaderID)
	if rank < 0 {
		return
	}
	// A process that dies closes what it had open one after another: its port
	// may refuse a little later than its connections end.
	for look := range looks {
		if m.refuses(leader) {
			break
		}
		if look == looks-1 || !sleep(ctx, lookAgain<<look) {
			return
		}
	}
	for turn := range standTries {
		wait := standApart * time.Duration(rank)
		if turn > 0 {
			wait = standApart * time.Duration(voters)
		}
		if !sleep(ctx, wait) || m.raft.State() != raft.Follower {
			return
		}
		if _, id := m.raft.LeaderWithID(); id != "" && id != leader.LeaderID {
			return
		}
		if !m.refuses(leader) {
			return
		}
		m.stand()
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

// rank is this server's place among the voters that a leader leaves behind, −1
// when it is none of them, and how many those are.
func (m *member) rank(leader raft.ServerID) (rank, voters int) {
	f := m.raft.GetConfiguration()
	if leader == "" || leader == m.id || f.Error() != nil {
		return -1, 0
	}
	var others []raft.ServerID
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != leader {
			others = append(others, s.ID)
		}
	}
	slices.Sort(others)
	return slices.Index(others, m.id), len(others)
}

// refuses reports whether nothing listens at the leader's address, whose machine
// is there.
func (m *member) refuses(leader raft.LeaderObservation) bool {
	conn, err := m.stream.Dial(memberAddr(leader.LeaderID, leader.LeaderAddr), refusalTime)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// stand asks this server's own Raft to stand for election.
func (m *member) stand() {
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(m.id), Addr: []byte(m.addr),
	}}
	// Whether it came through shows in who leads next.
	_ = transport{m.net}.TimeoutNow(m.id, m.addr, req, new(raft.TimeoutNowResponse))
}
