package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/drivers"
	"atoll/internal/backoff"
	"atoll/internal/tasklog"
	"atoll/model"
)

func logLimits(l *model.LogConfig) *tasklog.Limits {
	return &tasklog.Limits{MaxFiles: l.MaxFiles, MaxBytes: int64(l.MaxFileSizeMB) << 20}
}

// taskRunner runs one task of an allocation to its end. Its states only move
// forward within an attempt:
//
//	pending → running → (ended) → pending again, by the restart policy
//	                            → dead
type taskRunner struct {
	alloc  *allocRunner
	task   *model.Task
	driver drivers.Driver
	kind   drivers.Kind
	log    hclog.Logger

	// killed is closed when the task is to end; killEvent is why.
	killed    chan struct{}
	killOnce  sync.Once
	killEvent *model.TaskEvent

	mu  sync.Mutex // guards rec; run writes it, and stop while run waits
	rec *taskRecord
}

func newTaskRunner(a *allocRunner, t *model.Task, rec *taskRecord) *taskRunner {
	r := &taskRunner{
		alloc: a, task: t, rec: rec, killed: make(chan struct{}),
		log: a.log.With("task", t.Name),
	}
	if in, ok := a.node.drivers[t.Driver]; ok {
		r.driver, r.kind = in.Driver, in.Kind
	}
	if rec == nil {
		r.rec = &taskRecord{State: &model.TaskState{State: model.TaskStatePending}}
		r.event(&model.TaskEvent{Type: model.TaskReceived, DisplayMessage: "The node has the task"})
	}
	return r
}

// state is a copy of how the task fares.
func (r *taskRunner) state() *model.TaskState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return model.Clone(r.rec.State)
}

func (r *taskRunner) dead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.State.State == model.TaskStateDead
}

// change changes the record, keeps it on disk and tells the allocation. A node
// that cannot write cannot promise to start nothing twice: the error is for
// those changes that must not be lost.
func (r *taskRunner) change(f func(*taskRecord)) error {
	r.mu.Lock()
	f(r.rec)
	err := r.alloc.node.store.putTask(r.alloc.id, r.task.Name, r.rec)
	r.mu.Unlock()
	if err != nil {
		r.log.Error("cannot keep the task's state", "error", err)
	}
	r.alloc.signal()
	return err
}

// event notes what happened; it goes to disk with the next change.
func (r *taskRunner) event(e *model.TaskEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addEvent(r.rec, e, r.alloc.node.clock.Now())
}

func addEvent(rec *taskRecord, e *model.TaskEvent, now time.Time) {
	e.Time = now.UnixNano()
	if e.Message == "" {
		e.Message = e.DisplayMessage
	}
	if e.Details == nil {
		e.Details = map[string]string{}
	}
	events := append(rec.State.Events, e)
	rec.State.Events = events[max(0, len(events)-model.TaskEventsKept):]
}

// kill asks the task to end; the first reason counts.
func (r *taskRunner) kill(why *model.TaskEvent) {
	r.killOnce.Do(func() {
		r.killEvent = why
		close(r.killed)
	})
}

func (r *taskRunner) isKilled() bool {
	select {
	case <-r.killed:
		return true
	default:
		return false
	}
}

// run runs the task until it is dead, or until ctx ends: then the task is let
// go of, and goes on running.
func (r *taskRunner) run(ctx context.Context) {
	if r.dead() {
		return
	}
	if r.driver == nil {
		r.end(true, &model.TaskEvent{Type: model.TaskDriverFailure, DisplayMessage: fmt.Sprintf("This node has no driver %q", r.task.Driver)})
		return
	}
	handle, exit := r.recover(ctx)
	for ; ctx.Err() == nil; handle, exit = nil, nil {
		if handle == nil && exit == nil {
			if r.isKilled() {
				r.end(false, r.killEvent)
				return
			}
			if handle, exit = r.start(ctx); ctx.Err() != nil {
				return
			}
		}
		if handle != nil {
			if exit = r.wait(ctx, handle); exit == nil {
				return
			}
			r.terminated(exit)
			r.destroy(ctx, handle)
		}
		if r.isKilled() {
			r.end(false, &model.TaskEvent{Type: model.TaskKilled, DisplayMessage: "The task was stopped"})
			return
		}
		if !r.again(ctx, exit) {
			return
		}
	}
}

