package region

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// calm is an archipelago where nothing is lost but what a test takes away.
func calm(t *testing.T, names ...string) *archipelago {
	s := newArchipelago(t, 1, names...)
	s.rough = false
	return s
}

// spec is a job for some regions, "batch" where kind says so.
func (s *archipelago) spec(kind, submit string, regions ...string) *model.Job {
	j := aJob(simKey.ID, 1, "*")
	j.Type = kind
	j.Meta = map[string]string{"submit": submit}
	j.Multiregion = &model.Multiregion{Strategy: &model.MultiregionStrategy{MaxParallel: 1}}
	return overSeas(j, regions...)
}

// take has a door take a submit, and waits until all is settled.
func (s *archipelago) take(door, request string, job *model.Job, global, purge bool) {
	s.t.Helper()
	s.submit(door, request, job, global, purge)
	if _, ok := s.acked[request]; !ok {
		s.t.Fatalf("%s did not take %s", door, request)
	}
	time.Sleep(time.Minute)
}

// purge purges the job in one region, as a user does there, or the collector.
func (s *archipelago) purge(region string) {
	s.t.Helper()
	if s.nodes[region].machine.Snapshot().Job(nil, simKey) == nil {
		return
	}
	s.must(s.nodes[region].Apply(context.Background(), cell.CmdJobDeregister, &cell.JobDeregister{Key: simKey, Purge: true}))
}

// finish has the job's work in a region done.
func (s *archipelago) finish(region string) {
	s.t.Helper()
	n := s.nodes[region]
	job, id, node := n.machine.Snapshot().Job(nil, simKey), model.NewUUID(nil), model.NewUUID(nil)
	p := &model.Plan{
		JobKey: simKey, JobVersion: job.Version, JobModifyIndex: job.JobModifyIndex,
		Groups: []model.PlanGroup{{Name: "g", Resources: &model.AllocatedResources{}}},
		Place:  model.Placements{{ID: id, NodeID: node}},
	}
	s.must(n.Apply(context.Background(), cell.CmdPlan, state.NewPlanCommand(p, 1)))
	done := &model.AllocUpdate{ID: id.String(), ClientStatus: model.AllocClientComplete}
	s.must(n.Apply(context.Background(), cell.CmdAllocReports, &cell.AllocReports{NodeID: node, Updates: []*model.AllocUpdate{done}}))
	time.Sleep(10 * time.Second) // its evaluations are over
	if got := n.machine.Snapshot().Job(nil, simKey).Status; got != model.JobStatusDead {
		s.t.Fatalf("the job in %s is %s", region, got)
	}
}

