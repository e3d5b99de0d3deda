package region

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	raftautopilot "github.com/hashicorp/raft-autopilot"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/internal/group"
	"atoll/model"
	"atoll/region/autopilot"
	"atoll/region/broker"
	"atoll/region/deploy"
	"atoll/region/drain"
	"atoll/region/gc"
	"atoll/region/heartbeat"
	"atoll/region/namespace"
	"atoll/region/periodic"
	"atoll/region/planner"
	"atoll/region/rollout"
	"atoll/region/unblock"
	"atoll/region/worker"
	"atoll/rpc"
	"atoll/scheduler"
)

// leadership runs the leader's loops for as long as this server leads.
type leadership struct {
	cell       *cell.Cell
	cellName   string // the region, written into the cell's identity
	clock      clock.Clock
	log        hclog.Logger
	workers    int
	heartbeats heartbeat.Config
	// refusals is about nodes that keep refusing plans.
	refusals RefusalConfig
	// keep and collectInterval are the garbage collector's.
	keep            gc.Thresholds
	collectInterval time.Duration
	// calls reach other regions, whose names, and ours, are known.
	calls rpc.Caller
	known func() []string
	// forgotten reports whether an operator had this server forget a region.
	forgotten func(region string) bool
	// pilots wires each term's pilot, autopilot is what a new cell's
	// configuration of it begins with.
	pilots    autopilot.Config
	autopilot model.AutopilotConfig
	// tend keeps the cell's members in step with gossip while this server
	// leads.
	tend func(ctx context.Context, pilot *autopilot.Pilot) error
	// monitor, pilot, collector and copies are the present term's, nil when there is
	// none.
	monitor   atomic.Pointer[heartbeat.Monitor]
	pilot     atomic.Pointer[autopilot.Pilot]
	collector atomic.Pointer[gc.Collector]
	copies    atomic.Pointer[namespace.Copies]
}

// run starts a term's loops when this server becomes the leader, and waits for
// them when it ceases to be, until ctx ends.
func (l *leadership) run(ctx context.Context) error {
	var term *group.Group
	end := func() {
		if term != nil {
			term.Stop()
			if err := term.Wait(); err != nil {
				l.log.Error("a leader's loop ended", "error", err)
			}
			term = nil
			l.monitor.Store(nil)
			l.pilot.Store(nil)
			l.collector.Store(nil)
			l.copies.Store(nil)
		}
	}
	defer end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case leads := <-l.cell.Leadership():
			end()
			if leads {
				l.log.Info("this server leads its region")
				term = group.New(ctx)
				l.begin(term)
			} else {
				l.log.Info("this server leads no more")
			}
		}
	}
}

