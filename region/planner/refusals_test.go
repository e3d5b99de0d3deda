package planner

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// bad is a world in which the check refuses whatever is placed on the first of
// two nodes, though nothing says so to who makes the plans.
type bad struct {
	*slowLog
	nodes       []model.UUID
	planner     *Planner
	quarantined []string
}

func newBad(t *testing.T) *bad {
	b := &bad{}
	b.slowLog, b.nodes = newSlowLog(t, 2+maxQuarantined, 1_000_000)
	cfg := b.slowLog.planner().cfg
	check := cfg.Check
	cfg.Check = func(s *state.Snapshot, pending []*model.Plan, p *model.Plan) (*model.Plan, []model.UUID) {
		for _, pl := range p.Place {
			if pl.NodeID != b.nodes[len(b.nodes)-1] {
				cut := *p
				cut.Place = nil
				return &cut, []model.UUID{pl.NodeID}
			}
		}
		return check(s, pending, p)
	}
	cfg.Refusals = Refusals{Clock: clock.Real, Log: hclog.NewNullLogger(), Quarantine: func(_ context.Context, node model.UUID, refusals int) error {
		for i, id := range b.nodes {
			if id == node {
				b.quarantined = append(b.quarantined, fmt.Sprintf("%d after %d", i, refusals))
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.index++
		return b.store.Write(b.index, func(tx *state.Txn) error { return tx.QuarantineNode(node.String(), "it refuses", 1) })
	}}
	b.planner = New(cfg)
	run(t, b.planner)
	return b
}

// submit plans on the newest state, or on an older one.
func (b *bad) submit(t *testing.T, node int, older uint64) {
	t.Helper()
	p := plan(0, b.nodes[node])
	p.SnapshotIndex = b.store.Snapshot().Index() - older
	r, err := b.planner.Submit(t.Context(), p)
	if err != nil || r.Placed != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	synctest.Wait()
}

func TestANodeThatKeepsRefusingIsTakenOutOfService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBad(t)
		for range DefaultThreshold {
			b.submit(t, 0, 0)
		}
		if got := fmt.Sprint(b.quarantined); got != "[0 after 15]" {
			t.Errorf("quarantined %s", got)
		}
		n := b.store.Snapshot().Node(nil, b.nodes[0].String())
		last := n.Events[len(n.Events)-1]
		if n.SchedulingEligibility != model.NodeIneligible || last.Message != "it refuses" || last.Subsystem != "Scheduler" {
			t.Errorf("%s, %+v", n.SchedulingEligibility, last)
		}
	})
}

func TestRefusalsThatAreFarBetweenDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBad(t)
		for range 10 * DefaultThreshold {
			b.submit(t, 0, 0)
			time.Sleep(DefaultWindow/(DefaultThreshold-1) + time.Second)
		}
		if len(b.quarantined) > 0 {
			t.Errorf("quarantined %v", b.quarantined)
		}
	})
}

func TestRefusalsThatSomethingExplainsDoNotCount(t *testing.T) {
	for name, change := range map[string]func(b *bad, tx *state.Txn) error{
		"the node changed": func(b *bad, tx *state.Txn) error {
			_, err := tx.SetNodeStatus(b.nodes[0].String(), model.NodeStatusReady, "again", 1)
			return err
		},
		"what it runs changed": func(b *bad, tx *state.Txn) error {
			_, err := tx.ApplyPlan(state.NewPlanCommand(plan(0, b.nodes[0]), 1))
			return err
		},
		"the job changed": func(b *bad, tx *state.Txn) error {
			_, err := tx.UpsertJob(&model.Job{ID: "j", Namespace: "default", Type: model.JobTypeService, TaskGroups: []*model.TaskGroup{{Name: "g"}}})
			return err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBad(t)
			for range 2 * DefaultThreshold {
				b.index++
				if err := b.store.Write(b.index, func(tx *state.Txn) error { return change(b, tx) }); err != nil {
					t.Fatal(err)
				}
				b.submit(t, 0, 1) // a plan that was made before the change
			}
			if len(b.quarantined) > 0 {
				t.Errorf("%s: quarantined %v", name, b.quarantined)
			}
		})
	}
}

func TestPlansUnderWayExplainARefusal(t *testing.T) {
	l, nodes := newSlowLog(t, 1, 100)
	snap := l.store.Snapshot()
	p := plan(0, nodes[0])
	p.SnapshotIndex = snap.Index()
	if explained(snap, nil, p, nodes[0]) {
		t.Error("nothing explains it")
	}
	if !explained(snap, []*model.Plan{plan(0, nodes[0])}, p, nodes[0]) {
		t.Error("a plan under way explains it")
	}
}

func TestNotEveryNodeIsTakenOutOfService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBad(t)
		for node := range maxQuarantined + 1 {
			for range DefaultThreshold {
				b.submit(t, node, 0)
			}
		}
		if len(b.quarantined) != maxQuarantined {
			t.Errorf("quarantined %v", b.quarantined)
		}
		time.Sleep(DefaultWindow + time.Second)
		for range DefaultThreshold {
			b.submit(t, maxQuarantined, 0)
		}
		if len(b.quarantined) != maxQuarantined+1 {
			t.Errorf("quarantined %v", b.quarantined)
		}
	})
}