func (s *archipelago) must(_ uint64, _ any, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// elect changes the leaders of regions, and has them talk.
func (s *archipelago) elect(regions ...string) {
	for _, name := range regions {
		s.nodes[name].crash()
		s.nodes[name].start()
		time.Sleep(10 * time.Second)
	}
}

// rebuild gives a region a new cell that knows nothing.
func (s *archipelago) rebuild(name string) {
	s.t.Helper()
	n := s.nodes[name]
	n.crash()
	m, err := cell.NewMachine()
	if err != nil {
		s.t.Fatal(err)
	}
	id := model.NewUUID(nil).String()
	s.must(m.Apply(cell.CmdCellInit, nil, &cell.CellInit{Cell: state.Cell{ID: id, Region: name, Incarnation: id}}))
	*n.machine = *m
	n.start()
}

// has is what the regions have of the job: "run" when it is to run there, "done"
// when it has ended, and "known" when only the record is there.
func (s *archipelago) has() string {
	var out []string
	for _, name := range s.names {
		snap := s.nodes[name].machine.Snapshot()
		job, what := snap.Job(nil, simKey), "none"
		switch {
		case job != nil && !job.Multiregional():
			what = "own"
		case job != nil && (job.Stop || job.Type == model.JobTypeBatch && job.Status == model.JobStatusDead):
			what = "done"
		case job != nil:
			what = "run"
		case snap.Rollout(nil, simKey) != nil:
			what = "known"
		}
		out = append(out, name+"="+what)
	}
	return strings.Join(out, " ")
}

func (s *archipelago) expect(when, want string) {
	s.t.Helper()
	if got := s.has(); got != want {
		for _, name := range s.names {
			if r := s.nodes[name].machine.Snapshot().Rollout(nil, simKey); r != nil {
				s.t.Logf("%s: %+v of %v", name, r.Shares, r.Won.Mark())
			}
		}
		s.t.Fatalf("%s: %s, want %s", when, got, want)
	}
}

// What a job leaves behind in its regions goes in the end, and brings it back to
// life nowhere; and a job that lives comes to each region that is to run it.
func TestWhatEndedStaysEnded(t *testing.T) {
	const service, batch = model.JobTypeService, model.JobTypeBatch
	hours := func(n int) { time.Sleep(time.Duration(n) * time.Hour) }
	for name, test := range map[string]func(s *archipelago){
		"a region that was removed before the job was purged": func(s *archipelago) {
			s.take("us", "a", s.spec(service, "a", "us", "eu", "ap"), false, false)
			s.take("us", "b", s.spec(service, "b", "us", "eu"), false, false)
			s.purge("ap")
			s.take("us", "c", s.spec(service, "c", "us", "eu"), false, false)
			s.take("us", "d", s.spec(service, "c", "us", "eu"), true, true)
			hours(2)
			s.elect("ap", "us", "eu")
			hours(1)
			s.elect("ap", "us", "eu")
			hours(2)
			s.expect("at last", "us=none eu=none ap=none")
		},
		"a region that was removed, and the job stopped and collected": func(s *archipelago) {
			s.take("us", "a", s.spec(service, "a", "us", "eu", "ap"), false, false)
			s.take("us", "b", s.spec(service, "b", "us", "eu"), false, false)
			s.purge("ap")
			hours(5)
			s.take("us", "c", s.spec(service, "c", "us", "eu"), true, false)
			hours(4)
			s.expect("once stopped", "us=done eu=done ap=none")
			s.purge("us")
			s.purge("eu")
			hours(2)
			s.elect("ap", "us", "eu")
			s.expect("at last", "us=none eu=none ap=none")
		},
		"purged region by region": func(s *archipelago) {
			s.take("us", "a", s.spec(service, "a", "us", "eu", "ap"), false, false)
			s.purge("us")
			hours(3)
			s.elect("eu", "us", "ap")
			hours(3)
			s.expect("purged in one", "us=known eu=run ap=run")
			s.purge("ap")
			s.purge("eu")
			hours(2)
			s.elect("eu", "us", "ap")
			hours(2)
			s.expect("at last", "us=none eu=none ap=none")
		},
		"a batch job that came to its end": func(s *archipelago) {
			s.take("us", "a", s.spec(batch, "a", "us", "eu", "ap"), false, false)
			for _, region := range s.names {
				s.finish(region)
			}
			s.purge("us")
			hours(3)
			s.elect("eu", "us", "ap")
			hours(3)
			s.rebuild("ap")
			s.elect("eu", "us")
			hours(1)
			s.expect("collected in one", "us=none eu=done ap=none")
			s.purge("eu")
			hours(3)
			s.expect("at last", "us=none eu=none ap=none")
		},
		"a job that lives is brought to a region that was rebuilt": func(s *archipelago) {
			s.take("us", "a", s.spec(service, "a", "us", "eu", "ap"), false, false)
			s.take("us", "b", s.spec(service, "b", "us", "eu"), false, false)
			hours(4)
			s.rebuild("eu")
			hours(1)
			s.purge("ap")
			s.expect("rebuilt", "us=run eu=run ap=known")
			hours(9)
			s.expect("later", "us=run eu=run ap=known")
		},
		"a new job follows what one region has forgotten": func(s *archipelago) {
			s.take("us", "a", s.spec(batch, "a", "us", "eu", "ap"), false, false)
			for _, region := range s.names {
				s.finish(region)
			}
			s.purge("us")
			hours(3)
			s.expect("forgotten in one", "us=none eu=done ap=done")
			s.take("us", "b", s.spec(service, "b", "us", "eu"), false, false)
			s.expect("submitted", "us=run eu=run ap=done")
			s.take("eu", "c", s.spec(service, "b", "us", "eu"), true, true)
			s.expect("purged", "us=known eu=known ap=known")
			hours(3)
			s.expect("at last", "us=none eu=none ap=none")
		},
		"a submit that was lost": func(s *archipelago) {
			p := &model.Proposal{ID: "p", Request: "p", Born: 1, Time: time.Now().UnixNano(), Job: s.spec(service, "p", "us", "eu", "ap")}
			s.must(s.nodes["us"].Apply(context.Background(), cell.CmdRolloutVote, &cell.RolloutVote{Proposal: p}))
			s.must(s.nodes["us"].Apply(context.Background(), cell.CmdRolloutLearn, &cell.RolloutLearn{Key: simKey, Own: "us", Lost: "p", Time: time.Now().UnixNano()}))
			time.Sleep(50 * time.Minute)
			s.expect("for a while", "us=known eu=none ap=none")
			hours(1)
			s.expect("at last", "us=none eu=none ap=none")
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(_ *testing.T, s *archipelago) { test(s) })
		})
	}
}

