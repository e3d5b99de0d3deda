package federation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"atoll/internal/clock"
	"atoll/model"
)

// Memberlist does not wait for the probe that is under way when it is shut down;
// that ends by itself within a second or two.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

func directory(t *testing.T, dir, own string) *Directory {
	t.Helper()
	d, err := NewDirectory(DirectoryConfig{
		Region: "us", Self: "10.0.0.1:4647", Cell: func() string { return own }, DataDir: dir, Clock: clock.Real,
		Probe: func(context.Context, Peer) error { return errors.New("nobody asks") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// aPeer reads "name cell state": state is alive, failed or left.
func aPeer(text string) Peer {
	f := strings.Fields(text)
	p := Peer{Name: f[0] + ".eu", Region: "eu", ID: "id-" + f[0], RPC: f[0] + ":1", Alive: true}
	if f[1] != "-" {
		p.Cell = f[1]
	}
	if len(f) > 2 {
		p.Alive, p.Left = false, f[2] == "left"
	}
	return p
}

func TestWhoIsOfARegion(t *testing.T) {
	for name, tc := range map[string]struct {
		// views are what gossip says, one after another: servers are separated
		// by commas. "accept X" is an operator's word, "restart" ours.
		views   []string
		servers string // calls go to these
		cell    string
		claims  string
	}{
		"nobody knows yet":                          {[]string{"a -, b -"}, "a b", "", ""},
		"the first is pinned":                       {[]string{"a A, b -"}, "a", "A", ""},
		"and its servers are added as they say so":  {[]string{"a A, b -", "a A, b A"}, "a b", "A", ""},
		"a second comes":                            {[]string{"a A", "a A, b B"}, "a", "A", "B"},
		"a second comes, the first fails":           {[]string{"a A", "a A failed, b B"}, "a", "A", "B"},
		"a second replaces the first":               {[]string{"a A", "b B"}, "", "A", "B"},
		"a second replaces it under its name":       {[]string{"a A", "restart", "a B"}, "", "A", "B"},
		"two are there at once":                     {[]string{"a A, b B, c -"}, "", "", "A B"},
		"of two at once one fails":                  {[]string{"a A, b B", "a A, b B failed"}, "", "", "A B"},
		"of two at once one leaves":                 {[]string{"a A, b B", "a A, b B left"}, "a", "A", ""},
		"three":                                     {[]string{"a A", "a A, b B, c C"}, "a", "A", "B C"},
		"the second leaves":                         {[]string{"a A", "a A, b B", "a A, b B left"}, "a", "A", ""},
		"the second is accepted":                    {[]string{"a A", "a A, b B", "accept B"}, "b", "B", "A"},
		"of two at once one is accepted":            {[]string{"a A, b B", "accept A"}, "a", "A", "B"},
		"an acceptance lasts":                       {[]string{"a A, b B", "accept B", "restart", "a A, b B"}, "b", "B", "A"},
		"a pin lasts":                               {[]string{"a A", "restart", "b B, a A"}, "a", "A", "B"},
		"remembered servers are tried":              {[]string{"a A", "restart"}, "a", "A", ""},
		"a member that restarts is known by its id": {[]string{"a A, b A", "a -, b A"}, "a b", "A", ""},
		"and so is one of the second":               {[]string{"a A, b B", "accept A", "a A, b -"}, "a", "A", "B"},
		"a newcomer to a known region waits":        {[]string{"a A", "a A, b -"}, "a", "A", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := directory(t, dir, "U")
			for _, view := range tc.views {
				if cell, ok := strings.CutPrefix(view, "accept "); ok {
					if err := d.Accept("eu", cell); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if view == "restart" {
					d.write()
					d = directory(t, dir, "U")
					continue
				}
				var peers []Peer
				for _, p := range strings.Split(view, ", ") {
					peers = append(peers, aPeer(p))
				}
				d.Update(peers)
			}
			var servers, claims []string
			list, _ := d.Servers("eu")
			for _, p := range list {
				servers = append(servers, strings.TrimSuffix(p.RPC, ":1"))
			}
			slices.Sort(servers)
			var st model.RegionStatus
			for _, r := range d.Regions() {
				if r.Name == "eu" {
					st = r
				}
			}
			for _, c := range st.Quarantined {
				claims = append(claims, c.CellID)
			}
			if got := strings.Join(servers, " "); got != tc.servers {
				t.Errorf("calls go to %q, want %q", got, tc.servers)
			}
			if st.CellID != tc.cell || d.CellOf("eu") != tc.cell || strings.Join(claims, " ") != tc.claims {
				t.Errorf("it is the cell %q, claimed by %v; want %q, claimed by %q", st.CellID, claims, tc.cell, tc.claims)
			}
			err := d.Down("eu")
			if shut := tc.servers == "" && tc.claims != ""; (err != nil) != shut || st.Healthy == shut {
				t.Errorf("calls fail at once with %v, healthy: %v", err, st.Healthy)
			} else if shut && (err.Kind != model.KindUnreachable || !strings.Contains(err.Message, "region accept eu")) {
				t.Errorf("calls fail with %v", err)
			}
		})
	}
}

func TestOurOwnRegionIsOfOurCell(t *testing.T) {
	own := ""
	d, err := NewDirectory(DirectoryConfig{Region: "eu", Cell: func() string { return own }, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	view := []Peer{aPeer("a A"), aPeer("b -"), aPeer("c C")}
	check := func(when, want string, wantContested bool) {
		t.Helper()
		d.Update(view)
		peers, contested := d.Own()
		var got []string
		for _, p := range peers {
			got = append(got, strings.TrimSuffix(p.Name, ".eu"))
		}
		if strings.Join(got, " ") != want || contested != wantContested {
			t.Errorf("%s: %v, contested: %v; want %q", when, got, contested, want)
		}
	}
	check("as a new server between two cells", "b", true)
	own = "A"
	check("as a server of the first", "a b", true)
	view = view[:2]
	check("when the other is gone", "a b", false)
	own = ""
	check("as a new server with one cell", "a b", false)
	if err := d.Accept("eu", "C"); model.KindOf(err) != model.KindInvalid {
		t.Errorf("another cell is accepted as our own: %v", err)
	}
	if err := d.Accept("mars", "C"); model.KindOf(err) != model.KindNotFound {
		t.Errorf("a region never seen is accepted: %v", err)
	}
}

// Whoever comes first must not be trusted because a file broke.
func TestPinsThatCannotBeReadStopTheServer(t *testing.T) {
	dir := t.TempDir()
	d := directory(t, dir, "U")
	d.Update([]Peer{aPeer("a A")})
	d.write()
	file := filepath.Join(dir, "cells.json")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"eu":`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := NewDirectory(DirectoryConfig{Region: "us", DataDir: dir, Clock: clock.Real})
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("the directory is made: %v", err)
	}
}

// in is a peer as aPeer reads it, in another region.
func in(region, text string) Peer {
	p := aPeer(text)
	p.Region, p.Name = region, strings.TrimSuffix(p.Name, "eu")+region
	return p
}

func TestACellUnderANewNameIsQuarantinedUntilTheNameIsAccepted(t *testing.T) {
	type region struct{ servers, cell, claims string }
	for name, tc := range map[string]struct {
		views  [][]Peer
		accept string // "region cell", after the last view
		refuse model.Kind
		eu, ap *region // nil: not listed
	}{
		"a region changes its name": {
			views: [][]Peer{{aPeer("a A")}, {aPeer("a A failed"), in("ap", "a A")}},
			eu:    &region{"a", "A", ""}, ap: &region{"", "", "A known as eu"},
		},
		"one server is told another name": {
			views: [][]Peer{{aPeer("a A"), aPeer("b A")}, {aPeer("a A"), in("ap", "b A")}},
			eu:    &region{"a", "A", ""}, ap: &region{"", "", "A known as eu"},
		},
		"a server of ours is told another name": {
			views: [][]Peer{{in("ap", "x U")}},
			ap:    &region{"", "", "U known as us"},
		},
		"two names are seen at once": {
			views: [][]Peer{{aPeer("a A"), in("ap", "b A")}},
			eu:    &region{"", "", "A known as ap"}, ap: &region{"", "", "A known as eu"},
		},
		"a new name is accepted": {
			views:  [][]Peer{{aPeer("a A")}, {aPeer("a A failed"), in("ap", "a A")}},
			accept: "ap A", ap: &region{"a", "A", ""},
		},
		"a new name is accepted while some have the old": {
			views:  [][]Peer{{aPeer("a A"), aPeer("b A")}, {aPeer("a A"), in("ap", "b A")}},
			accept: "ap A", eu: &region{"", "", "A known as ap"}, ap: &region{"b", "A", ""},
		},
		"the old name stays": {
			views:  [][]Peer{{aPeer("a A"), in("ap", "b A")}},
			accept: "eu A", eu: &region{"a", "A", ""}, ap: &region{"", "", "A known as eu"},
		},
		"our own cell is no other region": {
			views:  [][]Peer{{in("ap", "x U")}},
			accept: "ap U", refuse: model.KindInvalid, ap: &region{"", "", "U known as us"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := directory(t, t.TempDir(), "U")
			for _, view := range tc.views {
				d.Update(view)
			}
			if name, cell, ok := strings.Cut(tc.accept, " "); ok {
				if err := d.Accept(name, cell); (err == nil) != (tc.refuse == 0) || err != nil && model.KindOf(err) != tc.refuse {
					t.Errorf("accept: %v", err)
				}
			}
			got := make(map[string]region)
			for _, st := range d.Regions() {
				r := region{cell: st.CellID}
				var servers, claims []string
				for _, s := range st.Servers {
					servers = append(servers, strings.TrimSuffix(s, ":1"))
				}
				for _, c := range st.Quarantined {
					claims = append(claims, c.CellID+" known as "+c.KnownAs)
				}
				r.servers, r.claims = strings.Join(servers, " "), strings.Join(claims, ", ")
				got[st.Name] = r
			}
			for name, want := range map[string]*region{"eu": tc.eu, "ap": tc.ap} {
				r, listed := got[name]
				if listed != (want != nil) || want != nil && r != *want {
					t.Errorf("%s is %+v, listed: %v; want %+v", name, r, listed, want)
				}
				if err := d.Down(name); want != nil && want.servers == "" && (err == nil || !strings.Contains(err.Message, "known as region")) {
					t.Errorf("calls for %s: %v", name, err)
				}
			}
		})
	}
}

func TestAForgottenRegionIsNotPinned(t *testing.T) {
	dir := t.TempDir()
	d := directory(t, dir, "U")
	d.Update([]Peer{aPeer("a A")})
	d.Update([]Peer{aPeer("a A failed"), aPeer("b B failed")})
	if err := d.Forget("eu"); model.KindOf(err) != model.KindConflict {
		t.Errorf("a region that is claimed was forgotten: %v", err)
	}
	d.Update([]Peer{aPeer("a A")})
	if err := d.Forget("eu"); model.KindOf(err) != model.KindConflict {
		t.Errorf("a region that is alive was forgotten: %v", err)
	}
	d.Update([]Peer{aPeer("a A failed")})
	for name, want := range map[string]model.Kind{"us": model.KindInvalid, "mars": model.KindNotFound} {
		if err := d.Forget(name); model.KindOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Forget("eu"); err != nil {
		t.Errorf("a dead region was not forgotten: %v", err)
	}
	// Gossip remembers its dead for days.
	d.Update([]Peer{aPeer("a A failed")})
	if _, known := d.Servers("eu"); known {
		t.Error("its dead made it known again")
	}
	d = directory(t, dir, "U")
	d.Update([]Peer{aPeer("a A failed")})
	if err := d.Forget("eu"); err != nil {
		t.Error(err)
	}
	d.Update([]Peer{aPeer("b B")})
	if got := d.CellOf("eu"); got != "B" {
		t.Errorf("the region is the cell %q, want B", got)
	}
}
