// Package worker turns evaluations into plans: it takes one, asks the scheduler
// for a proposal on a snapshot, submits the plan, and writes down what came of
// it. Several run at once, each a goroutine of Run; they share nothing but what
// they are given. The package knows neither the broker nor the planner but by
// the two small interfaces it declares.
package worker

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/scheduler"
)

// Queue gives out evaluations. A delivery ends by Ack or Nack, or because it
// took too long; nothing may be written for it but in Hold, which refuses when
// it has ended.
type Queue interface {
	Dequeue(ctx context.Context) (e *model.Evaluation, delivery uint64, err error)
	Hold(delivery uint64, write func() error) error
	Ack(delivery uint64)
	Nack(delivery uint64, cause error)
}

// Planner applies plans.
type Planner interface {
	Submit(ctx context.Context, plan *model.Plan) (*model.PlanResult, error)
}

// Config wires a worker.
type Config struct {
	Queue    Queue
	Planner  Planner
	Snapshot func() *state.Snapshot
	// Write commits evaluations.
	Write func(ctx context.Context, evals []*model.Evaluation) error
	Clock clock.Clock
	// Seed makes the worker's randomness its own.
	Seed uint64
	Log  hclog.Logger
}

// NewRand is the randomness of one who proposes.
func NewRand(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))
}

// View makes a snapshot what the scheduler reads.
type View struct{ *state.Snapshot }

// Job and the following are scheduler.State.
func (v View) Job(key model.JobID) *model.Job { return v.Snapshot.Job(nil, key) }
func (v View) AllocsOfJob(key model.JobID) iter.Seq[*model.AllocRow] {
	rows, _ := v.Snapshot.AllocsOfJob(nil, key)
	return rows
}
func (v View) Alloc(id model.UUID) *model.AllocRow { return v.Snapshot.Alloc(nil, id) }
func (v View) EvalsOfJob(key model.JobID) iter.Seq[*model.Evaluation] {
	return v.Snapshot.OpenEvalsOfJob(nil, key)
}

func (v View) LatestDeployment(key model.JobID) *model.Deployment {
	return v.Snapshot.LatestDeployment(nil, key)
}
func (v View) Nodes() iter.Seq[*model.Node]   { return v.Snapshot.Nodes(nil, "") }
func (v View) Node(id model.UUID) *model.Node { return v.Snapshot.Node(nil, id.String()) }

// Worker is one worker.
type Worker struct {
	cfg  Config
	rand *rand.Rand
}

// New returns a worker.
func New(cfg Config) *Worker {
	return &Worker{cfg, NewRand(cfg.Seed)}
}

// Run works until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	for {
		e, delivery, err := w.cfg.Queue.Dequeue(ctx)
		if err != nil {
			return nil
		}
		err = w.evaluate(ctx, e, delivery)
		switch {
		case ctx.Err() != nil:
			return nil // the next leader's broker hands it out again
		case err != nil:
			w.cfg.Log.Warn("cannot process evaluation; it will be tried again", "eval", e.ID, "job", e.JobID, "error", err)
			w.cfg.Queue.Nack(delivery, err)
		default:
			w.cfg.Queue.Ack(delivery)
		}
	}
}

// evaluate proposes and submits until a plan is applied whole, or too often
// nothing of one was.
func (w *Worker) evaluate(ctx context.Context, e *model.Evaluation, delivery uint64) error {
	attempts := scheduler.Attempts(e.Type)
	for refused := 0; refused < attempts; {
		opts := scheduler.Options{Now: w.cfg.Clock.Now(), Rand: w.rand}
		p, err := scheduler.Propose(View{w.cfg.Snapshot()}, e, opts)
		if err != nil {
			return w.fail(ctx, e, delivery, err.Error())
		}
		if !p.Plan.NoOp() {
			var result *model.PlanResult
			if err := w.cfg.Queue.Hold(delivery, func() (err error) {
				result, err = w.cfg.Planner.Submit(ctx, p.Plan)
				return err
			}); err != nil {
				return err
			}
			if !result.Full() {
				// The planner committed before it answered: a snapshot
				// taken now is new enough.
				if result.Placed == 0 {
					refused++
				}
				continue
			}
		}
		return w.write(ctx, delivery, p.Conclude(e, opts))
	}
	return fmt.Errorf("the plan was refused %d times, as others changed the same nodes", attempts)
}

// fail ends an evaluation that no plan can come of.
func (w *Worker) fail(ctx context.Context, e *model.Evaluation, delivery uint64, why string) error {
	failed := *e
	failed.Status, failed.StatusDescription, failed.ModifyTime = model.EvalFailed, why, w.cfg.Clock.Now().UnixNano()
	w.cfg.Log.Warn("evaluation failed", "eval", e.ID, "job", e.JobID, "cause", why)
	return w.write(ctx, delivery, []*model.Evaluation{&failed})
}

func (w *Worker) write(ctx context.Context, delivery uint64, evals []*model.Evaluation) error {
	return w.cfg.Queue.Hold(delivery, func() error { return w.cfg.Write(ctx, evals) })
}