// begin starts a term: first it waits until the local state holds everything
// that was committed before, then it starts fresh loops on it.
func (l *leadership) begin(term *group.Group) {
	term.Go("term", func(ctx context.Context) error {
		settle := backoff.Policy{Min: 50 * time.Millisecond, Max: time.Second}
		var members raftautopilot.Raft
		if err := settle.Retry(ctx, nil, func(ctx context.Context) (err error) {
			if err := l.cell.Establish(5 * time.Second); err != nil {
				return err
			}
			if members, err = l.cell.Autopilot(); err != nil {
				return err
			}
			return l.identify(ctx)
		}); err != nil {
			return nil // the term ended first
		}
		q := broker.New(broker.Config{Snapshot: l.cell.Snapshot, Fail: l.failEval, Cancel: l.cancelEvals, Clock: l.clock, Log: l.log.Named("broker")})
		p := planner.New(planner.Config{
			Snapshot: l.cell.Snapshot,
			Check: func(s *state.Snapshot, pending []*model.Plan, plan *model.Plan) (*model.Plan, []model.UUID) {
				return scheduler.Check(scheduler.WithPending(worker.View{Snapshot: s}, pending), plan)
			},
			Propose:  l.proposePlan,
			Refusals: l.trackRefusals(),
		})
		beats := l.heartbeats
		beats.Set = l.setNodes
		monitor := heartbeat.New(beats)
		l.monitor.Store(monitor)
		l.loop(term, "broker", q.Run)
		l.loop(term, "planner", p.Run)
		l.loop(term, "heartbeat", monitor.Run)
		l.loop(term, "unblock", func(ctx context.Context) error {
			return unblock.Run(ctx, unblock.Config{Snapshot: l.cell.Snapshot, Wake: l.wakeEvals, Log: l.log.Named("unblock")})
		})
		l.loop(term, "deploy", func(ctx context.Context) error {
			return deploy.Run(ctx, deploy.Config{Snapshot: l.cell.Snapshot, Clock: l.clock, Log: l.log.Named("deploy"), Apply: func(ctx context.Context, cmd cell.Command, body any) error {
				_, _, err := l.cell.Apply(ctx, cmd, body)
				return err
			}})
		})
		others := linksBy(l.calls)
		l.loop(term, "rollout", func(ctx context.Context) error {
			return rollout.Run(ctx, rollout.Config{
				Region: l.cellName, Snapshot: l.cell.Snapshot, Tell: others.tell, Vote: others.askVote, Forgotten: l.forgotten, Clock: l.clock, Log: l.log.Named("rollout"),
				Apply: func(ctx context.Context, cmd cell.Command, body any) error {
					_, _, err := l.cell.Apply(ctx, cmd, body)
					return err
				},
				Fail: func(snap *state.Snapshot, d *model.Deployment, why string, now time.Time) *cell.DeploymentStatus {
					return deploy.Fail(snap, d, why, d.Reverts(), now)
				},
			})
		})
		spaces := &namespaces{writer: &writer{applier: l.cell, clock: l.clock}, region: l.cellName, calls: l.calls, log: l.log.Named("namespaces")}
		copies := namespace.New(namespace.Config{
			Region: l.cellName, Known: l.known, Snapshot: l.cell.Snapshot, Learn: spaces.commit, Tell: spaces.tell, Clock: l.clock, Log: spaces.log,
		})
		l.copies.Store(copies)
		l.loop(term, "namespaces", copies.Run)
		l.loop(term, "drain", func(ctx context.Context) error {
			return drain.Run(ctx, drain.Config{Snapshot: l.cell.Snapshot, Mark: l.migrate, Done: l.drained, Clock: l.clock, Log: l.log.Named("drain")})
		})
		l.loop(term, "periodic", func(ctx context.Context) error {
			return periodic.Run(ctx, periodic.Config{Snapshot: l.cell.Snapshot, Launch: l.launch, Clock: l.clock, Log: l.log.Named("periodic")})
		})
		collector := gc.New(gc.Config{
			Snapshot: l.cell.Snapshot, Unneeded: unneeded, Reap: l.reap,
			Thresholds: l.keep, Interval: l.collectInterval, Clock: l.clock, Log: l.log.Named("gc"),
		})
		l.collector.Store(collector)
		l.loop(term, "gc", collector.Run)
		pilots := l.pilots
		pilots.Raft = members
		pilot := autopilot.New(pilots)
		l.pilot.Store(pilot)
		l.loop(term, "autopilot", pilot.Run)
		l.loop(term, "membership", func(ctx context.Context) error { return l.tend(ctx, pilot) })
		workers := l.workers
		if workers <= 0 {
			workers = max(2, runtime.GOMAXPROCS(0))
		}
		for i := range workers {
			w := worker.New(worker.Config{
				Queue: q, Planner: p, Snapshot: l.cell.Snapshot, Write: l.writeEvals, Clock: l.clock,
				Seed: uint64(l.clock.Now().UnixNano()) + uint64(i), Log: l.log.Named("worker"),
			})
			l.loop(term, "worker", w.Run)
		}
		return nil
	})
}

