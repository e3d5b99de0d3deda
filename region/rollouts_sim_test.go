package region

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/deploy"
	"atoll/region/rollout"
	"atoll/rpc"
)

var (
	simSeeds = flag.Uint64("rollout.seeds", 200, "how many simulations of rollouts to run")
	simSeed  = flag.Uint64("rollout.seed", 0, "the first seed of the simulations of rollouts")
)

// archipelago drives the rollouts of one job over regions whose state machines,
// leader's loops and doors are the real ones. What is simulated is Raft, which
// here commits at once or says that it cannot tell, the work of the nodes, and
// the network between regions, which delays, loses, repeats and cuts.
type archipelago struct {
	t     *testing.T
	seed  uint64
	nodes map[string]*simRegion
	names []string
	// rough is false once everything has healed.
	rough bool
	trace bytes.Buffer

	mu   sync.Mutex
	cut  map[string]bool // regions that nobody reaches
	left map[string]bool // regions that all others forgot
	seq  map[string]uint64
	jobs map[string]*model.Proposal // all that were voted for, by id
	// voted is who voted for what, by proposal; lost are those that some region
	// has given up.
	voted map[string][]string
	lost  map[string]bool
	acked map[string]uint64 // the versions that were answered for, by request
	no    map[string]int    // refusals, and how often it was sent, by request
	sent  map[string]int
}

type simRegion struct {
	*archipelago
	name string
	door *rollouts

	mu      sync.Mutex // guards what follows
	machine *cell.Machine
	down    bool
	stop    context.CancelFunc
	done    chan struct{}
}

var simKey = model.JobID{Namespace: model.DefaultNamespace, ID: "web"}

func newArchipelago(t *testing.T, seed uint64, names ...string) *archipelago {
	s := &archipelago{
		t: t, seed: seed, names: names, rough: true, nodes: make(map[string]*simRegion), cut: make(map[string]bool), left: make(map[string]bool), seq: make(map[string]uint64),
		jobs: make(map[string]*model.Proposal), voted: make(map[string][]string), lost: make(map[string]bool), acked: make(map[string]uint64),
		no: make(map[string]int), sent: make(map[string]int),
	}
	for _, name := range names {
		m, err := cell.NewMachine()
		if err != nil {
			t.Fatal(err)
		}
		r := &simRegion{archipelago: s, name: name, machine: m}
		id := model.NewUUID(nil).String()
		if _, _, err := m.Apply(cell.CmdCellInit, nil, &cell.CellInit{Cell: state.Cell{ID: id, Region: name, Incarnation: id}}); err != nil {
			t.Fatal(err)
		}
		r.door = &rollouts{
			reader: &reader{snapshot: r.machine.Snapshot}, writer: &writer{applier: r, clock: clock.Real}, region: name,
			links: links{tell: r.tell, askVote: r.askVote},
		}
		s.nodes[name] = r
	}
	for _, name := range names {
		s.nodes[name].start()
	}
	return s
}

// fail ends the simulation with all that it takes to see it again.
func (s *archipelago) fail(format string, args ...any) {
	if os.Getenv("ROLLOUT_TRACE") != "" {
		s.t.Log(s.trace.String())
	}
	s.t.Fatalf("%s\nagain: go test ./region -run TestRolloutsUnderFaults -rollout.seed %d -rollout.seeds 1 (ROLLOUT_TRACE=1 tells all)", fmt.Sprintf(format, args...), s.seed)
}

func (s *archipelago) log(format string, args ...any) {
	fmt.Fprintf(&s.trace, "%s "+format+"\n", append([]any{time.Now().Format("04:05.000")}, args...)...)
}

// dice is a number in [0,1) for what is done the next time under a name: so what
// happens on one link does not depend on what happens on others.
func (s *archipelago) dice(name string) float64 {
	s.mu.Lock()
	s.seq[name]++
	n := s.seq[name]
	s.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, name, n)
	return rand.New(rand.NewPCG(h.Sum64(), n)).Float64()
}

