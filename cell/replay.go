package cell

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A server that starts applies its log from the last snapshot on before it takes
// any further part: Raft's main loop waits for the FSM once more than 8,192
// entries are under way (fsmMutateCh's 128 batches of 64), and neither votes nor
// answers meanwhile. So snapshots are taken by what a start would cost, and not
// by the number of entries alone; but for a large state no more often than that
// writing them takes a tenth of the time.
const (
	replayLimit   = 250 * time.Millisecond
	snapshotShare = 10
)

// replay measures what the entries since the last snapshot took to apply, and
// what the snapshot itself took. Nothing of it reaches the state.
type replay struct {
	applying atomic.Int64 // since the last snapshot, in nanoseconds
	writing  atomic.Int64 // the last snapshot
}

// due reports whether a snapshot should be taken, so long after the last one.
func (r *replay) due(limit, since time.Duration) bool {
	return time.Duration(r.applying.Load()) >= limit && since >= snapshotShare*time.Duration(r.writing.Load())
}

// keepReplayShort takes snapshots until the member is gone.
func (c *Cell) keepReplayShort(m *member) {
	limit := replayLimit
	if c.cfg.replay > 0 {
		limit = c.cfg.replay
	}
	tick := time.NewTicker(replayLimit)
	defer tick.Stop()
	last := m.began
	for {
		select {
		case <-m.gone.Done():
			return
		case <-tick.C:
		}
		if !m.replay.due(limit, time.Since(last)) {
			continue
		}
		err := m.promise(m.raft.Snapshot(), nil).wait(m.gone)
		last = time.Now()
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && m.gone.Err() == nil {
			c.log.Warn("cannot take a snapshot; a restart would take longer", "error", err)
		}
	}
}