// recover finds out what became of the last attempt, if one was begun: a task to
// wait for, or an end.
func (r *taskRunner) recover(ctx context.Context) (h drivers.Handle, end *drivers.Exit) {
	if !r.rec.Begun {
		return nil, nil
	}
	task := r.driverTask(r.rec.Attempt)
	var err error
	_ = backoff.Policy{}.Retry(ctx, func(err error) bool { return errors.Is(err, drivers.ErrNotStarted) }, func(ctx context.Context) error {
		if h, err = r.driver.Recover(ctx, task, r.rec.Handle); err != nil && !errors.Is(err, drivers.ErrNotStarted) {
			r.log.Warn("cannot find the task again; trying on", "error", err)
		}
		return err
	})
	switch {
	case err != nil && r.rec.Handle == nil:
		return nil, nil // it was not started
	case errors.Is(err, drivers.ErrNotStarted):
		_ = r.change(func(rec *taskRecord) { rec.Begun, rec.Handle = false, nil })
		exit := &drivers.Exit{Err: "it was gone when the agent came back"}
		r.terminated(exit)
		return nil, exit
	case err != nil:
		return nil, nil
	}
	r.event(&model.TaskEvent{Type: model.TaskRestored, DisplayMessage: "The restarted agent found the task"})
	_ = r.change(func(rec *taskRecord) {
		rec.Handle = h
		if rec.State.State != model.TaskStateRunning {
			rec.State.State, rec.State.StartedAt = model.TaskStateRunning, r.alloc.node.clock.Now()
		}
	})
	return h, nil
}

func (r *taskRunner) driverTask(attempt int) *drivers.Task {
	a := r.alloc.current()
	return driverTask(a, r.task, r.alloc.dirs, r.kind.OwnRoot, r.alloc.node.describe(), attempt)
}

// start begins the next attempt; one that fails has ended.
func (r *taskRunner) start(ctx context.Context) (drivers.Handle, *drivers.Exit) {
	h, err := r.launch(ctx)
	if err != nil {
		r.event(&model.TaskEvent{Type: model.TaskDriverFailure, DisplayMessage: err.Error(), Details: map[string]string{"driver_error": err.Error()}})
		return nil, &drivers.Exit{Err: err.Error()}
	}
	return h, nil
}

func (r *taskRunner) launch(ctx context.Context) (drivers.Handle, error) {
	r.event(&model.TaskEvent{Type: model.TaskSetup, DisplayMessage: "Making the task's directories"})
	if err := r.alloc.dirs.make(r.task); err != nil {
		return nil, err
	}
	// Once: what the task made of it since is the task's.
	if r.rec.Attempt == 0 {
		if err := r.alloc.dirs.putPayload(r.alloc.current().Job, r.task); err != nil {
			return nil, err
		}
	}
	// On disk before the driver acts: whatever happens now, the attempt has a
	// name to be found by.
	if err := r.change(func(rec *taskRecord) { rec.Attempt++; rec.Begun, rec.Handle = true, nil }); err != nil {
		return nil, fmt.Errorf("cannot start the task: its state cannot be kept: %w", err)
	}
	startCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-r.killed:
			cancel()
		case <-stop:
		}
	})
	h, err := r.driver.Start(startCtx, r.driverTask(r.rec.Attempt))
	close(stop)
	watch.Wait()
	if err != nil {
		if ctx.Err() == nil {
			_ = r.change(func(rec *taskRecord) { rec.Begun = false })
		}
		return nil, err
	}
	r.event(&model.TaskEvent{Type: model.TaskStarted, DisplayMessage: "The task runs"})
	_ = r.change(func(rec *taskRecord) {
		rec.Handle = h
		rec.State.State, rec.State.StartedAt, rec.State.FinishedAt = model.TaskStateRunning, r.alloc.node.clock.Now(), time.Time{}
	})
	return h, nil
}

// wait waits for the task's end, which it brings about when the task is killed.
// Nil means that ctx ended first.
func (r *taskRunner) wait(ctx context.Context, h drivers.Handle) *drivers.Exit {
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stopping sync.WaitGroup
	stopping.Go(func() {
		select {
		case <-r.killed:
			r.stop(waitCtx, h)
		case <-waitCtx.Done():
		}
	})
	var exit *drivers.Exit
	_ = backoff.Policy{}.Retry(waitCtx, nil, func(ctx context.Context) (err error) {
		if exit, err = r.driver.Wait(ctx, h); err != nil && ctx.Err() == nil {
			r.log.Warn("cannot wait for the task; trying on", "error", err)
		}
		return err
	})
	cancel()
	stopping.Wait()
	return exit
}

