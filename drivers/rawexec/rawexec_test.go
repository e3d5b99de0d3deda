//go:build unix

package rawexec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll/drivers"
	"atoll/internal/shim"
	"atoll/internal/tasklog"
	"atoll/model"
)

// The test's own binary is the shim.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

func newDriver() *Driver {
	return New(Config{Enabled: true, Shim: []string{os.Args[0], "shim"}, Environ: []string{"PATH=/usr/bin:/bin", "FROM_AGENT=yes", "GREETING=no"}})
}

func newTask(t *testing.T, command string, args ...any) *drivers.Task {
	dir := t.TempDir()
	tk := &drivers.Task{
		ID: fmt.Sprintf("%d.web.0", time.Now().UnixNano()), Name: "web", Dir: filepath.Join(dir, "web"),
		LogDir: filepath.Join(dir, "logs"), PrivateDir: filepath.Join(dir, "private"),
		Env: map[string]string{"GREETING": "hello"}, Logs: &tasklog.Limits{MaxFiles: 2, MaxBytes: 1 << 20},
		Config: map[string]any{"command": command, "args": args},
	}
	for _, d := range []string{filepath.Join(tk.Dir, "local"), tk.LogDir, tk.PrivateDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tk
}

func TestATaskRunsAndANewDriverSeesItsEnd(t *testing.T) {
	tk := newTask(t, "sh", "-c", "echo $GREETING $FROM_AGENT; pwd; exit 7")
	d := newDriver()
	h, err := d.Start(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	again := newDriver()
	found, err := again.Recover(t.Context(), tk, nil)
	if err != nil || !bytes.Equal(found, h) {
		t.Fatalf("recovered %s, %v; started %s", found, err, h)
	}
	for _, d := range []*Driver{d, again} {
		e, err := d.Wait(t.Context(), h)
		if err != nil || e.Code != 7 {
			t.Fatalf("exit %+v, %v", e, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(tk.LogDir, "web.stdout.0")); err != nil || string(b) != "hello yes\n"+tk.Dir+"\n" {
		t.Errorf("stdout %q, %v", b, err)
	}
	for _, d := range []*Driver{again, d} {
		if err := d.Destroy(t.Context(), h); err != nil {
			t.Error(err)
		}
	}
}

func TestStopEndsATask(t *testing.T) {
	tk := newTask(t, "/bin/sleep", "65")
	d := newDriver()
	h, err := d.Start(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context(), h, drivers.Stop{Timeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if e, err := d.Wait(t.Context(), h); err != nil || e.Signal != 15 || !e.Failed() {
		t.Errorf("exit %+v, %v", e, err)
	}
	if err := d.Destroy(t.Context(), h); err != nil {
		t.Error(err)
	}
}

func TestATaskThatWasNotStartedIsNeverStarted(t *testing.T) {
	if _, err := newDriver().Recover(t.Context(), newTask(t, "true"), nil); !errors.Is(err, drivers.ErrNotStarted) {
		t.Errorf("error %v", err)
	}
}

func TestCommandsAreFoundWhereTasksExpectThem(t *testing.T) {
	tk := newTask(t, "tool")
	tool := filepath.Join(tk.Dir, "local", "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho found"), 0o755); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"tool": tool, "local/tool": tool, "/bin/x": "/bin/x", "sh": "/bin/sh"} {
		got, err := lookUp(command, tk.Dir, []string{"PATH=.:/bin"})
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", command, got, err, want)
		}
	}
	if _, err := lookUp("no-such-tool", tk.Dir, []string{"PATH=/bin"}); err == nil || !strings.Contains(err.Error(), `"no-such-tool"`) {
		t.Errorf("error %v", err)
	}
}

func TestWrongConfigurationNamesFieldValueAndRemedy(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{nil, "config.command: it is missing; name the program to run"},
		{map[string]any{"command": "x", "argz": 1}, "config.argz: the driver raw_exec has no such setting; it has args, command"},
		{map[string]any{"command": "x", "args": map[string]any{}}, "config.args: map[] is no list"},
	} {
		err := Kind.Check(&model.Task{Config: c.config})
		if err == nil || !strings.Contains(err.Error(), c.want) || model.KindOf(err) != model.KindInvalid {
			t.Errorf("%v: error %v; want %q", c.config, err, c.want)
		}
	}
}

func TestDisabledRunsNothing(t *testing.T) {
	d := New(Config{})
	if f := d.Fingerprint(t.Context()); f.Detected || f.Healthy {
		t.Errorf("fingerprint %+v", f)
	}
	if _, err := d.Start(t.Context(), newTask(t, "true")); err == nil || !strings.Contains(err.Error(), "disabled") {
		t.Errorf("error %v", err)
	}
}
