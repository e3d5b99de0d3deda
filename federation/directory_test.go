package federation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"atoll/internal/clock"
	"atoll/model"
	"atoll/rpc"
)

// handClock is a clock that a test moves.
type handClock struct{ now time.Time }

func (c *handClock) Now() time.Time { return c.now }

func peersOf(region string, addrs ...string) (out []Peer) {
	for _, a := range addrs {
		out = append(out, Peer{Name: a, Region: region, RPC: a, Alive: true})
	}
	return out
}

func addresses(d *Directory, region string) (out []string) {
	servers, _ := d.Servers(region)
	for _, p := range servers {
		out = append(out, p.RPC)
	}
	return out
}

func newDirectory(t testing.TB, cfg DirectoryConfig) *Directory {
	t.Helper()
	if cfg.Cell == nil {
		cfg.Cell = func() string { return "" }
	}
	d, err := NewDirectory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var errRefused = errors.New("connection refused")

func TestARegionFailsAtOnceAfterAllItsServersFailed(t *testing.T) {
	c := &handClock{now: time.Unix(1000, 0)}
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: c})
	d.Update(slices.Concat(peersOf("us", "us1", "us2"), peersOf("eu", "eu1", "eu2")))
	d.Report("eu", "eu1", nil)
	c.now = c.now.Add(4 * time.Second)
	d.Report("eu", "eu1", errRefused)
	if err := d.Down("eu"); err != nil {
		t.Fatalf("one of two servers failed, and the region fails: %v", err)
	}
	// The one that failed is asked last.
	if got := addresses(d, "eu"); !slices.Equal(got, []string{"eu2", "eu1"}) {
		t.Errorf("to be tried in the order %v", got)
	}
	// That a connection broke off does not say that there is none to be had.
	d.Report("eu", "eu2", fmt.Errorf("%w: EOF", rpc.ErrBroken))
	if err := d.Down("eu"); err != nil {
		t.Errorf("a connection broke off, and the region fails: %v", err)
	}
	d.Report("eu", "eu2", errRefused)
	err := d.Down("eu")
	if err == nil || err.Kind != model.KindUnreachable || err.Region != "eu" || err.LastContact != 4*time.Second {
		t.Fatalf("both failed: %+v", err)
	}
	for _, part := range []string{`region "eu" is unreachable`, "connection refused", "last contact 4s ago", "1970-01-01T00:16:40Z"} {
		if !strings.Contains(err.Message, part) {
			t.Errorf("%q does not say %q", err.Message, part)
		}
	}
	// What comes after does not move the time from which it is down.
	d.Report("eu", "eu2", errors.New("another"))
	if err := d.Down("eu"); !strings.Contains(err.Message, "connection refused") {
		t.Errorf("the cause became %q", err.Message)
	}
	if st := d.Regions(); len(st) != 2 || st[0].Name != "eu" || st[0].Healthy || st[0].LastContact != 4*time.Second || !st[1].Healthy {
		t.Errorf("statuses %+v", st)
	}
	// One answer of any of them makes it live.
	d.Report("eu", "eu2", nil)
	if err := d.Down("eu"); err != nil {
		t.Errorf("it answered, and fails: %v", err)
	}
	if got := addresses(d, "eu"); !slices.Equal(got, []string{"eu2", "eu1"}) {
		t.Errorf("to be tried in the order %v", got)
	}
}

func TestOurOwnRegionIsNeverGivenUpNorOneThatIsNotKnown(t *testing.T) {
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	d.Update(peersOf("us", "us1", "us2"))
	d.Report("us", "us2", errRefused)
	d.Report("us", "us1", errRefused)
	d.Report("mars", "x", errRefused)
	for _, region := range []string{"us", "mars"} {
		if err := d.Down(region); err != nil {
			t.Errorf("%s: %v", region, err)
		}
	}
	if _, known := d.Servers("mars"); known {
		t.Error("a report made a region known")
	}
	if err := d.Unreachable("eu", context.DeadlineExceeded); !strings.Contains(err.Message, "no answer; this agent never reached it") || err.LastContact != 0 {
		t.Errorf("never reached: %+v", err)
	}
}

