// Package docker runs tasks as containers of a Docker engine.
//
// A container's name and label say which task it is, so that one can be found
// again whose start the agent did not live to see. The engine keeps the output;
// the driver copies it into the task's log files and remembers how far it came,
// so that a new agent goes on where the old one stopped.
//
// Each started or recovered task has one goroutine, which copies its output. It
// ends with the container, or with Close.
package docker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/hashicorp/go-hclog"

	"atoll/drivers"
	"atoll/internal/backoff"
	"atoll/internal/group"
)

// labelTask holds a container's task id.
const labelTask = "atoll.task_id"

// Config wires the driver.
type Config struct {
	// Endpoint is the engine's address; "" follows DOCKER_HOST, and that the
	// engine's default.
	Endpoint string
	Log      hclog.Logger
}

// Driver is the docker driver.
type Driver struct {
	engine *client.Client
	log    hclog.Logger
	copies *group.Group

	mu    sync.Mutex // guards tasks
	tasks map[string]*copier
}

// New returns the driver. Whether there is an engine shows in its fingerprint.
func New(cfg Config) (*Driver, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Endpoint != "" {
		opts = append(opts, client.WithHost(cfg.Endpoint))
	}
	engine, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("cannot use the Docker engine: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	return &Driver{engine: engine, log: cfg.Log, copies: group.New(context.Background()), tasks: make(map[string]*copier)}, nil
}

// Fingerprint implements drivers.Driver.
func (d *Driver) Fingerprint(ctx context.Context) drivers.Fingerprint {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	v, err := d.engine.ServerVersion(ctx)
	if err != nil {
		return drivers.Fingerprint{Description: "no Docker engine answers at " + d.engine.DaemonHost()}
	}
	return drivers.Fingerprint{Detected: true, Healthy: true, Description: "Healthy", Attributes: map[string]string{
		"driver.docker": "1", "driver.docker.version": v.Version, "driver.docker.os_type": v.Os,
	}}
}

// handle is what a drivers.Handle holds.
type handle struct {
	Container string
	Task      drivers.Task
}

func encode(containerID string, t *drivers.Task) drivers.Handle {
	// What is needed to go on copying its output; not its secrets.
	b, _ := json.Marshal(handle{Container: containerID, Task: drivers.Task{
		ID: t.ID, Name: t.Name, LogDir: t.LogDir, PrivateDir: t.PrivateDir, Logs: t.Logs,
	}})
	return b
}

func decode(h drivers.Handle) (*handle, error) {
	v := new(handle)
	if err := json.Unmarshal(h, v); err != nil || v.Container == "" {
		return nil, fmt.Errorf("cannot read the handle of a docker task: %q", h)
	}
	return v, nil
}

func containerName(t *drivers.Task) string { return t.Name + "-" + t.AllocID }

// Start implements drivers.Driver.
func (d *Driver) Start(ctx context.Context, t *drivers.Task) (drivers.Handle, error) {
	set, err := read(t.Config)
	if err != nil {
		return nil, err
	}
	cfg, host, err := set.container(t)
	if err != nil {
		return nil, err
	}
	if err := d.fetch(ctx, set); err != nil {
		return nil, err
	}
	name := containerName(t)
	// An earlier attempt's, that nobody cleared away.
	if err := d.remove(ctx, name); err != nil {
		return nil, err
	}
	made, err := d.engine.ContainerCreate(ctx, cfg, host, nil, nil, name)
	if err != nil {
		return nil, fmt.Errorf("cannot create the container: %w", oneLine(err))
	}
	if err := d.engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the container: %w", oneLine(err)), d.remove(context.WithoutCancel(ctx), made.ID))
	}
	h := encode(made.ID, t)
	d.copy(made.ID, t)
	return h, nil
}

// oneLine keeps an engine's long message presentable.
func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// fetch pulls the image unless the engine has it.
func (d *Driver) fetch(ctx context.Context, set *settings) error {
	_, err := d.engine.ImageInspect(ctx, set.image)
	if err == nil && !set.forcePull {
		return nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot look for image %q: %w", set.image, oneLine(err))
	}
	progress, err := d.engine.ImagePull(ctx, set.image, image.PullOptions{})
	if err != nil {
		return fmt.Errorf("cannot pull image %q: %w", set.image, oneLine(err))
	}
	defer progress.Close()
	// The pull is over at the end of its progress, which tells of failure too.
	for lines := json.NewDecoder(bufio.NewReader(progress)); ; {
		var line struct {
			Error string `json:"error"`
		}
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("cannot pull image %q: %w", set.image, oneLine(err))
		case line.Error != "":
			return fmt.Errorf("cannot pull image %q: %s", set.image, line.Error)
		}
	}
}

