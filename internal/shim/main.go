package shim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"atoll/internal/tasklog"
)

// drainTime is how long output is still read after the task and whatever it
// left behind were ended: a pipe can be held by a process that escaped.
const drainTime = 2 * time.Second

// Main runs a task as the directory's spec says and returns the process's exit
// code. It tells its parent one line on stdout: "ok", or why the task could not
// be started.
func Main(dir string) int {
	// The task's parent is this thread, as far as the kernel's death signal
	// goes: it must not end before the process.
	runtime.LockOSThread()
	s := &shim{dir: dir, exited: make(chan struct{})}
	if err := s.start(); err != nil {
		if s.claimed {
			// For an agent that comes later, when this one is gone.
			_ = writeJSON(dir, exitFile, Exit{Err: err.Error(), At: now()})
		}
		fmt.Println(err)
		return 1
	}
	fmt.Println("ok")
	_ = os.Stdout.Close()
	s.run()
	return 0
}

type shim struct {
	dir      string
	claimed  bool
	spec     Spec
	cmd      *exec.Cmd
	state    state
	cgroup   *cgroup
	listener net.Listener
	logs     []*tasklog.Writer
	pipes    []*os.File
	copying  sync.WaitGroup

	mu     sync.Mutex // guards reaped
	reaped bool

	exit   Exit
	exited chan struct{} // closed once exit is set and on disk
}

func (s *shim) start() error {
	ignoreSignals()
	if found, err := readJSON(s.dir, specFile, &s.spec); err != nil || !found {
		return errors.Join(fmt.Errorf("cannot start: %s holds no specification", s.dir), err)
	}
	first, err := claim(s.dir, claimedByShim)
	if err != nil {
		return fmt.Errorf("cannot claim the start: %w", err)
	}
	if !first {
		return errors.New("cannot start: the start was given up, or made before")
	}
	s.claimed = true
	if s.listener, err = listen(s.dir); err != nil {
		return fmt.Errorf("cannot listen in the task's directory: %w", err)
	}
	s.cgroup = newCgroup(s.spec.ID)
	if err := s.exec(); err != nil {
		s.cgroup.remove()
		_ = s.listener.Close()
		return err
	}
	self, _, err := processOf(os.Getpid())
	if err == nil {
		s.state.Shim = self
		s.state.Task, _, err = processOf(s.cmd.Process.Pid)
	}
	s.state.Cgroup = s.cgroup.path()
	if err == nil {
		err = writeJSON(s.dir, stateFile, s.state)
	}
	if err != nil {
		s.killAll()
		_ = s.cmd.Wait()
		return fmt.Errorf("cannot keep the task's process id: %w", err)
	}
	return nil
}

// exec starts the task, with its pipes read into its logs.
func (s *shim) exec() error {
	s.cmd = &exec.Cmd{Path: s.spec.Command, Args: append([]string{s.spec.Command}, s.spec.Args...), Env: s.spec.Env, Dir: s.spec.Dir}
	if err := prepare(s.cmd, s.spec.User, s.cgroup); err != nil {
		return err
	}
	var ends []*os.File
	defer func() {
		for _, f := range ends {
			_ = f.Close()
		}
	}()
	for _, stream := range []string{tasklog.Stdout, tasklog.Stderr} {
		if s.spec.LogDir == "" {
			continue // exec gives it the null device
		}
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("cannot make a pipe: %w", err)
		}
		ends = append(ends, w)
		log := tasklog.NewWriter(s.spec.LogDir, tasklog.Base(s.spec.Task, stream), s.spec.Logs)
		s.logs, s.pipes = append(s.logs, log), append(s.pipes, r)
		if stream == tasklog.Stdout {
			s.cmd.Stdout = w
		} else {
			s.cmd.Stderr = w
		}
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("cannot run %s: %w", s.spec.Command, err)
	}
	for i, r := range s.pipes {
		s.copying.Go(func() { _, _ = io.Copy(s.logs[i], r) })
	}
	return nil
}

// run waits for the task's end, and serves agents until then and a little
// longer: whoever asked has the answer.
func (s *shim) run() {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn) })
		}
	})
	s.exit = exitOf(s.cmd, s.waitFor())
	// Nothing of the task outlives it.
	s.cgroup.kill()
	drained := make(chan struct{})
	go func() { s.copying.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTime):
		for _, r := range s.pipes {
			_ = r.Close()
		}
		<-drained
	}
	for _, l := range s.logs {
		_ = l.Close()
	}
	s.cgroup.remove()
	if err := writeJSON(s.dir, exitFile, s.exit); err != nil {
		s.exit.Err = "cannot keep the exit: " + err.Error()
	}
	close(s.exited)
	_ = s.listener.Close()
	serving.Wait()
	_ = os.Remove(filepath.Join(s.dir, sockFile))
}

// serve answers one request.
func (s *shim) serve(conn net.Conn) {
	defer conn.Close()
	var req request
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &req) != nil {
		return
	}
	var answer reply
	switch req.Op {
	case "signal":
		if err := signalTask(s.cmd, req.Signal); err != nil {
			answer.Err = err.Error()
		}
	case "stop":
		s.stop(req)
		answer.Exit = &s.exit
	case "wait":
		// The agent's going away must not hold this process up.
		gone := make(chan struct{})
		go func() { defer close(gone); s.untilGone(conn) }()
		select {
		case <-s.exited:
		case <-gone:
			return
		}
		answer.Exit = &s.exit
	default:
		answer.Err = "unknown request"
	}
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_ = json.NewEncoder(conn).Encode(answer)
}

func (s *shim) untilGone(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Time{})
	_, _ = conn.Read(make([]byte, 1))
}

// stop asks the task to end, and ends it when it has not by the time-out. It
// goes on when the agent that asked is gone.
func (s *shim) stop(req request) {
	select {
	case <-s.exited:
		return
	default:
	}
	if err := signalTask(s.cmd, req.Signal); err != nil {
		s.killAll()
	}
	timer := time.NewTimer(req.Timeout)
	defer timer.Stop()
	select {
	case <-s.exited:
		return
	case <-timer.C:
	}
	s.killAll()
	<-s.exited
}

// killAll ends the task and everything it started.
func (s *shim) killAll() {
	s.cgroup.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reaped {
		killTree(s.cmd.Process)
	}
}
