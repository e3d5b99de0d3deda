package planner

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type view struct{ *state.Snapshot }

func (v view) Job(key model.JobID) *model.Job { return v.Snapshot.Job(nil, key) }
func (v view) AllocsOfJob(key model.JobID) iter.Seq[*model.AllocRow] {
	rows, _ := v.Snapshot.AllocsOfJob(nil, key)
	return rows
}
func (v view) Alloc(id model.UUID) *model.AllocRow { return v.Snapshot.Alloc(nil, id) }
func (v view) EvalsOfJob(key model.JobID) iter.Seq[*model.Evaluation] {
	return v.Snapshot.EvalsOfJob(nil, key)
}
func (v view) LatestDeployment(key model.JobID) *model.Deployment {
	return v.Snapshot.LatestDeployment(nil, key)
}
func (v view) Nodes() iter.Seq[*model.Node]   { return v.Snapshot.Nodes(nil, "") }
func (v view) Node(id model.UUID) *model.Node { return v.Snapshot.Node(nil, id.String()) }

// slowLog applies plans to a store in order, one whenever it is let.
type slowLog struct {
	store *state.Store
	let   chan struct{}
	// refuse makes the plans from this one on fail, as a lost leadership does.
	refuse int

	mu    sync.Mutex
	index uint64
	queue []*entry
	wake  chan struct{}
}

type entry struct {
	plan  *model.Plan
	done  chan struct{}
	index uint64
	err   error
}

