// Package drivers is the contract between a node and what runs its tasks. One
// folder beneath it is one driver.
//
// Everything in the contract can be written down: a task is its Task, a started
// one its Handle, opaque bytes of the driver's. A driver may therefore be
// stopped and started again, or live in another process. The node keeps a task's
// Task on disk before it calls Start, and its Handle after, so that whatever
// instant it dies at, Recover can tell what became of the start.
//
// A driver is safe for concurrent use. What goroutines it has end with Close,
// which leaves tasks running.
package drivers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"atoll/internal/tasklog"
	"atoll/model"
)

// Driver runs tasks of one kind.
type Driver interface {
	// Fingerprint looks at the machine; it is called again and again.
	Fingerprint(ctx context.Context) Fingerprint
	// Start starts a task. When it fails, nothing runs.
	Start(ctx context.Context, task *Task) (Handle, error)
	// Recover finds a task again, of which the handle may be nil if the node
	// died while it was started. ErrNotStarted says that the task was not
	// started and will not be; a task that ended is recovered, and waited for
	// as any other.
	Recover(ctx context.Context, task *Task, h Handle) (Handle, error)
	// Wait returns how the task ended; the error is ctx's or the driver's.
	Wait(ctx context.Context, h Handle) (*Exit, error)
	// Stop asks the task to end, and makes it end when it has not by the
	// time-out. It returns when the task has ended.
	Stop(ctx context.Context, h Handle, how Stop) error
	// Destroy ends what is left of the task and forgets it.
	Destroy(ctx context.Context, h Handle) error
	// Close ends the driver's goroutines and leaves tasks running.
	Close() error
}

// Kind is what is known of a driver without its machine.
type Kind struct {
	Name string
	// Check says what is wrong with a task's configuration.
	Check func(*model.Task) error
	// OwnRoot marks tasks that see file systems of their own, in which their
	// directories are /alloc, /local and /secrets.
	OwnRoot bool
}

// Handle names a started task: the driver's own bytes, to be kept and given
// back.
type Handle []byte

// ErrNotStarted is Recover's: the task was not started and never will be.
var ErrNotStarted = errors.New("the task was not started")

// Task is what to run: a task with everything on this node that it refers to
// filled in.
type Task struct {
	// ID is unique to this start: "<alloc>.<task>.<attempt>".
	ID                          string
	AllocID, JobID, Group, Name string
	Namespace, Region, NodeName string
	Driver                      string
	User                        string
	Config                      map[string]any
	Env                         map[string]string
	CPU, MemoryMB, MemoryMaxMB  int64
	Ports                       []Port
	KillSignal                  string
	KillTimeout                 time.Duration
	// Dir is the task's own directory, with local, secrets and tmp in it;
	// AllocDir the one that it shares with its group; LogDir where its output
	// goes; PrivateDir the driver's, which the task cannot see.
	Dir, AllocDir, LogDir, PrivateDir string
	// Logs bound the output; nil drops it.
	Logs *tasklog.Limits
}

// Port is a port of the host's that is the task's. To is the port inside the
// task's network, 0 when the job does not say.
type Port struct {
	Label  string
	HostIP string
	Value  int
	To     int
	// Legacy marks one that the task asked for itself, in the old form.
	Legacy bool
}

// Exit is how a task ended.
type Exit struct {
	Code      int
	Signal    int
	OOMKilled bool
	// Err is set when the end is not known.
	Err string
}

// Failed reports whether the task ended otherwise than by success.
func (e *Exit) Failed() bool { return e.Code != 0 || e.Signal != 0 || e.Err != "" || e.OOMKilled }

// Stop says how to stop a task. An empty Signal is the driver's own choice.
type Stop struct {
	Signal  string
	Timeout time.Duration
}

// Fingerprint is what a driver says of the machine. Attributes have their whole
// names ("driver.docker.version").
type Fingerprint struct {
	Detected, Healthy bool
	Description       string
	Attributes        map[string]string
}