func TestServersInTheOrderInWhichToTryThem(t *testing.T) {
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "self", Clock: clock.Real})
	d.Update([]Peer{
		{Region: "eu", RPC: "dead-near", RTT: 1},
		{Region: "eu", RPC: "far", Alive: true, RTT: 90},
		{Region: "eu", RPC: "failing", Alive: true, RTT: 2},
		{Region: "eu", RPC: "near", Alive: true, RTT: 10},
		{Region: "eu", RPC: "left", Left: true},
		{Region: "eu", RPC: "self", Alive: true},
		{Region: "eu", RPC: "as-near", Alive: true, RTT: 10},
	})
	d.Report("eu", "failing", errRefused)
	if got, want := addresses(d, "eu"), []string{"as-near", "near", "far", "dead-near", "failing"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	// A server that left is not waited for.
	for _, addr := range []string{"near", "as-near", "far", "dead-near", "self"} {
		d.Report("eu", addr, errRefused)
	}
	if d.Down("eu") == nil {
		t.Error("all but the one that left failed, and the region does not")
	}
}

// prober answers probes as a test says.
type prober struct {
	mu     sync.Mutex
	fail   error
	probed []string
	at     []time.Time
}

func (p *prober) probe(_ context.Context, peer Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probed = append(p.probed, peer.RPC)
	p.at = append(p.at, time.Now())
	return p.fail
}

func (p *prober) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *prober) asked() ([]string, []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.probed), slices.Clone(p.at)
}

// probing runs a directory that probes, in a bubble of fake time, with the region
// eu down.
func withProbes(t *testing.T, f func(d *Directory, p *prober)) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{fail: errRefused}
		d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real, Probe: p.probe})
		d.Update(slices.Concat(peersOf("us", "us1"), peersOf("eu", "eu1", "eu2", "eu3"), peersOf("ap", "ap1")))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		for _, addr := range []string{"eu1", "eu2", "eu3"} {
			d.Report("eu", addr, errRefused)
		}
		f(d, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestALostRegionIsProbedUntilItAnswers(t *testing.T) {
	withProbes(t, func(d *Directory, p *prober) {
		begun := time.Now()
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		addrs, at := p.asked()
		if first := at[0].Sub(begun); first > 200*time.Millisecond {
			t.Errorf("the first probe came after %s", first)
		}
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap > 2*time.Second {
				t.Errorf("probe %d came %s after the one before", i+1, gap)
			}
		}
		if n := len(at); n < 30 || n > 70 {
			t.Errorf("%d probes in a minute", n)
		}
		// Each of its servers in turn, and no other region's.
		for i, addr := range addrs {
			if want := []string{"eu1", "eu2", "eu3"}[i%3]; addr != want {
				t.Fatalf("probe %d went to %s, want %s", i, addr, want)
			}
		}
		if d.Down("eu") == nil {
			t.Error("it is up without having answered")
		}
		p.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := d.Down("eu"); err != nil {
			t.Errorf("it answers a probe, and still fails: %v", err)
		}
		asked, _ := p.asked()
		time.Sleep(time.Minute)
		synctest.Wait()
		if again, _ := p.asked(); len(again) != len(asked) {
			t.Errorf("a region that is live was probed %d times", len(again)-len(asked))
		}
	})
}

func TestGossipOfALifeSignHastensTheProbeAndDecidesNothing(t *testing.T) {
	withProbes(t, func(d *Directory, p *prober) {
		dead := peersOf("eu", "eu1", "eu2", "eu3")
		for i := range dead {
			dead[i].Alive = false
		}
		d.Update(dead)
		time.Sleep(20 * time.Second) // probes are two seconds apart by now
		synctest.Wait()
		before, _ := p.asked()
		d.Update(peersOf("eu", "eu1", "eu2", "eu3"))
		synctest.Wait() // and no time passes
		after, _ := p.asked()
		if len(after) != len(before)+1 {
			t.Errorf("gossip says that it lives: %d probes, want one", len(after)-len(before))
		}
		if d.Down("eu") == nil {
			t.Error("gossip alone made a region live")
		}
	})
	// Nor does gossip that all are dead make a region fail.
	d := newDirectory(t, DirectoryConfig{Region: "us", Clock: clock.Real})
	d.Update([]Peer{{Region: "eu", RPC: "eu1"}})
	if err := d.Down("eu"); err != nil {
		t.Errorf("gossip alone made a region fail: %v", err)
	}
}

// A region is given up when all its servers failed. One that was heard of later
// did not, and is not given up with them.
func TestAServerThatWasNeverTriedIsTried(t *testing.T) {
	c := &handClock{now: time.Unix(1000, 0)}
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: c})
	d.Update(peersOf("eu", "eu1"))
	d.Report("eu", "eu1", errRefused)
	if d.Down("eu") == nil {
		t.Fatal("its one server failed, and it is not down")
	}
	dead := peersOf("eu", "eu1", "eu2")
	dead[1].Alive = false
	d.Update(dead)
	if d.Down("eu") == nil {
		t.Error("a server that is dead by gossip brings the region back")
	}
	d.Update(peersOf("eu", "eu1", "eu2"))
	if err := d.Down("eu"); err != nil {
		t.Errorf("a server was never tried, and the region fails: %v", err)
	}
	if got := addresses(d, "eu"); !slices.Equal(got, []string{"eu2", "eu1"}) {
		t.Errorf("to be tried in the order %v", got)
	}
	d.Report("eu", "eu2", errRefused)
	if d.Down("eu") == nil {
		t.Error("both failed, and it is not down")
	}
	d.Update(peersOf("eu", "eu1", "eu2"))
	if d.Down("eu") == nil {
		t.Error("gossip alone brings it back")
	}
}

