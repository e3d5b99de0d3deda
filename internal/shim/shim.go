// Package shim is the small process that stands between a task and the agent:
// one a task, the same binary as the agent. It owns the task's pipes, rotates
// its logs, stops it when told, and keeps its exit code, so that the agent can
// die and come back without the task noticing.
//
// A shim's whole state is in its directory, private to the agent's user:
//
//	spec.json   what to run, by the agent
//	claim       made once, by whoever comes first: the shim before it starts the
//	            task, or an agent that gives the start up
//	state.json  process ids and start times, once the task has started
//	exit.json   how the task ended
//	sock        where agents ask for the end of the task, or for its stop
//
// A task is found again by its shim's process id and start time and by this
// directory; what is left of a task whose shim was killed, by its cgroup, else
// by its process id and start time. No process is signalled by number alone.
//
// The agent's side (Launch, Attach, Handle) may be used by any number of
// goroutines; Main is the process itself.
package shim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"atoll/internal/tasklog"
)

// Spec is what to run.
type Spec struct {
	// ID names the task, for its cgroup and in messages.
	ID      string
	Command string
	Args    []string
	Env     []string
	Dir     string
	// User is a login name, "" the agent's own user.
	User string
	// LogDir is where the task's output goes, as Base(Task, stream); "" drops
	// it.
	LogDir string
	Task   string
	Logs   tasklog.Limits
}

// process names a process beyond the reuse of its number.
type process struct {
	PID int
	// Start is when it started, in units of the system's, and Boot the
	// system's life in which that counts.
	Start uint64
	Boot  string
}

// state is what a started shim writes down.
type state struct {
	Shim, Task process
	Cgroup     string
}

// Exit is how a task ended.
type Exit struct {
	Code   int
	Signal int
	// Err is set when the end itself is not known.
	Err string
	At  time.Time
}

// Files of a shim's directory.
const (
	specFile  = "spec.json"
	claimFile = "claim"
	stateFile = "state.json"
	exitFile  = "exit.json"
	sockFile  = "sock"
)

// Who made the claim.
const (
	claimedByShim  = "shim"
	claimedByAgent = "agent"
)

// claim makes the claim for who; false when it was made before.
func claim(dir, who string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, claimFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(who)
	return true, errors.Join(err, f.Close())
}

// writeJSON replaces a file of the directory as a whole.
func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, name+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// readJSON reads a file of the directory; false when there is none, or one that
// was cut short when the machine stopped.
func readJSON(dir, name string, v any) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return json.Unmarshal(b, v) == nil, nil
}

// request and reply are the socket's lines of JSON: one request a connection.
type request struct {
	// Op is "wait", "stop" or "signal". "stop" and "wait" are answered with
	// the task's exit, "signal" at once.
	Op      string
	Signal  string        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
}

type reply struct {
	Exit *Exit  `json:",omitempty"`
	Err  string `json:",omitempty"`
}