// simulate runs a test in three regions where nothing is lost but what it takes
// away.
func simulate(t *testing.T, test func(t *testing.T, s *archipelago)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := calm(t, "us", "eu", "ap")
		defer func() {
			for _, name := range s.names {
				s.nodes[name].crash()
			}
			time.Sleep(10 * time.Second)
		}()
		test(t, s)
	})
}

func (s *archipelago) shares(region string) string {
	var out []string
	for _, share := range s.nodes[region].machine.Snapshot().Rollout(nil, simKey).Shares {
		out = append(out, share.Region+"="+string(share.State))
	}
	return strings.Join(out, " ")
}

func (s *archipelago) scale(door, token string, count int64) error {
	d := s.nodes[door].door
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	in := &rpc.Inbound{Envelope: &rpc.Envelope{Method: "Job.Scale", RequestID: token}}
	_, err := d.scale(ctx, in, d.snapshot().Rollout(nil, simKey), &method.JobScaleRequest{JobID: simKey.ID, Group: "g", Count: &count})
	return err
}

// lose cuts a region off, and has the others forget it, or not any more.
func (s *archipelago) lose(region string, cut, forgotten bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[region], s.left[region] = cut, forgotten
}

// A region that is lost keeps a job from being scaled once and no more; and when
// an operator forgets the region, nothing waits for it any longer.
func TestAJobIsScaledWithoutALostRegion(t *testing.T) {
	simulate(t, func(t *testing.T, s *archipelago) {
		job := s.spec(model.JobTypeService, "a", "us", "eu", "ap")
		job.Multiregion.Strategy.OnUnreachable = model.OnUnreachableSkip
		s.take("us", "a", job, false, false)
		if err := s.scale("us", "first", 2); err != nil {
			t.Fatal(err)
		}
		if err := s.scale("us", "at once", 3); err == nil || !strings.Contains(err.Error(), "blocked due to active deployment") {
			t.Errorf("while it is under way: %v", err)
		}
		time.Sleep(time.Minute)
		s.lose("ap", true, false)
		for i := range int64(3) {
			if err := s.scale("eu", fmt.Sprint("lost", i), 4+i); err != nil {
				t.Fatalf("without ap, time %d: %v", i, err)
			}
			time.Sleep(time.Minute)
			if got := s.shares("us"); got != "us=successful eu=successful ap=pending" {
				t.Fatalf("without ap: %s", got)
			}
		}
		s.lose("ap", true, true)
		time.Sleep(time.Minute)
		if got := s.shares("eu"); got != "us=successful eu=successful ap=stopped" || !s.nodes["eu"].machine.Snapshot().Rollout(nil, simKey).Settled() {
			t.Errorf("once ap was forgotten: %s", got)
		}
		// It comes back all the same: what it says of itself stands.
		s.lose("ap", false, false)
		time.Sleep(time.Hour)
		if got := s.shares("eu"); got != "us=successful eu=successful ap=successful" {
			t.Errorf("once ap came back: %s", got)
		}
		s.lose("ap", true, true)
		s.take("us", "stop", job, true, true)
		time.Sleep(3 * time.Hour)
		s.expect("stopped without ap", "us=known eu=known ap=run")
		s.lose("ap", false, false)
		time.Sleep(3 * time.Hour)
		s.expect("stopped in ap too", "us=none eu=none ap=none")
	})
}

