//go:build unix && !linux

package shim

import (
	"os/exec"
	"syscall"
)

func prepare(cmd *exec.Cmd, login string, _ *cgroup) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return runAs(cmd, login)
}
