package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// cluster is a cell of servers whose autopilot hurries.
type cluster struct {
	t       testing.TB
	region  string
	servers map[string]*testServer
	dirs    map[string]string
	addrs   map[string][2]string // RPC and gossip
}

func newCluster(t testing.TB, region string) *cluster {
	return &cluster{t: t, region: region, servers: map[string]*testServer{}, dirs: map[string]string{}, addrs: map[string][2]string{}}
}

// address fixes a server's addresses before it starts.
func (c *cluster) address(name string) [2]string {
	if _, ok := c.addrs[name]; !ok {
		c.addrs[name] = [2]string{freeport.Addr(c.t), freeport.Addr(c.t)}
	}
	return c.addrs[name]
}

// start starts a server that joins those that are named, running or not.
func (c *cluster) start(name string, expect int, join ...string) *testServer {
	c.t.Helper()
	if c.dirs[name] == "" {
		c.dirs[name] = c.t.TempDir()
	}
	cfg := Config{
		Name: name, Region: c.region, DataDir: c.dirs[name], Expect: expect,
		AutopilotUpdate: 100 * time.Millisecond, AutopilotReconcile: 300 * time.Millisecond, Autopilot: model.DefaultAutopilot(),
	}
	// The machine may be busy with other things than this test.
	cfg.Autopilot.LastContactThreshold, cfg.Autopilot.ServerStabilizationTime = 5*time.Second, 500*time.Millisecond
	for _, n := range join {
		cfg.Join = append(cfg.Join, c.address(n)[1])
	}
	at := c.address(name)
	c.servers[name] = startAt(c.t, at[0], at[1], cfg)
	return c.servers[name]
}

// trio starts a cell of three.
func (c *cluster) trio() {
	c.t.Helper()
	c.start("s1", 3, "s2", "s3")
	c.start("s2", 3, "s1", "s3")
	c.start("s3", 3, "s1", "s2")
	c.members("s1 s2 s3")
}

// kill stops a server as a crash would, as far as gossip and the cell can tell.
func (c *cluster) kill(name string) {
	c.servers[name].stop()
	delete(c.servers, name)
}

// quit makes a server leave.
func (c *cluster) quit(name string) error {
	s := c.servers[name]
	delete(c.servers, name)
	s.leave.Store(true)
	s.cancel()
	s.cancel = nil
	return <-s.done
}

func (c *cluster) any() *testServer {
	for _, s := range c.servers {
		return s
	}
	return nil
}

func (c *cluster) leader() *testServer {
	c.t.Helper()
	var leader *testServer
	wait(c.t, "a leader", func() error {
		for _, s := range c.servers {
			if s.IsLeader() {
				leader = s
				return nil
			}
		}
		return errors.New("there is none")
	})
	return leader
}

func (c *cluster) configuration() (*model.RaftConfiguration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out, err := rpc.Call(ctx, c.any().RPC(), method.RaftConfiguration, rpc.To{}, &method.Empty{})
	if err != nil {
		return nil, err
	}
	return &out.Config, nil
}

// members waits until the cell is of the servers that are named, with a question
// mark behind those that have no vote.
func (c *cluster) members(want string) {
	c.t.Helper()
	wait(c.t, "the members "+want, func() error {
		conf, err := c.configuration()
		if err != nil {
			return err
		}
		var have []string
		for _, s := range conf.Servers {
			name := cmp.Or(strings.TrimSuffix(s.Node, "."+c.region), s.ID)
			if !s.Voter {
				name += "?"
			}
			have = append(have, name)
		}
		slices.Sort(have)
		if got := strings.Join(have, " "); got != want {
			return fmt.Errorf("they are %s", got)
		}
		return nil
	})
}

// writes checks that the cell takes a write, and that all servers have it.
func (c *cluster) writes(id string) {
	c.t.Helper()
	wait(c.t, "a write", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := rpc.Call(ctx, c.any().RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob(id, 1)})
		return err
	})
	for name, s := range c.servers {
		wait(c.t, "the write at "+name, func() error {
			if s.cell.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id}) == nil {
				return errors.New("it is not there")
			}
			return nil
		})
	}
}

