package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"atoll/cell/state"
	"atoll/internal/backoff"
)

// revival is between attempts to bring a member back: soon at first, since a
// disk that was full may be freed by what the member's end freed.
var revival = backoff.Policy{Min: 200 * time.Millisecond, Max: 5 * time.Second}

// steady is how long a member runs before its next failure is the first again.
const steady = time.Minute

// Run keeps the server's member going until ctx ends. A member whose disk fails,
// is full or hangs is closed, so that the others elect a leader without it, and
// started again once its disk can be written. One whose data are damaged is
// closed too; when LedElsewhere says that the cell goes on without it, its data
// are set aside, never deleted, and it starts as a new server, with a new id and
// nothing voted or acked. It returns an error for what cannot mend itself:
// damage in the only copy, or data of a newer version.
func (c *Cell) Run(ctx context.Context) error {
	for tries := 0; ctx.Err() == nil; {
		m := c.current()
		if m == nil {
			if err := c.revive(ctx, tries); err != nil {
				return err
			}
			tries++
			continue
		}
		select {
		case <-ctx.Done():
		case fault := <-m.log.faults:
			c.takeDown(ctx, m, fault)
			if time.Since(m.began) > steady {
				tries = 0
			}
		}
	}
	return nil
}

// takeDown closes a member for a reason, and waits until it has let go of its
// files or ctx ends.
func (c *Cell) takeDown(ctx context.Context, m *member, why error) {
	c.log.Error("this server takes no more part in its cell", "error", why)
	c.setDown(why)
	m.cut()
	stopped := make(chan struct{})
	c.own.Go(func() { // a disk that hangs holds it
		defer close(stopped)
		if err := m.stop(); err != nil {
			c.log.Warn("cannot close the log", "error", err)
		}
	})
	// Whoever leads on its behalf ends, also while a hanging disk holds it.
	c.tell(false)
	select {
	case <-ctx.Done():
	case <-stopped:
	}
}

// revive makes one attempt to start a member again. It returns an error when
// none will succeed.
func (c *Cell) revive(ctx context.Context, tries int) error {
	why := c.Down()
	var damage *Damage
	if errors.As(why, &damage) && damage.Offset >= 0 {
		return c.renew(ctx, damage)
	}
	if !revival.Sleep(ctx, tries) {
		return nil
	}
	err := c.roomy()
	if err == nil {
		err = c.start("")
	}
	var newer *state.Newer
	switch {
	case err == nil:
		c.log.Info("this server takes part in its cell again", "after", why)
		return nil
	case errors.As(err, &newer):
		return err
	case errors.As(err, &damage):
		c.log.Error("this server's data are damaged", "error", err)
	case tries%10 == 0:
		c.log.Error("this server cannot take part in its cell yet; trying on", "error", err)
	}
	c.setDown(err)
	return nil
}

// room is what a disk must take before a member is started on it: one that is
// full to the last page would fail at the next entry.
const room = 1 << 20

// roomy checks that the disk can be written.
func (c *Cell) roomy() error {
	name := c.dir.file("probe")
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("cannot write to the disk: %w", err)
	}
	_, err = f.Write(make([]byte, room))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		err = fmt.Errorf("cannot write %d bytes to the disk: %w", room, err)
	}
	return errors.Join(err, os.Remove(name))
}

// settled is how long the member has been out before another's leadership counts
// as one without it: no leader's lease that it helped to is left.
const settled = 4 * electionTimeout

// renew sets damaged data aside once another server leads, and starts as a new
// member.
func (c *Cell) renew(ctx context.Context, damage *Damage) error {
	if c.cfg.Alone || c.cfg.LedElsewhere == nil {
		return fmt.Errorf("cannot go on: %w; no other server has this cell's data", damage)
	}
	c.mu.Lock()
	wait := time.Until(c.since.Add(settled))
	c.mu.Unlock()
	look := backoff.Policy{Min: 200 * time.Millisecond, Max: 2 * time.Second}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	for n := 0; !c.cfg.LedElsewhere(ctx); n++ {
		if n%30 == 10 {
			c.log.Error("this server's data are damaged, and no other server leads the cell: it waits for one; nothing is changed", "error", damage)
		}
		if !look.Sleep(ctx, n) {
			return nil
		}
	}
	aside, err := c.dir.setAside(time.Now())
	if err != nil {
		return err
	}
	if err := c.start(""); err != nil {
		c.setDown(err)
		return nil
	}
	c.log.Warn("the damaged data are set aside; this server is a new member of its cell", "kept in", aside, "id", c.ID())
	if c.cfg.Renewed != nil {
		c.cfg.Renewed(c.ID())
	}
	return nil
}

// catchUp lets readers see a member's state as soon as that is no older than
// what they saw before it, which was of an index.
func (c *Cell) catchUp(m *member, seen uint64) {
	for m.gone.Err() == nil {
		ws := make(state.Watch)
		snap := m.state.Snapshot()
		snap.WatchAny(ws)
		if snap.Index() >= seen {
			c.show(m)
			return
		}
		_ = ws.WatchCtx(m.gone)
	}
}

// show lets readers see a member's state, and wakes those who wait on the one
// before.
func (c *Cell) show(m *member) {
	if c.state.Load() == m.state {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.member != m {
		return
	}
	if old := c.state.Swap(m.state); old != m.state {
		old.Retire()
	}
}