// Settings reads a task's driver configuration: each key once, by its type, and
// then whether any was not read.
type Settings struct {
	driver  string
	config  map[string]any
	known   map[string]bool
	refused []string
	faults  []string
	field   string
}

// NewSettings reads config for a driver.
func NewSettings(driver string, config map[string]any) *Settings {
	return &Settings{driver: driver, config: config, known: make(map[string]bool)}
}

func (s *Settings) value(key string) any {
	s.known[key] = true
	return s.config[key]
}

// Fault notes what is wrong with a key.
func (s *Settings) Fault(key, format string, args ...any) {
	if s.field == "" {
		s.field = "config." + key
	}
	s.faults = append(s.faults, "config."+key+": "+fmt.Sprintf(format, args...))
}

// String reads text; numbers and truth values are taken as written.
func (s *Settings) String(key string) string {
	v := s.value(key)
	text, ok := scalar(v)
	if !ok && v != nil {
		s.Fault(key, "%v is not text", v)
	}
	return text
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// Bool reads true or false.
func (s *Settings) Bool(key string) bool {
	switch v := s.value(key).(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		if v == "true" || v == "false" {
			return v == "true"
		}
	}
	s.Fault(key, "%v is neither true nor false", s.config[key])
	return false
}

// Duration reads a text such as "30s".
func (s *Settings) Duration(key string) time.Duration {
	text := s.String(key)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		s.Fault(key, "%q is no time; write one such as \"30s\"", text)
	}
	return d
}

// Int reads a whole number.
func (s *Settings) Int(key string) int {
	switch v := s.value(key).(type) {
	case nil:
		return 0
	case int:
		return v
	case int64:
		return int(v)
	case uint64:
		return int(v)
	case float64:
		if v == float64(int(v)) {
			return int(v)
		}
	case string:
		var n int
		if _, err := fmt.Sscanf(v+"\n", "%d\n", &n); err == nil {
			return n
		}
	}
	s.Fault(key, "%v is no whole number", s.config[key])
	return 0
}

// Strings reads a list of texts.
func (s *Settings) Strings(key string) []string {
	switch v := s.value(key).(type) {
	case nil:
		return nil
	case []string:
		return v
	case []any:
		var out []string
		for _, el := range v {
			text, ok := scalar(el)
			if !ok {
				s.Fault(key, "%v is not text", el)
			}
			out = append(out, text)
		}
		return out
	}
	s.Fault(key, "%v is no list", s.config[key])
	return nil
}

// Map reads names with texts. Blocks and objects are the same, and come as a
// list of maps.
func (s *Settings) Map(key string) map[string]string {
	out := make(map[string]string)
	list, ok := s.value(key).([]any)
	if !ok {
		list = []any{s.config[key]}
	}
	for _, el := range list {
		switch m := el.(type) {
		case nil:
		case map[string]any:
			for k, v := range m {
				text, ok := scalar(v)
				if !ok {
					s.Fault(key, "the value of %q is not text", k)
				}
				out[k] = text
			}
		case map[string]string:
			maps.Copy(out, m)
		default:
			s.Fault(key, "%v is no map", el)
		}
	}
	return out
}

// Unsupported notes keys that Nomad's driver of the same name knows and this
// version refuses rather than ignores.
func (s *Settings) Unsupported(keys ...string) {
	for _, k := range keys {
		if s.config[k] == nil {
			continue
		}
		s.refused = append(s.refused, k)
		s.Fault(k, "it is not supported by this version of Atoll; remove it")
	}
}

// Err names everything that was wrong, keys that nobody read among it.
func (s *Settings) Err() error {
	for _, k := range slices.Sorted(maps.Keys(s.config)) {
		if !s.known[k] && !slices.Contains(s.refused, k) {
			s.Fault(k, "the driver %s has no such setting; it has %s", s.driver, strings.Join(slices.Sorted(maps.Keys(s.known)), ", "))
		}
	}
	if len(s.faults) == 0 {
		return nil
	}
	return &model.Error{Kind: model.KindInvalid, Field: s.field, Message: strings.Join(s.faults, "; ")}
}