func (s *archipelago) chance(name string, p float64) bool { return s.rough && s.dice(name) < p }

func (s *archipelago) reaches(a, b string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.cut[a] && !s.cut[b] && !s.cut[a+b]
}

// pass is the way of a message.
func (s *archipelago) pass(ctx context.Context, from, to string) error {
	delay := time.Duration(1+s.dice(from+to)*40) * time.Millisecond
	if s.chance("slow"+from+to, 0.05) {
		delay += time.Duration(s.dice("how slow"+from+to) * float64(3*time.Second))
	}
	if !s.reaches(from, to) || s.chance("drop"+from+to, 0.1) {
		delay = time.Hour
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return &model.Error{Kind: model.KindUnreachable, Region: to, Message: "region " + to + " is silent"}
	}
}

// carry calls a handler of another region.
func carry[Q, R any](ctx context.Context, r *simRegion, to string, req *Q, handle func(*rollouts, context.Context, *Q) (*R, error)) (*R, error) {
	ctx, cancel := context.WithTimeout(ctx, rolloutTime)
	defer cancel()
	target := r.nodes[to]
	if target == nil {
		return nil, &model.Error{Kind: model.KindUnknownRegion, Region: to}
	}
	b, err := wire.Encode(req)
	if err != nil {
		return nil, err
	}
	serve := func() (*R, error) {
		in := new(Q)
		if err := wire.Decode(b, in); err != nil {
			return nil, err
		}
		return handle(target.door, context.Background(), in)
	}
	if err := r.pass(ctx, r.name, to); err != nil {
		return nil, err
	}
	if r.chance("twice"+r.name+to, 0.05) {
		late := time.Duration(r.dice("how late"+r.name+to) * float64(4*time.Second))
		go func() {
			time.Sleep(late)
			_, _ = serve()
		}()
	}
	out, err := serve()
	if err != nil {
		return nil, err
	}
	if err := r.pass(ctx, to, r.name); err != nil {
		return nil, err
	}
	if b, err = wire.Encode(out); err != nil {
		return nil, err
	}
	got := new(R)
	return got, wire.Decode(b, got)
}

func (r *simRegion) tell(ctx context.Context, to string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
	return carry(ctx, r, to, req, func(d *rollouts, ctx context.Context, q *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
		return d.told(ctx, nil, q)
	})
}

func (r *simRegion) askVote(ctx context.Context, to string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
	return carry(ctx, r, to, req, func(d *rollouts, ctx context.Context, q *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
		return d.vote(ctx, nil, q)
	})
}

func (r *simRegion) Apply(ctx context.Context, cmd cell.Command, body any) (uint64, any, error) {
	return r.ApplyOnce(ctx, cmd, nil, body)
}

// ApplyOnce commits, checks what may be so after it, and sometimes cannot tell.
func (r *simRegion) ApplyOnce(ctx context.Context, cmd cell.Command, req *state.Request, body any) (uint64, any, error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	if r.chance("raft"+r.name, 0.02) {
		return 0, nil, model.Errorf(model.KindNoLeader, "no leader")
	}
	r.mu.Lock()
	if r.down {
		r.mu.Unlock()
		return 0, nil, model.Errorf(model.KindNoLeader, "it is down")
	}
	before := r.machine.Snapshot()
	index, value, err := r.machine.Apply(cmd, req, body)
	r.check(before.Rollout(nil, simKey), r.machine.Snapshot(), cmd, body, value, err)
	r.mu.Unlock()
	if err == nil && r.chance("unsure"+r.name, 0.02) {
		return 0, nil, model.Errorf(model.KindOutcomeUnknown, "cannot tell")
	}
	return index, value, err
}