func TestACellFormsWhateverTheOrder(t *testing.T) {
	for name, start := range map[string]func(c *cluster){
		"in a chain": func(c *cluster) {
			c.start("s1", 3)
			c.start("s2", 3, "s1")
			c.start("s3", 3, "s2")
		},
		"the joined one last": func(c *cluster) {
			c.start("s2", 3, "s1")
			c.start("s3", 3, "s1")
			c.start("s1", 3)
		},
		"two halves that meet late": func(c *cluster) {
			// s1 and s2 find each other, s3 only somebody who is not there
			// yet; s4 joins both.
			c.start("s1", 4, "s2")
			c.start("s2", 4, "s1")
			c.start("s3", 4, "s4")
			c.start("s4", 4, "s3", "s1")
		},
		"a server more than expected": func(c *cluster) {
			c.start("s4", 3, "s1", "s2", "s3")
			c.start("s1", 3, "s2", "s3")
			c.start("s2", 3, "s1", "s3")
			c.start("s3", 3, "s1", "s2")
		},
		"one that expects nothing is there first": func(c *cluster) {
			c.start("s4", 0, "s1")
			c.start("s1", 3, "s2", "s3")
			c.start("s2", 3, "s3")
			c.start("s3", 3, "s1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "us")
			start(c)
			var names []string
			for n := range c.servers {
				names = append(names, n)
			}
			slices.Sort(names)
			c.members(strings.Join(names, " "))
			c.writes("a")
			// Everybody is of one cell, and says so.
			wait(t, "one identity in gossip", func() error {
				id := c.any().members.ofCell()
				if id == "" {
					return errors.New("the cell has none yet")
				}
				for n, s := range c.servers {
					peers, contested := s.dir.Own()
					if contested || len(peers) != len(c.servers) {
						return fmt.Errorf("%s sees %d peers, contested: %v", n, len(peers), contested)
					}
					for _, p := range peers {
						if p.Cell != id {
							return fmt.Errorf("%s sees %s of cell %q, want %q", n, p.Name, p.Cell, id)
						}
					}
				}
				return nil
			})
		})
	}
}

