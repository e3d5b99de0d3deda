package cell

import (
	"context"
	"testing"

	"atoll/model"
)

func TestAutopilotsConfigurationIsCheckedAndSet(t *testing.T) {
	c := openAlone(t, t.TempDir())
	set := func(conf model.AutopilotConfig, check bool) bool {
		t.Helper()
		return must(t, c, CmdAutopilotConfig, &AutopilotConfig{Config: conf, CheckIndex: check}).(*AutopilotSet).Updated
	}
	first := model.DefaultAutopilot()
	if !set(first, true) {
		t.Fatal("the first configuration, expected to find none, was not set")
	}
	if set(first, true) {
		t.Error("a second one that expects to find none was set")
	}
	stored := *c.Snapshot().AutopilotConfig(nil)
	if stored.ModifyIndex == 0 || stored.CreateIndex != stored.ModifyIndex {
		t.Errorf("stored as %+v", stored)
	}
	next := stored
	next.MinQuorum = 3
	if !set(next, true) {
		t.Error("one with the stored index was not set")
	}
	next.MinQuorum = 5
	if set(next, true) {
		t.Error("one with an old index was set")
	}
	if !set(next, false) {
		t.Error("one that checks nothing was not set")
	}
	got := c.Snapshot().AutopilotConfig(nil)
	if got.MinQuorum != 5 || got.CreateIndex != stored.CreateIndex || got.ModifyIndex <= stored.ModifyIndex {
		t.Errorf("stored as %+v after %+v", got, stored)
	}
}

// A leader that is taken out of its cell must not end its server's Raft: it can
// be admitted again.
func TestALeaderThatIsRemovedGoesOnAsAFollower(t *testing.T) {
	tr := newTrio(t)
	id, c := tr.leader()
	if err := c.RemoveServer(id); err != nil {
		t.Fatal(err)
	}
	next, leader := tr.leader()
	if next == id {
		t.Fatal("the removed server leads")
	}
	members, err := leader.Autopilot()
	if err != nil {
		t.Fatal(err)
	}
	if err := members.AddNonvoter("s-x", "127.0.0.1:1", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	if err := leader.RemoveServer("s-x"); err != nil {
		t.Fatal(err)
	}
	if err := members.AddVoter(c.current().id, c.current().addr, 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	index, _, err := leader.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr.caughtUp(id, index)
}

func TestLeadershipGoesToTheServerThatIsNamed(t *testing.T) {
	tr := newTrio(t)
	id, c := tr.leader()
	for other, oc := range tr.cells {
		if other == id {
			continue
		}
		if err := oc.HandOverTo(Server{id, tr.addrs[id]}); model.KindOf(err) != model.KindNoLeader {
			t.Errorf("a follower hands over: %v, want an error of kind no leader", err)
		}
		if err := c.HandOverTo(Server{other, tr.addrs[other]}); err != nil {
			t.Fatal(err)
		}
		if now, _ := tr.leader(); now != other {
			t.Errorf("%s leads, want %s", now, other)
		}
		conf, err := oc.Configuration()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range conf.Servers {
			if s.Leader != (s.ID == other) || !s.Voter {
				t.Errorf("configuration has %+v", s)
			}
		}
		return
	}
}
