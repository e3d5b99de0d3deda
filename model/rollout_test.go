package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func proposal(id string, version uint64, base []string, regions ...string) *Proposal {
	m := &Multiregion{}
	for _, r := range regions {
		m.Regions = append(m.Regions, &MultiregionRegion{Name: r})
	}
	return &Proposal{ID: id, Version: version, Base: base, Job: &Job{ID: "j", Multiregion: m}}
}

func TestJudge(t *testing.T) {
	three := []string{"us", "eu", "ap"}
	for _, c := range []struct {
		base    []string
		regions []string
		yes, no []string
		want    Verdict
	}{
		{nil, three, []string{"us", "eu"}, nil, VerdictWon},
		{nil, three, []string{"us"}, []string{"eu"}, VerdictOpen},
		{nil, three, []string{"us"}, []string{"eu", "ap"}, VerdictLost},
		// Of two, the first goes on alone, and the second does not.
		{nil, []string{"us", "eu"}, []string{"us"}, nil, VerdictWon},
		{nil, []string{"us", "eu"}, []string{"eu"}, nil, VerdictOpen},
		{nil, []string{"us", "eu"}, []string{"eu"}, []string{"us"}, VerdictLost},
		{nil, []string{"us", "eu", "ap", "sa"}, []string{"us", "eu"}, []string{"ap", "sa"}, VerdictWon},
		{nil, []string{"us", "eu", "ap", "sa"}, []string{"ap", "sa"}, []string{"eu"}, VerdictOpen},
		// A change of regions needs both the old and the new.
		{three, []string{"x", "y", "z"}, []string{"x", "y", "z", "us"}, nil, VerdictOpen},
		{three, []string{"x", "y", "z"}, []string{"x", "y", "us", "ap"}, nil, VerdictWon},
		{three, []string{"x", "y", "z"}, []string{"x", "y", "z"}, []string{"us", "ap"}, VerdictLost},
	} {
		if got := proposal("p", 1, c.base, c.regions...).Judge(c.yes, c.no); got != c.want {
			t.Errorf("base %v, regions %v, yes %v, no %v: %d, want %d", c.base, c.regions, c.yes, c.no, got, c.want)
		}
	}
}

// However the votes fall, no number is won twice, and what is lost stays so.
func TestANumberIsWonOnce(t *testing.T) {
	regions := []string{"a", "b", "c", "d", "e", "f"}
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		n := 1 + rng.IntN(len(regions))
		records := make(map[string]*Rollout)
		var all []*Proposal
		verdicts := make(map[string]Verdict)
		for i := range 4 {
			all = append(all, proposal(fmt.Sprint("p", i), uint64(rng.IntN(2)), nil, regions[:n]...))
		}
		for range 40 {
			region, p := regions[rng.IntN(n)], all[rng.IntN(len(all))]
			r := records[region]
			if r == nil {
				r = &Rollout{}
				records[region] = r
			}
			r.Vote(p)
			for _, p := range all {
				var yes, no []string
				for _, region := range regions[:n] {
					switch r := records[region]; {
					case r == nil:
					case r.Voted(p.Version) == p.ID:
						yes = append(yes, region)
					case r.Refuses(p):
						no = append(no, region)
					}
				}
				got := p.Judge(yes, no)
				if was := verdicts[p.ID]; was != VerdictOpen && got != was {
					t.Fatalf("seed %d: %s was decided as %d and is %d now", seed, p.ID, was, got)
				}
				verdicts[p.ID] = got
			}
		}
		for _, version := range []uint64{0, 1} {
			winners := slices.DeleteFunc(slices.Clone(all), func(p *Proposal) bool { return p.Version != version || verdicts[p.ID] != VerdictWon })
			if len(winners) > 1 {
				t.Fatalf("seed %d: version %d was won by %s and %s", seed, version, winners[0].ID, winners[1].ID)
			}
		}
	}
}

func TestWhatIsHeardOnlyMovesForward(t *testing.T) {
	r := &Rollout{}
	p := proposal("p", 3, nil, "us", "eu")
	yes := func(p *Proposal) bool { return r.Vote(p) == "" }
	for range 2 {
		if !yes(p) {
			t.Error("a vote is given, and given again to the same")
		}
	}
	if yes(proposal("q", 3, nil, "us", "eu")) || yes(proposal("q", 2, nil, "us", "eu")) {
		t.Error("a number is voted for once, and none below it")
	}
	if yes(proposal("other", 4, nil, "us", "eu")) || yes(proposal("other regions", 4, nil, "us")) || yes(proposal("other regions", 4, []string{"us"}, "us", "eu")) {
		t.Error("while a vote is undecided, there is none for other regions")
	}
	if !r.Adopt(p, "us") || r.Accepted != nil || r.Adopt(proposal("o", 2, nil, "us"), "us") {
		t.Errorf("%+v", r)
	}
	r.Set(Share{Region: "us", State: ShareRunning, DeploymentID: "d"})
	r.Set(Share{Region: "us", State: ShareBlocked})
	if s := r.Share("us"); s.Seq != 2 || s.DeploymentID != "d" {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		id    string
		share Share
		news  bool
	}{
		{"p", Share{Region: "eu", State: ShareBlocked, Seq: 2}, true},
		{"p", Share{Region: "eu", State: ShareRunning, Seq: 1}, false},
		{"other", Share{Region: "eu", State: ShareFailed, Seq: 9}, false},
		{"p", Share{Region: "us", State: ShareFailed, Seq: 9}, false},
		{"p", Share{Region: "unknown", State: ShareFailed, Seq: 9}, false},
	} {
		if got := r.Hear(c.id, []Share{c.share}, "us"); got != c.news {
			t.Errorf("%+v is news: %t", c, got)
		}
	}
	if r.Share("eu").State != ShareBlocked || r.Share("us").State != ShareBlocked || r.Settled() {
		t.Errorf("%+v", r.Shares)
	}
}

// The oldest votes are forgotten: of those a region says neither yes nor no.
func TestForgottenVotesAreNotDenied(t *testing.T) {
	r := &Rollout{}
	first := proposal("first", 0, nil, "us")
	for n := range uint64(votesKept + 1) {
		if n == 0 {
			r.Vote(first)
			continue
		}
		p := proposal(fmt.Sprint("p", n), n, nil, "us")
		p.Succeeds(r.Accepted.Submits())
		r.Vote(p)
	}
	if r.Refuses(first) || r.Vote(first) == "" {
		t.Error("it was voted for, which is forgotten: neither can be said")
	}
	if other := proposal("other", 1, nil, "us"); !r.Refuses(other) {
		t.Error("that number is remembered as another's")
	}
}

// A region that a version does not list, and its hearers, have it stop there even
// when the version's door did not know of it.
func TestWhatRanBeforeIsStopped(t *testing.T) {
	r := &Rollout{}
	one, two := proposal("one", 0, nil, "us", "eu"), proposal("two", 0, nil, "us", "ap")
	one.Born, two.Born = 1, 2
	r.Adopt(one, "us")
	if !r.Adopt(two, "us") || r.Adopt(one, "us") || r.Share("eu") == nil || len(r.Shares) != 3 {
		t.Errorf("the younger is the job: %+v", r.Shares)
	}
	other := &Rollout{}
	if other.Adopt(two, "eu"); other.Share("eu") == nil {
		t.Error("a region that never ran it has a share, that of telling so")
	}
}