func TestLostRegionsAreRememberedOverRestartsUntilForgotten(t *testing.T) {
	dir := t.TempDir()
	open := func() *Directory {
		return newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", DataDir: dir, Clock: clock.Real})
	}
	d := open()
	d.Update(slices.Concat(peersOf("us", "us1"), peersOf("eu", "eu1", "eu2"), peersOf("ap", "ap1")))
	// ap is gone from gossip; it stays.
	gone := peersOf("eu", "eu2", "eu3")
	d.Update(slices.Concat(peersOf("us", "us1"), gone))
	d.write()
	for name, d := range map[string]*Directory{"before": d, "after a restart": open()} {
		var names []string
		for _, st := range d.Regions() {
			names = append(names, st.Name)
			if st.Name != "us" && st.LastContact >= 0 {
				t.Errorf("%s: last contact with %s is %s", name, st.Name, st.LastContact)
			}
		}
		if want := []string{"ap", "eu", "us"}; !slices.Equal(names, want) {
			t.Errorf("%s: regions %v, want %v", name, names, want)
		}
		if got, want := addresses(d, "eu"), []string{"eu2", "eu3"}; !slices.Equal(got, want) {
			t.Errorf("%s: servers of eu %v, want %v", name, got, want)
		}
	}
	if d.Forget("eu") == nil || d.Forget("us") == nil || d.Forget("mars") == nil {
		t.Error("a region that lives, our own or one of none was forgotten")
	}
	d = open() // where none is known to live
	if err := d.Forget("ap"); err != nil {
		t.Errorf("a lost region cannot be forgotten: %v", err)
	}
	if _, known := open().Servers("ap"); known {
		t.Error("it is back after a restart")
	}
	// What cannot be read is learned anew.
	if err := os.WriteFile(filepath.Join(dir, "regions.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open()
	if n := len(d.Regions()); n != 1 {
		t.Errorf("%d regions out of a broken file", n)
	}
	d.Update(peersOf("eu", "eu1"))
	d.write()
	if got := addresses(open(), "eu"); !slices.Equal(got, []string{"eu1"}) {
		t.Errorf("after it was written anew: %v", got)
	}
}

func TestARegionStaysForgottenUntilAServerOfItIsAlive(t *testing.T) {
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	names := func(want ...string) {
		t.Helper()
		if got := d.Names(); !slices.Equal(got, want) {
			t.Errorf("regions %v, want %v", got, want)
		}
	}
	d.Update(slices.Concat(peersOf("us", "us1"), peersOf("eu", "eu1")))
	dead := []Peer{{Region: "eu", RPC: "eu1"}}
	d.Update(dead)
	stranger := model.RefusedServer{Region: "eu", RPC: "eu2", Alive: true, Cause: "its protocol"}
	d.Refuse([]model.RefusedServer{stranger})
	if err := d.Forget("eu"); model.KindOf(err) != model.KindConflict {
		t.Errorf("with a server alive that is not used: %v", err)
	}
	stranger.Alive = false
	d.Refuse([]model.RefusedServer{stranger})
	if err := d.Forget("eu"); err != nil {
		t.Fatal(err)
	}
	names("us")
	// What gossip still tells of its dead, or a call that was under way, is no reason.
	d.Update(dead)
	d.Refuse([]model.RefusedServer{stranger})
	names("us")
	if err := d.Unreachable("eu", errRefused); err.Region != "eu" || !strings.Contains(err.Message, "connection refused") {
		t.Errorf("a call that was under way: %+v", err)
	}
	names("us")
	stranger.Alive = true
	d.Refuse([]model.RefusedServer{stranger})
	names("eu", "us")
}

func TestWhatFailedIsForgottenWithItsServer(t *testing.T) {
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	for i := range 100 {
		addr := fmt.Sprint("eu", i)
		d.Update(peersOf("eu", addr, "eu"))
		d.Report("eu", addr, errRefused)
	}
	d.Update(peersOf("eu", "eu", "eu99"))
	if failing := d.regions["eu"].failing; len(failing) != 1 || !failing["eu99"] {
		t.Errorf("%d addresses are held to fail", len(failing))
	}
}
