package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/model"
)

// allocRunner runs an allocation: its tasks together, and what they amount to.
type allocRunner struct {
	node  *Client
	id    string
	dirs  dirs
	log   hclog.Logger
	tasks []*taskRunner
	// changed is signalled when a task or the allocation changed.
	changed chan struct{}
	done    chan struct{} // closed when run has returned
	ended   chan struct{} // closed when all tasks are dead
	// unwanted says that the servers have forgotten the allocation.
	unwanted atomic.Bool

	mu    sync.Mutex // guards alloc
	alloc *model.Allocation
	// health is run's alone.
	health health
}

// newAllocRunner makes a runner of a new allocation, or of one that was kept on
// disk with its tasks' records.
func newAllocRunner(node *Client, rec *allocRecord) *allocRunner {
	a := rec.Alloc
	r := &allocRunner{
		node: node, id: a.ID, alloc: a, dirs: node.allocDirs(a.ID), log: node.log.With("alloc", a.ID),
		health: rec.Health, changed: make(chan struct{}, 1), done: make(chan struct{}), ended: make(chan struct{}),
	}
	if g := a.Job.Group(a.TaskGroup); g != nil {
		for _, t := range g.Tasks {
			r.tasks = append(r.tasks, newTaskRunner(r, t, rec.Tasks[t.Name]))
		}
	}
	return r
}

func (r *allocRunner) current() *model.Allocation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alloc
}

// shutdownDelay is how long a task is left before it is ended.
func (r *allocRunner) shutdownDelay(t *model.Task) time.Duration {
	a := r.current()
	if skip := a.DesiredTransition.NoShutdownDelay; skip != nil && *skip {
		return 0
	}
	delay := t.ShutdownDelay
	if g := a.Job.Group(a.TaskGroup); g != nil {
		delay = max(delay, g.ShutdownDelay)
	}
	return delay
}

func (r *allocRunner) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// update takes up a newer version of the allocation.
func (r *allocRunner) update(a *model.Allocation) {
	r.mu.Lock()
	newer := a.AllocModifyIndex > r.alloc.AllocModifyIndex
	if newer {
		r.alloc = a
	}
	r.mu.Unlock()
	if !newer {
		return
	}
	if err := r.node.store.putAlloc(a); err != nil {
		r.log.Error("cannot keep the allocation", "error", err)
	}
	r.signal()
}

// run runs the tasks until they are dead, or ctx ends and they are let go of.
func (r *allocRunner) run(ctx context.Context) {
	defer close(r.done)
	var tasks sync.WaitGroup
	for _, t := range r.tasks {
		tasks.Go(func() { t.run(ctx) })
	}
	gone := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { tasks.Wait(); close(gone) })
	defer watch.Wait()
	look := time.NewTimer(time.Hour)
	defer look.Stop()
	for {
		r.coordinate()
		u := r.report()
		look.Stop()
		if again := r.judge(u); again > 0 {
			look.Reset(again)
		}
		r.node.reports.add(u)
		select {
		case <-r.changed:
		case <-look.C:
		case <-gone:
			u := r.report()
			r.judge(u)
			r.node.reports.add(u)
			if r.terminal() {
				close(r.ended)
				r.node.allocEnded()
			}
			return
		}
	}
}

// coordinate kills what must not go on: everything when the allocation is to
// stop, the rest when a task failed or the leader ended.
func (r *allocRunner) coordinate() {
	a := r.current()
	if a.ServerTerminal() {
		r.killAll(&model.TaskEvent{Type: model.TaskKilling, DisplayMessage: "The allocation is to stop: " + a.DesiredDescription})
		return
	}
	for _, t := range r.tasks {
		s := t.state()
		if s.State != model.TaskStateDead {
			continue
		}
		switch {
		case s.Failed:
			r.killAll(&model.TaskEvent{Type: model.TaskSiblingFailed, DisplayMessage: fmt.Sprintf("The task %q of the same group failed", t.task.Name), Details: map[string]string{"failed_sibling": t.task.Name}})
		case t.task.Leader:
			r.killAll(&model.TaskEvent{Type: model.TaskLeaderDead, DisplayMessage: "The group's leader has ended"})
		}
	}
}

