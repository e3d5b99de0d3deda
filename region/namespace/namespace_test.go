package namespace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// federation is some regions, each with a store and a loop.
type federation struct {
	t       testing.TB
	regions map[string]*region
	// now is the regions' clock.
	now func() time.Time
	// before runs before a call is delivered, unless nil.
	before func(from, to string)

	mu  sync.Mutex // guards what follows
	cut map[string]bool
}

type region struct {
	*Copies
	store *state.Store
	mu    sync.Mutex // makes writes one after another
	index uint64
}

func newFederation(t testing.TB, now func() time.Time, names ...string) *federation {
	f := &federation{t: t, now: now, regions: make(map[string]*region), cut: make(map[string]bool)}
	for _, name := range names {
		store, err := state.New()
		if err != nil {
			t.Fatal(err)
		}
		r := &region{store: store}
		r.Copies = New(Config{
			Region: name, Known: func() []string { return names }, Snapshot: store.Snapshot, Clock: clock.Func(func() time.Time { return f.now() }), Log: hclog.NewNullLogger(),
			Learn: func(_ context.Context, body *cell.NamespaceLearn) error { r.learned(t, body); return nil },
			Tell: func(_ context.Context, to string, req *method.NamespaceTellRequest) (*method.NamespaceTellResponse, error) {
				return f.tell(name, to, req)
			},
		})
		f.regions[name] = r
	}
	return f
}

func (r *region) write(t testing.TB, change func(tx *state.Txn) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	if err := r.store.Write(r.index, change); err != nil {
		t.Error(err)
	}
}

// learned applies the command, as a region without jobs.
func (r *region) learned(t testing.TB, body *cell.NamespaceLearn) {
	if body == nil {
		return
	}
	r.write(t, func(tx *state.Txn) error {
		for _, row := range body.Rows {
			if _, err := tx.PutNamespace(row); err != nil {
				return err
			}
		}
		for _, row := range body.Forget {
			if err := tx.ForgetNamespace(row); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *federation) reaches(from, to string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.cut[from] && !f.cut[to]
}

func (f *federation) set(region string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[region] = cut
}

func (f *federation) tell(from, to string, req *method.NamespaceTellRequest) (*method.NamespaceTellResponse, error) {
	if f.before != nil {
		f.before(from, to)
	}
	if !f.reaches(from, to) {
		return nil, errors.New("cut off")
	}
	r := f.regions[to]
	r.learned(f.t, Learn(r.Snapshot(), to, req.Rows, f.now(), r.Log))
	return Tell(r.Snapshot(), req), nil
}

// change makes a change of a namespace in a region.
func (f *federation) change(in, name, description string) *model.Namespace {
	row := &model.Namespace{Name: name, Description: description, Deleted: description == "", Writer: in, Write: model.NamespaceWrite{Time: f.now().UnixNano()}}
	var out *model.Namespace
	f.regions[in].write(f.t, func(tx *state.Txn) (err error) {
		out, err = tx.UpsertNamespace(row)
		return err
	})
	return out
}

// has is what a region has of a name, as "v1 text", "v2 gone" or "none".
func (f *federation) has(region, name string) string {
	switch n := f.regions[region].Snapshot().NamespaceRow(nil, name); {
	case n == nil:
		return "none"
	case n.Deleted:
		return fmt.Sprintf("v%d gone", n.Version)
	default:
		return fmt.Sprintf("v%d %s", n.Version, n.Description)
	}
}

func (f *federation) expect(name string, want map[string]string) {
	f.t.Helper()
	for region, state := range want {
		if got := f.has(region, name); got != state {
			f.t.Errorf("%s has %s as %q, want %q", region, name, got, state)
		}
	}
}

func (f *federation) all(state string) map[string]string {
	out := make(map[string]string)
	for name := range f.regions {
		out[name] = state
	}
	return out
}

// heard is what a region says of another's copy.
func (f *federation) heard(region, of string) string {
	for _, a := range f.regions[region].Heard() {
		if a.Region == of {
			return fmt.Sprintf("%s %s", a.Freshness, a.Age.Round(time.Second))
		}
	}
	return "unknown"
}

// live runs all loops in a bubble, and story beside them.
func live(t *testing.T, names []string, story func(f *federation)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, time.Now, names...)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, r := range f.regions {
			wg.Go(func() { _ = r.Run(ctx) })
		}
		story(f)
		cancel()
		wg.Wait()
	})
}

