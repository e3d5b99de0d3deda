package cell

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A server that lost its data is another one, though it listens where the old one
// did: it must neither vote nor take entries in that one's name.
func TestAServerWithoutItsDataDoesNotAnswerForTheOneItWas(t *testing.T) {
	tr := newTrio(t)
	leader, c := tr.leader()
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	var lost string
	for id := range tr.cells {
		if id != leader {
			lost = id
		}
	}
	tr.close(lost)
	if err := os.RemoveAll(filepath.Join(tr.dir, lost)); err != nil {
		t.Fatal(err)
	}
	tr.addrs["new"] = tr.addrs[lost]
	tr.open("new")
	// The leader goes, and one of two is left: only with the new one's vote
	// could it lead.
	tr.close(leader)
	var left *Cell
	for id, c := range tr.cells {
		if id != "new" {
			left = c
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*electionTimeout)
	defer cancel()
	<-ctx.Done() // that nothing happens can only be seen by waiting
	if left.IsLeader() {
		t.Fatal("a server leads by the vote of one that lost its data")
	}
	if fresh, err := tr.cells["new"].Fresh(); err != nil || !fresh {
		t.Fatalf("the new server took entries for the old one: %v", err)
	}
	// With the old leader back there is a majority again, and it admits the new
	// server as what it is.
	tr.open(leader)
	_, c = tr.leader()
	if err := c.RemoveServer(lost); err != nil {
		t.Fatal(err)
	}
	members, err := c.Autopilot()
	if err != nil {
		t.Fatal(err)
	}
	if err := members.AddVoter("new", tr.cells["new"].current().addr, 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	index, _, err := c.Apply(context.Background(), CmdJobRegister, &JobRegister{Job: testJob("b", 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr.caughtUp("new", index)
}
