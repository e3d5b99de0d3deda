package federation

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"atoll/internal/freeport"
	"atoll/model"
)

// member is a running member of the pool.
type member struct {
	*Gossip
	addr   string
	joined chan error // what RetryJoin returned
	close  func()
}

func newMember(t *testing.T, name, addr string, tries int, join ...string) *member {
	t.Helper()
	return memberOf(t, GossipConfig{Name: name, Region: "eu"}, addr, tries, join...)
}

func memberOf(t *testing.T, cfg GossipConfig, addr string, tries int, join ...string) *member {
	t.Helper()
	cfg.ID, cfg.Bind, cfg.Advertise, cfg.RPC = "id-"+cfg.Name, addr, addr, "127.0.0.1:1"
	g, err := NewGossip(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := make(chan error, 1)
	m := &member{Gossip: g, addr: addr, joined: make(chan error, 1)}
	go func() { run <- g.Run(ctx) }()
	go func() { m.joined <- g.RetryJoin(ctx, join, time.Second, tries) }()
	m.close = func() {
		cancel()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		<-run
		m.close = func() {}
	}
	t.Cleanup(func() { m.close() })
	return m
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func (m *member) sees(n int) error {
	alive := 0
	peers, _ := m.Peers()
	for _, p := range peers {
		if p.Alive {
			alive++
		}
	}
	if alive != n {
		return fmt.Errorf("%s sees %d alive, want %d", m.cfg.Name, alive, n)
	}
	return nil
}

func TestHalvesThatFormedApartFindEachOther(t *testing.T) {
	addrs := []string{freeport.Addr(t), freeport.Addr(t), freeport.Addr(t), freeport.Addr(t)}
	// a and b are one pool, c and d another: only a knows of c, which is not
	// there when a joins b.
	a := newMember(t, "a", addrs[0], 0, addrs[1], addrs[2])
	b := newMember(t, "b", addrs[1], 0)
	eventually(t, "the first half", func() error { return a.sees(2) })
	d := newMember(t, "d", addrs[3], 0)
	c := newMember(t, "c", addrs[2], 0, addrs[3])
	for _, m := range []*member{a, b, c, d} {
		eventually(t, "one pool", func() error { return m.sees(4) })
	}
}

func TestJoiningGivesUpOnlyWhenToldSo(t *testing.T) {
	nobody := freeport.Addr(t)
	m := newMember(t, "a", freeport.Addr(t), 2, nobody)
	if err := <-m.joined; err == nil || !strings.Contains(err.Error(), "retry_max") || model.KindOf(err) != model.KindUnreachable {
		t.Errorf("it ended with %v", err)
	}
	// One that joined somebody goes on.
	there := newMember(t, "b", freeport.Addr(t), 0)
	m = newMember(t, "c", freeport.Addr(t), 1, there.addr, nobody)
	eventually(t, "the pool", func() error { return m.sees(2) })
	late := newMember(t, "d", nobody, 0)
	eventually(t, "who came late", func() error { return late.sees(3) })
	m.close()
	if err := <-m.joined; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestOnlyWhoFailedIsDeclaredGone(t *testing.T) {
	a := newMember(t, "a", freeport.Addr(t), 0)
	b := newMember(t, "b", freeport.Addr(t), 0, a.addr)
	c := newMember(t, "c", freeport.Addr(t), 0, a.addr)
	// Words about members are ordered by a logical clock: who says that b leaves
	// must have heard that it joined, for b to know it as a word about now.
	eventually(t, "one pool and one time", func() error {
		for _, m := range []*member{a, b, c} {
			if err := m.sees(3); err != nil {
				return err
			}
			if now, want := m.serf.Stats()["member_time"], a.serf.Stats()["member_time"]; now != want || now == "1" {
				return fmt.Errorf("%s is at %s, a at %s", m.cfg.Name, now, want)
			}
		}
		return nil
	})
	if err := a.ForceLeave("b", false); model.KindOf(err) != model.KindConflict {
		t.Errorf("a live one is declared gone: %v", err)
	}
	if err := a.ForceLeave("x", false); model.KindOf(err) != model.KindNotFound {
		t.Errorf("a stranger is declared gone: %v", err)
	}
	// A word that it leaves does not make a live server gone.
	if err := a.serf.RemoveFailedNode("b.eu"); err != nil {
		t.Error(err)
	}
	peers, _ := a.Peers()
	for _, p := range peers {
		if p.Left {
			t.Errorf("%s has left by another's word", p.Name)
		}
	}
	eventually(t, "its contradiction", func() error { return a.sees(3) })
	b.close()
	eventually(t, "its death", func() error { return a.ForceLeave("b.eu", false) })
	peers, _ = a.Peers()
	for _, p := range peers {
		if p.Name == "b.eu" && !p.Left {
			t.Errorf("b is %+v", p)
		}
	}
	if err := a.ForceLeave("b", true); err != nil {
		t.Error(err)
	}
	if peers, _ = a.Peers(); len(peers) != 2 {
		t.Errorf("%d members are known, want 2", len(peers))
	}
}

// To join those that never answer takes no longer than the call.
func TestAJoinEndsWithItsCall(t *testing.T) {
	m := newMember(t, "a", freeport.Addr(t), 0)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	n, err := m.Join(ctx, []string{l.Addr().String(), l.Addr().String(), l.Addr().String()})
	if n != 0 || model.KindOf(err) != model.KindDeadline || !strings.Contains(err.Error(), "cannot join any of") {
		t.Errorf("joined %d, %v", n, err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
