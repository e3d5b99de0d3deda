// Package mock is a driver that runs nothing: its tasks are timers in this
// process. It is for tests and for trying out scheduling, under Nomad's name for
// the same thing, and off unless the agent's configuration enables it.
package mock

import (
	"context"
	"errors"
	"sync"
	"time"

	"atoll/drivers"
	"atoll/model"
)

// Name is the driver's in job files.
const Name = "mock_driver"

// Driver is the mock driver.
type Driver struct {
	mu    sync.Mutex // guards tasks
	tasks map[string]*task
}

type task struct {
	stopped chan struct{}
	stop    sync.Once
	ends    time.Time // zero: never by itself
	exit    drivers.Exit
}

// New returns the driver.
func New() *Driver { return &Driver{tasks: make(map[string]*task)} }

type settings struct {
	runFor     time.Duration
	forever    bool
	exit       drivers.Exit
	startError string
}

func read(config map[string]any) (settings, error) {
	s := drivers.NewSettings(Name, config)
	out := settings{runFor: s.Duration("run_for"), startError: s.String("start_error")}
	out.exit = drivers.Exit{Code: s.Int("exit_code"), Signal: s.Int("exit_signal"), Err: s.String("exit_err_msg")}
	out.forever = out.runFor == 0
	return out, s.Err()
}

// Kind is the driver's.
var Kind = drivers.Kind{Name: Name, Check: check}

func check(t *model.Task) error {
	_, err := read(t.Config)
	return err
}

// Fingerprint implements drivers.Driver.
func (d *Driver) Fingerprint(context.Context) drivers.Fingerprint {
	return drivers.Fingerprint{Detected: true, Healthy: true, Description: "Healthy", Attributes: map[string]string{"driver.mock_driver": "1"}}
}

// Start implements drivers.Driver.
func (d *Driver) Start(_ context.Context, t *drivers.Task) (drivers.Handle, error) {
	set, err := read(t.Config)
	if err != nil {
		return nil, err
	}
	if set.startError != "" {
		return nil, errors.New(set.startError)
	}
	tk := &task{stopped: make(chan struct{}), exit: set.exit}
	if !set.forever {
		tk.ends = time.Now().Add(set.runFor)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks[t.ID] = tk
	return drivers.Handle(t.ID), nil
}

func (d *Driver) find(h drivers.Handle) *task {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tasks[string(h)]
}

// Recover implements drivers.Driver: tasks end with their process.
func (d *Driver) Recover(_ context.Context, t *drivers.Task, _ drivers.Handle) (drivers.Handle, error) {
	if d.find(drivers.Handle(t.ID)) == nil {
		return nil, drivers.ErrNotStarted
	}
	return drivers.Handle(t.ID), nil
}

// Wait implements drivers.Driver.
func (d *Driver) Wait(ctx context.Context, h drivers.Handle) (*drivers.Exit, error) {
	t := d.find(h)
	if t == nil {
		return &drivers.Exit{Err: "what was known of the task is gone"}, nil
	}
	var ends <-chan time.Time
	if !t.ends.IsZero() {
		timer := time.NewTimer(time.Until(t.ends))
		defer timer.Stop()
		ends = timer.C
	}
	select {
	case <-t.stopped:
		return &drivers.Exit{Code: 128 + 15, Signal: 15}, nil
	case <-ends:
		e := t.exit
		return &e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop implements drivers.Driver.
func (d *Driver) Stop(_ context.Context, h drivers.Handle, _ drivers.Stop) error {
	if t := d.find(h); t != nil {
		t.stop.Do(func() { close(t.stopped) })
	}
	return nil
}

// Destroy implements drivers.Driver.
func (d *Driver) Destroy(ctx context.Context, h drivers.Handle) error {
	err := d.Stop(ctx, h, drivers.Stop{})
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tasks, string(h))
	return err
}

// Close implements drivers.Driver.
func (d *Driver) Close() error { return nil }
