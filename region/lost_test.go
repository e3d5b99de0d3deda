package region

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/federation"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// pretend is a server in gossip that is none: its RPC address is what a test says.
func pretend(t *testing.T, name, region, addr, cell, join string) {
	t.Helper()
	at := freeport.Addr(t)
	g, err := federation.NewGossip(federation.GossipConfig{
		Name: name, Region: region, ID: model.NewUUID(nil).String(), Cell: cell, Bind: at, Advertise: at, RPC: addr, Build: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = g.Close()
	})
	if _, err := g.Join(t.Context(), []string{join}); err != nil {
		t.Fatal(err)
	}
}

// mute accepts connections and never answers.
func mute(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	return l.Addr().String()
}

// closed is an address at which nobody listens.
func closed(t *testing.T) string { return freeport.Addr(t) }

// knows waits until a server's directory has so many servers of a region.
func knows(t *testing.T, s *testServer, region string, n int) {
	t.Helper()
	wait(t, fmt.Sprintf("%s knows %d servers of %s", s.cfg.Name, n, region), func() error {
		if st := statusOf(s, region); len(st.Servers) != n {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

// question is one of each kind of call.
type question struct {
	name string
	ask  func(c rpc.Caller, region string, n int) error
	// unsure may end with its outcome unknown.
	unsure bool
}

var questions = []question{
	{"a read", func(c rpc.Caller, region string, _ int) error {
		_, err := rpc.Call(context.Background(), c, method.JobList, rpc.To{Region: region}, &method.ListRequest{})
		return err
	}, false},
	{"a blocking query", func(c rpc.Caller, region string, _ int) error {
		_, err := rpc.Call(context.Background(), c, method.JobList, rpc.To{Region: region}, &method.ListRequest{Query: method.Query{MinIndex: 1, MaxWait: 10 * time.Second}})
		return err
	}, false},
	{"a write", func(c rpc.Caller, region string, n int) error {
		_, err := rpc.Call(context.Background(), c, method.JobRegister, rpc.To{Region: region}, &method.JobRegisterRequest{Job: aJob(fmt.Sprintf("w-%d", n), 1)})
		return err
	}, true},
	{"a stream", func(c rpc.Caller, region string, _ int) error {
		s, err := rpc.Open(context.Background(), c, method.SnapshotSave, rpc.To{Region: region}, &method.Empty{})
		if err != nil {
			return err
		}
		defer s.Close()
		for {
			if _, err := s.Recv(); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
		}
	}, false},
}

// answerTime is within what a region that says nothing is answered for, on a machine
// that has other things to do.
const answerTime = 2500 * time.Millisecond

func TestFiveServersOfSixAreLost(t *testing.T) {
	for name, lost := range map[string]func(*testing.T) string{"they refuse": closed, "they accept and never answer": mute} {
		t.Run(name, func(t *testing.T) {
			us := startServer(t, "s1", "us", t.TempDir(), 1)
			eu := startServer(t, "e1", "eu", t.TempDir(), 1, us.cfg.AdvertiseSerf)
			lead(t, us)
			lead(t, eu)
			for i := range 5 {
				pretend(t, fmt.Sprintf("x%d", i), "eu", lost(t), eu.members.ofCell(), us.cfg.AdvertiseSerf)
			}
			knows(t, us, "eu", 6)
			register(t, eu.RPC(), "", aJob("there", 1)) // what the query waits for
			for _, q := range questions {
				// What fails meanwhile fails in time and by its name; soon nothing does.
				failed := 0
				for n := 0; ; n++ {
					begun := time.Now()
					err := q.ask(us.RPC(), "eu", n)
					took := time.Since(begun)
					if took > answerTime {
						t.Errorf("%s took %s", q.name, took)
					}
					if err == nil {
						break
					}
					if k := model.KindOf(err); k != model.KindUnreachable && !(q.unsure && k == model.KindOutcomeUnknown) || !strings.Contains(err.Error(), `"eu"`) {
						t.Errorf("%s: %v", q.name, err)
					}
					if failed++; failed > 3 || name == "they refuse" {
						t.Fatalf("%s failed %d times: %v", q.name, failed, err)
					}
				}
				for n := range 10 {
					begun := time.Now()
					if err := q.ask(us.RPC(), "eu", n); err != nil || time.Since(begun) > time.Second {
						t.Errorf("%s, when it is known who answers: %v after %s", q.name, err, time.Since(begun))
					}
				}
			}
		})
	}
}

func TestATargetThatNeverAnswers(t *testing.T) {
	us := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, us)
	client := rpc.NewClient(rpc.ClientConfig{Region: "us"})
	defer func() { _ = client.Shutdown(context.Background()) }()
	client.SetServers([]string{us.cfg.AdvertiseRPC})
	n := 0
	for door, c := range map[string]rpc.Caller{"server": us.RPC(), "client": client} {
		for _, q := range questions {
			// Each meets a region of its own, of which nothing is known yet.
			n++
			region := fmt.Sprintf("silent-%d", n)
			cell := model.NewUUID(nil).String()
			for i := range 2 {
				pretend(t, fmt.Sprintf("x%d-%d", n, i), region, mute(t), cell, us.cfg.AdvertiseSerf)
			}
			knows(t, us, region, 2)
			for try := range 4 {
				begun := time.Now()
				err := q.ask(c, region, try)
				took := time.Since(begun)
				want := model.KindUnreachable
				if q.unsure && try == 0 {
					want = model.KindOutcomeUnknown
				}
				if model.KindOf(err) != want || !strings.Contains(err.Error(), fmt.Sprintf("%q", region)) {
					t.Errorf("%s at a %s, try %d: %v", q.name, door, try, err)
				}
				limit := answerTime
				if try > 0 {
					limit = 200 * time.Millisecond // it fails at once from then on
				}
				if took > limit {
					t.Errorf("%s at a %s, try %d: it took %s", q.name, door, try, took)
				}
			}
		}
	}
}

// Servers of us and ap say that they are of eu, which each passes on to the other.
func TestContradictoryRegionTags(t *testing.T) {
	us := startServer(t, "s1", "us", t.TempDir(), 1)
	ap := startServer(t, "a1", "ap", t.TempDir(), 1, us.cfg.AdvertiseSerf)
	lead(t, us)
	lead(t, ap)
	cell := model.NewUUID(nil).String()
	pretend(t, "x1", "eu", us.cfg.AdvertiseRPC, cell, us.cfg.AdvertiseSerf)
	pretend(t, "x2", "eu", ap.cfg.AdvertiseRPC, cell, us.cfg.AdvertiseSerf)
	// One's own address is no candidate.
	knows(t, us, "eu", 1)
	knows(t, ap, "eu", 1)
	for _, s := range []*testServer{us, ap} {
		for _, q := range questions {
			begun := time.Now()
			err := q.ask(s.RPC(), "eu", 0)
			if model.KindOf(err) != model.KindLoop || time.Since(begun) > time.Second {
				t.Errorf("%s at %s: %v after %s", q.name, s.cfg.Name, err, time.Since(begun))
			}
		}
		if j := s.cell.Snapshot().Job(nil, model.JobID{Namespace: "default", ID: "w-0"}); j != nil {
			t.Errorf("%s applied the write", s.cfg.Name)
		}
	}
	// A server of ap under the name of eu, and nobody else.
	pretend(t, "y1", "mars", ap.cfg.AdvertiseRPC, model.NewUUID(nil).String(), us.cfg.AdvertiseSerf)
	knows(t, us, "mars", 1)
	for _, q := range questions {
		begun := time.Now()
		err := q.ask(us.RPC(), "mars", 1)
		if k := model.KindOf(err); k != model.KindUnreachable && k != model.KindUnknownRegion || time.Since(begun) > time.Second {
			t.Errorf("%s for a region whose server is another's: %v after %s", q.name, err, time.Since(begun))
		}
	}
}
