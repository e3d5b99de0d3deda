package heartbeat

import (
	"context"
	"sync"
	"time"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
)

// Contacts is what one server knows of when the nodes of its region were last
// heard. It lives as long as the server does, whoever leads. Its methods may be
// called by any number of goroutines.
type Contacts struct {
	clock clock.Clock

	mu    sync.Mutex // guards what follows
	nodes map[string]contact
	// complete is the moment up to which no heartbeat is missing here; zero
	// when that was never known.
	complete time.Time
	// swept is the index of the nodes that sweep last looked at.
	swept uint64
}

// contact is when a node was last heard, and the TTL that it was told then.
type contact struct {
	at  time.Time
	ttl time.Duration
}

// NewContacts returns the contacts of a server that has heard nobody.
func NewContacts(c clock.Clock) *Contacts {
	return &Contacts{clock: c, nodes: make(map[string]contact)}
}

// record notes that a node is heard now.
func (c *Contacts) record(nodeID string, ttl time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[nodeID] = contact{c.clock.Now(), ttl}
}

// get returns when a node was heard; one of which nothing is known counts as
// heard now, since it has to be judged from some moment on.
func (c *Contacts) get(nodeID string, ttl time.Duration) contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, known := c.nodes[nodeID]
	if !known {
		k = contact{c.clock.Now(), ttl}
		c.nodes[nodeID] = k
	}
	return k
}

// sweep forgets the nodes that are gone or down: one that comes back is judged
// from then on.
func (c *Contacts) sweep(snap *state.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.swept == snap.NodesIndex() {
		return
	}
	c.swept = snap.NodesIndex()
	for id := range c.nodes {
		if n := snap.Node(nil, id); n == nil || n.Status == model.NodeStatusDown {
			delete(c.nodes, id)
		}
	}
}

// heardAfter reports whether a node was heard after a moment.
func (c *Contacts) heardAfter(nodeID string, moment time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[nodeID].at.After(moment)
}

func (c *Contacts) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes)
}

// completeTo says that no heartbeat before a moment is missing.
func (c *Contacts) completeTo(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.complete) {
		c.complete = at
	}
}

func (c *Contacts) completedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.complete
}

// Tell answers another server with the contacts of the last Within, or all of
// them when that is 0. Times leave the server as ages alone: clocks differ.
func (c *Contacts) Tell(req *method.NodeContactsRequest) *method.NodeContactsResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	out := &method.NodeContactsResponse{Known: !c.complete.IsZero(), Contacts: make(map[string]method.NodeContact)}
	if !out.Known {
		return out
	}
	out.Behind = now.Sub(c.complete)
	for id, k := range c.nodes {
		if age := now.Sub(k.at); req.Within == 0 || age <= req.Within {
			out.Contacts[id] = method.NodeContact{Age: age, TTL: k.ttl}
		}
	}
	return out
}

// Ask asks the server at an address what it knows.
type Ask func(ctx context.Context, addr string, req *method.NodeContactsRequest) (*method.NodeContactsResponse, error)

// overlap is by how much more than what is missing here is asked for.
const overlap = time.Second

// learn takes up what the server at addr knows and this one does not.
func (c *Contacts) learn(ctx context.Context, ask Ask, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	asked := c.clock.Now()
	req := &method.NodeContactsRequest{}
	if last := c.completedAt(); !last.IsZero() {
		req.Within = asked.Sub(last) + overlap
	}
	told, err := ask(ctx, addr, req)
	if err != nil || !told.Known {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// An age grows on its way here. Leaving that out makes a node be heard
	// later than it was, by no more than the call took, and never earlier.
	now := c.clock.Now()
	for id, k := range told.Contacts {
		if at := now.Add(-k.Age); at.After(c.nodes[id].at) {
			c.nodes[id] = contact{at, k.TTL}
		}
	}
	// Here it is the other way round: what was complete when we asked.
	if at := asked.Add(-told.Behind); at.After(c.complete) {
		c.complete = at
	}
	return nil
}

// askTime bounds a question to another server: a new leader waits for the
// answers before it judges.
const askTime = time.Second

// followEvery is how often a server asks its leader for what is new: what the
// leader knew when it died is lost for so long at the most.
const followEvery = time.Second

// Follow keeps the contacts in step with those of the leader, whose address
// leader returns: "" when there is none, or when it is this server. It ends with
// ctx.
func (c *Contacts) Follow(ctx context.Context, cfg Config, leader func() string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if addr := leader(); addr != "" {
			if err := c.learn(ctx, cfg.Ask, addr); err != nil && ctx.Err() == nil {
				cfg.Log.Debug("cannot learn from the leader when nodes were heard", "leader", addr, "error", err)
			}
			c.sweep(cfg.Snapshot())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
