package autopilot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftautopilot "github.com/hashicorp/raft-autopilot"
	"go.uber.org/goleak"

	"atoll/cell/state"
	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRaft is a cell whose first server leads. What it is told to change it
// writes down.
type fakeRaft struct {
	raftautopilot.Raft
	conf    raft.Configuration
	changes chan string
}

type confFuture struct{ conf raft.Configuration }

func (confFuture) Error() error                        { return nil }
func (confFuture) Index() uint64                       { return 1 }
func (f confFuture) Configuration() raft.Configuration { return f.conf }

func (r *fakeRaft) GetConfiguration() raft.ConfigurationFuture { return confFuture{r.conf} }
func (r *fakeRaft) Leader() raft.ServerAddress                 { return r.conf.Servers[0].Address }
func (r *fakeRaft) State() raft.RaftState                      { return raft.Leader }
func (r *fakeRaft) LastIndex() uint64                          { return 100 }
func (r *fakeRaft) Stats() map[string]string                   { return map[string]string{"last_log_term": "2"} }

func (r *fakeRaft) told(format string, args ...any) raft.IndexFuture {
	select {
	case r.changes <- fmt.Sprintf(format, args...):
	default:
	}
	return confFuture{}
}

func (r *fakeRaft) AddVoter(id raft.ServerID, _ raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.told("voter %s", id)
}

func (r *fakeRaft) AddNonvoter(id raft.ServerID, _ raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.told("member %s", id)
}

func (r *fakeRaft) RemoveServer(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.told("gone %s", id)
}

func addr(id string) string { return id + ":1" }

// members reads ids; a question mark behind one says that it has no vote.
func members(text string) *fakeRaft {
	r := &fakeRaft{changes: make(chan string, 100)}
	for _, id := range strings.Fields(text) {
		s := raft.Server{ID: raft.ServerID(strings.TrimSuffix(id, "?")), Suffrage: raft.Voter}
		s.Address = raft.ServerAddress(addr(string(s.ID)))
		if strings.HasSuffix(id, "?") {
			s.Suffrage = raft.Nonvoter
		}
		r.conf.Servers = append(r.conf.Servers, s)
	}
	return r
}

func snapshot(t *testing.T, conf model.AutopilotConfig) func() *state.Snapshot {
	t.Helper()
	s, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(1, func(tx *state.Txn) error { return tx.SetAutopilotConfig(conf) }); err != nil {
		t.Fatal(err)
	}
	return s.Snapshot
}

func TestDeadServersGoWhenThatMakesTheCellSafer(t *testing.T) {
	for name, tc := range map[string]struct {
		members, failed, unknown string
		minQuorum                uint
		keep                     bool // cleanup_dead_servers = false
		want                     string
	}{
		"of three, one that failed stays":            {members: "a b c", failed: "c"},
		"of three, one that is not known stays":      {members: "a b c", unknown: "c"},
		"of four, one that failed goes":              {members: "a b c d", failed: "d", want: "d"},
		"of four, one that is not known goes":        {members: "a b c d", unknown: "d", want: "d"},
		"of five, one that failed stays":             {members: "a b c d e", failed: "e"},
		"of five, two that failed go":                {members: "a b c d e", failed: "d e", want: "d e"},
		"of six, one goes":                           {members: "a b c d e f", failed: "f", want: "f"},
		"of six, two failed: one goes":               {members: "a b c d e f", failed: "e f", want: "f"},
		"of six, one failed, one unknown: that goes": {members: "a b c d e f", failed: "e", unknown: "f", want: "f"},
		"of seven, three failed: two go":             {members: "a b c d e f g", failed: "e f g", want: "f g"},
		"never a majority":                           {members: "a b c d", failed: "b c d"},
		"not below the least quorum":                 {members: "a b c d e", failed: "d e", minQuorum: 5},
		"one without a vote goes at once":            {members: "a b c d?", failed: "d", want: "d"},
		"none goes when it is switched off":          {members: "a b c d", failed: "d", keep: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := members(tc.members)
			failed, unknown := strings.Fields(tc.failed), strings.Fields(tc.unknown)
			conf := model.DefaultAutopilot()
			conf.MinQuorum, conf.CleanupDeadServers = tc.minQuorum, !tc.keep
			gone := make(chan string, 100)
			ctx, cancel := context.WithCancel(t.Context())
			measured := make(chan struct{}, 1000)
			p := New(Config{
				Raft: r, Snapshot: snapshot(t, conf), Update: 5 * time.Millisecond, Reconcile: 20 * time.Millisecond,
				Peers: func() (out []federation.Peer) {
					for _, s := range r.conf.Servers {
						id := string(s.ID)
						if !slices.Contains(unknown, id) {
							out = append(out, federation.Peer{ID: id, Name: id, RPC: addr(id), Alive: !slices.Contains(failed, id)})
						}
					}
					return out
				},
				Ask: func(_ context.Context, at string) (*method.ServerStatusResponse, error) {
					id := strings.TrimSuffix(at, ":1")
					if slices.Contains(failed, id) {
						return nil, errors.New("it is dead")
					}
					if id == "a" {
						measured <- struct{}{}
					}
					return &method.ServerStatusResponse{ID: id, LastTerm: 2, LastIndex: 100}, nil
				},
				Gone: func(name string) error { gone <- name; return nil },
			})
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			// Several rounds of measuring and acting.
			for range 40 {
				<-measured
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			got := map[string]bool{}
			for len(gone) > 0 {
				got[<-gone] = true
			}
			for len(r.changes) > 0 {
				change := <-r.changes
				id, removed := strings.CutPrefix(change, "gone ")
				if !removed {
					t.Errorf("it also changed: %s", change)
				}
				got[id] = true
			}
			want := strings.Fields(tc.want)
			if len(got) != len(want) || slices.ContainsFunc(want, func(id string) bool { return !got[id] }) {
				t.Errorf("gone are %v, want %q", got, tc.want)
			}
		})
	}
}

