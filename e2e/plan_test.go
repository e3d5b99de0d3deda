//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// exitOf is the exit code of a command.
func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 0
}

// plannedFile is a job file of a rolling service with bounds.
func plannedFile(count int, script string) string {
	return fmt.Sprintf(`
job "web" {
  region    = "eu"
  namespace = "team"
  update {
    max_parallel      = 5
    health_check      = "task_states"
    min_healthy_time  = "100ms"
    healthy_deadline  = "5s"
    progress_deadline = "10s"
  }
  group "g" {
    count = %d
    scaling {
      min = 1
      max = 6
    }
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", %q]
      }
      resources {
        cpu    = 20
        memory = 16
      }
      logs {
        max_files     = 1
        max_file_size = 1
      }
    }
  }
}
`, count, script)
}

// A job of one region is planned, submitted and scaled at the door of another, in
// a namespace made there.
func TestAJobIsPlannedAndScaledThroughAnotherRegion(t *testing.T) {
	w := newWorld(t, "us", "eu")
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, client: true, servers: []string{"us"}})
	w.agent(agentConfig{name: "eu", host: "eu", region: "eu", server: true, client: true, servers: []string{"eu"}, join: []string{"us"}})
	awaitRegions(t, us, "us", "us", "eu")
	client := w.client(us)
	in := &api.QueryOptions{Region: "eu", Namespace: "team"}
	file := filepath.Join(w.dir, "web.nomad.hcl")
	write := func(count int, script string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(plannedFile(count, script)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want int, say []string, args ...string) {
		t.Helper()
		out, err := w.cli(us, args...)
		if got := exitOf(t, err); got != want {
			t.Fatalf("%s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, want, out)
		}
		for _, s := range say {
			if !strings.Contains(out, s) {
				t.Errorf("%s: does not say %q:\n%s", strings.Join(args, " "), s, out)
			}
		}
	}
	write(2, "exec sleep 1000")
	expect(255, []string{`namespace "team" does not exist`}, "job", "plan", file)
	expect(0, nil, "namespace", "apply", "-region", "eu", "-description", "ours", "team")
	expect(1, []string{`+ Task Group: "g" (2 create)`, "All tasks successfully allocated", "Job Modify Index: 0", "-check-index 0"}, "job", "plan", file)
	expect(0, []string{"is successful"}, "job", "run", "-check-index", "0", file)
	expect(0, []string{`Task Group: "g" (2 ignore)`}, "job", "plan", file)
	expect(1, []string{"Enforcing job modify index 0"}, "job", "run", "-check-index", "0", file)

	// The official client's plan, and a register bound to it.
	job, _, err := client.Jobs().Info("web", in)
	if err != nil {
		t.Fatal(err)
	}
	job.TaskGroups[0].Tasks[0].Config["args"] = []string{"-c", "exec sleep 1001"}
	job.TaskGroups[0].Update.MinHealthyTime = new(2 * time.Second) // the deployment lasts for what follows
	to := &api.WriteOptions{Region: "eu", Namespace: "team"}
	plan, _, err := client.Jobs().Plan(job, true, to)
	if err != nil {
		t.Fatal(err)
	}
	task := plan.Diff.TaskGroups[0].Tasks[0]
	if plan.Diff.Type != "Edited" || len(task.Annotations) != 1 || task.Annotations[0] != "forces create/destroy update" || plan.Annotations.DesiredTGUpdates["g"].DestructiveUpdate != 2 {
		t.Errorf("%+v %+v %+v", plan.Diff, task, plan.Annotations.DesiredTGUpdates["g"])
	}
	if _, _, err := client.Jobs().EnforceRegister(job, plan.JobModifyIndex, to); err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.Jobs().EnforceRegister(job, plan.JobModifyIndex, to); err == nil || !strings.Contains(err.Error(), "Enforcing job modify index") {
		t.Errorf("bound to an index of before: %v", err)
	}

	// Scaled once the deployment is over, and not before.
	eventually(t, 30*time.Second, "the deployment of version 1 has begun", func() error {
		d, _, err := client.Jobs().LatestDeployment("web", in)
		if err == nil && (d == nil || d.JobVersion != 1) {
			err = fmt.Errorf("it is %+v", d)
		}
		return err
	})
	if _, _, err := client.Jobs().Scale("web", "g", new(4), "early", false, nil, to); err == nil || !strings.Contains(err.Error(), "job scaling blocked due to active deployment") {
		t.Errorf("during a deployment: %v", err)
	}
	over := func(version uint64) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("the deployment of version %d is over", version), func() error {
			d, _, err := client.Jobs().LatestDeployment("web", in)
			if err == nil && (d == nil || d.JobVersion != version || d.Status != "successful") {
				err = fmt.Errorf("it is %+v", d)
			}
			return err
		})
	}
	over(1)
	if _, _, err := client.Jobs().Scale("web", "g", new(4), "more", false, map[string]any{"load": 7}, to); err != nil {
		t.Fatal(err)
	}
	over(2)
	status, _, err := client.Jobs().ScaleStatus("web", in)
	if err != nil {
		t.Fatal(err)
	}
	if g := status.TaskGroups["g"]; g.Desired != 4 || g.Running != 4 || g.Healthy != 4 || len(g.Events) != 1 || g.Events[0].Message != "more" {
		t.Errorf("%+v", g)
	}
	expect(0, []string{"is successful"}, "job", "scale", "-region", "eu", "-namespace", "team", "web", "1")
	expect(1, []string{"above the maximum of its scaling policy, 6"}, "job", "scale", "-region", "eu", "-namespace", "team", "web", "g", "7")
	expect(0, []string{`+/- Count: "4" => "1"`, `+/- args[1]: "exec sleep 1000" => "exec sleep 1001"`}, "job", "history", "-p", "-region", "eu", "-namespace", "team", "web")
	expect(0, []string{"Group:g,Job:web,Namespace:team"}, "scaling", "policy", "list", "-region", "eu", "-namespace", "*")
	expect(1, []string{`job "web" in it is running`}, "namespace", "delete", "-region", "eu", "team")
	expect(0, nil, "job", "stop", "-region", "eu", "-namespace", "team", "web")
	expect(0, nil, "namespace", "delete", "-region", "eu", "team")
}
