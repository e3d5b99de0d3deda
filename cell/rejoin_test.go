package cell

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestADamagedMemberComesBackAsANewOne(t *testing.T) {
	for _, file := range []string{"log", "snapshot"} {
		t.Run(file, func(t *testing.T) {
			r := newRing(t).begin()
			first, c := r.leader("")
			acked := r.put("before", 20)
			victim := r.follower(first)
			r.has(victim, acked)
			if file == "snapshot" {
				if err := r.cell(victim).TakeSnapshot(); err != nil {
					t.Fatal(err)
				}
			}
			raftDir := filepath.Join(r.dirs[victim], "raft")
			r.close(victim)
			path := filepath.Join(raftDir, fileLog)
			if file == "snapshot" {
				name, err := newestSnapshot(raftDir)
				if err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(snapshotDir(raftDir), name, snapState)
			}
			flipIn(t, path, "before-11")
			acked = append(acked, r.put("without", 5)...)

			v := r.open(victim)
			if why := v.Down(); why == nil || !strings.Contains(why.Error(), path) || !strings.Contains(why.Error(), "at byte ") {
				t.Errorf("it is down for %v; want the file and the place", why)
			}
			if fresh, err := v.Fresh(); fresh || err != nil {
				t.Errorf("a damaged member may be bootstrapped: %v", err)
			}
			r.until("it is a new member", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.renewed[victim] != ""
			})
			if id := v.ID(); id == victim || id != r.renewed[victim] {
				t.Errorf("its id is %s", id)
			}
			aside, err := filepath.Glob(raftDir + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %v, %v", aside, err)
			}
			if _, err := os.Stat(filepath.Join(aside[0], fileLog)); err != nil {
				t.Errorf("the damaged data are not kept: %v", err)
			}
			if fresh, err := v.Fresh(); fresh || err != nil {
				t.Errorf("one that had data may be bootstrapped: %v", err)
			}
			// The leader takes it for whom it is: until it is added, nothing
			// reaches it.
			if n := v.current().raft.LastIndex(); n != 0 {
				t.Errorf("it was sent %d entries in the name of the old member", n)
			}
			if err := c.RemoveServer(victim); err != nil {
				t.Fatal(err)
			}
			if err := c.current().raft.AddVoter(raft.ServerID(v.ID()), raft.ServerAddress(r.addrs[victim]), 0, 0).Error(); err != nil {
				t.Fatal(err)
			}
			acked = append(acked, r.put("after", 5)...)
			for _, name := range ringNames {
				r.has(name, acked)
			}
			// And it is one of three again.
			r.close(r.follower2(first, victim))
			acked = append(acked, r.put("two of three", 5)...)
			r.has(victim, acked)
		})
	}
}

func (r *ring) follower2(a, b string) string {
	for _, n := range ringNames {
		if n != a && n != b {
			return n
		}
	}
	return ""
}

func TestADamagedMemberWithoutALeaderElsewhereChangesNothing(t *testing.T) {
	r := newRing(t).begin()
	first, _ := r.leader("")
	r.put("a", 5)
	victim := r.follower(first)
	for _, name := range ringNames {
		r.close(name)
	}
	raftDir := filepath.Join(r.dirs[victim], "raft")
	flipIn(t, filepath.Join(raftDir, fileLog), "a-3")
	before := sums(t, r.dirs[victim])
	v := r.open(victim)
	if v.Down() == nil {
		t.Fatal("it takes part with damaged data")
	}
	asked := make(chan struct{})
	r.close(victim)
	var once bool
	v.cfg.GoesOn = func(context.Context) bool {
		if !once {
			once = true
			close(asked)
		}
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	<-asked
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if after := sums(t, r.dirs[victim]); !maps.Equal(before, after) {
		t.Errorf("files changed: %v, were %v", after, before)
	}
}

// A leader finds damage when it reads what a follower lacks.
func TestALeaderThatFindsItsDataDamagedGivesUpItsLead(t *testing.T) {
	for _, file := range []string{"log", "snapshot"} {
		t.Run(file, func(t *testing.T) {
			r := newRing(t).begin()
			first, c := r.leader("")
			late := r.follower(first)
			acked := r.put("a", 5)
			r.has(late, acked)
			r.close(late)
			acked = append(acked, r.put("lacked", 5)...)
			// Beyond what Raft has in memory.
			var last *Proposed
			for i := range 600 {
				p, err := c.Propose(CmdJobRegister, nil, &JobRegister{Job: testJob(fmt.Sprintf("b-%d", i%7), 1)})
				if err != nil {
					t.Fatal(err)
				}
				last = p
			}
			if _, _, err := last.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			raftDir := filepath.Join(r.dirs[first], "raft")
			path := filepath.Join(raftDir, fileLog)
			if file == "snapshot" {
				if err := c.TakeSnapshot(); err != nil {
					t.Fatal(err)
				}
				if err := c.current().log.DeleteRange(1, 300); err != nil {
					t.Fatal(err)
				}
				name, err := newestSnapshot(raftDir)
				if err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(snapshotDir(raftDir), name, snapState)
			}
			flipIn(t, path, "lacked-3")
			r.open(late)
			r.until("the leader is a new member", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.renewed[first] != ""
			})
			next, c := r.leader(first)
			if err := c.RemoveServer(first); err != nil {
				t.Fatal(err)
			}
			id := r.cell(first).ID()
			if err := c.current().raft.AddVoter(raft.ServerID(id), raft.ServerAddress(r.addrs[first]), 0, 0).Error(); err != nil {
				t.Fatal(err)
			}
			acked = append(acked, r.put("after", 5)...)
			for _, name := range ringNames {
				r.has(name, acked)
			}
			if next == first {
				t.Error("it leads still")
			}
		})
	}
}
