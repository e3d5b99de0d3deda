package federation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/internal/wholefile"
	"atoll/model"
)

// Directory is what this server knows of the regions: their servers, from
// gossip, and their health, from calls of its own. Regions that are lost stay
// in it.
type Directory struct {
	cfg DirectoryConfig

	mu      sync.Mutex // guards what follows
	regions map[string]*region
	// wake tells Run that a probe may be due.
	wake chan struct{}
}

// DirectoryConfig wires a directory.
type DirectoryConfig struct {
	// Region is our own.
	Region string
	// Self is our own RPC address, never a candidate for a forward.
	Self string
	// Cell is the id of our own cell, "" while it is not known.
	Cell func() string
	// Probe asks a server for a sign of life, within ctx.
	Probe func(ctx context.Context, p Peer) error
	// DataDir keeps the names, servers and cells of regions over restarts;
	// "" keeps nothing.
	DataDir string
	Clock   clock.Clock
	Log     hclog.Logger
}

// region is one region's entry.
type region struct {
	name string
	// gossip is what gossip said last. Of these, peers are those of the
	// region's cell, or that may be of it, and claims those of other cells.
	gossip []Peer
	peers  []Peer
	claims map[string][]Peer
	// cell is the one that the region is known as, "" until one is pinned.
	cell string
	// contact is when a call of ours last succeeded; zero when none did.
	contact time.Time
	// down says that calls fail at once: since when, after which cause.
	down  bool
	since time.Time
	cause error
	// probes counts probes since it went down; next is when one is due.
	probes int
	next   time.Time
	// failing are addresses whose last call failed: they are tried last.
	failing map[string]bool
}

// probing is how often a lost region is asked: soon at first, so that it is
// back at once, and at least every two seconds.
var probing = backoff.Policy{Min: 200 * time.Millisecond, Max: 2 * time.Second}

// NewDirectory returns a directory of our own region and those remembered. It
// fails when it cannot read which cells it knew the regions as.
func NewDirectory(cfg DirectoryConfig) (*Directory, error) {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Cell == nil {
		cfg.Cell = func() string { return "" }
	}
	d := &Directory{cfg: cfg, regions: make(map[string]*region), wake: make(chan struct{}, 1)}
	d.region(cfg.Region)
	cells, err := d.loadCells()
	if err != nil {
		return nil, err
	}
	for name, cell := range cells {
		d.region(name).cell = cell
	}
	for name, addrs := range d.load() {
		r := d.region(name)
		for _, a := range addrs {
			r.peers = append(r.peers, Peer{Name: a, Region: name, RPC: a, Cell: r.cell})
		}
	}
	return d, nil
}

func (d *Directory) region(name string) *region {
	r := d.regions[name]
	if r == nil {
		r = &region{name: name, failing: make(map[string]bool)}
		d.regions[name] = r
	}
	return r
}

// Update takes up what gossip says. A region of which gossip says a server is
// alive is probed at once if it was down.
func (d *Directory) Update(peers []Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	byRegion := make(map[string][]Peer)
	for _, p := range peers {
		byRegion[p.Region] = append(byRegion[p.Region], p)
	}
	changed := false
	for name, list := range byRegion {
		r := d.region(name)
		was, had := r.alive(), addrs(r.peers)
		r.gossip = list
		d.identify(r)
		changed = changed || !slices.Equal(had, addrs(r.peers))
		if r.down && r.alive() > was {
			r.next = d.cfg.Clock.Now()
			d.signal()
		}
	}
	if changed {
		d.save()
	}
}

func (r *region) alive() (n int) {
	for _, p := range r.peers {
		if p.Alive {
			n++
		}
	}
	return n
}

func addrs(peers []Peer) []string {
	var out []string
	for _, p := range peers {
		out = append(out, p.RPC)
	}
	slices.Sort(out)
	return out
}

func (d *Directory) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Servers returns a region's servers in the order in which to try them: those
// that answer us before those that do not, those alive by gossip before those
// that are not, near before far. known is false for a region never seen.
func (d *Directory) Servers(name string) (servers []Peer, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil {
		return nil, false
	}
	for _, p := range r.peers {
		if p.RPC != d.cfg.Self && !p.Left {
			servers = append(servers, p)
		}
	}
	rank := func(p Peer) (n int) {
		if r.failing[p.RPC] {
			n += 2
		}
		if !p.Alive {
			n++
		}
		return n
	}
	slices.SortStableFunc(servers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.RTT, b.RTT), cmp.Compare(a.RPC, b.RPC))
	})
	return servers, true
}

// Members returns a region's servers, ourselves too, by name. Those of which only
// the address is remembered have that for a name.
func (d *Directory) Members(name string) []Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(r.peers), func(p Peer) bool { return p.Left })
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Report takes up how a call of ours to a server went.
func (d *Directory) Report(name, addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil {
		return
	}
	if err == nil {
		d.answered(r, addr)
		return
	}
	r.failing[addr] = true
	if name == d.cfg.Region || r.down {
		// Our own region is never given up: its leader is waited for.
		return
	}
	for _, p := range r.peers {
		if !r.failing[p.RPC] && !p.Left {
			return
		}
	}
	now := d.cfg.Clock.Now()
	r.down, r.since, r.cause, r.probes = true, now, err, 0
	r.next = now.Add(probing.Wait(0))
	d.cfg.Log.Warn("region does not answer; calls to it fail at once until it does", "region", name, "cause", r.cause)
	d.signal()
}

