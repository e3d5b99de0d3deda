package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the console's Ctrl-C from a process.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