// loop runs f until the term ends, again after a failure or a panic, with a
// backoff: one broken item must not cost a region its leader.
func (l *leadership) loop(term *group.Group, name string, f func(context.Context) error) {
	term.Go(name, func(ctx context.Context) error {
		_ = backoff.Policy{Min: 100 * time.Millisecond, Max: 10 * time.Second}.Retry(ctx, nil, func(ctx context.Context) (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v", p)
					l.log.Error("a leader's loop panicked; starting it again", "loop", name, "panic", p, "stack", hclog.Stacktrace())
				}
			}()
			if err = f(ctx); err == nil && ctx.Err() == nil {
				err = fmt.Errorf("%s ended by itself", name)
			}
			if err != nil && ctx.Err() == nil {
				l.log.Error("a leader's loop failed; starting it again", "loop", name, "error", err)
			}
			return err
		})
		return nil
	})
}

// identify gives a new cell its identity and what it begins with.
func (l *leadership) identify(ctx context.Context) error {
	if l.cell.Snapshot().Cell(nil) == nil {
		if _, _, err := l.cell.Apply(ctx, cell.CmdCellInit, &cell.CellInit{Cell: state.Cell{
			ID: model.NewUUID(nil).String(), Region: l.cellName, Created: l.clock.Now().UnixNano(), Incarnation: model.NewUUID(nil).String(),
		}}); err != nil {
			return err
		}
	}
	if l.cell.Snapshot().AutopilotConfig(nil) == nil {
		if _, _, err := l.cell.Apply(ctx, cell.CmdAutopilotConfig, &cell.AutopilotConfig{Config: l.autopilot, CheckIndex: true}); err != nil {
			return err
		}
	}
	return nil
}

func (l *leadership) proposePlan(p *model.Plan) (planner.Proposed, error) {
	return l.cell.Propose(cell.CmdPlan, nil, state.NewPlanCommand(p, l.clock.Now().UnixNano()))
}

func (l *leadership) writeEvals(ctx context.Context, evals []*model.Evaluation) error {
	_, _, err := l.cell.Apply(ctx, cell.CmdEvals, &cell.Evals{Evals: evals})
	return err
}

// failEval gives an evaluation up, for now or for good.
func (l *leadership) failEval(ctx context.Context, e *model.Evaluation, why string) error {
	now := l.clock.Now()
	failed := *e
	failed.Status, failed.ModifyTime = model.EvalFailed, now.UnixNano()
	evals := []*model.Evaluation{&failed}
	if next := e.FollowFailed(model.NewUUID(nil).String(), now); next != nil {
		failed.NextEval = next.ID
		why += "; it is tried again at " + next.WaitUntil.Format(time.RFC3339)
		evals = append(evals, next)
	} else {
		why += "; it is not tried again before the job or its nodes change"
	}
	failed.StatusDescription = why
	l.log.Warn("evaluation failed", "eval", e.ID, "job", e.JobID, "cause", why)
	return l.writeEvals(ctx, evals)
}

func (l *leadership) cancelEvals(ctx context.Context, ids []model.UUID) error {
	return l.moveEvals(ctx, ids, model.EvalPending, model.EvalCancelled, "superseded by a newer evaluation of the job")
}

func (l *leadership) wakeEvals(ctx context.Context, ids []model.UUID) error {
	return l.moveEvals(ctx, ids, model.EvalBlocked, model.EvalPending, "")
}

func (l *leadership) moveEvals(ctx context.Context, ids []model.UUID, from, to, why string) error {
	_, _, err := l.cell.Apply(ctx, cell.CmdEvalMove, &cell.EvalMove{IDs: ids, From: from, To: to, Why: why, Time: l.clock.Now().UnixNano()})
	return err
}

func unneeded(s *state.Snapshot, key model.JobID, old func(*model.AllocRow) bool) []*model.AllocRow {
	return scheduler.Unneeded(worker.View{Snapshot: s}, key, old)
}

func (l *leadership) reap(ctx context.Context, r *state.Reap) (*state.Reaped, error) {
	_, value, err := l.cell.Apply(ctx, cell.CmdReap, r)
	if err != nil {
		return nil, err
	}
	return value.(*state.Reaped), nil
}

