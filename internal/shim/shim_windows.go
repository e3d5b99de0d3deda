package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// detach keeps the console's control events from the shim.
func detach(cmd *exec.Cmd) {
	const newProcessGroup, detachedProcess = 0x200, 0x8
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: newProcessGroup | detachedProcess}
}

func ignoreSignals() { signal.Notify(make(chan os.Signal, 1), os.Interrupt) }

func prepare(_ *exec.Cmd, login string, _ *cgroup) error {
	if login != "" {
		return fmt.Errorf("cannot run as user %q: this is not supported on Windows", login)
	}
	return nil
}

// SignalNumber returns the number of a signal; Windows knows two.
func SignalNumber(name string) int {
	switch name {
	case "", "SIGTERM", "TERM":
		return int(syscall.SIGTERM)
	case "SIGKILL", "KILL":
		return int(syscall.SIGKILL)
	}
	return 0
}

// signalTask ends the task: there is nothing gentler.
func signalTask(cmd *exec.Cmd, _ string) error { return cmd.Process.Kill() }

func killTree(p *os.Process) { _ = p.Kill() }

func exitOf(cmd *exec.Cmd, err error) Exit {
	e := Exit{At: now()}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		e.Err = err.Error()
		return e
	}
	e.Code = cmd.ProcessState.ExitCode()
	return e
}

func (p process) kill() {
	if !p.alive() {
		return
	}
	if proc, err := os.FindProcess(p.PID); err == nil {
		_ = proc.Kill()
		_ = proc.Release()
	}
}
