//go:build linux

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll/internal/tasklog"
)

// The test's own binary is the shim.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		os.Exit(Main(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

type task struct {
	*Handle
	dir, logs string
}

// script launches a shell script.
func script(t *testing.T, text string) *task {
	t.Helper()
	tk, err := launch(t, "/bin/sh", "-c", text)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

func launch(t *testing.T, command string, args ...string) (*task, error) {
	t.Helper()
	// Longer than a socket's path may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	tk := &task{dir: dir, logs: t.TempDir()}
	var err error
	tk.Handle, err = Launch(t.Context(), []string{"/proc/self/exe", "shim"}, dir, Spec{
		ID: fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()), Command: command, Args: args,
		Env: []string{"PATH=/usr/bin:/bin", "GREETING=hello"}, Dir: t.TempDir(), LogDir: tk.logs, Task: "web",
		Logs: tasklog.Limits{MaxFiles: 2, MaxBytes: 1 << 20},
	})
	if err == nil {
		t.Cleanup(func() {
			if err := tk.Destroy(); err != nil {
				t.Error(err)
			}
		})
	}
	return tk, err
}

func (tk *task) log(t *testing.T, stream string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tk.logs, "web."+stream+".0"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// line waits for the task's first line.
func (tk *task) line(t *testing.T) string {
	t.Helper()
	for range 500 {
		if out := tk.log(t, "stdout"); strings.Contains(out, "\n") {
			first, _, _ := strings.Cut(out, "\n")
			return first
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the task wrote nothing within 5 s")
	return ""
}

// gone waits until no process of the number is left that is not a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if _, running, err := processOf(pid); err != nil || !running {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d is still there after 5 s", pid)
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestATaskRunsAndItsEndIsKept(t *testing.T) {
	tk := script(t, "echo $GREETING; echo oops >&2; exit 7")
	for _, h := range []*Handle{tk.Handle, mustAttach(t, tk.dir)} {
		e, err := h.Wait(t.Context())
		if err != nil || e.Code != 7 || e.Signal != 0 || e.Err != "" {
			t.Fatalf("exit %+v, %v; want code 7", e, err)
		}
	}
	if out, errs := tk.log(t, "stdout"), tk.log(t, "stderr"); out != "hello\n" || errs != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
}

func mustAttach(t *testing.T, dir string) *Handle {
	t.Helper()
	h, err := Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestACommandThatCannotRunSaysWhy(t *testing.T) {
	_, err := launch(t, "/no/such/command")
	if err == nil || !strings.Contains(err.Error(), "/no/such/command") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v; want one line that names the command", err)
	}
}

func TestStopSignalsThenKillsAllThatTheTaskStarted(t *testing.T) {
	for _, c := range []struct {
		name, text, signal string
		timeout            time.Duration
		code, sig          int
	}{
		{"heeds", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done", "", 10 * time.Second, 3, 0},
		{"named signal", "trap 'exit 4' INT; echo up; while :; do sleep 0.01; done", "SIGINT", 10 * time.Second, 4, 0},
		{"ignores", "trap '' TERM; echo up; while :; do sleep 0.01; done", "", 100 * time.Millisecond, 128 + 9, 9},
		{"unknown signal", "echo up; exec sleep 60", "SIGNONE", 100 * time.Millisecond, 128 + 9, 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			tk := script(t, c.text)
			tk.line(t)
			e, err := tk.Stop(t.Context(), c.signal, c.timeout)
			if err != nil || e.Code != c.code || e.Signal != c.sig {
				t.Errorf("exit %+v, %v; want code %d, signal %d", e, err, c.code, c.sig)
			}
		})
	}
}

func TestNothingOutlivesTheTask(t *testing.T) {
	tk := script(t, "setsid sleep 61 & echo $!; sleep 0.2; exit 0")
	child := number(t, tk.line(t))
	if e, err := tk.Wait(t.Context()); err != nil || e.Code != 0 {
		t.Fatalf("exit %+v, %v", e, err)
	}
	if cgroup2Mount() == "" || os.Geteuid() != 0 {
		t.Log("no cgroup here: a child in a session of its own is out of reach")
		return
	}
	gone(t, child)
}

func TestWaitEndsWithItsContextAndTheTaskGoesOn(t *testing.T) {
	tk := script(t, "echo $$; exec sleep 62")
	pid := number(t, tk.line(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := tk.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if _, running, err := processOf(pid); err != nil || !running || tk.PID() != pid {
		t.Errorf("the task (%d, known as %d) is gone: %v", pid, tk.PID(), err)
	}
	again := mustAttach(t, tk.dir)
	if e, err := again.Stop(t.Context(), "", time.Second); err != nil || e.Signal != int(syscall.SIGTERM) {
		t.Errorf("exit %+v, %v", e, err)
	}
}

func TestAKilledShimTakesItsTaskAlongAndSaysSo(t *testing.T) {
	tk := script(t, "sleep 63 & echo $!; wait")
	grandchild := number(t, tk.line(t))
	var st state
	if found, err := readJSON(tk.dir, stateFile, &st); err != nil || !found {
		t.Fatal(found, err)
	}
	if err := syscall.Kill(st.Shim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e, err := tk.Wait(t.Context())
	if err != nil || e.Err == "" {
		t.Fatalf("exit %+v, %v; want one that is not known", e, err)
	}
	gone(t, st.Task.PID)
	gone(t, grandchild)
}

func TestAStartThatWasGivenUpNeverHappens(t *testing.T) {
	dir := t.TempDir()
	if err := writeJSON(dir, specFile, Spec{ID: "late", Command: "/bin/true"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(dir); !errors.Is(err, ErrNeverStarted) {
		t.Fatalf("error %v", err)
	}
	out, err := exec.Command("/proc/self/exe", "shim", dir).Output()
	if err == nil || !strings.Contains(string(out), "given up") {
		t.Errorf("the late shim said %q, %v; want a refusal", out, err)
	}
	if _, err := Attach(dir); !errors.Is(err, ErrNeverStarted) {
		t.Errorf("the second time: %v", err)
	}
	if _, err := Attach(filepath.Join(dir, "nowhere")); !errors.Is(err, ErrNeverStarted) {
		t.Errorf("of no directory: %v", err)
	}
}

func TestAStrangerWithTheSameNumberIsLeftAlone(t *testing.T) {
	stranger := exec.Command("sleep", "64")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	p, _, err := processOf(stranger.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []process{{p.PID, p.Start + 1, p.Boot}, {p.PID, p.Start, "another boot"}} {
		dir := t.TempDir()
		for name, v := range map[string]any{specFile: Spec{ID: "x"}, stateFile: state{Shim: c, Task: c}} {
			if err := writeJSON(dir, name, v); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := claim(dir, claimedByShim); err != nil {
			t.Fatal(err)
		}
		e, err := mustAttach(t, dir).Wait(t.Context())
		if err != nil || e.Err == "" {
			t.Errorf("exit %+v, %v; want an unknown one", e, err)
		}
		if is, running, err := processOf(p.PID); err != nil || !running || is != p {
			t.Fatalf("the stranger was killed: %v", err)
		}
	}
}