func (r *allocRunner) killAll(why *model.TaskEvent) {
	for _, t := range r.tasks {
		e := *why
		t.kill(&e)
	}
}

// terminal reports whether every task is dead.
func (r *allocRunner) terminal() bool {
	for _, t := range r.tasks {
		if !t.dead() {
			return false
		}
	}
	return true
}

// report is what the servers should know.
func (r *allocRunner) report() *model.AllocUpdate {
	u := &model.AllocUpdate{ID: r.id, TaskStates: make(map[string]*model.TaskState, len(r.tasks))}
	for _, t := range r.tasks {
		u.TaskStates[t.task.Name] = t.state()
	}
	u.ClientStatus, u.ClientDescription = clientStatus(u.TaskStates)
	return u
}

// judge adds to a report how the allocation fares, and says after how long to
// look again; 0 for when something changes.
func (r *allocRunner) judge(u *model.AllocUpdate) time.Duration {
	changed, again := r.health.judge(r.current(), u.TaskStates, r.node.clock.Now())
	if changed {
		if err := r.node.store.putHealth(r.id, r.health); err != nil {
			r.log.Error("cannot keep the allocation's health", "error", err)
		}
	}
	if r.health.DeploymentID == r.current().DeploymentID {
		u.DeploymentID, u.DeploymentStatus = r.health.DeploymentID, r.health.Status
	}
	return again
}

// clientStatus is what tasks amount to.
func clientStatus(tasks map[string]*model.TaskState) (status, description string) {
	var running, pending, failed bool
	for _, t := range tasks {
		switch t.State {
		case model.TaskStateRunning:
			running = true
		case model.TaskStatePending:
			pending = true
		case model.TaskStateDead:
			failed = failed || t.Failed
		}
	}
	switch {
	case failed && !running:
		return model.AllocClientFailed, "Failed tasks"
	case running:
		return model.AllocClientRunning, "Tasks are running"
	case pending:
		return model.AllocClientPending, "No tasks have started"
	}
	return model.AllocClientComplete, "All tasks have completed"
}

// forget removes what is left of an ended allocation.
func (r *allocRunner) forget() error {
	return errors.Join(r.node.store.deleteAlloc(r.id), os.RemoveAll(r.dirs.root))
}

// make makes a task's directories, and those of its group. Tasks may run as
// users of their own, so what they share is open to all.
func (d dirs) make(t *model.Task) error {
	if err := os.MkdirAll(d.root, 0o711); err != nil {
		return fmt.Errorf("cannot make the allocation's directories: %w", err)
	}
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{d.private(), 0o700}, {d.shared(), 0o755}, {d.logs(), 0o755}, {d.shared() + "/tmp", 0o777}, {d.shared() + "/data", 0o777},
		{d.task(t.Name), 0o755}, {d.local(t.Name), 0o777}, {d.secret(t.Name), 0o700}, {d.task(t.Name) + "/tmp", 0o777},
	} {
		if err := os.Mkdir(dir.path, dir.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the allocation's directories: %w", err)
		} else if err == nil {
			// Whatever the umask.
			if err := os.Chmod(dir.path, dir.mode); err != nil {
				return fmt.Errorf("cannot make the allocation's directories: %w", err)
			}
		}
	}
	if u, err := user.Lookup(t.User); t.User != "" && err == nil {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(d.secret(t.Name), uid, gid); err != nil {
			return fmt.Errorf("cannot give the task its secrets directory: %w", err)
		}
	}
	return nil
}

// finished is when the last task ended.
func (r *allocRunner) finished() (at time.Time) {
	for _, t := range r.tasks {
		if f := t.state().FinishedAt; f.After(at) {
			at = f
		}
	}
	return at
}