func (d *Directory) answered(r *region, addr string) {
	delete(r.failing, addr)
	r.contact = d.cfg.Clock.Now()
	if r.down {
		r.down = false
		d.cfg.Log.Info("region answers again", "region", r.name, "after", r.contact.Sub(r.since).Round(time.Millisecond))
	}
}

// Down returns the error with which calls for a region fail at once, nil when
// it should be called.
func (d *Directory) Down(name string) *model.Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	switch {
	case r == nil:
	case r.shut():
		return d.quarantined(r)
	case r.down:
		return d.unreachable(r, r.cause)
	}
	return nil
}

// Unreachable words what it means that a region did not answer.
func (d *Directory) Unreachable(name string, cause error) *model.Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unreachable(d.region(name), cause)
}

func (d *Directory) unreachable(r *region, cause error) *model.Error {
	e := model.NoAnswer(r.name, cause, r.contact, d.cfg.Clock.Now())
	if len(r.claims) > 0 {
		e.Message += "; another cell claims its name, see atoll region list"
	}
	return e
}

// Regions returns all regions ever seen, by name.
func (d *Directory) Regions() []model.RegionStatus {
	var out []model.RegionStatus
	d.mu.Lock()
	names := slices.Sorted(maps.Keys(d.regions))
	d.mu.Unlock()
	for _, name := range names {
		servers, _ := d.Servers(name)
		d.mu.Lock()
		r := d.regions[name]
		st := model.RegionStatus{Name: name, Healthy: !r.down && !r.shut(), LastContact: -1, CellID: r.cell, Quarantined: r.quarantine()}
		if !r.contact.IsZero() {
			st.LastContact = d.cfg.Clock.Now().Sub(r.contact)
		}
		d.mu.Unlock()
		if name == d.cfg.Region {
			st.Healthy, st.LastContact, st.CellID = true, 0, d.cfg.Cell()
			if d.cfg.Self != "" {
				st.Servers = append(st.Servers, d.cfg.Self)
			}
		}
		for _, p := range servers {
			st.Servers = append(st.Servers, p.RPC)
		}
		out = append(out, st)
	}
	return out
}

// Forget drops a region that has no server alive. It reports whether it did.
func (d *Directory) Forget(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil || name == d.cfg.Region || r.alive() > 0 || len(r.claims) > 0 {
		return false
	}
	delete(d.regions, name)
	d.save()
	d.saveCells()
	return true
}

// Run probes regions that are down until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	busy := make(map[string]bool)
	finished := make(chan string, 1)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := d.due(busy)
		for _, p := range due {
			busy[p.Region] = true
			wg.Go(func() {
				d.probe(ctx, p)
				select {
				case finished <- p.Region:
				case <-ctx.Done():
				}
			})
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case name := <-finished:
			delete(busy, name)
		case <-timer.C:
		}
	}
}

// due returns one server of each region whose probe is due, another at each
// probe, and how long until the next is.
func (d *Directory) due(busy map[string]bool) (due []Peer, next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next = time.Hour
	now := d.cfg.Clock.Now()
	for _, r := range d.regions {
		if !r.down || busy[r.name] || len(r.peers) == 0 {
			continue
		}
		if wait := r.next.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		due = append(due, r.peers[r.probes%len(r.peers)])
		r.probes++
		r.next = now.Add(probing.Wait(r.probes))
		next = min(next, r.next.Sub(now))
	}
	return due, next
}

func (d *Directory) probe(ctx context.Context, p Peer) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := d.cfg.Probe(ctx, p)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.regions[p.Region]; r != nil {
		d.answered(r, p.RPC)
	}
}

func (d *Directory) file() string { return filepath.Join(d.cfg.DataDir, "regions.json") }

// load reads the remembered regions; what cannot be read is forgotten, since
// gossip tells it again.
func (d *Directory) load() map[string][]string {
	if d.cfg.DataDir == "" {
		return nil
	}
	var out map[string][]string
	b, err := os.ReadFile(d.file())
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.cfg.Log.Warn("cannot read the remembered regions", "error", err)
		return nil
	}
	return out
}

// save is called with the lock held; the file is small and rarely written.
func (d *Directory) save() {
	if d.cfg.DataDir == "" {
		return
	}
	out := make(map[string][]string, len(d.regions))
	for name, r := range d.regions {
		out[name] = addrs(r.peers)
	}
	if err := writeJSON(d.file(), out); err != nil {
		d.cfg.Log.Warn("cannot remember the regions", "error", err)
	}
}

// writeJSON replaces a file as a whole.
func writeJSON(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return wholefile.Write(file, b)
}