func (e *entry) Wait(ctx context.Context) (uint64, any, error) {
	select {
	case <-e.done:
		return e.index, nil, e.err
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func newSlowLog(t *testing.T, nodes, capacityMHz int) (*slowLog, []model.UUID) {
	t.Helper()
	s, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	l := &slowLog{store: s, let: make(chan struct{}), refuse: -1, index: 1, wake: make(chan struct{}, 1000)}
	var ids []model.UUID
	job := &model.Job{ID: "j", Namespace: "default", Type: model.JobTypeService, TaskGroups: []*model.TaskGroup{{Name: "g"}}}
	err = s.Write(1, func(tx *state.Txn) error {
		for range nodes {
			id := model.NewUUID(nil)
			ids = append(ids, id)
			n := &model.Node{ID: id.String(), Status: model.NodeStatusReady, SchedulingEligibility: model.NodeEligible, NodeResources: &model.NodeResources{}}
			n.NodeResources.Cpu.CpuShares = int64(capacityMHz)
			if err := tx.UpsertNode(n, 1); err != nil {
				return err
			}
		}
		_, err := tx.UpsertJob(job)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, ids
}

func (l *slowLog) propose(p *model.Plan) (Proposed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &entry{plan: p, done: make(chan struct{})}
	l.queue = append(l.queue, e)
	l.wake <- struct{}{}
	return e, nil
}

// apply applies the oldest plan.
func (l *slowLog) apply(t *testing.T) {
	<-l.wake
	l.mu.Lock()
	e := l.queue[0]
	l.queue = l.queue[1:]
	l.index++
	e.index = l.index
	if l.refuse == 0 {
		e.err = errors.New("leadership was lost")
	} else {
		l.refuse--
	}
	l.mu.Unlock()
	if e.err == nil {
		if err := l.store.Write(e.index, func(tx *state.Txn) error {
			_, err := tx.ApplyPlan(state.NewPlanCommand(e.plan, 1))
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	close(e.done)
}

func (l *slowLog) planner() *Planner {
	return New(Config{
		Snapshot: l.store.Snapshot,
		Check: func(s *state.Snapshot, pending []*model.Plan, p *model.Plan) (*model.Plan, []model.UUID) {
			return scheduler.Check(scheduler.WithPending(view{s}, pending), p)
		},
		Propose: l.propose,
	})
}

// plan places one allocation of 100 MHz on each of the nodes, and one host port.
func plan(port int, nodes ...model.UUID) *model.Plan {
	r := &model.AllocatedResources{Tasks: map[string]*model.AllocatedTaskResources{"t": {Cpu: model.AllocatedCpuResources{CpuShares: 100}}}}
	p := &model.Plan{EvalID: model.NewUUID(nil), JobKey: model.JobID{Namespace: "default", ID: "j"}, JobModifyIndex: 1, Groups: []model.PlanGroup{{Name: "g", Resources: r}}}
	for _, id := range nodes {
		pl := model.Placement{ID: model.NewUUID(nil), NodeID: id}
		if port > 0 {
			pl.Extra = &model.AllocExtra{Ports: []model.PortMapping{{Label: "p", Value: port}}}
		}
		p.Place = append(p.Place, pl)
	}
	return p
}

func run(t *testing.T, p *Planner) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestPlansUnderWayCountForTheNext(t *testing.T) {
	l, nodes := newSlowLog(t, 1, 250)
	p := l.planner()
	run(t, p)
	type outcome struct {
		placed int
		err    error
	}
	results := make(chan outcome, 3)
	submit := func(port int) {
		r, err := p.Submit(t.Context(), plan(port, nodes[0]))
		if err != nil {
			results <- outcome{err: err}
			return
		}
		results <- outcome{placed: r.Placed}
	}
	// Two fit, of which none is applied yet; the third does not, nor would a
	// second with the first one's port.
	for _, port := range []int{8080, 8081} {
		go submit(port)
	}
	for range 2 {
		select {
		case <-l.wake:
		case <-time.After(10 * time.Second):
			t.Fatal("the plans that fit were not proposed")
		}
	}
	for _, port := range []int{0, 8080} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := p.Submit(ctx, plan(port, nodes[0]))
		cancel()
		if err != nil || r.Placed != 0 || len(r.Rejected) != 1 {
			t.Errorf("port %d: %+v, %v; want it refused", port, r, err)
		}
	}
	for range 2 {
		l.wake <- struct{}{}
		l.apply(t)
	}
	for range 2 {
		if o := <-results; o.err != nil || o.placed != 1 {
			t.Errorf("%+v", o)
		}
	}
}

func TestAPlanThatIsLostTellsItsWorkerAndTakesNobodyElsesPlace(t *testing.T) {
	l, nodes := newSlowLog(t, 1, 100)
	l.refuse = 0
	p := l.planner()
	run(t, p)
	failed := make(chan error, 1)
	go func() {
		_, err := p.Submit(t.Context(), plan(0, nodes[0]))
		failed <- err
	}()
	l.apply(t)
	if err := <-failed; err == nil {
		t.Error("a plan that was not applied is said to be")
	}
	l.mu.Lock()
	l.refuse = -1
	l.mu.Unlock()
	go l.apply(t)
	r, err := p.Submit(t.Context(), plan(0, nodes[0]))
	if err != nil || r.Placed != 1 {
		t.Errorf("the next plan: %+v, %v", r, err)
	}
}

func TestManyWorkersNeverOversubscribe(t *testing.T) {
	const nodes, capacity, workers, plans = 5, 1000, 8, 60
	l, ids := newSlowLog(t, nodes, capacity)
	p := l.planner()
	run(t, p)
	stop := make(chan struct{})
	var applier sync.WaitGroup
	applier.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-l.wake:
				l.wake <- struct{}{}
				l.apply(t)
			}
		}
	})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range plans {
				var on []model.UUID
				for range 1 + rng.IntN(4) {
					on = append(on, ids[rng.IntN(nodes)])
				}
				if _, err := p.Submit(context.Background(), plan(0, on...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	applier.Wait()
	snap := l.store.Snapshot()
	for _, id := range ids {
		if used, _ := snap.Load(id); used.CPU != capacity {
			t.Errorf("a node holds %d MHz of %d: full nodes were expected, and never fuller", used.CPU, capacity)
		}
	}
}

func TestAPlanWhoseCheckPanicsFailsAlone(t *testing.T) {
	l, nodes := newSlowLog(t, 1, 1000)
	p := l.planner()
	check := p.cfg.Check
	bad := plan(0, nodes[0])
	p.cfg.Check = func(s *state.Snapshot, pending []*model.Plan, asked *model.Plan) (*model.Plan, []model.UUID) {
		if asked == bad {
			panic("planted")
		}
		return check(s, pending, asked)
	}
	p.aside = aside.Items{Clock: clock.Real, Log: hclog.NewNullLogger()}
	run(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if r, err := p.Submit(ctx, bad); err == nil || ctx.Err() != nil {
			t.Errorf("the plan that makes the check panic: %+v, %v", r, err)
		}
		go l.apply(t)
		if r, err := p.Submit(ctx, plan(0, nodes[0])); err != nil || r.Placed != 1 {
			t.Errorf("the next plan: %+v, %v", r, err)
		}
	}
}
