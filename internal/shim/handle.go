package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNeverStarted says that a directory's task was not started, and now never
// will be.
var ErrNeverStarted = errors.New("the task was never started")

// Handle is the agent's side of a shim.
type Handle struct {
	dir string

	mu sync.Mutex // guards child
	// child is set when this process launched the shim and should reap it.
	child *exec.Cmd
}

// launchTime is how long a shim may take to start its task.
const launchTime = 20 * time.Second

// Launch starts a shim in dir, which must not exist, for a task. bin is the
// program to run, whose first arguments lead to Main. When it returns an error
// nothing runs.
func Launch(ctx context.Context, bin []string, dir string, spec Spec) (*Handle, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the task's directory: %w", err)
	}
	if err := writeJSON(dir, specFile, spec); err != nil {
		return nil, fmt.Errorf("cannot write what to run: %w", err)
	}
	// Not bound to ctx: the shim outlives the call and the agent.
	cmd := exec.Command(bin[0], append(bin[1:], dir)...)
	cmd.Dir = dir
	// Two threads of Go are plenty for copying two pipes.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "GOGC=50")
	detach(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the task's shim: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	// Its end closes the pipe, and with that ends the read.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	line, _ := bufio.NewReader(io.LimitReader(out, 4096)).ReadString('\n')
	h := &Handle{dir: dir, child: cmd}
	if stop() && strings.TrimSpace(line) == "ok" {
		_ = out.Close()
		return h, nil
	}
	err = h.Destroy()
	if ctx.Err() != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the task: %w", ctx.Err()), err)
	}
	if line = strings.TrimSpace(line); line == "" {
		line = "cannot start the task: its shim ended without a word"
	}
	return nil, errors.Join(errors.New(line), err)
}

// Attach finds the shim of a directory again, whatever its task does now.
// ErrNeverStarted when the task was not started; from then on it cannot be.
func Attach(dir string) (*Handle, error) {
	if _, err := os.Stat(filepath.Join(dir, specFile)); errors.Is(err, os.ErrNotExist) {
		return nil, ErrNeverStarted
	}
	first, err := claim(dir, claimedByAgent)
	if err != nil {
		return nil, fmt.Errorf("cannot find the task's shim: %w", err)
	}
	if first {
		return nil, ErrNeverStarted
	}
	if by, err := os.ReadFile(filepath.Join(dir, claimFile)); err == nil && string(by) == claimedByAgent {
		return nil, ErrNeverStarted
	}
	return &Handle{dir: dir}, nil
}

// exit returns the exit that was written down, nil when there is none.
func (h *Handle) exit() (*Exit, error) {
	var e Exit
	found, err := readJSON(h.dir, exitFile, &e)
	if err != nil || !found {
		return nil, err
	}
	return &e, nil
}

// errShimDead says that a shim ended without writing down an exit.
var errShimDead = errors.New("the task's shim was killed")

// PID is the task's process id.
func (h *Handle) PID() int {
	var st state
	_, _ = readJSON(h.dir, stateFile, &st)
	return st.Task.PID
}

// Wait returns how the task ended. A task whose shim was killed is ended, with
// Exit.Err set. The error is ctx's.
func (h *Handle) Wait(ctx context.Context) (*Exit, error) {
	return h.ask(ctx, request{Op: "wait"})
}

// Stop sends the task a signal, kills it and all it started when it has not
// ended by the time-out, and returns how it ended. When ctx ends first the stop
// goes on.
func (h *Handle) Stop(ctx context.Context, signal string, timeout time.Duration) (*Exit, error) {
	return h.ask(ctx, request{Op: "stop", Signal: signal, Timeout: timeout})
}

// ask sends a request that is answered with the task's exit.
func (h *Handle) ask(ctx context.Context, req request) (*Exit, error) {
	for {
		if e, err := h.exit(); e != nil || err != nil {
			return e, err
		}
		r, err := h.exchange(ctx, req)
		switch {
		case err == nil && r.Exit != nil:
			return r.Exit, nil
		case err == nil:
			return nil, fmt.Errorf("the task's shim refused: %s", r.Err)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		// The shim is gone, or about to listen, or busy writing the exit.
		if !h.alive() {
			if e, err := h.exit(); e != nil || err != nil {
				return e, err
			}
			if err := h.Destroy(); err != nil {
				return nil, err
			}
			return &Exit{Err: errShimDead.Error(), At: time.Now()}, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *Handle) exchange(ctx context.Context, req request) (*reply, error) {
	conn, err := dial(ctx, h.dir)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return nil, err
	}
	var r reply
	if err := json.NewDecoder(io.LimitReader(conn, 1<<16)).Decode(&r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Dir is the shim's directory, by which Attach finds it again.
func (h *Handle) Dir() string { return h.dir }

// alive reports whether the shim runs, or may be about to: between its claim and
// its state it cannot be told by number.
func (h *Handle) alive() bool {
	var st state
	found, err := readJSON(h.dir, stateFile, &st)
	if err != nil {
		return false
	}
	if !found {
		info, err := os.Stat(filepath.Join(h.dir, claimFile))
		return err == nil && time.Since(info.ModTime()).Abs() < launchTime
	}
	return st.Shim.alive()
}

// Destroy ends whatever is left of the task and of its shim.
func (h *Handle) Destroy() error {
	err := h.destroy()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.child != nil {
		_ = h.child.Process.Kill()
		_ = h.child.Wait()
		h.child = nil
	}
	return err
}

func (h *Handle) destroy() error {
	var st state
	found, err := readJSON(h.dir, stateFile, &st)
	if err != nil {
		return err
	}
	if !found {
		return nil
	}
	// The shim first: what it notes of a task that we kill is no exit.
	st.Shim.kill()
	if st.Cgroup != "" {
		cg := &cgroup{dir: st.Cgroup}
		cg.kill()
		cg.remove()
	}
	st.Task.kill()
	return nil
}

// listen listens on the directory's socket.
func listen(dir string) (net.Listener, error) {
	path, done, err := sockPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Its path may be a short name that is valid now only; run removes the file.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := sockPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
}
