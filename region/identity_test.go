package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// lead waits until a server leads, and gossips its cell.
func lead(t testing.TB, s *testServer) {
	t.Helper()
	wait(t, s.cfg.Name+" leads", func() error {
		if !s.IsLeader() || s.members.ofCell() == "" {
			return errors.New("not yet")
		}
		return nil
	})
}

// statusOf is what a server's directory has of a region.
func statusOf(s *testServer, region string) model.RegionStatus {
	for _, st := range s.dir.Regions() {
		if st.Name == region {
			return st
		}
	}
	return model.RegionStatus{}
}

func claims(st model.RegionStatus) (out []string) {
	for _, c := range st.Quarantined {
		out = append(out, c.CellID)
	}
	slices.Sort(out)
	return out
}

func TestASecondCellUnderAPinnedNameIsQuarantinedUntilItIsAccepted(t *testing.T) {
	us := newCluster(t, "us")
	us.trio()
	lead(t, us.leader())
	usCell := us.leader().members.ofCell()
	first := startServer(t, "e1", "eu", t.TempDir(), 1, us.address("s1")[1])
	lead(t, first)
	for _, s := range us.servers {
		wait(t, "eu is pinned", func() error {
			if st := statusOf(s, "eu"); st.CellID != first.members.ofCell() || !st.Healthy {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
	}
	register(t, us.any().RPC(), "eu", aJob("mine", 1))

	// Another cell of the name eu meets them.
	second := startServer(t, "e2", "eu", t.TempDir(), 1)
	lead(t, second)
	if _, err := second.gossip.Join(t.Context(), []string{us.address("s1")[1]}); err != nil {
		t.Fatal(err)
	}
	for _, s := range us.servers {
		wait(t, "the second cell's quarantine", func() error {
			st := statusOf(s, "eu")
			if got := claims(st); !slices.Equal(got, []string{second.members.ofCell()}) {
				return fmt.Errorf("quarantined: %v", got)
			}
			if st.CellID != first.members.ofCell() || !st.Healthy || slices.Contains(st.Servers, second.cfg.AdvertiseRPC) {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
	}
	// Each of the two sees the other in its own region, and admits it not.
	for _, s := range []*testServer{first, second} {
		wait(t, "the dispute at "+s.cfg.Name, func() error {
			if _, contested := s.dir.Own(); !contested {
				return errors.New("it does not see it")
			}
			return nil
		})
	}
	// A server without data is admitted by neither: both would send it their log.
	fresh := startServer(t, "e3", "eu", t.TempDir(), 0, us.address("s1")[1])
	wait(t, "everybody to see the fresh one", func() error {
		for _, s := range []*testServer{first, second} {
			peers, _ := s.dir.Own()
			if !slices.ContainsFunc(peers, func(p federation.Peer) bool { return p.ID == fresh.cell.ID() }) {
				return errors.New(s.cfg.Name + " does not")
			}
		}
		return nil
	})
	for _, s := range []*testServer{first, second} {
		// A pass after it was seen.
		if err := s.members.reconcile(t.Context(), s.lead.pilot.Load()); err != nil {
			t.Error(err)
		}
		conf, err := s.cell.Configuration()
		if err != nil {
			t.Fatal(err)
		}
		if len(conf.Servers) != 1 || conf.Servers[0].ID != s.cell.ID() {
			t.Errorf("the cell of %s has %d members", s.cfg.Name, len(conf.Servers))
		}
	}
	fresh.stop()

	// Calls reach the first, and only it.
	for i := range 20 {
		register(t, us.any().RPC(), "eu", aJob(fmt.Sprintf("job-%d", i), 1))
	}
	if j := second.cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "job-0"}); j != nil {
		t.Error("the quarantined cell has the job")
	}
	// A call that is for the first refuses to be the second's, whoever sends it.
	if _, err := rpc.Call(t.Context(), us.any().RPC().At(second.cfg.AdvertiseRPC), method.StatusPing, rpc.To{Region: "eu"}, &method.Empty{}); err != nil {
		t.Errorf("a call without a cell: %v", err)
	}

	// The first is gone; nothing goes to the second by itself.
	first.stop()
	wait(t, "eu to be unreachable", func() error {
		_, err := rpc.Call(t.Context(), us.any().RPC(), method.JobGet, rpc.To{Region: "eu", Timeout: 2 * time.Second}, &method.JobRequest{JobID: "mine"})
		if model.KindOf(err) != model.KindUnreachable {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	for _, id := range []string{"nonsense", model.NewUUID(nil).String()} {
		_, err := rpc.Call(t.Context(), us.any().RPC(), method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: "eu", CellID: id})
		if k := model.KindOf(err); k != model.KindInvalid && k != model.KindNotFound {
			t.Errorf("cell %q is accepted: %v", id, err)
		}
	}
	if _, err := rpc.Call(t.Context(), us.any().RPC(), method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: "us", CellID: second.members.ofCell()}); model.KindOf(err) != model.KindInvalid {
		t.Errorf("another cell is accepted as our own: %v", err)
	}
	// From eu itself an operator tells us whom to take.
	out := call(t, second.RPC(), method.RegionAccept, rpc.To{Region: "us"}, &method.RegionAcceptRequest{Name: "eu", CellID: second.members.ofCell()})
	if len(out.Accepted) != 3 || len(out.Failed) != 0 {
		t.Errorf("accepted by %v, failed at %v", out.Accepted, out.Failed)
	}
	register(t, us.any().RPC(), "eu", aJob("yours", 1))
	if j := second.cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "yours"}); j == nil {
		t.Error("the accepted cell has not the job")
	}
	// It is known after a restart too, though the first cell comes back.
	name := us.leader().cfg.Name
	us.kill(name)
	back := us.start(name, 3, "s1", "s2", "s3")
	wait(t, "the pin after a restart", func() error {
		if st := statusOf(back, "eu"); st.CellID != second.members.ofCell() || !slices.Contains(st.Servers, second.cfg.AdvertiseRPC) {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	us.members("s1 s2 s3")
	if now := us.any().members.ofCell(); now != usCell {
		t.Errorf("our own cell was %s and is %s", usCell, now)
	}
}

func TestTwoCellsSeenAtOnceAreBothQuarantined(t *testing.T) {
	a := startServer(t, "e1", "eu", t.TempDir(), 1)
	b := startServer(t, "e2", "eu", t.TempDir(), 1, a.cfg.AdvertiseSerf)
	lead(t, a)
	lead(t, b)
	for _, s := range []*testServer{a, b} {
		wait(t, "the dispute", func() error {
			if _, contested := s.dir.Own(); !contested {
				return errors.New("not seen")
			}
			return nil
		})
	}
	us := startServer(t, "s1", "us", t.TempDir(), 1, a.cfg.AdvertiseSerf)
	want := []string{a.members.ofCell(), b.members.ofCell()}
	slices.Sort(want)
	wait(t, "both quarantined", func() error {
		st := statusOf(us, "eu")
		if !slices.Equal(claims(st), want) || st.Healthy || st.CellID != "" || len(st.Servers) != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	_, err := rpc.Call(t.Context(), us.RPC(), method.JobRegister, rpc.To{Region: "eu"}, &method.JobRegisterRequest{Job: aJob("x", 1)})
	if model.KindOf(err) != model.KindUnreachable || !strings.Contains(err.Error(), "region accept") {
		t.Errorf("a call to the region: %v", err)
	}
	call(t, us.RPC(), method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: "eu", CellID: b.members.ofCell()})
	register(t, us.RPC(), "eu", aJob("x", 1))
	if b.cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "x"}) == nil {
		t.Error("the accepted cell has not the job")
	}
}

// Gossip may be late: then the call itself says which cell it is for.
func TestACallForAnotherCellIsRefused(t *testing.T) {
	s := startServer(t, "e1", "eu", t.TempDir(), 1)
	lead(t, s)
	for cell, want := range map[string]bool{"": true, s.members.ofCell(): true, "another": false} {
		_, err := s.router.Route(context.Background(), &rpc.Envelope{Region: "eu", Cell: cell}, method.StatusPing.Spec)
		if (err == nil) != want || err != nil && model.KindOf(err) != model.KindUnreachable {
			t.Errorf("a call for the cell %q: %v", cell, err)
		}
	}
}

func TestALostRegionIsListedUntilItIsForgottenByAllServers(t *testing.T) {
	us := newCluster(t, "us")
	us.trio()
	eu := startServer(t, "e1", "eu", t.TempDir(), 1, us.address("s1")[1])
	lead(t, eu)
	for _, s := range us.servers {
		wait(t, "eu is known", func() error {
			if st := statusOf(s, "eu"); st.CellID == "" {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
	}
	if _, err := rpc.Call(t.Context(), us.any().RPC(), method.RegionForget, rpc.To{}, &method.RegionForgetRequest{Name: "eu"}); model.KindOf(err) != model.KindConflict {
		t.Errorf("a live region is forgotten: %v", err)
	}
	cell := eu.members.ofCell()
	eu.stop()
	for _, s := range us.servers {
		wait(t, "the loss of eu", func() error {
			_, err := rpc.Call(t.Context(), s.RPC(), method.JobGet, rpc.To{Region: "eu"}, &method.JobRequest{JobID: "x"})
			if model.KindOf(err) != model.KindUnreachable {
				return fmt.Errorf("the answer is %v", err)
			}
			return nil
		})
		if st := statusOf(s, "eu"); st.Healthy || st.CellID != cell {
			t.Errorf("a lost region is listed as %+v", st)
		}
	}
	var out *method.RegionForgetResponse
	wait(t, "gossip to see its death, and eu to be forgotten", func() (err error) {
		if out, err = rpc.Call(t.Context(), us.any().RPC(), method.RegionForget, rpc.To{}, &method.RegionForgetRequest{Name: "eu"}); err == nil && len(out.Failed) > 0 {
			err = fmt.Errorf("not by %v", out.Failed)
		}
		if model.KindOf(err) == model.KindNotFound {
			return nil
		}
		return err
	})
	for _, s := range us.servers {
		wait(t, "nothing of eu at "+s.cfg.Name, func() error {
			if st := statusOf(s, "eu"); st.Name != "" {
				return fmt.Errorf("%+v", st)
			}
			for _, m := range s.gossip.Members() {
				if m.Tags["region"] == "eu" {
					return fmt.Errorf("the member %s is %s", m.Name, m.Status)
				}
			}
			return nil
		})
		// What gossip tells from now on does not bring it back.
		s.gossipChanged()
		if _, err := rpc.Call(t.Context(), s.RPC(), method.JobGet, rpc.To{Region: "eu"}, &method.JobRequest{JobID: "x"}); model.KindOf(err) != model.KindUnknownRegion {
			t.Errorf("%s: a call for it: %v", s.cfg.Name, err)
		}
	}
}

func TestARegionThatComesBackUnderAnotherNameIsToldToBeRenamed(t *testing.T) {
	us := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, us)
	dir := t.TempDir()
	eu := startServer(t, "e1", "eu", dir, 1, us.cfg.AdvertiseSerf)
	lead(t, eu)
	cell := eu.members.ofCell()
	wait(t, "eu is pinned", func() error {
		if st := statusOf(us, "eu"); st.CellID != cell {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	eu.stop()
	ap := startServer(t, "e1", "ap", dir, 1, us.cfg.AdvertiseSerf)
	lead(t, ap)
	wait(t, "the rename is seen", func() error {
		st := statusOf(us, "ap")
		if len(st.Quarantined) != 1 || st.Quarantined[0].KnownAs != "eu" || st.Quarantined[0].CellID != cell || st.Healthy {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	_, err := rpc.Call(t.Context(), us.RPC(), method.JobRegister, rpc.To{Region: "ap"}, &method.JobRegisterRequest{Job: aJob("x", 1)})
	if model.KindOf(err) != model.KindUnreachable || !strings.Contains(err.Error(), `known as region "eu"`) {
		t.Errorf("a call for the new name: %v", err)
	}
	wait(t, "the old name's death in gossip", func() error {
		for _, m := range us.gossip.Members() {
			if m.Name == "e1.eu" && m.Status == "alive" {
				return errors.New("it is alive")
			}
		}
		us.gossipChanged()
		return nil
	})
	call(t, us.RPC(), method.RegionAccept, rpc.To{}, &method.RegionAcceptRequest{Name: "ap", CellID: cell})
	register(t, us.RPC(), "ap", aJob("x", 1))
	if st := statusOf(us, "eu"); st.Name != "" {
		t.Errorf("the old name is listed as %+v", st)
	}
	if now := ap.members.ofCell(); now != cell {
		t.Errorf("its cell was %s and is %s", cell, now)
	}
}
