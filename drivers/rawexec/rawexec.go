// Package rawexec runs tasks as plain processes, without isolation, each under a
// shim. It is off unless the agent's configuration enables it.
package rawexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"atoll/drivers"
	"atoll/internal/shim"
	"atoll/internal/tasklog"
	"atoll/model"
)

// Name is the driver's in job files.
const Name = "raw_exec"

// Config wires the driver.
type Config struct {
	Enabled bool
	// Shim is the program, and its first arguments, that becomes a shim.
	Shim []string
	// Environ is what tasks inherit of the agent's environment, as "K=V".
	Environ []string
}

// Driver is the raw_exec driver.
type Driver struct {
	cfg Config

	mu sync.Mutex // guards children
	// children are the shims that this process launched and must reap.
	children map[string]*shim.Handle
}

// New returns the driver.
func New(cfg Config) *Driver {
	return &Driver{cfg: cfg, children: make(map[string]*shim.Handle)}
}

type settings struct {
	command string
	args    []string
}

func read(config map[string]any) (settings, error) {
	s := drivers.NewSettings(Name, config)
	out := settings{command: s.String("command"), args: s.Strings("args")}
	if out.command == "" {
		s.Fault("command", "it is missing; name the program to run")
	}
	s.Unsupported("cgroup_v1_override", "cgroup_v2_override", "work_dir", "denied_envvars", "oom_score_adj")
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
	if !d.cfg.Enabled {
		return drivers.Fingerprint{Description: "disabled"}
	}
	return drivers.Fingerprint{Detected: true, Healthy: true, Description: "Healthy", Attributes: map[string]string{"driver.raw_exec": "1"}}
}

// handle is what a drivers.Handle holds.
type handle struct{ Dir string }

func decode(h drivers.Handle) (handle, error) {
	var v handle
	if err := json.Unmarshal(h, &v); err != nil || v.Dir == "" {
		return v, fmt.Errorf("cannot read the handle of a %s task: %q", Name, h)
	}
	return v, nil
}

// dir is the shim's directory of a task.
func dir(t *drivers.Task) string { return filepath.Join(t.PrivateDir, t.ID) }

func encode(dir string) drivers.Handle {
	b, _ := json.Marshal(handle{Dir: dir})
	return b
}

// Start implements drivers.Driver.
func (d *Driver) Start(ctx context.Context, t *drivers.Task) (drivers.Handle, error) {
	if !d.cfg.Enabled {
		return nil, errors.New("cannot start the task: the driver raw_exec is disabled on this node")
	}
	set, err := read(t.Config)
	if err != nil {
		return nil, err
	}
	env := d.environ(t)
	path, err := lookUp(set.command, t.Dir, env)
	if err != nil {
		return nil, err
	}
	spec := shim.Spec{ID: t.ID, Command: path, Args: set.args, Env: env, Dir: t.Dir, User: t.User, Task: t.Name}
	if t.Logs != nil {
		spec.LogDir, spec.Logs = t.LogDir, *t.Logs
	} else {
		spec.Logs = tasklog.Limits{}
	}
	h, err := shim.Launch(ctx, d.cfg.Shim, dir(t), spec)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.children[h.Dir()] = h
	return encode(h.Dir()), nil
}

// environ is the task's environment over what the agent passes on.
func (d *Driver) environ(t *drivers.Task) []string {
	merged := make(map[string]string)
	for _, kv := range d.cfg.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			merged[k] = v
		}
	}
	maps.Copy(merged, t.Env)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(merged)) {
		out = append(out, k+"="+merged[k])
	}
	return out
}

// lookUp finds a command: a path relative to the task's directory, a file in
// its local directory, or a program of the task's PATH.
func lookUp(command, dir string, env []string) (string, error) {
	if filepath.IsAbs(command) {
		return command, nil
	}
	places := []string{dir, filepath.Join(dir, "local")}
	if !strings.ContainsRune(command, filepath.Separator) {
		for _, kv := range env {
			if path, ok := strings.CutPrefix(kv, "PATH="); ok {
				places = append(places, filepath.SplitList(path)...)
			}
		}
	}
	for _, p := range places {
		if !filepath.IsAbs(p) {
			continue
		}
		if found, err := exec.LookPath(filepath.Join(p, command)); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("cannot find the command %q: it is neither in the task's directory nor in its PATH", command)
}

// Recover implements drivers.Driver.
func (d *Driver) Recover(_ context.Context, t *drivers.Task, h drivers.Handle) (drivers.Handle, error) {
	where := dir(t)
	if h != nil {
		v, err := decode(h)
		if err != nil {
			return nil, err
		}
		where = v.Dir
	}
	if _, err := shim.Attach(where); errors.Is(err, shim.ErrNeverStarted) {
		return nil, drivers.ErrNotStarted
	} else if err != nil {
		return nil, err
	}
	return encode(where), nil
}

// find returns the shim's handle: that of the process's own child, or one by
// the directory.
func (d *Driver) find(h drivers.Handle) (*shim.Handle, error) {
	v, err := decode(h)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	child := d.children[v.Dir]
	d.mu.Unlock()
	if child != nil {
		return child, nil
	}
	return shim.Attach(v.Dir)
}

// Wait implements drivers.Driver.
func (d *Driver) Wait(ctx context.Context, h drivers.Handle) (*drivers.Exit, error) {
	s, err := d.find(h)
	if errors.Is(err, shim.ErrNeverStarted) {
		return &drivers.Exit{Err: "what was known of the task is gone"}, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := s.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &drivers.Exit{Code: e.Code, Signal: e.Signal, Err: e.Err}, nil
}

// Stop implements drivers.Driver.
func (d *Driver) Stop(ctx context.Context, h drivers.Handle, how drivers.Stop) error {
	s, err := d.find(h)
	if errors.Is(err, shim.ErrNeverStarted) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.Stop(ctx, how.Signal, how.Timeout)
	return err
}

// Destroy implements drivers.Driver.
func (d *Driver) Destroy(_ context.Context, h drivers.Handle) error {
	s, err := d.find(h)
	if errors.Is(err, shim.ErrNeverStarted) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.Destroy()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.children, s.Dir())
	return err
}

// Close implements drivers.Driver: it has no goroutines.
func (d *Driver) Close() error { return nil }
