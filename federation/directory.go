package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/rpc"
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
	// forgotten are regions that an operator had us forget: that gossip still
	// tells of their dead makes them no regions again.
	forgotten map[string]bool
	unwritten memory
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
	// Regions are those that we speak with beside our own; none means all.
	Regions []string
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
	// refused gossip as the region's and are not used.
	refused []model.RefusedServer
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
	// leader is the address of the region's leader, as a server there said last,
	// "" when none did.
	leader string
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
	d := &Directory{cfg: cfg, regions: make(map[string]*region), wake: make(chan struct{}, 1), forgotten: make(map[string]bool), unwritten: memory{due: make(chan struct{}, 1)}}
	d.region(cfg.Region)
	cells, err := d.loadCells()
	if err != nil {
		return nil, err
	}
	for name, cell := range cells {
		d.region(name).cell = cell
	}
	for name, addrs := range d.loadServers() {
		if !allowed(cfg.Regions, cfg.Region, name) {
			continue
		}
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
		if d.forgotten[name] && !slices.ContainsFunc(list, func(p Peer) bool { return p.Alive }) {
			delete(byRegion, name)
			continue
		}
		delete(d.forgotten, name)
		d.region(name).gossip = list
	}
	for _, name := range slices.Sorted(maps.Keys(byRegion)) {
		r := d.region(name)
		was, had := r.alive(), addrs(r.peers)
		d.identify(r)
		maps.DeleteFunc(r.failing, func(addr string, _ bool) bool {
			return !slices.ContainsFunc(r.gossip, func(p Peer) bool { return p.RPC == addr })
		})
		changed = changed || !slices.Equal(had, addrs(r.peers))
		switch {
		case !r.down:
		case r.untried():
			// Down means that all its servers failed us, and this one never did.
			r.down = false
			d.cfg.Log.Info("region has a server that was not tried; calls go to it", "region", r.name)
		case r.alive() > was:
			r.next = d.cfg.Clock.Now()
			d.signal()
		}
	}
	if changed {
		d.note(&d.unwritten.servers)
	}
}

