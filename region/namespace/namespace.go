// Package namespace keeps a region's copy of the namespaces the same as all other
// regions'. It is one of the leader's loops: it exchanges rows with each region
// that is known, when something changed here and now and then, and owns a
// goroutine for each of them. It knows when each was last heard: that is how old
// the copy is.
//
// A row goes wherever it is newer (model.Namespace.Compare) and displaces nothing
// that is, so it does not matter who tells whom, in which order, or how often.
// What a majority of regions has to hold before a change is acknowledged is the
// business of whoever takes it (region/namespaces.go).
//
// What is left of a deleted namespace must reach every copy of it before it is
// forgotten, or that copy would come back. A region forgets it once it is over an
// hour old and the region, which held it, has completed an exchange with each of
// the others since: there it displaced a copy, or there was none. A region that
// has none is not told of one that is so old, since it may have forgotten it.
// Should it be given an older copy after that by a third region, then that one
// had not heard of the deletion yet: when it does, it owes all others an exchange
// before it forgets. What is forgotten raises the version that changes
// go on above (state.Txn.ForgetNamespace), so that a namespace of the same name is
// newer than what somebody may still have.
package namespace

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// Config wires the loop.
type Config struct {
	// Region is our own.
	Region string
	// Known are the names of all regions, ours among them.
	Known    func() []string
	Snapshot func() *state.Snapshot
	// Learn commits what was learned.
	Learn func(ctx context.Context, body *cell.NamespaceLearn) error
	// Tell calls the leader of another region, within two seconds.
	Tell  func(ctx context.Context, region string, req *method.NamespaceTellRequest) (*method.NamespaceTellResponse, error)
	Clock clock.Clock
	Log   hclog.Logger
}

// Times of the loop.
const (
	// look is how often it is looked for regions that are new.
	look = time.Second
	// kept is how long at least what is left of a deleted namespace is kept.
	kept = time.Hour
)

// calm is between two exchanges with a region while nothing changes: at most half
// a minute.
var calm = backoff.Policy{Min: 30 * time.Second, Max: 30 * time.Second}

// again is the wait after an exchange that failed. A region that is known not to
// answer costs nothing to try: the call fails here.
var again = backoff.Policy{Min: 500 * time.Millisecond, Max: 4 * time.Second}

// batch is how many rows go in one call: a large one takes half a megabyte.
const batch = 16

// Copies is the loop of one term.
type Copies struct {
	Config
	wg sync.WaitGroup

	mu    sync.Mutex // guards what follows, and the peers' fields
	peers map[string]*peer
}

// peer is another region.
type peer struct {
	region string
	kick   chan struct{}
	stop   context.CancelFunc

	// heard is when the last exchange that succeeded began, zero before one has,
	// and index that of the region's newest change then.
	heard time.Time
	index uint64
	// silent says that the last exchange failed.
	silent bool
	// through is the index of our newest change that it has heard of, in the state
	// after the restore of that index.
	through, restored uint64
}

// New returns a loop that does nothing before Run.
func New(cfg Config) *Copies { return &Copies{Config: cfg, peers: make(map[string]*peer)} }

// Run exchanges until ctx ends.
func (c *Copies) Run(ctx context.Context) error {
	defer c.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := c.Snapshot().NamespacesIndex()
	for ctx.Err() == nil {
		ws := make(state.Watch)
		snap := c.Snapshot()
		snap.WatchStore(ws)
		snap.NamespaceRows(ws)
		c.hire(ctx)
		if index := snap.NamespacesIndex(); index != told {
			told = index
			c.kick()
		}
		c.forget(ctx, snap)
		wait, stop := context.WithTimeout(ctx, look)
		_ = ws.WatchCtx(wait)
		stop()
	}
	return nil
}

