package federation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// fakeCell is a cell as a test says.
type fakeCell struct {
	mu     sync.Mutex
	leads  bool
	leader string
	turn   chan struct{}
}

func (c *fakeCell) set(leads bool, leader string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leads, c.leader = leads, leader
	if c.turn != nil {
		close(c.turn)
	}
	c.turn = nil
}

func (c *fakeCell) Turn() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == nil {
		c.turn = make(chan struct{})
	}
	return c.turn
}

func (c *fakeCell) Leads() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.leads }

func (c *fakeCell) Leader() string { c.mu.Lock(); defer c.mu.Unlock(); return c.leader }

type fakeSessions map[string]*rpc.Session

func (s fakeSessions) Session(nodeID string) *rpc.Session { return s[nodeID] }

func TestWhereACallGoes(t *testing.T) { synctest.Test(t, whereACallGoes) }

func whereACallGoes(t *testing.T) {
	session := new(rpc.Session)
	cell := &fakeCell{}
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	d.Update(slices.Concat(peersOf("us", "us1", "us2"), peersOf("eu", "eu1", "eu2"), peersOf("ap", "ap1")))
	d.Report("ap", "ap1", errRefused)
	r := NewRouter(d, cell, fakeSessions{"here": session})
	var (
		write  = method.Spec{Place: method.AtLeader, Write: true}
		read   = method.Spec{Place: method.AtLeaderOrStale}
		server = method.Spec{Place: method.AtServer}
		node   = method.Spec{Place: method.AtNode}
	)
	for name, c := range map[string]struct {
		leads   bool
		leader  string
		env     rpc.Envelope
		spec    method.Spec
		want    rpc.Decision
		refusal model.Kind // KindInternal: none
	}{
		"a write at the leader":                {leads: true, spec: write, want: rpc.Decision{Local: true, Region: "us"}},
		"a write elsewhere":                    {leader: "us2", spec: write, want: rpc.Decision{Servers: []string{"us2"}, Region: "us"}},
		"a write for our region by name":       {leads: true, spec: write, env: rpc.Envelope{Region: "us"}, want: rpc.Decision{Local: true, Region: "us"}},
		"a write for the global region":        {leads: true, spec: write, env: rpc.Envelope{Region: "global"}, want: rpc.Decision{Local: true, Region: "us"}},
		"passed on, and still not the leader":  {leader: "us2", spec: write, env: rpc.Envelope{Forwarded: true}, refusal: model.KindNoLeader},
		"a read at a follower":                 {leader: "us2", spec: read, want: rpc.Decision{Servers: []string{"us2"}, Region: "us"}},
		"a stale read at a follower":           {leader: "us2", spec: read, env: rpc.Envelope{AllowStale: true}, want: rpc.Decision{Local: true, Region: "us"}},
		"a stale read without a leader":        {spec: read, env: rpc.Envelope{AllowStale: true}, want: rpc.Decision{Local: true, Region: "us"}},
		"staleness helps no write":             {leader: "us2", spec: write, env: rpc.Envelope{AllowStale: true}, want: rpc.Decision{Servers: []string{"us2"}, Region: "us"}},
		"whatever any server knows":            {spec: server, want: rpc.Decision{Local: true, Region: "us"}},
		"a write for another region":           {leads: true, spec: write, env: rpc.Envelope{Region: "eu"}, want: rpc.Decision{Servers: []string{"eu1", "eu2"}, Region: "eu"}},
		"a server's matter in another region":  {spec: server, env: rpc.Envelope{Region: "eu"}, want: rpc.Decision{Servers: []string{"eu1", "eu2"}, Region: "eu"}},
		"a region that does not answer":        {leads: true, spec: read, env: rpc.Envelope{Region: "ap"}, refusal: model.KindUnreachable},
		"a region that nobody saw":             {leads: true, spec: read, env: rpc.Envelope{Region: "mars"}, refusal: model.KindUnknownRegion},
		"a node whose session is here":         {spec: node, env: rpc.Envelope{NodeID: "here"}, want: rpc.Decision{Session: session, Region: "us"}},
		"a node whose session is elsewhere":    {spec: node, env: rpc.Envelope{NodeID: "there"}, want: rpc.Decision{Servers: []string{"us2"}, Region: "us"}},
		"passed on, and its session not there": {spec: node, env: rpc.Envelope{NodeID: "there", Forwarded: true}, refusal: model.KindUnreachable},
		"a node of another region":             {spec: node, env: rpc.Envelope{NodeID: "here", Region: "eu"}, want: rpc.Decision{Servers: []string{"eu1", "eu2"}, Region: "eu"}},
	} {
		cell.set(c.leads, c.leader)
		begun := time.Now()
		got, err := r.Route(t.Context(), &c.env, c.spec)
		if took := time.Since(begun); took > 0 {
			t.Errorf("%s: it took %s", name, took)
		}
		if model.KindOf(err) != c.refusal || (err == nil) != (c.refusal == model.KindInternal) {
			t.Errorf("%s: error %v, want kind %s", name, err, c.refusal)
			continue
		}
		if got.Local != c.want.Local || got.Session != c.want.Session || got.Region != c.want.Region || !slices.Equal(got.Servers, c.want.Servers) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	_, err := r.Route(t.Context(), &rpc.Envelope{Region: "mars"}, read)
	if !strings.Contains(err.Error(), `No path to region "mars"`) || !strings.Contains(err.Error(), "ap, eu, us") {
		t.Errorf("an unknown region: %v", err)
	}
}

func TestCallsThatTheLeaderServesGoToItOnceItIsKnown(t *testing.T) {
	var (
		write  = method.Spec{Place: method.AtLeader, Write: true}
		read   = method.Spec{Place: method.AtLeaderOrStale}
		server = method.Spec{Place: method.AtServer}
	)
	near := peersOf("eu", "eu1", "eu2", "eu3")
	for i := range near {
		near[i].RTT = time.Duration(i+1) * time.Millisecond
	}
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	d.Update(slices.Concat(peersOf("us", "us1"), near))
	r := NewRouter(d, &fakeCell{}, fakeSessions{})
	order := func(spec method.Spec, stale bool) string {
		t.Helper()
		dec, err := r.Route(t.Context(), &rpc.Envelope{Region: "eu", AllowStale: stale}, spec)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(dec.Servers, " ")
	}
	check := func(when, leader string) {
		t.Helper()
		for what, got := range map[string]string{"a write": order(write, false), "a read": order(read, false)} {
			if got != leader {
				t.Errorf("%s, %s goes to %s, want %s", when, what, got, leader)
			}
		}
	}
	check("nobody said", "eu1 eu2 eu3")
	r.Leads("eu", "eu3")
	check("eu3 leads", "eu3 eu1 eu2")
	if got := order(read, true) + ", " + order(server, false); got != "eu1 eu2 eu3, eu1 eu2 eu3" {
		t.Errorf("what any server answers goes to %s", got)
	}
	// A word about a server that gossip does not know, or a region, is none.
	r.Leads("eu", "elsewhere:1")
	r.Leads("mars", "eu1")
	check("a stranger is named", "eu3 eu1 eu2")
	r.Report("eu", "eu3", errRefused, 0)
	check("it does not answer", "eu1 eu2 eu3")
	r.Leads("eu", "eu2")
	check("another leads", "eu2 eu1 eu3")
	near[1].Alive = false
	d.Update(near)
	check("gossip says that it is dead", "eu1 eu2 eu3")
}

func TestACallWaitsForALeader(t *testing.T) {
	write := method.Spec{Place: method.AtLeader, Write: true}
	for name, c := range map[string]struct {
		after  time.Duration // until there is a leader
		leads  bool
		leader string
		limit  time.Duration // of the call; 0 is none
		passed bool          // on by another server
		elect  bool          // us from the start, with more to be done before we lead
		takes  time.Duration
		want   model.Kind
	}{
		"we become it":           {after: time.Second, leads: true, leader: "us1", takes: time.Second},
		"another does":           {after: time.Second, leader: "us2", takes: time.Second},
		"nobody does":            {after: time.Hour, leader: "us2", takes: leaderWait, want: model.KindNoLeader},
		"the call ends first":    {after: time.Hour, limit: 500 * time.Millisecond, takes: 500 * time.Millisecond, want: model.KindNoLeader},
		"we are said to, but no": {after: 0, leader: "us1", takes: leaderWait, want: model.KindNoLeader},
		"passed on to us first":  {after: time.Second, leads: true, leader: "us1", passed: true, elect: true, takes: time.Second},
		"passed on, nobody does": {after: time.Second, leads: true, leader: "us1", passed: true, want: model.KindNoLeader},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cell := &fakeCell{}
				d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
				d.Update(peersOf("us", "us1", "us2"))
				if c.elect {
					cell.set(false, "us1")
				}
				timer := time.AfterFunc(c.after, func() { cell.set(c.leads, c.leader) })
				defer timer.Stop()
				ctx := t.Context()
				if c.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.limit)
					defer cancel()
				}
				begun := time.Now()
				got, err := NewRouter(d, cell, fakeSessions{}).Route(ctx, &rpc.Envelope{Forwarded: c.passed}, write)
				if took := time.Since(begun); took != c.takes {
					t.Errorf("it took %s, want %s", took, c.takes)
				}
				if (err == nil) != (c.want == model.KindInternal) || model.KindOf(err) != c.want {
					t.Errorf("error %v", err)
				}
				if err == nil && got.Local != c.leads || err == nil && !c.leads && !slices.Equal(got.Servers, []string{c.leader}) {
					t.Errorf("decision %+v", got)
				}
			})
		})
	}
}

// BenchmarkRoute is what deciding on a call for another region, and reporting that
// it went well, takes.
func BenchmarkRoute(b *testing.B) {
	for _, servers := range []int{1, 3, 7} {
		b.Run(fmt.Sprintf("servers=%d", servers), func(b *testing.B) {
			d := newDirectory(b, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
			var addrs []string
			for i := range servers {
				addrs = append(addrs, fmt.Sprintf("10.0.0.%d:4647", i))
			}
			d.Update(slices.Concat(peersOf("us", "us1"), peersOf("eu", addrs...)))
			d.Leads("eu", addrs[servers-1])
			r := NewRouter(d, &fakeCell{leads: true}, fakeSessions{})
			env, spec := &rpc.Envelope{Region: "eu"}, method.Spec{Place: method.AtLeaderOrStale}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					dec, err := r.Route(context.Background(), env, spec)
					if err != nil || dec.Servers[0] != addrs[servers-1] {
						b.Error(dec, err)
						return
					}
					r.Report("eu", dec.Servers[0], nil, 0)
				}
			})
		})
	}
}