// stop ends the running task as its specification says.
func (r *taskRunner) stop(ctx context.Context, h drivers.Handle) {
	r.event(r.killEvent)
	delay := r.alloc.shutdownDelay(r.task)
	timeout := r.alloc.node.killTimeout(r.task.KillTimeout)
	if r.alloc.node.hurried() {
		delay = 0
	}
	r.event(&model.TaskEvent{
		Type: model.TaskKilling, DisplayMessage: fmt.Sprintf("Asking the task to end, and ending it after %s", timeout),
		Details: map[string]string{"kill_timeout": timeout.String()},
	})
	_ = r.change(func(*taskRecord) {})
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	_ = backoff.Policy{}.Retry(ctx, nil, func(ctx context.Context) error {
		err := r.driver.Stop(ctx, h, drivers.Stop{Signal: r.task.KillSignal, Timeout: timeout})
		if err != nil && ctx.Err() == nil {
			r.log.Warn("cannot stop the task; trying on", "error", err)
		}
		return err
	})
}

func (r *taskRunner) terminated(e *drivers.Exit) {
	msg := fmt.Sprintf("Exit code %d", e.Code)
	if e.Signal != 0 {
		msg += fmt.Sprintf(", signal %d", e.Signal)
	}
	if e.OOMKilled {
		msg += ", out of memory"
	}
	if e.Err != "" {
		msg += ": " + e.Err
	}
	r.event(&model.TaskEvent{
		Type: model.TaskTerminated, DisplayMessage: msg, ExitCode: e.Code, Signal: e.Signal,
		Details: map[string]string{"exit_code": strconv.Itoa(e.Code), "signal": strconv.Itoa(e.Signal), "oom_killed": strconv.FormatBool(e.OOMKilled), "exit_message": e.Err},
	})
}

// destroy clears the ended attempt away, and notes that on disk only after: an
// attempt whose end was seen is not recovered.
func (r *taskRunner) destroy(ctx context.Context, h drivers.Handle) {
	if err := r.driver.Destroy(ctx, h); err != nil && ctx.Err() == nil {
		r.log.Warn("cannot clear the ended task away", "error", err)
	}
	_ = r.change(func(rec *taskRecord) {
		rec.Begun, rec.Handle = false, nil
		rec.State.FinishedAt = r.alloc.node.clock.Now()
	})
}

// again asks the restart policy, and waits as it says; false when the task will
// not run again.
func (r *taskRunner) again(ctx context.Context, exit *drivers.Exit) bool {
	now := r.alloc.node.clock.Now()
	v := r.rec.Restarts.next(r.task.RestartPolicy, r.alloc.current().Job.Type, !exit.Failed(), now, rand.Float64())
	if !v.restart {
		if !v.failed {
			r.end(false, nil)
			return false
		}
		r.end(true, &model.TaskEvent{Type: model.TaskNotRestarting, DisplayMessage: "Not restarting: " + v.why, FailsTask: true, Details: map[string]string{"restart_reason": v.why, "fails_task": "true"}})
		return false
	}
	r.event(&model.TaskEvent{
		Type: model.TaskRestarting, DisplayMessage: fmt.Sprintf("Restarting in %s: %s", v.delay.Round(time.Millisecond), v.why),
		Details: map[string]string{"restart_reason": v.why, "start_delay": strconv.FormatInt(int64(v.delay), 10)},
	})
	_ = r.change(func(rec *taskRecord) {
		rec.State.State = model.TaskStatePending
		rec.State.Restarts++
		rec.State.LastRestart = now
	})
	timer := time.NewTimer(v.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.killed:
	case <-ctx.Done():
	}
	return true
}

// end makes the task dead.
func (r *taskRunner) end(failed bool, e *model.TaskEvent) {
	if e != nil {
		r.event(e)
	}
	_ = r.change(func(rec *taskRecord) {
		rec.State.State, rec.State.Failed = model.TaskStateDead, failed
		if rec.State.FinishedAt.IsZero() {
			rec.State.FinishedAt = r.alloc.node.clock.Now()
		}
	})
}