// Recover implements drivers.Driver.
func (d *Driver) Recover(ctx context.Context, t *drivers.Task, h drivers.Handle) (drivers.Handle, error) {
	which := containerName(t)
	if h != nil {
		v, err := decode(h)
		if err != nil {
			return nil, err
		}
		which = v.Container
	}
	c, err := d.engine.ContainerInspect(ctx, which)
	switch {
	case errdefs.IsNotFound(err):
		return nil, drivers.ErrNotStarted
	case err != nil:
		return nil, fmt.Errorf("cannot look for the container: %w", oneLine(err))
	case c.Config.Labels[labelTask] != t.ID:
		return nil, drivers.ErrNotStarted // an earlier attempt's
	case c.State.Status == container.StateCreated:
		// The agent died between creating and starting it.
		return nil, cmp.Or(d.remove(ctx, c.ID), drivers.ErrNotStarted)
	}
	d.copy(c.ID, t)
	return encode(c.ID, t), nil
}

// Wait implements drivers.Driver. It outlasts the engine's absence.
func (d *Driver) Wait(ctx context.Context, h drivers.Handle) (*drivers.Exit, error) {
	v, err := decode(h)
	if err != nil {
		return nil, err
	}
	var exit *drivers.Exit
	err = backoff.Policy{}.Retry(ctx, nil, func(ctx context.Context) error {
		answers, failures := d.engine.ContainerWait(ctx, v.Container, container.WaitConditionNotRunning)
		select {
		case a := <-answers:
			exit = &drivers.Exit{Code: int(a.StatusCode)}
			if a.Error != nil {
				exit.Err = a.Error.Message
			}
			return nil
		case err := <-failures:
			if errdefs.IsNotFound(err) {
				exit = &drivers.Exit{Err: "its container was removed"}
				return nil
			}
			return err
		}
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot wait for the container: %w", oneLine(err))
	}
	if c, err := d.engine.ContainerInspect(ctx, v.Container); err == nil {
		exit.OOMKilled = c.State.OOMKilled
		exit.Err = cmp.Or(exit.Err, c.State.Error)
	}
	if exit.Code > 128 && exit.Code < 128+65 {
		exit.Signal = exit.Code - 128
	}
	d.mu.Lock()
	c := d.tasks[v.Container]
	d.mu.Unlock()
	if c != nil {
		c.drained(ctx)
	}
	return exit, nil
}

// Stop implements drivers.Driver.
func (d *Driver) Stop(ctx context.Context, h drivers.Handle, how drivers.Stop) error {
	v, err := decode(h)
	if err != nil {
		return err
	}
	signal := how.Signal
	if signal == "" {
		signal = "SIGTERM"
		if c, err := d.engine.ContainerInspect(ctx, v.Container); err == nil && c.Config.StopSignal != "" {
			signal = c.Config.StopSignal
		}
	}
	err = d.engine.ContainerKill(ctx, v.Container, signal)
	if errdefs.IsNotFound(err) || isNotRunning(err) {
		return nil
	}
	if err == nil {
		gentle, cancel := context.WithTimeout(ctx, how.Timeout)
		_, err = d.Wait(gentle, h)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := d.engine.ContainerKill(ctx, v.Container, "SIGKILL"); err != nil && !errdefs.IsNotFound(err) && !isNotRunning(err) {
		return fmt.Errorf("cannot kill the container: %w", oneLine(err))
	}
	_, err = d.Wait(ctx, h)
	return err
}

// isNotRunning tells the engine's conflict: a container that has ended cannot
// be signalled.
func isNotRunning(err error) bool { return errdefs.IsConflict(err) }

// Destroy implements drivers.Driver.
func (d *Driver) Destroy(ctx context.Context, h drivers.Handle) error {
	v, err := decode(h)
	if err != nil {
		return err
	}
	if err := d.remove(ctx, v.Container); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tasks, v.Container)
	return nil
}

func (d *Driver) remove(ctx context.Context, which string) error {
	err := d.engine.ContainerRemove(ctx, which, container.RemoveOptions{Force: true, RemoveVolumes: true})
	// A conflict says that its removal is under way.
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("cannot remove the container: %w", oneLine(err))
}

// Close implements drivers.Driver.
func (d *Driver) Close() error {
	d.copies.Stop()
	return errors.Join(d.copies.Wait(), d.engine.Close())
}