// settle lets time pass, and everybody come to rest.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestAChangeGoesToAllRegionsAtOnceAndLaterToThoseCutOff(t *testing.T) {
	live(t, []string{"ap", "eu", "us"}, func(f *federation) {
		settle(time.Minute)
		f.change("us", "team", "one")
		settle(2 * look)
		f.expect("team", f.all("v1 one"))
		f.set("eu", true)
		f.change("us", "team", "two")
		settle(time.Minute)
		f.expect("team", map[string]string{"us": "v2 two", "ap": "v2 two", "eu": "v1 one"})
		f.set("eu", false)
		settle(again.Max)
		f.expect("team", f.all("v2 two"))
	})
}

func TestTheAgeOfACopyIsByOurClock(t *testing.T) {
	live(t, []string{"eu", "us"}, func(f *federation) {
		if got := f.heard("us", "eu"); got != "unknown" && got != "stale -0s" {
			t.Errorf("at first: %s", got)
		}
		settle(time.Second)
		if got := f.heard("us", "eu"); got != "stale 1s" {
			t.Errorf("a second later: %s", got)
		}
		settle(time.Hour)
		f.set("eu", true)
		f.change("us", "team", "one")
		settle(2 * look)
		before := f.regions["us"].Heard()[0]
		if before.Freshness != model.Unreachable || before.Age < 2*look || before.Age > calm.Max+2*look {
			t.Errorf("cut off: %+v", before)
		}
		settle(time.Minute)
		if after := f.regions["us"].Heard()[0]; after.Age-before.Age != time.Minute {
			t.Errorf("a minute later it is %s older", after.Age-before.Age)
		}
		f.set("eu", false)
		settle(again.Max)
		if a := f.regions["us"].Heard()[0]; a.Freshness != model.Stale || a.Age > again.Max {
			t.Errorf("back: %+v", a)
		}
		// Whoever spoke first, the other may have had nothing yet.
		settle(calm.Max)
		if a := f.regions["us"].Heard()[0]; a.Freshness != model.Stale || a.Index == 0 {
			t.Errorf("back for a while: %+v", a)
		}
	})
}

func TestWhatIsDeletedIsForgottenOnceAllRegionsHaveItSo(t *testing.T) {
	live(t, []string{"ap", "eu", "us"}, func(f *federation) {
		f.change("us", "team", "one")
		settle(2 * look)
		f.set("ap", true)
		f.change("us", "team", "")
		settle(10 * time.Hour)
		f.expect("team", map[string]string{"us": "v2 gone", "eu": "v2 gone", "ap": "v1 one"})
		f.set("ap", false)
		settle(again.Max)
		if got := f.has("ap", "team"); got == "v1 one" {
			t.Errorf("ap has it still")
		}
		settle(time.Hour)
		f.expect("team", f.all("none"))
		// One of that name that comes now is newer than what was.
		f.change("ap", "team", "three")
		settle(2 * look)
		f.expect("team", f.all("v3 three"))
		f.change("eu", "team", "")
		settle(kept - time.Minute)
		f.expect("team", f.all("v4 gone"))
		settle(2 * time.Minute)
		f.expect("team", f.all("none"))
	})
}

func TestManyRowsComeInManyCalls(t *testing.T) {
	live(t, []string{"eu", "us"}, func(f *federation) {
		f.set("us", true)
		for n := range 5*batch + 3 {
			f.change("us", fmt.Sprint("us-", n), "x")
			f.change("eu", fmt.Sprint("eu-", n), "y")
		}
		f.set("us", false)
		settle(calm.Max)
		for n := range 5*batch + 3 {
			f.expect(fmt.Sprint("us-", n), f.all("v1 x"))
			f.expect(fmt.Sprint("eu-", n), f.all("v1 y"))
		}
	})
}

