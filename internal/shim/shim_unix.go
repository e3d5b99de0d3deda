//go:build unix

package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// detach gives the shim a session of its own, which no terminal's signal and no
// agent's end reaches.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// ignoreSignals lets the shim live until its task has ended. The signals are
// caught and dropped: were they ignored, the task would inherit that.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
}

// runAs makes the task run as a user, with that user's groups.
func runAs(cmd *exec.Cmd, login string) error {
	if login == "" {
		return nil
	}
	u, err := user.Lookup(login)
	if err != nil {
		return fmt.Errorf("cannot run as user %q: %w", login, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("cannot run as user %q: %w", login, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("cannot run as user %q: %w", login, err)
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	if os.Geteuid() == int(uid) {
		return nil // setgroups would need rights that the user lacks
	}
	cmd.SysProcAttr.Credential = cred
	return nil
}

// SignalNumber returns the number of a signal such as "SIGTERM" or "TERM"; ""
// is SIGTERM. 0 when there is no such signal.
func SignalNumber(name string) int {
	if name == "" {
		return int(syscall.SIGTERM)
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return int(unix.SignalNum(name))
}

func signalTask(cmd *exec.Cmd, name string) error {
	n := SignalNumber(name)
	if n == 0 {
		return fmt.Errorf("unknown signal %q", name)
	}
	return cmd.Process.Signal(syscall.Signal(n))
}

// killTree ends the task's process group.
func killTree(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func exitOf(cmd *exec.Cmd, err error) Exit {
	e := Exit{At: now()}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		e.Err = err.Error()
		return e
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
		return e
	}
	e.Code = cmd.ProcessState.ExitCode()
	return e
}

// kill ends the process and its group, if it is still the one that was named.
func (p process) kill() {
	if !p.alive() {
		return
	}
	if pgid, err := unix.Getpgid(p.PID); err == nil && pgid == p.PID {
		_ = syscall.Kill(-p.PID, syscall.SIGKILL)
		return
	}
	_ = syscall.Kill(p.PID, syscall.SIGKILL)
}
