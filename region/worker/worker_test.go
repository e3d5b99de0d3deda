package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

// world is a state with a job to place, a queue of one delivery and a planner.
type world struct {
	store *state.Store
	index uint64
	eval  *model.Evaluation
	// over says that the delivery has ended.
	over bool
	// accept is how many placements of a plan are accepted.
	accept         func(asked int) int
	plans, written int
}

var errOver = errors.New("over")

func (w *world) Dequeue(ctx context.Context) (*model.Evaluation, uint64, error) {
	return nil, 0, errors.New("not in this test")
}

func (w *world) Hold(delivery uint64, write func() error) error {
	if w.over {
		return errOver
	}
	return write()
}

func (w *world) Ack(uint64)         {}
func (w *world) Nack(uint64, error) {}

func (w *world) Submit(_ context.Context, plan *model.Plan) (*model.PlanResult, error) {
	w.plans++
	n := w.accept(len(plan.Place))
	result := &model.PlanResult{Placed: n, Asked: len(plan.Place)}
	cut := *plan
	cut.Place = plan.Place[:n]
	if err := w.write(func(tx *state.Txn) error {
		_, err := tx.ApplyPlan(state.NewPlanCommand(&cut, 1))
		return err
	}); err != nil {
		return nil, err
	}
	if n < len(plan.Place) {
		result.RefreshIndex = w.index
	}
	return result, nil
}

func (w *world) write(f func(*state.Txn) error) error {
	w.index++
	return w.store.Write(w.index, f)
}

func newWorld(t *testing.T, count int) (*world, *Worker) {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: store, accept: func(n int) int { return n }}
	job := &model.Job{ID: "j", TaskGroups: []*model.TaskGroup{{
		Name: "g", Count: count, Tasks: []*model.Task{{Name: "t", Driver: "mock", Resources: &model.Resources{CPU: 1, MemoryMB: 1}}},
	}}}
	job.Canonicalize()
	w.eval = &model.Evaluation{
		ID: model.NewUUID(nil).String(), Namespace: job.Namespace, JobID: job.ID, Type: job.Type, Status: model.EvalPending, TriggeredBy: model.TriggerJobRegister,
	}
	if err := w.write(func(tx *state.Txn) error {
		if err := tx.UpsertNode(&model.Node{
			ID: model.NewUUID(nil).String(), Name: "n", Datacenter: "dc1", NodePool: model.NodePoolDefault, Status: model.NodeStatusReady,
			Drivers: map[string]*model.DriverInfo{"mock": {Detected: true, Healthy: true}},
			NodeResources: &model.NodeResources{
				Cpu: model.NodeCpuResources{CpuShares: 100}, Memory: model.NodeMemoryResources{MemoryMB: 100}, Disk: model.NodeDiskResources{DiskMB: 100_000},
			},
		}, 1); err != nil {
			return err
		}
		if _, err := tx.UpsertJob(job); err != nil {
			return err
		}
		return tx.UpsertEvals([]*model.Evaluation{w.eval})
	}); err != nil {
		t.Fatal(err)
	}
	w.eval = store.Snapshot().Eval(nil, w.eval.ID)
	return w, New(Config{
		Queue: w, Planner: w, Snapshot: store.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger(),
		Write: func(_ context.Context, evals []*model.Evaluation) error {
			w.written++
			return w.write(func(tx *state.Txn) error { return tx.UpsertEvals(evals) })
		},
	})
}

func (w *world) outcome() string {
	return fmt.Sprintf("%s, %d placed by %d plans", w.store.Snapshot().Eval(nil, w.eval.ID).Status, w.store.Snapshot().AllocCount(), w.plans)
}

func TestAPlanThatIsAcceptedBitByBitGoesOn(t *testing.T) {
	w, worker := newWorld(t, 20)
	w.accept = func(int) int { return 1 }
	if err := worker.evaluate(t.Context(), w.eval, 1); err != nil {
		t.Fatal(err)
	}
	if got := w.outcome(); got != "complete, 20 placed by 20 plans" {
		t.Error(got)
	}
}

func TestAPlanThatIsRefusedWholeIsTriedAFewTimes(t *testing.T) {
	w, worker := newWorld(t, 3)
	w.accept = func(int) int { return 0 }
	if err := worker.evaluate(t.Context(), w.eval, 1); err == nil {
		t.Error("no error")
	}
	if got := w.outcome(); got != "pending, 0 placed by 5 plans" {
		t.Error(got)
	}
}

func TestNothingIsWrittenForADeliveryThatEnded(t *testing.T) {
	w, worker := newWorld(t, 3)
	w.over = true
	if err := worker.evaluate(t.Context(), w.eval, 1); !errors.Is(err, errOver) {
		t.Errorf("error %v", err)
	}
	w.eval.JobID = "gone" // then there is no plan, only an outcome
	if err := worker.evaluate(t.Context(), w.eval, 1); !errors.Is(err, errOver) {
		t.Errorf("error %v", err)
	}
	if w.plans+w.written != 0 {
		t.Errorf("%d plans and %d outcomes were written", w.plans, w.written)
	}
}