// Refuse takes up which servers gossip as some region's and are not used. A region
// of which there are no others is listed all the same, with the reason.
func (d *Directory) Refuse(refused []model.RefusedServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.regions {
		r.refused = nil
	}
	for _, s := range refused {
		if s.Region != "" && allowed(d.cfg.Regions, d.cfg.Region, s.Region) && (s.Alive || !d.forgotten[s.Region]) {
			delete(d.forgotten, s.Region)
			r := d.region(s.Region)
			r.refused = append(r.refused, s)
		}
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

// strangers counts the servers alive that are not used.
func (r *region) strangers() (n int) {
	for _, s := range r.refused {
		if s.Alive {
			n++
		}
	}
	return n
}

// untried reports whether a server is there, by gossip, of which no call failed.
func (r *region) untried() bool {
	return slices.ContainsFunc(r.peers, func(p Peer) bool { return p.Alive && !r.failing[p.RPC] })
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
	for _, p := range d.order(r) {
		servers = append(servers, *p)
	}
	return servers, true
}

// order is that of Servers. It is called with the lock held.
func (d *Directory) order(r *region) []*Peer {
	out := make([]*Peer, 0, len(r.peers))
	for i := range r.peers {
		if p := &r.peers[i]; p.RPC != d.cfg.Self && !p.Left {
			out = append(out, p)
		}
	}
	rank := func(p *Peer) (n int) {
		if r.failing[p.RPC] {
			n += 2
		}
		if !p.Alive {
			n++
		}
		return n
	}
	slices.SortStableFunc(out, func(a, b *Peer) int {
		if by := rank(a) - rank(b); by != 0 {
			return by
		}
		if by := cmp.Compare(a.RTT, b.RTT); by != 0 {
			return by
		}
		return strings.Compare(a.RPC, b.RPC)
	})
	return out
}

// route decides on a call for another region, which may be for its leader: it goes
// there first, if that is known and answers, since each of the others would pass the
// call on. known is false for a region never seen.
func (d *Directory) route(name string, leader bool) (dec rpc.Decision, known bool, err *model.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil {
		return dec, false, nil
	}
	if err := d.shunned(r); err != nil {
		return dec, true, err
	}
	dec = rpc.Decision{Region: name, Cell: r.cell}
	for _, p := range d.order(r) {
		dec.Servers = append(dec.Servers, p.RPC)
		if leader && p.RPC == r.leader && p.Alive && !r.failing[p.RPC] {
			last := len(dec.Servers) - 1
			copy(dec.Servers[1:], dec.Servers[:last])
			dec.Servers[0] = p.RPC
		}
	}
	return dec, true, nil
}

// Leads takes up which server leads a region, as one of that region says. It is
// believed of a server that gossip knows.
func (d *Directory) Leads(name, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.regions[name]; r != nil && slices.ContainsFunc(r.peers, func(p Peer) bool { return p.RPC == addr && !p.Left }) {
		r.leader = addr
	}
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
	if name == d.cfg.Region || r.down || errors.Is(err, rpc.ErrBroken) {
		// Our own region is never given up: its leader is waited for. And whether
		// a server whose connection broke off can be reached is not known yet.
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
	if r := d.regions[name]; r != nil {
		return d.shunned(r)
	}
	return nil
}

// shunned is the error of Down. It is called with the lock held.
func (d *Directory) shunned(r *region) *model.Error {
	switch {
	case r.shut():
		return d.quarantined(r)
	case r.down:
		return d.unreachable(r, r.cause)
	case len(r.refused) > 0 && len(r.peers) == 0:
		s := r.refused[0]
		return d.unreachable(r, fmt.Errorf("none of its servers is used, such as %s of version %q: %s", s.Name, s.Build, s.Cause))
	}
	return nil
}

// Unreachable words what it means that a region did not answer.
func (d *Directory) Unreachable(name string, cause error) *model.Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	if r == nil {
		// It was forgotten while it was called.
		return model.NoAnswer(name, cause, time.Time{}, d.cfg.Clock.Now())
	}
	return d.unreachable(r, cause)
}

func (d *Directory) unreachable(r *region, cause error) *model.Error {
	e := model.NoAnswer(r.name, cause, r.contact, d.cfg.Clock.Now())
	if len(r.claims) > 0 {
		e.Message += "; another cell claims its name, see atoll region list"
	}
	return e
}

// Names returns the names of all regions ever seen, in order.
func (d *Directory) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.regions))
}

// Regions returns all regions ever seen, by name.
func (d *Directory) Regions() []model.RegionStatus {
	var out []model.RegionStatus
	for _, name := range d.Names() {
		servers, _ := d.Servers(name)
		d.mu.Lock()
		r := d.regions[name]
		st := model.RegionStatus{Name: name, Healthy: !r.down && !r.shut(), LastContact: -1, CellID: r.cell, Quarantined: d.quarantine(r), Refused: slices.Clone(r.refused)}
		st.Healthy = st.Healthy && (len(r.peers) > 0 || len(r.refused) == 0)
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

// Forget drops a region that has no server alive, until one is. Errors are Invalid
// for our own region, NotFound for one never seen, and Conflict for one that is
// alive or claimed.
func (d *Directory) Forget(name string) error {
	if err := d.forget(name); err != nil {
		return err
	}
	d.write()
	return nil
}

func (d *Directory) forget(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	switch {
	case name == d.cfg.Region:
		return model.Invalidf("region", "region %q is this server's own, and cannot be forgotten", name)
	case r == nil:
		return model.NotFound("region", name)
	case r.alive()+r.strangers() > 0:
		return model.Errorf(model.KindConflict, "region %q has %d servers alive: stop them, or let them leave, before it is forgotten", name, r.alive()+r.strangers())
	case len(r.claims) > 0:
		return model.Errorf(model.KindConflict, "region %q is claimed by %d cells: stop their servers, or declare them gone with atoll server force-leave, before it is forgotten", name, len(r.claims))
	}
	delete(d.regions, name)
	d.forgotten[name] = true
	d.note(&d.unwritten.servers)
	d.note(&d.unwritten.cells)
	return nil
}

// Forgotten reports whether an operator had this server forget a region which has
// not come back since.
func (d *Directory) Forgotten(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.forgotten[name]
}

// Run probes regions that are down, and writes down what changed, until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.keepWritten(ctx) })
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
