//go:build e2e && linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// rolling is a service of ten that proves itself quickly.
func rolling(script string, canaries int, autoPromote bool) *api.Job {
	j := service("web", "global", script)
	yes, ten, none, three := true, 10, 0, 3
	mode, how := "fail", "task_states"
	minHealthy, healthyBy, progressBy := 300*time.Millisecond, 3*time.Second, 5*time.Second
	j.TaskGroups[0].Count = &ten
	j.TaskGroups[0].RestartPolicy = &api.RestartPolicy{Attempts: &none, Mode: &mode}
	j.Update = &api.UpdateStrategy{
		MaxParallel: &three, Canary: &canaries, AutoPromote: &autoPromote, AutoRevert: &yes, HealthCheck: &how,
		MinHealthyTime: &minHealthy, HealthyDeadline: &healthyBy, ProgressDeadline: &progressBy,
	}
	return j
}

// deployed waits until the job's newest deployment is of a version and a status.
func deployed(t *testing.T, a *agent, version uint64, status string, also func(*api.Deployment) error) (d *api.Deployment) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("version %d is %s", version, status), func() (err error) {
		d, _, err = a.w.client(a).Jobs().LatestDeployment("web", nil)
		switch {
		case err != nil:
			return err
		case d == nil:
			return fmt.Errorf("there is no deployment")
		case d.JobVersion != version || d.Status != status:
			return fmt.Errorf("version %d is %s: %s", d.JobVersion, d.Status, d.StatusDescription)
		case also != nil:
			return also(d)
		}
		return nil
	})
	return d
}

// tenRun demands that ten allocations run, all of a version, and no other.
func tenRun(t *testing.T, a *agent, version uint64) {
	t.Helper()
	for _, al := range awaitAllocs(t, a, "global", "web", "running", 10) {
		if al.JobVersion != version {
			t.Errorf("allocation %s is of version %d, want %d", al.ID, al.JobVersion, version)
		}
	}
}

func TestDeploymentsFinishRevertAndSwitch(t *testing.T) {
	w := newWorld(t)
	dev := w.process(&agent{host: &host{w: w, ip: "127.0.0.1"}, name: "dev", args: []string{"-dev"}, http: 4646})
	awaitRegions(t, dev, "dev", "global")
	register := func(j *api.Job) {
		t.Helper()
		if _, _, err := w.client(dev).Jobs().Register(j, nil); err != nil {
			t.Fatal(err)
		}
	}
	register(rolling("exec sleep 1000", 0, false))
	deployed(t, dev, 0, "successful", nil)
	tenRun(t, dev, 0)

	// A canary that proves itself is promoted, and the rest follows.
	register(rolling("exec sleep 1001", 1, true))
	if d := deployed(t, dev, 1, "successful", nil); !d.TaskGroups["g"].Promoted || d.TaskGroups["g"].HealthyAllocs != 10 {
		t.Errorf("%+v", d.TaskGroups["g"])
	}
	tenRun(t, dev, 1)

	// One that fails stops there, touches nothing else, and is taken back.
	register(rolling("exit 3", 1, true))
	bad := deployed(t, dev, 2, "running", nil)
	deployed(t, dev, 3, "successful", nil)
	tenRun(t, dev, 3)
	if bad, _, _ = w.client(dev).Deployments().Info(bad.ID, nil); bad.Status != "failed" || bad.TaskGroups["g"].PlacedAllocs != 1 {
		t.Errorf("the bad deployment is %s, %+v", bad.Status, bad.TaskGroups["g"])
	}
	out, err := w.cli(dev, "deployment", "status", bad.ID[:8])
	if err != nil || !strings.Contains(out, "progress_deadline of 5s") || !strings.Contains(out, "reverting to version 1 of the job") {
		t.Errorf("deployment status: %v\n%s", err, out)
	}

	// Blue and green: both run until an operator says so.
	register(rolling("exec sleep 1002", 10, false))
	deployed(t, dev, 4, "running", func(d *api.Deployment) error {
		if n := d.TaskGroups["g"].HealthyAllocs; n != 10 {
			return fmt.Errorf("%d are healthy", n)
		}
		return nil
	})
	awaitAllocs(t, dev, "global", "web", "running", 20)
	if out, err := w.cli(dev, "job", "promote", "-detach", "web"); err != nil {
		t.Fatal(out)
	}
	deployed(t, dev, 4, "successful", nil)
	tenRun(t, dev, 4)

	// And back by hand.
	if out, err := w.cli(dev, "job", "revert", "web", "1"); err != nil {
		t.Fatal(out)
	}
	deployed(t, dev, 5, "successful", nil)
	tenRun(t, dev, 5)
}