func (l *leadership) trackRefusals() planner.Refusals {
	r := planner.Refusals{
		Threshold: l.refusals.Threshold, Window: l.refusals.Window, Clock: l.clock, Log: l.log.Named("planner"),
	}
	if !l.refusals.Ignore {
		r.Quarantine = l.quarantine
	}
	return r
}

func (l *leadership) quarantine(ctx context.Context, node model.UUID, refusals int) error {
	why := fmt.Sprintf("Node made ineligible: it refused %d plans, and nothing explains why; look into the servers' logs before it is made eligible again", refusals)
	_, _, err := l.cell.Apply(ctx, cell.CmdNodeQuarantine, &cell.NodeQuarantine{NodeID: node.String(), Why: why, Time: l.clock.Now().UnixNano()})
	if err == nil {
		l.log.Error("a node keeps refusing plans, and is ineligible from now on", "node", node.String(), "refusals", refusals)
	}
	return err
}

// setNodes proposes all changes before it waits for any: when a rack is lost,
// they share a few writes.
func (l *leadership) setNodes(ctx context.Context, verdicts []heartbeat.Verdict) error {
	var proposed []*cell.Proposed
	var errs []error
	for _, v := range verdicts {
		p, err := l.cell.Propose(cell.CmdNodeStatus, nil, &cell.NodeStatus{
			NodeID: v.Node.ID, Status: v.Status, Why: v.Why, IfModifyIndex: v.Node.ModifyIndex,
			Derive: cell.NewDerive(l.clock.Now().UnixNano()),
		})
		if err != nil {
			errs = append(errs, err)
			break
		}
		proposed = append(proposed, p)
	}
	for _, p := range proposed {
		if _, _, err := p.Wait(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// launch proposes all launches before it waits for any: at midnight many come
// due.
func (l *leadership) launch(ctx context.Context, launches []periodic.Launch) error {
	var proposed []*cell.Proposed
	var errs []error
	for _, la := range launches {
		now := l.clock.Now().UnixNano()
		p, err := l.cell.Propose(cell.CmdPeriodicLaunch, nil, &cell.PeriodicLaunch{
			Key: la.Job, Launch: la.At.Unix(), Eval: newEval(la.Job, model.JobTypeBatch, model.JobDefaultPriority, model.TriggerPeriodicJob, now), Time: now,
		})
		if err != nil {
			errs = append(errs, err)
			break
		}
		proposed = append(proposed, p)
	}
	for i, p := range proposed {
		_, value, err := p.Wait(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if done := value.(*cell.JobLaunched); done.ChildID != "" {
			l.log.Info("a periodic job is launched", "child", done.ChildID)
		} else {
			l.log.Info("a periodic job is not launched", "job", launches[i].Job.ID, "at", launches[i].At.Format(time.RFC3339), "cause", done.Why)
		}
	}
	return errors.Join(errs...)
}

func (l *leadership) migrate(ctx context.Context, allocs []model.UUID) error {
	yes := true
	_, _, err := l.cell.Apply(ctx, cell.CmdAllocTransition, &cell.AllocTransition{
		Allocs: allocs, Transition: model.DesiredTransition{Migrate: &yes}, Trigger: model.TriggerNodeDrain,
		Derive: cell.NewDerive(l.clock.Now().UnixNano()),
	})
	if model.KindOf(err) == model.KindNotFound {
		return nil // they are gone meanwhile
	}
	return err
}

func (l *leadership) drained(ctx context.Context, n *model.Node) error {
	_, _, err := l.cell.Apply(ctx, cell.CmdNodeDrain, &cell.NodeDrain{
		NodeID: n.ID, Complete: true, IfModifyIndex: n.ModifyIndex, Derive: cell.NewDerive(l.clock.Now().UnixNano()),
	})
	return err
}

// beat records a heartbeat; false when this server does not lead.
func (l *leadership) beat(nodeID string) (time.Duration, bool) {
	m := l.monitor.Load()
	if m == nil {
		return 0, false
	}
	return m.Beat(nodeID), true
}