// hire sees that somebody talks to each region that is known, and to no other.
func (c *Copies) hire(ctx context.Context) {
	known := c.Known()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, p := range c.peers {
		if !slices.Contains(known, name) {
			p.stop()
			delete(c.peers, name)
		}
	}
	for _, name := range known {
		if name == c.Region || c.peers[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		p := &peer{region: name, kick: make(chan struct{}, 1), stop: stop}
		c.peers[name] = p
		c.wg.Go(func() {
			defer stop()
			c.talk(ctx, p)
		})
	}
}

// kick has everybody talk at once.
func (c *Copies) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}

// Heard says of each other region when it was last heard. One that was not asked
// yet in this term is stale, of an age that is not known.
func (c *Copies) Heard() (out []model.RegionAnswer) {
	now := c.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		a := model.RegionAnswer{Region: p.region, Freshness: model.Stale, Age: -1, Index: p.index}
		if p.silent {
			a.Freshness, a.Index = model.Unreachable, 0
		}
		if !p.heard.IsZero() {
			a.Age = now.Sub(p.heard)
		}
		out = append(out, a)
	}
	return out
}

// talk exchanges with one region until ctx ends.
func (c *Copies) talk(ctx context.Context, p *peer) {
	for failed := 0; ctx.Err() == nil; {
		err := c.meet(ctx, p)
		wait := calm.Wait(0)
		if err == nil {
			failed = 0
		} else {
			if failed == 0 && ctx.Err() == nil {
				c.Log.Warn("cannot exchange namespaces with a region; trying again until it answers", "region", p.region, "error", err)
			}
			wait = again.Wait(failed)
			failed++
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// meet exchanges with a region once, and notes what came of it.
func (c *Copies) meet(ctx context.Context, p *peer) error {
	asked, snap := c.Clock.Now(), c.Snapshot()
	index, err := c.exchange(ctx, p.region, snap)
	c.mu.Lock()
	defer c.mu.Unlock()
	p.silent = err != nil
	if err == nil {
		p.heard, p.index = asked, index
		p.through, p.restored = snap.NamespacesIndex(), snap.Restored()
	}
	return err
}

// exchange brings a region what it lacks of a state of ours, and us what we lack.
// It returns the index of the region's newest change.
func (c *Copies) exchange(ctx context.Context, region string, snap *state.Snapshot) (uint64, error) {
	out, err := c.Tell(ctx, region, &method.NamespaceTellRequest{Sum: Sum(snap)})
	if err != nil {
		return 0, err
	}
	index := out.Index
	if !out.Differ {
		return index, nil
	}
	lacks, want := c.differ(snap, out.All)
	var rest []*method.NamespaceTellRequest
	for names := range slices.Chunk(want, batch) {
		rest = append(rest, &method.NamespaceTellRequest{Want: names})
	}
	for rows := range slices.Chunk(lacks, batch) {
		rest = append(rest, &method.NamespaceTellRequest{Rows: rows})
	}
	for _, req := range rest {
		if out, err = c.Tell(ctx, region, req); err != nil {
			return 0, err
		}
		if err := c.learn(ctx, out.Rows); err != nil {
			return 0, err
		}
		index = out.Index
	}
	return index, nil
}

// differ compares all of our rows with all of another region's.
func (c *Copies) differ(snap *state.Snapshot, all []*model.Namespace) (lacks []*model.Namespace, want []string) {
	theirs := make(map[string]*model.Namespace, len(all))
	for _, row := range all {
		theirs[row.Name] = row
	}
	for ours := range snap.NamespaceRows(nil) {
		row := theirs[ours.Name]
		delete(theirs, ours.Name)
		switch {
		case row == nil && c.old(ours):
		case row == nil || ours.Compare(row) > 0:
			lacks = append(lacks, ours)
		case ours.Compare(row) < 0:
			want = append(want, ours.Name)
		}
	}
	for _, row := range all {
		if theirs[row.Name] != nil && !c.old(row) {
			want = append(want, row.Name)
		}
	}
	return lacks, want
}

// old reports whether a row is what is left of a namespace that was deleted long
// ago.
func (c *Copies) old(row *model.Namespace) bool {
	return row.Deleted && row.Name != model.AllNamespaces && c.Clock.Now().Sub(time.Unix(0, row.Write.Time)) > kept
}

func (c *Copies) learn(ctx context.Context, rows []*model.Namespace) error {
	body := Learn(c.Snapshot(), c.Region, rows, c.Clock.Now(), c.Log)
	if body == nil {
		return nil
	}
	return c.Learn(ctx, body)
}

// forget drops what is left of deleted namespaces that nobody needs.
func (c *Copies) forget(ctx context.Context, snap *state.Snapshot) {
	through := c.through(snap.Restored())
	body := &cell.NamespaceLearn{Own: c.Region, Time: c.Clock.Now().UnixNano()}
	for row := range snap.NamespaceRows(nil) {
		if c.old(row) && row.ModifyIndex <= through {
			body.Forget = append(body.Forget, row.Bare())
		}
	}
	if len(body.Forget) == 0 {
		return
	}
	if err := c.Learn(ctx, body); err != nil && ctx.Err() == nil {
		c.Log.Warn("cannot forget deleted namespaces; trying again", "error", err)
	}
}

// through is the index of the newest change here that all regions have heard of.
func (c *Copies) through(restored uint64) uint64 {
	known := c.Known()
	c.mu.Lock()
	defer c.mu.Unlock()
	least := ^uint64(0)
	for _, name := range known {
		if name == c.Region {
			continue
		}
		p := c.peers[name]
		if p == nil || p.heard.IsZero() || p.restored != restored {
			return 0
		}
		least = min(least, p.through)
	}
	return least
}

// Sum is the same for two regions that have the same rows.
func Sum(snap *state.Snapshot) []byte {
	h := sha256.New()
	for row := range snap.NamespaceRows(nil) {
		// Encoding a struct of plain values does not fail, and a hash takes all.
		_ = wire.EncodeTo(h, row.Bare())
	}
	return h.Sum(nil)
}

// Learn is the command that takes up another region's rows, nil when nothing of
// them is new. It says so where two regions have changed a namespace without
// knowing of each other's change: of these, one stands.
func Learn(snap *state.Snapshot, own string, rows []*model.Namespace, now time.Time, log hclog.Logger) *cell.NamespaceLearn {
	body := &cell.NamespaceLearn{Own: own, Time: now.UnixNano()}
	for _, row := range rows {
		if row == nil || row.Deleted && row.Name == model.DefaultNamespace || !cell.NewsOfNamespace(snap, row) {
			continue
		}
		body.Rows = append(body.Rows, row)
		if have := snap.NamespaceRow(nil, row.Name); have != nil && row.Clashes(have) {
			stands, lost := row, have
			if row.Compare(have) < 0 {
				stands, lost = have, row
			}
			log.Warn("two regions have changed a namespace without knowing of each other; one of the changes stands in all regions",
				"namespace", row.Name, "version", row.Version, "stands", stands.Writer, "lost", lost.Writer)
		}
	}
	if len(body.Rows) == 0 {
		return nil
	}
	return body
}

// Tell answers a region that tells us its rows, once they were taken up.
func Tell(snap *state.Snapshot, req *method.NamespaceTellRequest) *method.NamespaceTellResponse {
	out := &method.NamespaceTellResponse{Index: snap.NamespacesIndex()}
	for _, row := range req.Rows {
		if row == nil {
			continue
		}
		if have := snap.NamespaceRow(nil, row.Name); have != nil && have.Compare(row) > 0 {
			out.Rows = append(out.Rows, have)
		}
	}
	for _, name := range req.Want {
		if have := snap.NamespaceRow(nil, name); have != nil {
			out.Rows = append(out.Rows, have)
		}
	}
	if len(req.Sum) > 0 && string(req.Sum) != string(Sum(snap)) {
		out.Differ = true
		for row := range snap.NamespaceRows(nil) {
			out.All = append(out.All, row.Bare())
		}
	}
	return out
}