// start starts the leader's loops, crash ends them; the state stays.
func (r *simRegion) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan struct{})
	r.down = false
	apply := func(ctx context.Context, cmd cell.Command, body any) error {
		_, _, err := r.Apply(ctx, cmd, body)
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = rollout.Run(ctx, rollout.Config{
			Region: r.name, Snapshot: r.machine.Snapshot, Apply: apply, Tell: r.tell, Vote: r.askVote, Clock: clock.Real, Log: hclog.NewNullLogger(),
			Rand: func() float64 { return r.dice("pace" + r.name) },
			Forgotten: func(region string) bool {
				r.archipelago.mu.Lock()
				defer r.archipelago.mu.Unlock()
				return r.left[region]
			},
			Fail: func(snap *state.Snapshot, d *model.Deployment, why string, now time.Time) *cell.DeploymentStatus {
				return deploy.Fail(snap, d, why, true, now)
			},
		})
	})
	wg.Go(func() { r.work(ctx) })
	go func() {
		wg.Wait()
		close(r.done)
	}()
}

func (r *simRegion) crash() {
	r.mu.Lock()
	r.down = true
	r.mu.Unlock()
	r.stop()
	<-r.done
}

// work does what schedulers and nodes do: it deploys, which takes a while.
func (r *simRegion) work(ctx context.Context) {
	for ctx.Err() == nil {
		wait := time.Duration(100+r.dice("work"+r.name)*2500) * time.Millisecond
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		snap := r.machine.Snapshot()
		job := snap.Job(nil, simKey)
		now := time.Now().UnixNano()
		for e := range snap.EvalsOfJob(nil, simKey) {
			if e.Terminal() {
				continue
			}
			latest := r.machine.Snapshot().LatestDeployment(nil, simKey)
			deployed := latest != nil && job != nil && latest.JobVersion == job.Version && latest.JobCreateIndex == job.CreateIndex
			if job != nil && !job.Stop && job.Type == model.JobTypeService && e.TriggeredBy == model.TriggerJobRegister && !deployed {
				id := e.DeploymentID
				if id == "" {
					id = model.NewUUID(nil).String()
				}
				evalID, _ := model.ParseUUID(e.ID)
				_, _, _ = r.Apply(ctx, cell.CmdPlan, state.NewPlanCommand(&model.Plan{
					EvalID: evalID, JobKey: simKey, JobVersion: job.Version, JobModifyIndex: job.JobModifyIndex, Deployment: &model.Deployment{
						ID: id, Namespace: simKey.Namespace, JobID: simKey.ID, JobVersion: job.Version, JobCreateIndex: job.CreateIndex, JobModifyIndex: job.ModifyIndex, IsMultiregion: true,
						Status: model.DeploymentRunning, TaskGroups: map[string]*model.DeploymentState{"g": {AutoRevert: r.dice("revert"+r.name) < 0.5, DesiredTotal: 1}}, CreateTime: now,
					},
				}, now))
			}
			done := *e
			done.Status = model.EvalComplete
			_, _, _ = r.Apply(ctx, cell.CmdEvals, &cell.Evals{Evals: []*model.Evaluation{&done}})
		}
		for _, d := range r.machine.Snapshot().DeploymentsOfJob(nil, simKey) {
			if job == nil || d.Status != model.DeploymentRunning || d.JobVersion != job.Version || r.dice("slow deployment"+r.name) < 0.3 {
				continue
			}
			if slices.Contains(strings.Fields(job.Meta["sick"]), r.name) {
				_, _, _ = r.Apply(ctx, cell.CmdDeploymentStatus, deploy.Fail(r.machine.Snapshot(), d, "it is sick", d.TaskGroups["g"].AutoRevert, time.Now()))
				continue
			}
			end := model.DeploymentUpdate{DeploymentID: d.ID, Status: model.DeploymentSuccessful}
			if s := r.machine.Snapshot().Rollout(nil, simKey).Share(r.name); s != nil && s.State == model.ShareRunning && s.JobVersion == d.JobVersion {
				end.Status = model.DeploymentBlocked
			}
			_, _, _ = r.Apply(ctx, cell.CmdDeploymentStatus, &cell.DeploymentStatus{Update: end, Time: now})
		}
	}
}

// won reports whether a proposal has won, by all votes that there are.
func (s *archipelago) won(p *model.Proposal) bool {
	return p.Judge(s.voted[p.ID], nil) == model.VerdictWon
}

