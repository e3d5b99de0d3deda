package client

import (
	"context"
	"fmt"
	"time"

	"atoll/internal/boottime"
	"atoll/model"
	"atoll/model/method"
)

// A group may say that its tasks must end when their node is out of touch for a
// while (disconnect.stop_on_client_after), so that the servers know when to
// replace them. The node sees to that by itself, without anybody's help: it counts
// from the last heartbeat that a server took, from before that was sent, on a
// clock that nobody sets and that runs on while the machine sleeps. The contact is
// on disk while such tasks are here: an agent that restarts grants no more time.
// When the contact is not known, or is of before the machine booted, they end at
// once.

// contact is when a server last took a heartbeat.
type contact struct{ boottime.Moment }

// checkContact is how often the time that has passed is looked at: the bound of
// how late tasks are told to end.
const checkContact = time.Second

// stopAfter is after how long out of touch an allocation ends; 0 for never.
func stopAfter(a *model.Allocation) time.Duration {
	if g := a.Job.Group(a.TaskGroup); g != nil && g.Disconnect != nil {
		return g.Disconnect.StopOnClientAfter
	}
	return 0
}

// contacted takes that a server took a heartbeat that was sent a while ago.
func (c *Client) contacted(ago time.Duration) {
	now := contact{boottime.Now().Add(-ago)}
	c.mu.Lock()
	silence, known := now.Since(c.contact.Moment)
	// Whoever was silent for longer than its TTL may have been given up: what it
	// said before then does not count any more.
	missed := c.ttl > 0 && (!known || silence > c.ttl)
	c.contact = now
	c.mu.Unlock()
	if c.hasTimed() {
		c.keepContact()
	}
	if missed {
		c.log.Info("servers take heartbeats again; telling them of all allocations", "silence", silence)
		c.reportAll()
	}
}

// asked says how all allocations are if the servers want to know.
func (c *Client) asked(a *method.NodeHeartbeatResponse) {
	if a.Report {
		c.log.Info("the servers do not know how allocations here are; telling them of all")
		c.reportAll()
	}
}

// keepContact writes the contact down.
func (c *Client) keepContact() {
	c.mu.Lock()
	kept := c.contact
	c.mu.Unlock()
	if err := c.store.putContact(kept); err != nil {
		c.log.Error("cannot keep when a server was last heard: tasks may end early after a restart", "error", err)
	}
}

// live are the runners whose tasks are not all dead.
func (c *Client) live() (out []*allocRunner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.runners {
		select {
		case <-r.ended:
		default:
			out = append(out, r)
		}
	}
	return out
}

// hasTimed reports whether allocations here end when the node is out of touch.
func (c *Client) hasTimed() bool {
	for _, r := range c.live() {
		if stopAfter(r.current()) > 0 {
			return true
		}
	}
	return false
}

// reportAll says again how every allocation is.
func (c *Client) reportAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.runners {
		select {
		case <-r.done:
			c.reports.add(r.report())
		default:
			r.signal()
		}
	}
}

// overdue ends the allocation if it was out of touch for too long.
func (c *Client) overdue(r *allocRunner) {
	limit := stopAfter(r.current())
	if limit <= 0 {
		return
	}
	c.mu.Lock()
	last := c.contact
	c.mu.Unlock()
	silence, known := boottime.Now().Since(last.Moment)
	switch {
	case !known:
		r.killAll(&model.TaskEvent{Type: model.TaskKilling, DisplayMessage: "It is not known when a server was last heard, and the group says stop_on_client_after"})
	case silence >= limit:
		r.killAll(&model.TaskEvent{
			Type: model.TaskKilling, DisplayMessage: fmt.Sprintf("No server was heard for %s: stop_on_client_after is over", limit),
			Details: map[string]string{"stop_on_client_after": limit.String()},
		})
	}
}

// watchContact ends allocations that are out of touch for too long, until ctx
// ends.
func (c *Client) watchContact(ctx context.Context) error {
	tick := time.NewTicker(checkContact)
	defer tick.Stop()
	for {
		for _, r := range c.live() {
			c.overdue(r)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