func TestServersThatExpectDifferentNumbersStartNothing(t *testing.T) {
	c := newCluster(t, "us")
	a, b := c.start("s1", 2, "s2"), c.start("s2", 3, "s1")
	for _, s := range []*testServer{a, b} {
		wait(t, "both see both", func() error {
			if n := len(s.members.peers()); n != 2 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		servers, why := s.members.starters()
		if servers != nil || !strings.Contains(why, "bootstrap_expect") {
			t.Errorf("%s would start a cell of %v: %q", s.cfg.Name, servers, why)
		}
	}
}

func TestANewServerHasNoVoteUntilItIsStable(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	// Until autopilot has run for as long, the stabilisation time does not count:
	// nothing could be stable yet.
	wait(t, "autopilot's first second to pass", func() error {
		h, err := rpc.Call(t.Context(), c.any().RPC(), method.AutopilotCellHealth, rpc.To{}, &method.Empty{})
		if err != nil {
			return err
		}
		for _, s := range h.Health.Servers {
			if !s.Healthy || time.Since(s.StableSince) < time.Second {
				return fmt.Errorf("%s is stable since %s", s.Name, s.StableSince)
			}
		}
		return nil
	})
	set := *call(t, c.any().RPC(), method.AutopilotGet, rpc.To{}, &method.Query{})
	set.Config.ServerStabilizationTime = 900 * time.Millisecond
	if r := call(t, c.any().RPC(), method.AutopilotSet, rpc.To{}, &method.AutopilotSetRequest{Config: set.Config, CheckIndex: true}); !r.Updated {
		t.Fatal("the configuration was not set")
	}
	c.start("s4", 0, "s1")
	c.members("s1 s2 s3 s4?")
	admitted := time.Now()
	c.members("s1 s2 s3 s4")
	if took := time.Since(admitted); took < 500*time.Millisecond {
		t.Errorf("it had its vote after %s", took)
	}
	c.writes("a")
}

func TestServersThatLeaveAreTakenOut(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	leader := c.leader().cfg.Name
	follower := "s1"
	if follower == leader {
		follower = "s2"
	}
	if err := c.quit(follower); err != nil {
		t.Errorf("a follower leaves: %v", err)
	}
	left := c.leader()
	c.members(strings.Join(slices.Sorted(func(yield func(string) bool) {
		for n := range c.servers {
			if !yield(n) {
				return
			}
		}
	}), " "))
	c.writes("a")
	// Of two, the leader leaves: the other could not take it out alone.
	if err := c.quit(left.cfg.Name); err != nil {
		t.Errorf("the leader leaves: %v", err)
	}
	last := c.any().cfg.Name
	c.members(last)
	c.writes("b")
	// What has left can come back, with what it had.
	c.start(follower, 3, last)
	want := []string{follower, last}
	slices.Sort(want)
	c.members(strings.Join(want, " "))
	c.writes("c")
}

func TestADeadServersPlaceIsFreedOnceAnotherHasCome(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	dead := "s3"
	if c.leader().cfg.Name == dead {
		dead = "s2"
	}
	c.kill(dead)
	wait(t, "its death", func() error {
		h, err := rpc.Call(t.Context(), c.any().RPC(), method.AutopilotCellHealth, rpc.To{}, &method.Empty{})
		if err != nil {
			return err
		}
		for _, s := range h.Health.Servers {
			if s.Name == dead+".us" && (s.Healthy || s.SerfStatus != "failed") {
				return fmt.Errorf("%s is %s, healthy: %v", s.Name, s.SerfStatus, s.Healthy)
			}
		}
		if h.Health.Healthy || h.Health.FailureTolerance != 0 || len(h.Health.Voters) != 3 {
			return fmt.Errorf("%+v", h.Health)
		}
		return nil
	})
	c.writes("a")
	c.start("s4", 0, "s1", "s2", "s3")
	var want []string
	for n := range c.servers {
		want = append(want, n)
	}
	slices.Sort(want)
	c.members(strings.Join(want, " "))
	c.writes("b")
}

func TestAServerThatLostItsDataIsAdmittedAsANewOne(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	lost := c.leader().cfg.Name
	old := c.servers[lost].cell.ID()
	c.writes("before")
	c.kill(lost)
	c.dirs[lost] = t.TempDir()
	c.start(lost, 3, "s1", "s2", "s3")
	c.members("s1 s2 s3")
	conf, err := c.configuration()
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the new server in the old one's place", func() error {
		if conf, err = c.configuration(); err != nil {
			return err
		}
		for _, s := range conf.Servers {
			if s.ID == old || !s.Voter {
				return fmt.Errorf("the cell has %+v", s)
			}
		}
		return nil
	})
	c.writes("after")
	if c.servers[lost].cell.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "before"}) == nil {
		t.Error("the new server has not what the cell had before")
	}
}