// root is the list of regions of the first version of a job.
func (s *archipelago) root(born int64) string {
	for _, p := range s.jobs {
		if p.Born == born && p.Follows.ID == "" {
			return strings.Join(p.Regions(), " ")
		}
	}
	return ""
}

// check checks a region's state after a command. What it finds wrong it tells by
// panicking: it is called from any goroutine.
func (r *simRegion) check(before *model.Rollout, snap *state.Snapshot, cmd cell.Command, body, value any, err error) {
	s := r.archipelago
	s.mu.Lock()
	defer s.mu.Unlock()
	after := snap.Rollout(nil, simKey)
	if err == nil {
		switch c := body.(type) {
		case *cell.RolloutVote:
			voted := value.(*cell.RolloutVoted)
			s.log("%s votes for %s as %d (asked for %s as %d)", r.name, voted.ID, voted.Version, c.Proposal.ID, c.Proposal.Version)
			if voted.ID != c.Proposal.ID || after.Voted(voted.Version) != voted.ID {
				break
			}
			for id, regions := range s.voted {
				if id != voted.ID && slices.Contains(regions, r.name) && s.jobs[id].Version == voted.Version && !s.ended(s.jobs[id].Born) {
					s.panicf("%s voted for %s and %s, both version %d", r.name, id, voted.ID, voted.Version)
				}
			}
			if !slices.Contains(s.voted[voted.ID], r.name) {
				s.jobs[voted.ID] = c.Proposal
				s.voted[voted.ID] = append(s.voted[voted.ID], r.name)
			}
		case *cell.RolloutLearn:
			if c.Lost != "" {
				s.lost[c.Lost] = true
			}
		case *cell.RolloutShare:
			s.log("%s moves its share of %s from %s to %s: %s", r.name, c.ID, c.From, c.Share.State, c.Share.Why)
		}
	}
	// At most one winner of a number, but where a job is born in two lists of
	// regions at once; of a request always.
	var winners []*model.Proposal
	for _, p := range s.jobs {
		if s.won(p) {
			if s.lost[p.ID] {
				s.panicf("%s was given up, and has won", p.ID)
			}
			winners = append(winners, p)
		}
	}
	for i, p := range winners {
		for _, q := range winners[i+1:] {
			if p.Request == q.Request && p.Born == q.Born {
				s.panicf("the request %s won as %s, version %d, and %s, version %d", p.Request, p.ID, p.Version, q.ID, q.Version)
			}
			if p.Version == q.Version && (p.Born == q.Born || s.root(p.Born) == s.root(q.Born) && !s.ended(min(p.Born, q.Born))) {
				s.panicf("version %d was won by %s (%v, follows %v) and %s (%v, follows %v)", p.Version, p.ID, p.Regions(), p.Follows, q.ID, q.Regions(), q.Follows)
			}
		}
	}
	if after == nil || after.Won == nil {
		return
	}
	if !s.won(after.Won) {
		s.panicf("%s takes %s for won, which has the votes of %v", r.name, after.Won.ID, s.voted[after.Won.ID])
	}
	if before == nil || before.Won == nil {
		return
	}
	if before.Won.Mark().After(after.Won.Mark()) {
		s.panicf("%s went back from %s to %s", r.name, before.Won.ID, after.Won.ID)
	}
	if before.Won.ID != after.Won.ID {
		s.log("%s takes up %s", r.name, after.Won.ID)
		return
	}
	rank := map[model.ShareState]int{model.SharePending: 0, model.ShareRunning: 1, model.ShareBlocked: 2, model.ShareSuccessful: 3, model.ShareFailed: 3, model.ShareStopped: 3}
	for _, share := range before.Shares {
		if _, forgotten := s.left[share.Region]; forgotten {
			continue // it had come back
		}
		now := after.Share(share.Region)
		if now == nil || rank[now.State] < rank[share.State] || now.State.Over() && share.State.Over() && now.State != share.State {
			s.panicf("%s sees the share of %s go from %s to %+v", r.name, share.Region, share.State, now)
		}
	}
	// The order, by what the regions before are in truth.
	strategy := after.Won.Job.Multiregion.Strategy
	mine, was := after.Share(r.name), before.Share(r.name)
	me := slices.Index(after.Won.Regions(), r.name)
	if mine == nil || was == nil || mine.State != model.ShareRunning || was.State != model.SharePending || strategy.MaxParallel == 0 || strategy.OnUnreachable != model.OnUnreachableWait {
		return
	}
	unfinished := 0
	for _, other := range after.Won.Regions()[:me] {
		state := model.SharePending
		if o := s.nodes[other].machine.Snapshot().Rollout(nil, simKey); o != nil && o.Won != nil {
			if o.Won.ID == after.Won.ID {
				state = o.Share(other).State
			} else if o.Won.Mark().After(after.Won.Mark()) {
				state = model.ShareFailed // it went on to a newer one
			}
		}
		if state != model.ShareBlocked && !state.Over() {
			unfinished++
		}
	}
	if unfinished >= strategy.MaxParallel {
		s.panicf("%s begins %s while %d regions before it are unfinished", r.name, after.Won.ID, unfinished)
	}
}