// majority makes a change as a door does: of those that it reaches, which must be
// a majority, it has the newest; then some of them get the change, or none.
func (f *federation) majority(r *rand.Rand, names []string, in, name, description string) *model.Namespace {
	reached := []string{in}
	for _, other := range names {
		if other != in && f.reaches(in, other) && r.IntN(4) > 0 {
			reached = append(reached, other)
		}
	}
	if !model.Majority(names, reached) {
		return nil
	}
	var newest []*model.Namespace
	for _, from := range reached {
		snap := f.regions[from].Snapshot()
		for _, row := range []*model.Namespace{snap.NamespaceRow(nil, name), snap.NamespaceRow(nil, model.AllNamespaces)} {
			if row != nil {
				newest = append(newest, row)
			}
		}
	}
	give := func(to string, rows ...*model.Namespace) {
		there := f.regions[to]
		there.learned(f.t, Learn(there.Snapshot(), to, rows, f.now(), there.Log))
	}
	for _, to := range reached {
		give(to, newest...)
	}
	if have := f.regions[in].Snapshot().Namespace(nil, name); description == "" && have == nil {
		return nil
	}
	row := f.change(in, name, description)
	for _, to := range reached {
		if r.IntN(3) > 0 {
			give(to, row)
		}
	}
	return row
}

// Whatever is cut off, in whatever order regions meet, and whenever they forget:
// in the end all have the last change of each name, and nothing that was deleted
// is back.
func TestNothingThatWasDeletedComesBack(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 7))
		names := []string{"ap", "eu", "sa", "us", "af"}[:2+r.IntN(4)]
		slices.Sort(names)
		now := time.Unix(1_700_000_000, 0)
		f := newFederation(t, func() time.Time { return now }, names...)
		any := func() string { return names[r.IntN(len(names))] }
		for _, c := range f.regions {
			for _, other := range names {
				if other != c.Region {
					c.peers[other] = &peer{region: other}
				}
			}
		}
		meet := func() {
			c := f.regions[any()]
			if p := c.peers[any()]; p != nil {
				_ = c.meet(t.Context(), p)
			}
		}
		depth := 0
		f.before = func(string, string) {
			// Others go on between the calls of an exchange.
			if depth++; depth < 4 && r.IntN(2) == 0 {
				meet()
			}
			depth--
		}
		last := make(map[string]*model.Namespace)
		for step := range 300 {
			switch n := r.IntN(100); {
			case n < 15:
				description := fmt.Sprint("at ", step)
				if r.IntN(2) == 0 {
					description = ""
				}
				name := fmt.Sprint("team-", r.IntN(2))
				if row := f.majority(r, names, any(), name, description); row != nil && (last[name] == nil || row.Compare(last[name]) > 0) {
					last[name] = row
				}
			case n < 60:
				meet()
			case n < 80:
				c := f.regions[any()]
				c.forget(t.Context(), c.Snapshot())
			case n < 84:
				f.set(any(), r.IntN(3) > 0)
			case n < 85:
				// Another leader knows of no exchange.
				for _, p := range f.regions[any()].peers {
					*p = peer{region: p.region}
				}
			default:
				now = now.Add(time.Duration(r.IntN(80)) * time.Minute)
			}
		}
		for name := range f.regions {
			f.set(name, false)
		}
		f.before = nil
		for range 4 {
			for _, a := range names {
				for _, p := range f.regions[a].peers {
					if err := f.regions[a].meet(t.Context(), p); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, a := range names {
				f.regions[a].forget(t.Context(), f.regions[a].Snapshot())
			}
			now = now.Add(kept)
		}
		for name, row := range last {
			want := "none"
			if !row.Deleted {
				want = fmt.Sprintf("v%d %s", row.Version, row.Description)
			}
			f.expect(name, f.all(want))
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
