//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"atoll/model"
)

var five = []string{"r1", "r2", "r3", "r4", "r5"}

func fiveRegions(t *testing.T) (w *world, agents map[string]*agent) {
	t.Helper()
	w = newWorld(t, five...)
	agents = make(map[string]*agent)
	for _, r := range five {
		agents[r] = w.agent(agentConfig{name: r, host: r, region: r, server: true, client: true, join: five, servers: []string{r}})
	}
	for name, a := range agents {
		awaitRegions(t, a, name, five...)
	}
	return w, agents
}

// multiregionJob writes a job file for all five regions: a service that is sick
// where its argument says, one region at a time.
func (w *world) multiregionJob(id, strategy, text, sick string) string {
	w.t.Helper()
	var regions strings.Builder
	for i, r := range five {
		fmt.Fprintf(&regions, "    region %q {\n      count = %d\n      meta { place = %q }\n    }\n", r, 1+i%2, r)
	}
	src := fmt.Sprintf(`
job %q {
  multiregion {
    strategy {
      max_parallel = 1
%s
    }
%s
  }
  update {
    min_healthy_time  = "300ms"
    healthy_deadline  = "6s"
    progress_deadline = "8s"
  }
  group "g" {
    count = 0
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo %s in $NOMAD_REGION, $NOMAD_META_place; if [ $NOMAD_REGION = '%s' ]; then exit 1; fi; exec sleep 1000"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
`, id, strategy, regions.String(), text, sick)
	file := filepath.Join(w.dir, id+".nomad.hcl")
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// rollout is how far a job's regions are, as an agent's own region knows.
func (a *agent) rollout(job string) (*model.Rollout, error) {
	status, _, body, err := a.get("/v1/federation/rollout/" + job + "?region=" + a.name)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%d %s", status, body)
	}
	r := new(model.Rollout)
	return r, json.Unmarshal([]byte(body), r)
}

// awaitShares waits until a region knows the shares of a job as they are given, in
// the order of the regions, by their first letters: pending, running, blocked,
// successful, failed.
func awaitShares(t *testing.T, a *agent, within time.Duration, job string, version uint64, want string) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("%s sees version %d of %s as %s", a.name, version, job, want), func() error {
		r, err := a.rollout(job)
		if err != nil {
			return err
		}
		got := ""
		for _, s := range r.Shares {
			got += string(s.State)[:1]
		}
		if r.Won == nil || r.Won.Version != version || got != want {
			return fmt.Errorf("they are %s of %+v", got, r.Shares)
		}
		return nil
	})
}

func TestARolloutOutlivesTheRegionThatTookIt(t *testing.T) {
	w, agents := fiveRegions(t)
	// Any door: the last region takes it, by an agent of the third.
	out, err := w.cli(agents["r3"], "job", "run", "-detach", "-region", "r5", w.multiregionJob("web", "", "first", ""))
	if err != nil || !strings.Contains(out, "version 0") {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, 30*time.Second, "the first region is done", func() error {
		r, err := agents["r2"].rollout("web")
		if err != nil {
			return err
		}
		if s := r.Share("r1"); s == nil || s.State != model.ShareBlocked {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	agents["r5"].kill()
	// The order holds, and nobody waits for the door.
	awaitShares(t, agents["r1"], 60*time.Second, "web", 0, "bbbbp")
	var began []time.Time
	for _, r := range five[:4] {
		d, _, err := w.client(agents[r]).Jobs().LatestDeployment("web", nil)
		if err != nil || d == nil || d.Status != "blocked" || !d.IsMultiregion {
			t.Fatalf("%s: %+v, %v", r, d, err)
		}
		began = append(began, time.Unix(0, d.CreateTime))
	}
	for i := range began[1:] {
		if began[i+1].Before(began[i]) {
			t.Errorf("region %s began at %s, before the one before it, at %s", five[i+1], began[i+1], began[i])
		}
	}
	agents["r5"].start()
	awaitShares(t, agents["r2"], 60*time.Second, "web", 0, "sssss")
	for i, r := range five {
		allocs := awaitAllocs(t, agents["r1"], r, "web", "running", 1+i%2)
		full, _, err := w.client(agents["r1"]).Allocations().Info(allocs[0].ID, &api.QueryOptions{Region: r})
		if err != nil {
			t.Fatal(err)
		}
		if got := readLog(t, w, agents["r1"], full, r); !strings.Contains(got, "first in "+r+", "+r) {
			t.Errorf("the log in %s is %q", r, got)
		}
	}
	out, err = w.cli(agents["r4"], "job", "status", "-region", "r2", "web")
	if err != nil || strings.Count(out, "successful") < 5 || !strings.Contains(out, "Multiregion Deployment") {
		t.Errorf("%v: %s", err, out)
	}
	// A second version that is sick in the third region, submitted without a word
	// of where.
	out, err = w.cli(agents["r2"], "job", "run", w.multiregionJob("web", "", "second", "r3"))
	if err == nil || !strings.Contains(out, "region r3 is failed") {
		t.Errorf("a failing rollout: %v: %s", err, out)
	}
	awaitShares(t, agents["r5"], 30*time.Second, "web", 1, "bbfff")
	for _, r := range []string{"r4", "r5"} {
		if j, _, err := w.client(agents[r]).Jobs().Info("web", nil); err != nil || *j.Version != 0 {
			t.Errorf("region %s has version %d: %v", r, *j.Version, err)
		}
	}
	out, err = w.cli(agents["r5"], "job", "stop", "-global", "web")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range five {
		awaitAllocs(t, agents["r1"], r, "web", "running", 0)
	}
}

func TestARegionThatIsCutOffDuringARollout(t *testing.T) {
	w, agents := fiveRegions(t)
	for _, c := range []struct{ on, while, after string }{
		{"wait", "bbppp", "sssss"},
		{"skip", "ssrss", "sssss"},
		// The failure stands; what the region does by itself once it is back is
		// to fail likewise.
		{"fail", "ffpff", "fffff"},
	} {
		id := "on-" + c.on
		strategy := fmt.Sprintf("      on_unreachable = %q\n      on_failure = \"fail_all\"\n", c.on)
		out, err := w.cli(agents["r1"], "job", "run", "-detach", w.multiregionJob(id, strategy, "one", ""))
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.cut("r3")
		if c.on == "skip" {
			c.while = "sspss"
		}
		awaitShares(t, agents["r1"], 90*time.Second, id, 0, c.while)
		w.heal("r3")
		// Healing converges within 30 s.
		awaitShares(t, agents["r1"], 30*time.Second, id, 0, c.after)
		awaitShares(t, agents["r3"], 5*time.Second, id, 0, c.after)
	}
}