func (s *archipelago) panicf(format string, args ...any) {
	if os.Getenv("ROLLOUT_TRACE") != "" {
		fmt.Println(s.trace.String())
	}
	panic(fmt.Sprintf("seed %d: ", s.seed) + fmt.Sprintf(format, args...))
}

// submit has a door take a submit, as Job.Register and Job.Deregister do.
func (s *archipelago) submit(door, request string, job *model.Job, global, purge bool) {
	d := s.nodes[door]
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	began := time.Now()
	s.mu.Lock()
	s.sent[request]++
	s.mu.Unlock()
	if d.down || s.cut[door] {
		return
	}
	in := &rpc.Inbound{Envelope: &rpc.Envelope{Method: "Job.Register", RequestID: request}}
	sub := &submission{job: model.Clone(job), asks: &method.JobRegisterRequest{Job: job}}
	if global {
		var err error
		if sub, err = d.door.stopGlobal(&method.JobDeregisterRequest{JobID: job.ID, Purge: purge, Global: true}); err != nil {
			return
		}
		sub.job = model.Clone(sub.job)
	}
	out, err := d.door.submit(ctx, in, sub)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log("%s answers %s: %v", door, request, err)
	if took := time.Since(began); took > 6*time.Second {
		s.panicf("the submit %s took %s", request, took)
	}
	switch {
	case err == nil:
		s.acked[request] = *out.Version
	case model.KindOf(err) == model.KindConflict:
		s.no[request]++
	}
}

func (s *archipelago) job(rng *rand.Rand, request string) *model.Job {
	j := aJob(simKey.ID, 1, "*")
	j.Meta = map[string]string{"submit": request}
	st := &model.MultiregionStrategy{MaxParallel: rng.IntN(3), OnUnreachable: model.OnUnreachableWait}
	st.OnFailure = []string{model.OnFailureRest, model.OnFailureAll, model.OnFailureLocal}[rng.IntN(3)]
	if rng.IntN(4) == 0 {
		st.OnUnreachable = []string{model.OnUnreachableSkip, model.OnUnreachableFail}[rng.IntN(2)]
	}
	j.Multiregion = &model.Multiregion{Strategy: st}
	list := slices.Clone(s.names)
	if rng.IntN(3) == 0 {
		rng.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
		list = list[:1+rng.IntN(len(list))]
	}
	for _, name := range list {
		r := model.NewMultiregionRegion()
		r.Name = name
		j.Multiregion.Regions = append(j.Multiregion.Regions, r)
	}
	if rng.IntN(4) == 0 {
		j.Meta["sick"] = list[rng.IntN(len(list))]
	}
	if rng.IntN(4) == 0 {
		j.Type = model.JobTypeBatch
	}
	j.Canonicalize()
	j.Region = model.GlobalRegion
	return j
}