// joinedBy starts a server of another region, and waits until it knows this one.
func (c *cluster) joinedBy(region string) *testServer {
	c.t.Helper()
	s := startServer(c.t, region+"1", region, c.t.TempDir(), 1, c.address("s1")[1])
	wait(c.t, "the regions know each other", func() error {
		if len(s.dir.Regions()) != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	return s
}

func TestOperatorsTendACellFromAnotherRegion(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	eu := c.joinedBy("eu")
	us := rpc.To{Region: "us"}
	conf := call(t, eu.RPC(), method.RaftConfiguration, us, &method.Empty{}).Config
	leaders := 0
	var follower, leader *model.RaftServer
	for _, s := range conf.Servers {
		if s.Leader {
			leaders++
			leader = s
		} else {
			follower = s
		}
	}
	if leaders != 1 || len(conf.Servers) != 3 {
		t.Fatalf("%d leaders in %+v", leaders, conf)
	}
	moved := call(t, eu.RPC(), method.RaftTransfer, us, &method.RaftPeerRequest{Address: follower.Address})
	if moved.Noop || moved.From.ID != leader.ID || moved.To.ID != follower.ID {
		t.Errorf("transfer answers %+v", moved)
	}
	wait(t, "the new leader", func() error {
		if s := c.leader(); s.cell.ID() != follower.ID {
			return fmt.Errorf("%s leads", s.cfg.Name)
		}
		return nil
	})
	if again := call(t, eu.RPC(), method.RaftTransfer, us, &method.RaftPeerRequest{ID: follower.ID}); !again.Noop {
		t.Errorf("transfer to the leader answers %+v", again)
	}
	for name, tc := range map[string]struct {
		req  method.RaftPeerRequest
		want model.Kind
	}{
		"nobody":   {method.RaftPeerRequest{}, model.KindInvalid},
		"both":     {method.RaftPeerRequest{ID: leader.ID, Address: leader.Address}, model.KindInvalid},
		"stranger": {method.RaftPeerRequest{ID: "who"}, model.KindNotFound},
	} {
		if _, err := rpc.Call(t.Context(), eu.RPC(), method.RaftTransfer, us, &tc.req); model.KindOf(err) != tc.want || err == nil {
			t.Errorf("transfer to %s: %v, want kind %s", name, err, tc.want)
		}
		if _, err := rpc.Call(t.Context(), eu.RPC(), method.RaftRemovePeer, us, &tc.req); model.KindOf(err) != tc.want || err == nil {
			t.Errorf("removal of %s: %v, want kind %s", name, err, tc.want)
		}
	}

	set := call(t, eu.RPC(), method.AutopilotGet, us, &method.Query{}).Config
	set.MinQuorum = 3
	token := rpc.To{Region: "us", RequestID: "set-once"}
	req := &method.AutopilotSetRequest{Config: set, CheckIndex: true}
	for range 2 {
		// The same request again has the same answer, though its index is old now.
		if r := call(t, eu.RPC(), method.AutopilotSet, token, req); !r.Updated {
			t.Error("the configuration was not set")
		}
	}
	if r := call(t, eu.RPC(), method.AutopilotSet, us, req); r.Updated {
		t.Error("a configuration with an old index was set")
	}
	if got := call(t, eu.RPC(), method.AutopilotGet, us, &method.Query{}).Config; got.MinQuorum != 3 {
		t.Errorf("the configuration is %+v", got)
	}

	// A dead one is declared gone, and leaves the cell.
	name := strings.TrimSuffix(leader.Node, ".us")
	alive := &method.ForceLeaveRequest{Name: leader.Node}
	if _, err := rpc.Call(t.Context(), eu.RPC(), method.RegionForceLeave, us, alive); model.KindOf(err) != model.KindConflict {
		t.Errorf("a live server is declared gone: %v", err)
	}
	c.kill(name)
	wait(t, "its death", func() error {
		_, err := rpc.Call(t.Context(), eu.RPC(), method.RegionForceLeave, us, &method.ForceLeaveRequest{Name: name})
		return err
	})
	var rest []string
	for n := range c.servers {
		rest = append(rest, n)
	}
	slices.Sort(rest)
	c.members(strings.Join(rest, " "))
	if _, err := rpc.Call(t.Context(), eu.RPC(), method.RegionForceLeave, us, &method.ForceLeaveRequest{Name: "who"}); model.KindOf(err) != model.KindNotFound {
		t.Errorf("a stranger is declared gone: %v", err)
	}
	c.writes("a")
}

func TestALiveServerThatIsRemovedIsAdmittedAgainAndADeadOneIsNot(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	leader := c.leader()
	call(t, c.any().RPC(), method.RaftRemovePeer, rpc.To{}, &method.RaftPeerRequest{ID: leader.cell.ID()})
	c.members("s1 s2 s3")
	c.writes("a")
	dead := "s1"
	if c.leader().cfg.Name == dead {
		dead = "s2"
	}
	id := c.servers[dead].cell.ID()
	c.kill(dead)
	wait(t, "its death and removal with its name", func() error {
		_, err := rpc.Call(t.Context(), c.any().RPC(), method.RegionForceLeave, rpc.To{}, &method.ForceLeaveRequest{Name: dead, Prune: true})
		return err
	})
	conf, err := c.configuration()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range conf.Servers {
		if s.ID == id {
			t.Errorf("%s is a member still", dead)
		}
	}
	// Gossip has to tell the other server.
	wait(t, "nobody lists it", func() error {
		for _, m := range call(t, c.any().RPC(), method.RegionMembers, rpc.To{}, &method.Empty{}).Members {
			if m.Name == dead+".us" {
				return fmt.Errorf("%s is listed still, as %s", dead, m.Status)
			}
		}
		return nil
	})
	c.writes("b")
}
