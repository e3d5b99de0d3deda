//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// ran waits until a job has one complete allocation, and returns its log as the
// command line shows it.
func ran(t *testing.T, a *agent, job string) string {
	t.Helper()
	al := awaitAllocs(t, a, "global", job, "complete", 1)[0]
	out, err := a.w.cli(a, "alloc", "logs", al.ID)
	if err != nil {
		t.Fatalf("the log of %s: %v: %s", job, err, out)
	}
	return out
}

// spaced is a table with one space between columns.
func spaced(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

func runFile(t *testing.T, a *agent, text string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.nomad")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := a.w.cli(a, append(append([]string{"job", "run"}, args...), file)...)
	if err != nil {
		t.Fatalf("job run: %v: %s", err, out)
	}
	return out
}

const batchTask = `
  group "g" {
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args = ["-c", %q]
      }
      dispatch_payload { file = "in/data.txt" }
      resources {
        cpu = 20
        memory = 16
      }
    }
  }
}
`

func TestChildrenAreDispatchedAndLaunched(t *testing.T) {
	w := newWorld(t)
	dev := w.process(&agent{host: &host{w: w, ip: "127.0.0.1"}, name: "dev", args: []string{"-dev"}, http: 4646})
	awaitRegions(t, dev, "dev", "global")
	cli := func(args ...string) string {
		t.Helper()
		out, err := w.cli(dev, args...)
		if err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}

	out := runFile(t, dev, `job "count" {
  type = "batch"
  parameterized {
    payload = "required"
    meta_required = ["who"]
    meta_optional = ["size"]
  }`+fmt.Sprintf(batchTask, `echo "for $NOMAD_META_WHO, size [$NOMAD_META_SIZE], of $NOMAD_JOB_PARENT_ID:"; cat $NOMAD_TASK_DIR/in/data.txt`))
	if !strings.Contains(out, "Job registration successful") {
		t.Errorf("the registration says %s", out)
	}
	payload := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(payload, []byte("two\nlines\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out = cli("job", "dispatch", "-meta", "who=me", "-idempotency-token=tok", "-id-prefix-template=big", "count", payload)
	child := regexp.MustCompile(`count/dispatch-big-\d+-[0-9a-f]{8}`).FindString(out)
	if child == "" || !strings.Contains(out, "finished with status \"complete\"") {
		t.Fatalf("the dispatch says %s", out)
	}
	if log := ran(t, dev, child); log != "for me, size [], of count:\ntwo\nlines\n" {
		t.Errorf("the task said %q", log)
	}
	if out := cli("job", "dispatch", "-meta", "who=you", "-idempotency-token=tok", "count", payload); out != fmt.Sprintf("Job %q already dispatched with idempotency token \"tok\".\n", child) {
		t.Errorf("the token again: %s", out)
	}
	out = spaced(cli("job", "status", "count"))
	for _, want := range []string{"Parameterized = true", "Status = running", "Required Metadata = who", "Pending Running Dead\n0 0 1", child + " dead"} {
		if !strings.Contains(out, want) {
			t.Errorf("the parent's status has no %q: %s", want, out)
		}
	}
	for name, args := range map[string][]string{
		"no payload":   {"-meta", "who=me", "count"},
		"no metadata":  {"count", payload},
		"unknown keys": {"-meta", "who=me", "-meta", "x=y", "count", payload},
	} {
		if out, err := w.cli(dev, append([]string{"job", "dispatch"}, args...)...); err == nil || !strings.Contains(out, "cannot dispatch job \"count\"") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}

	// Every second, until it is stopped.
	out = runFile(t, dev, `job "tick" {
  type = "batch"
  periodic { crons = ["*/1 * * * * * *"] }`+fmt.Sprintf(batchTask, `echo tick`))
	if !strings.Contains(out, "Approximate next launch time: ") {
		t.Errorf("the registration says %s", out)
	}
	var children []*api.JobListStub
	eventually(t, 20*time.Second, "four children are dead", func() (err error) {
		children, _, err = w.client(dev).Jobs().PrefixList("tick/periodic-")
		dead := 0
		for _, c := range children {
			if c.Status == "dead" {
				dead++
			}
		}
		if dead < 4 {
			return fmt.Errorf("%d of %d are, %v", dead, len(children), err)
		}
		return err
	})
	var at [4]int64
	for i := range at {
		if _, err := fmt.Sscanf(children[i].ID, "tick/periodic-%d", &at[i]); err != nil || at[i] != at[0]+int64(i) {
			t.Errorf("child %d is %s, the first %s", i, children[i].ID, children[0].ID)
		}
	}
	if log := ran(t, dev, children[0].ID); log != "tick\n" {
		t.Errorf("the child said %q", log)
	}
	out = spaced(cli("job", "status", "tick"))
	for _, want := range []string{"Periodic = true", "Next Periodic Launch = ", "Previously Launched Jobs", children[0].ID} {
		if !strings.Contains(out, want) {
			t.Errorf("the parent's status has no %q: %s", want, out)
		}
	}
	cli("job", "stop", "tick")
	children, _, _ = w.client(dev).Jobs().PrefixList("tick/periodic-")

	runFile(t, dev, `job "yearly" {
  type = "batch"
  periodic { cron = "@yearly" }`+fmt.Sprintf(batchTask, `echo forced`))
	if out := cli("job", "periodic", "force", "yearly"); !strings.Contains(out, "finished with status \"complete\"") {
		t.Errorf("the force says %s", out)
	}
	forced, _, err := w.client(dev).Jobs().PrefixList("yearly/periodic-")
	if err != nil || len(forced) != 1 {
		t.Fatalf("%d children, %v", len(forced), err)
	}
	if log := ran(t, dev, forced[0].ID); log != "forced\n" {
		t.Errorf("the forced child said %q", log)
	}
	if out := cli("job", "status"); !strings.Contains(out, "batch/periodic ") || !strings.Contains(out, "batch/parameterized ") || !strings.Contains(out, "dead (stopped)") {
		t.Errorf("the list: %s", out)
	}
	// What was stopped launches no more.
	if now, _, err := w.client(dev).Jobs().PrefixList("tick/periodic-"); err != nil || len(now) != len(children) {
		t.Errorf("%d children after the stop, %d now, %v", len(children), len(now), err)
	}
}