// run lives through a minute of faults and submits, and then through peace.
func (s *archipelago) run() {
	rng := rand.New(rand.NewPCG(s.seed, 7))
	var wg sync.WaitGroup
	jobs := make(map[string]*model.Job)
	var requests []string
	for range 12 {
		for range 1 + rng.IntN(2) {
			request := "r" + strconv.Itoa(len(requests))
			if len(requests) > 0 && rng.IntN(3) == 0 {
				request = requests[rng.IntN(len(requests))]
			} else {
				requests = append(requests, request)
				jobs[request] = s.job(rng, request)
			}
			door := s.names[rng.IntN(len(s.names))]
			late := time.Duration(rng.IntN(300)) * time.Millisecond
			// Which submits are stops is the request's own.
			n, _ := strconv.Atoi(request[1:])
			global, purge := (uint64(n)+s.seed)%7 == 6, (uint64(n)+s.seed)%14 == 13
			wg.Go(func() {
				time.Sleep(late)
				s.submit(door, request, jobs[request], global, purge)
			})
		}
		switch victim := s.names[rng.IntN(len(s.names))]; rng.IntN(6) {
		case 0:
			s.mu.Lock()
			s.cut[victim] = true
			s.log("%s is cut off", victim)
			s.mu.Unlock()
		case 1:
			s.mu.Lock()
			s.cut[victim+s.names[rng.IntN(len(s.names))]] = true // one way only
			s.mu.Unlock()
		case 2, 3:
			s.mu.Lock()
			clear(s.cut)
			s.log("the network heals")
			s.mu.Unlock()
		case 4:
			if n := s.nodes[victim]; n.down {
				n.start()
			} else {
				n.crash()
			}
		}
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
	}
	wg.Wait()
	s.mu.Lock()
	clear(s.cut)
	s.rough = false
	s.log("peace")
	s.mu.Unlock()
	for _, name := range s.names {
		if n := s.nodes[name]; n.down {
			n.start()
		}
	}
	var err error
	for range 60 {
		time.Sleep(time.Second)
		if err = s.settled(jobs); err == nil {
			break
		}
	}
	if err == nil && s.seed%5 == 0 { // hours of two-second exchanges take their time
		if err = s.linger(rng); err != nil {
			err = fmt.Errorf("hours later: %w", err)
		}
	}
	for _, name := range s.names {
		s.nodes[name].crash()
	}
	time.Sleep(10 * time.Second) // what was late has come
	if err != nil {
		s.fail("after all healed: %v", err)
	}
	s.replay()
}