func TestAServerThatAnswersNoMoreIsNotHealthyByItsOldAnswer(t *testing.T) {
	answers := true
	p := New(Config{
		Raft: members("a b"), Snapshot: snapshot(t, model.DefaultAutopilot()),
		Ask: func(_ context.Context, at string) (*method.ServerStatusResponse, error) {
			id := strings.TrimSuffix(at, ":1")
			switch {
			case id == "c": // another server is there now
				return &method.ServerStatusResponse{ID: "x", LastIndex: 7}, nil
			case id == "b" && !answers:
				return nil, errors.New("it hangs")
			}
			return &method.ServerStatusResponse{ID: id, LastContact: 10 * time.Millisecond, LastTerm: 2, LastIndex: 100}, nil
		},
	})
	ask := func() map[raft.ServerID]*raftautopilot.ServerStats {
		servers := map[raft.ServerID]*raftautopilot.Server{}
		for _, id := range []string{"a", "b", "c"} {
			servers[raft.ServerID(id)] = &raftautopilot.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr(id))}
		}
		return (*delegate)(p).FetchServerStats(t.Context(), servers)
	}
	first := ask()
	if first["a"].LastContact != 10*time.Millisecond || first["b"].LastIndex != 100 || first["c"].LastContact != -1 {
		t.Errorf("at first: %+v %+v %+v", first["a"], first["b"], first["c"])
	}
	answers = false
	second, third := ask()["b"].LastContact, ask()["b"].LastContact
	if second <= 10*time.Millisecond || third <= second {
		t.Errorf("without an answer its last contact is %s and %s ago", second, third)
	}
}

func TestANewServerAtAnOldOnesAddressTakesItsPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		members string
		peer    federation.Peer
		want    []string
	}{
		"a new one":                          {"a b c", federation.Peer{ID: "d", RPC: addr("d")}, []string{"member d"}},
		"one that is there":                  {"a b c", federation.Peer{ID: "c", RPC: addr("c")}, nil},
		"a voter with a new address":         {"a b c", federation.Peer{ID: "c", RPC: "10.0.0.1:1"}, []string{"voter c"}},
		"a member with a new address":        {"a b c?", federation.Peer{ID: "c", RPC: "10.0.0.1:1"}, []string{"member c"}},
		"a new one at a voter's address":     {"a b c", federation.Peer{ID: "x", RPC: addr("c")}, []string{"gone c", "member x"}},
		"of two, a new one at the other's":   {"a b", federation.Peer{ID: "x", RPC: addr("b")}, nil},
		"a new one at a non-voter's address": {"a b c?", federation.Peer{ID: "x", RPC: addr("c")}, []string{"gone c", "member x"}},
	} {
		r := members(tc.members)
		_ = New(Config{Raft: r, Snapshot: snapshot(t, model.DefaultAutopilot())}).Add(tc.peer)
		var got []string
		for len(r.changes) > 0 {
			got = append(got, <-r.changes)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
