package federation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"atoll/model"
)

// A region's name is claimed by whoever gossips it; its cell's id is made once.
// The first cell seen under a name is pinned, over restarts too. Servers that
// are of another are quarantined: nothing is sent to them, and everybody is
// told, until an operator accepts that cell. When two are seen before one was
// pinned, both are. So is a cell that is known under another name: its region was
// renamed, or its servers do not agree what it is called.

// identify parts what gossip says of a region into the servers of its cell and
// the claims of others. It is called with the lock held.
func (d *Directory) identify(r *region) {
	known := make(map[string]string) // cells by server's id
	for _, p := range r.peers {
		known[p.ID] = p.Cell
	}
	for cell, list := range r.claims {
		for _, p := range list {
			known[p.ID] = cell
		}
	}
	list := slices.Clone(r.gossip)
	cells := make(map[string]bool)
	for i := range list {
		p := &list[i]
		if p.Cell == "" {
			// A server that starts does not know its cell at once; its id, which
			// goes with its data, tells it from one that is new.
			p.Cell = known[p.ID]
		}
		if p.Cell != "" && !p.Left {
			cells[p.Cell] = true
		}
	}
	own, cell := r.name == d.cfg.Region, r.cell
	elsewhere := false // its one cell is known under another name
	for c := range cells {
		elsewhere = elsewhere || c != cell && d.knownAs(r, c) != ""
	}
	switch {
	case own:
		cell = d.cfg.Cell()
	case cell == "" && len(cells) == 1 && !elsewhere:
		for cell = range cells {
		}
		d.pin(r, cell)
	}
	before := r.claims
	r.peers, r.claims = nil, make(map[string][]Peer)
	for _, p := range list {
		switch {
		case p.Cell == "":
			// It will say once it is of a cell. Until then our own leader may
			// admit it; to one of another region calls may go only as long as
			// nobody knows better.
			if own || cell == "" && len(cells) == 0 {
				r.peers = append(r.peers, p)
			}
		case p.Cell == cell, cell == "" && len(cells) <= 1 && !elsewhere:
			r.peers = append(r.peers, p)
		case !p.Left:
			r.claims[p.Cell] = append(r.claims[p.Cell], p)
		}
	}
	for id, list := range r.claims {
		if known := d.knownAs(r, id); before[id] == nil && known != "" {
			d.cfg.Log.Error("a cell that is known as another region claims this one; nothing is sent to it there unless an operator accepts the new name", "region", r.name,
				"cell", id, "servers", strings.Join(addrs(list), ","), "known as", known)
		} else if before[id] == nil {
			d.cfg.Log.Error("another cell claims a region; nothing is sent to it unless an operator accepts it", "region", r.name,
				"cell", id, "servers", strings.Join(addrs(list), ","), "the region's cell", cell)
		}
	}
	for id := range before {
		if r.claims[id] == nil {
			d.cfg.Log.Warn("a cell claims a region no more", "region", r.name, "cell", id, "the region's cell", cell)
		}
	}
}

// knownAs is the other region that a cell is: the one that it is known as or, when
// it is as none, another as which its servers gossip; "" when there is none.
func (d *Directory) knownAs(r *region, cell string) string {
	if cell == d.cfg.Cell() && r.name != d.cfg.Region {
		return d.cfg.Region
	}
	seen := ""
	for _, name := range slices.Sorted(maps.Keys(d.regions)) {
		o := d.regions[name]
		if o == r || name == d.cfg.Region {
			continue
		}
		if o.cell == cell {
			return name
		}
		if o.cell == "" && r.cell != cell && slices.ContainsFunc(o.gossip, func(p Peer) bool { return p.Cell == cell && !p.Left }) {
			seen = name
		}
	}
	return seen
}

func (d *Directory) pin(r *region, cell string) {
	if r.cell == cell {
		return
	}
	d.cfg.Log.Info("a region is known by its cell from now on", "region", r.name, "cell", cell, "before", r.cell)
	r.cell = cell
	d.note(&d.unwritten.cells)
}