// settled reports what is not yet as the newest version says.
func (s *archipelago) settled(jobs map[string]*model.Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	latest := func(among func(*model.Proposal) bool) (newest *model.Proposal) {
		for _, p := range s.jobs {
			if s.won(p) && among(p) && p.Mark().After(newest.Mark()) {
				newest = p
			}
		}
		return newest
	}
	newest := latest(func(*model.Proposal) bool { return true })
	for request, version := range s.acked {
		var p *model.Proposal
		for _, q := range s.jobs {
			if q.Request == request && s.won(q) {
				p = q
			}
		}
		if p == nil || p.Version != version || p.Mark().After(newest.Mark()) {
			return fmt.Errorf("%s was answered as version %d, and is %+v", request, version, p.Mark())
		}
		if p.Born != newest.Born && !newest.Job.Stop && s.root(p.Born) == s.root(newest.Born) && !s.ended(p.Born) {
			return fmt.Errorf("%s was answered, and is lost to %s, which does not follow it", p.ID, newest.ID)
		}
	}
	for _, p := range s.jobs {
		if s.won(p) && s.sent[p.Request] == 1 && s.no[p.Request] == 1 {
			return fmt.Errorf("%s was refused, and has won", p.ID)
		}
	}
	for _, name := range s.names {
		snap := s.nodes[name].machine.Snapshot()
		r, job := snap.Rollout(nil, simKey), snap.Job(nil, simKey)
		newest := newest
		if r != nil && r.Won != nil && r.Won.Born != newest.Born && !slices.Contains(newest.Participants(), name) {
			// Jobs of one name that have no region in common are not one.
			theirs := latest(func(p *model.Proposal) bool { return p.Born == r.Won.Born })
			if !slices.ContainsFunc(theirs.Participants(), func(name string) bool { return slices.Contains(newest.Participants(), name) }) {
				newest = theirs
			}
		}
		concerned := newest != nil && slices.Contains(newest.Participants(), name)
		if r == nil && (newest == nil || newest.Job.Stop || !concerned) {
			if job != nil && !job.Stop {
				return fmt.Errorf("%s runs what it does not know", name)
			}
			continue
		}
		if newest == nil {
			if r.Won != nil || job != nil {
				return fmt.Errorf("%s has something that nobody won", name)
			}
			continue
		}
		if !concerned && (r.Won == nil || job == nil || job.Stop) {
			continue // it may not hear of what is not its own
		}
		if r == nil || r.Won == nil || r.Won.ID != newest.ID {
			return fmt.Errorf("%s has not heard of %s: it holds %+v", name, newest.ID, rollout.News(snap, simKey).Won)
		}
		share := r.Share(name)
		switch listed := slices.Contains(newest.Regions(), name) && !newest.Job.Stop; {
		case !listed && job != nil && !job.Stop:
			return fmt.Errorf("%s runs %s still", name, job.Meta["submit"])
		case !listed:
			if share != nil && share.State != model.ShareStopped {
				return fmt.Errorf("%s has not stopped: %s", name, share.State)
			}
		case share.State == model.ShareFailed, share.State == model.ShareBlocked && slices.ContainsFunc(r.Shares, func(o model.Share) bool { return o.State == model.ShareFailed }):
		case share.State != model.ShareSuccessful:
			deployments := ""
			for _, d := range snap.DeploymentsOfJob(nil, simKey) {
				deployments += fmt.Sprintf(" %.4s of version %d, %d: %s;", d.ID, d.JobVersion, d.JobCreateIndex, d.Status)
			}
			return fmt.Errorf("%s is %s of %s: %+v; job %v; deployments%s", name, share.State, newest.ID, r.Shares, job, deployments)
		case job == nil || job.Stop || job.Meta["submit"] != newest.Job.Meta["submit"]:
			return fmt.Errorf("%s does not run %s", name, newest.ID)
		}
		if r.Accepted != nil {
			return fmt.Errorf("%s still waits for %s", name, r.Accepted.ID)
		}
	}
	return nil
}

// ended reports whether a job was stopped everywhere, so that another may be born
// under its name.
func (s *archipelago) ended(born int64) bool {
	for _, p := range s.jobs {
		if p.Born == born && p.Job.Stop && s.won(p) {
			return true
		}
	}
	return false
}

// replay applies each region's log again: the state is the same.
func (s *archipelago) replay() {
	for _, name := range s.names {
		m, err := cell.NewMachine()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, entry := range s.nodes[name].machine.Log {
			m.Replay(entry)
		}
		var a, b bytes.Buffer
		if err := errors.Join(m.Snapshot().Persist(&a), s.nodes[name].machine.Snapshot().Persist(&b)); err != nil {
			s.t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			s.fail("the log of %s, applied twice, gives two states", name)
		}
	}
}

// Whatever the network, the regions and the submitters do, a number has one
// winner, shares move forward and in order, what was answered for stands, and in
// the end all regions do what the newest version says.
func TestRolloutsUnderFaults(t *testing.T) {
	const lanes = 4
	for lane := range uint64(lanes) {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			for seed := *simSeed + lane; seed < *simSeed+*simSeeds && !t.Failed(); seed += lanes {
				// Each lane has all sizes in turn.
				names := []string{"us", "eu", "ap", "sa", "af"}[:2+seed/lanes%4]
				synctest.Test(t, func(t *testing.T) { newArchipelago(t, seed, names...).run() })
			}
		})
	}
}