// linger goes past the time for which ended jobs are remembered, with changes of
// leaders: what was purged, by a stop everywhere or region by region, is to be gone
// and forgotten, and a region that lost its data is to run what lives.
func (s *archipelago) linger(rng *rand.Rand) error {
	live := func(name string) *model.Proposal {
		snap := s.nodes[name].machine.Snapshot()
		job, r := snap.Job(nil, simKey), snap.Rollout(nil, simKey)
		if job == nil || job.Stop || r == nil {
			return nil
		}
		return r.Won
	}
	pass := func() {
		time.Sleep(time.Duration(rng.IntN(60)) * time.Minute)
		s.elect(s.names[rng.IntN(len(s.names))])
	}
	victim := s.names[rng.IntN(len(s.names))]
	for _, name := range s.names {
		if live(victim) == nil {
			victim = name
		}
	}
	runs := live(victim)
	way := rng.IntN(3)
	for _, name := range s.names {
		if r := s.nodes[name].machine.Snapshot().Rollout(nil, simKey); r != nil && !r.Settled() {
			way = 1 // else it waits for an operator all the time
		}
	}
	if way == 1 && runs == nil {
		way = 2
	}
	s.log("hours pass, in way %d, at %s", way, victim)
	switch {
	case way == 0 && runs != nil:
		s.rebuild(victim)
		pass()
		time.Sleep(time.Hour)
		heard := slices.ContainsFunc(s.names, func(name string) bool { return name != victim && live(name).Mark() == runs.Mark() })
		r := s.nodes[victim].machine.Snapshot().Rollout(nil, simKey)
		if heard && (r == nil || r.Won.Mark() != runs.Mark()) {
			return fmt.Errorf("%s was rebuilt, and has not heard of %s", victim, runs.ID)
		}
		return nil
	case way == 1:
		for i := range 20 {
			request := fmt.Sprint("end", i)
			s.submit(victim, request, runs.Job, true, true)
			if _, done := s.acked[request]; done {
				break
			}
			time.Sleep(10 * time.Second)
		}
		pass()
	}
	for _, name := range s.names {
		pass()
		if way != 1 || live(name) == nil {
			s.purge(name)
		}
	}
	for range 3 {
		pass()
	}
	time.Sleep(2 * time.Hour)
	for _, name := range s.names {
		// A job of the name that others never met may live on.
		r, won := s.nodes[name].machine.Snapshot().Rollout(nil, simKey), live(name)
		if way == 1 && (won != nil && won.Born != runs.Born || r != nil && slices.ContainsFunc(s.names, func(o string) bool { return live(o) != nil && live(o).Born != runs.Born })) {
			continue
		}
		if won != nil || r != nil {
			return fmt.Errorf("what was purged is left in %s: %s; %+v", name, s.has(), r)
		}
	}
	return nil
}