// shut reports whether nothing is left of a region but claims.
func (r *region) shut() bool {
	return len(r.claims) > 0 && !slices.ContainsFunc(r.peers, func(p Peer) bool { return !p.Left })
}

// quarantine are the claims, by cell.
func (d *Directory) quarantine(r *region) (out []model.CellClaim) {
	for _, id := range slices.Sorted(maps.Keys(r.claims)) {
		out = append(out, model.CellClaim{CellID: id, Servers: addrs(r.claims[id]), KnownAs: d.knownAs(r, id)})
	}
	return out
}

// quarantined is the error of calls to a region that is shut.
func (d *Directory) quarantined(r *region) *model.Error {
	var claims []string
	for _, c := range d.quarantine(r) {
		claim := fmt.Sprintf("%s at %s", c.CellID, strings.Join(c.Servers, ", "))
		if c.KnownAs != "" {
			claim += fmt.Sprintf(", which is known as region %q", c.KnownAs)
		}
		claims = append(claims, claim)
	}
	knows := "none is known"
	if r.cell != "" {
		knows = "this agent knows it as the cell " + r.cell
	}
	return &model.Error{Kind: model.KindUnreachable, Region: r.name, Message: fmt.Sprintf(
		"region %q is unreachable: it is claimed by the cell %s, and %s; find out which is right and run: atoll region accept %s CELL-ID",
		r.name, strings.Join(claims, " and by the cell "), knows, r.name)}
}

// CellOf returns the cell that a region is known as, "" when none is.
func (d *Directory) CellOf(name string) string {
	if name == d.cfg.Region {
		return d.cfg.Cell()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.regions[name]; r != nil {
		return r.cell
	}
	return ""
}

// Own returns our own region's servers that are of our cell or may become so,
// ourselves included; contested says that servers of another cell claim the
// region too.
func (d *Directory) Own() (peers []Peer, contested bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[d.cfg.Region]
	return slices.Clone(r.peers), len(r.claims) > 0
}

// Accept makes a cell that claims a region the one that the region is. Errors
// are Invalid for our own region, and NotFound for a region or a cell that was
// not seen.
func (d *Directory) Accept(name, cell string) error {
	if err := d.accept(name, cell); err != nil {
		return err
	}
	d.write()
	return nil
}

func (d *Directory) accept(name, cell string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.regions[name]
	switch {
	case name == d.cfg.Region:
		return model.Invalidf("region", "region %q is this server's own: it is of the cell %s and can be of no other", name, d.cfg.Cell())
	case r == nil:
		return model.NotFound("region", name)
	case cell == d.cfg.Cell():
		return model.Invalidf("cell", "the cell %s is this server's own, which is region %q: correct the configuration of those that call it %q", cell, d.cfg.Region, name)
	case r.claims[cell] == nil && r.cell != cell:
		var seen []string
		for _, c := range d.quarantine(r) {
			seen = append(seen, c.CellID)
		}
		return model.Errorf(model.KindNotFound, "cell %q was not seen under the name of region %q; those that claim it are: %s", cell, name, strings.Join(seen, ", "))
	}
	old := d.regions[d.knownAs(r, cell)]
	d.pin(r, cell)
	if old != nil && old.cell == cell {
		d.cfg.Log.Info("a region was renamed", "before", old.name, "now", name, "cell", cell)
		old.cell = ""
	}
	if old != nil && !slices.ContainsFunc(old.gossip, func(p Peer) bool { return p.Alive }) {
		delete(d.regions, old.name)
		d.forgotten[old.name] = true
	} else if old != nil {
		d.identify(old)
	}
	d.identify(r)
	r.down, r.failing = false, make(map[string]bool)
	d.note(&d.unwritten.servers)
	d.note(&d.unwritten.cells)
	return nil
}
