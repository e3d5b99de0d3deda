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
)

// threeRegions is us, eu and ap, each a server and client in one agent, and a
// client-only agent of us.
func threeRegions(t *testing.T, extra string) (w *world, agents map[string]*agent) {
	t.Helper()
	w = newWorld(t, "us", "eu", "ap")
	agents = make(map[string]*agent)
	for _, r := range []string{"us", "eu", "ap"} {
		agents[r] = w.agent(agentConfig{name: r, host: r, region: r, server: true, client: true, join: []string{"us", "eu", "ap"}, servers: []string{r}, extra: extra})
	}
	agents["us-client"] = w.agent(agentConfig{name: "us-client", host: "us", region: "us", client: true, servers: []string{"us"}, portBase: 5646, extra: extra})
	for name, a := range agents {
		awaitRegions(t, a, name, "us", "eu", "ap")
	}
	return w, agents
}

// awaitRegions waits until an agent sees each region live, with a ready node.
func awaitRegions(t *testing.T, a *agent, name string, regions ...string) {
	t.Helper()
	eventually(t, 60*time.Second, name+" sees all regions", func() error {
		for _, r := range regions {
			nodes, _, err := a.w.client(a).Nodes().List(&api.QueryOptions{Region: r})
			if err != nil {
				return err
			}
			ready := 0
			for _, n := range nodes {
				if n.Status == "ready" {
					ready++
				}
			}
			if ready == 0 {
				return fmt.Errorf("region %s has no ready node", r)
			}
		}
		return nil
	})
}

// service is a job of one raw_exec task whose starts are noted in a file.
func service(id, region string, script string) *api.Job {
	j := api.NewServiceJob(id, id, region, 50)
	j.Datacenters = []string{"*"}
	task := api.NewTask("main", "raw_exec").SetConfig("command", "/bin/sh").SetConfig("args", []string{"-c", script})
	cpu, mem := 20, 16
	task.Require(&api.Resources{CPU: &cpu, MemoryMB: &mem})
	files, size := 1, 1
	task.LogConfig = &api.LogConfig{MaxFiles: &files, MaxFileSizeMB: &size}
	timeout := 2 * time.Second
	task.KillTimeout = &timeout
	j.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task))
	return j
}

// awaitAllocs waits until a job has n allocations of a client status, and
// returns them.
func awaitAllocs(t *testing.T, a *agent, region, job, status string, n int) (out []*api.AllocationListStub) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%s has %d allocations %s in %s", job, n, status, region), func() error {
		all, _, err := a.w.client(a).Jobs().Allocations(job, false, &api.QueryOptions{Region: region})
		if err != nil {
			return err
		}
		out = nil
		var seen []string
		for _, al := range all {
			seen = append(seen, al.ClientStatus)
			if al.ClientStatus == status && al.DesiredStatus == "run" {
				out = append(out, al)
			}
		}
		if len(out) != n {
			return fmt.Errorf("they are %v", seen)
		}
		return nil
	})
	return out
}

func TestAJobSubmittedAnywhereRunsWhereItBelongs(t *testing.T) {
	w, agents := threeRegions(t, "")
	regions := []string{"us", "eu", "ap"}
	for from, a := range agents {
		for _, to := range regions {
			id := from + "-to-" + to
			if _, _, err := w.client(a).Jobs().Register(service(id, to, "echo I am "+id+"; exec sleep 1000"), nil); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
		}
	}
	for from := range agents {
		for _, to := range regions {
			id := from + "-to-" + to
			alloc := awaitAllocs(t, agents["ap"], to, id, "running", 1)[0]
			for at, a := range agents {
				job, _, err := w.client(a).Jobs().Info(id, &api.QueryOptions{Region: to})
				if err != nil || *job.ID != id || *job.Region != to {
					t.Errorf("%s read at %s: %v, %v", id, at, job, err)
				}
				for _, other := range regions {
					if other == to {
						continue
					}
					if _, _, err := w.client(a).Jobs().Info(id, &api.QueryOptions{Region: other}); err == nil || !strings.Contains(err.Error(), "404") {
						t.Errorf("%s read at %s in %s: %v; want 404", id, at, other, err)
					}
				}
			}
			// Its log through an agent of another region, by the servers: the
			// node is dialled first, and cannot be from here.
			full, _, err := w.client(agents["ap"]).Allocations().Info(alloc.ID, &api.QueryOptions{Region: to})
			if err != nil {
				t.Fatal(err)
			}
			if got := readLog(t, w, agents["ap"], full, to); !strings.Contains(got, "I am "+id) {
				t.Errorf("the log of %s is %q", id, got)
			}
		}
	}
	// One question of all regions.
	status, header, body, err := agents["us-client"].get("/v1/jobs?region=*&prefix=us-to-")
	if err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v", status, err)
	}
	var rows []struct{ ID, Region string }
	if err := json.Unmarshal([]byte(body), &rows); err != nil || len(rows) != 3 {
		t.Errorf("rows %s, %v", body, err)
	}
	for _, r := range rows {
		if r.ID != "us-to-"+r.Region {
			t.Errorf("%s is said to be of region %s", r.ID, r.Region)
		}
	}
	if h := header.Get("X-Atoll-Regions"); strings.Count(h, "=live") != 3 {
		t.Errorf("the regions are %q", h)
	}
}

func readLog(t *testing.T, w *world, a *agent, alloc *api.Allocation, region string) string {
	t.Helper()
	var got string
	eventually(t, 10*time.Second, "the log of "+alloc.Name+" on "+alloc.NodeName+" can be read", func() error {
		cancel := make(chan struct{})
		frames, errs := w.client(a).AllocFS().Logs(alloc, false, "main", "stdout", "start", 0, cancel, &api.QueryOptions{Region: region})
		if frames == nil {
			_, _, body, _ := a.get("/v1/client/fs/logs/" + alloc.ID + "?task=main&type=stdout&region=" + region)
			return fmt.Errorf("%w: %s", <-errs, body)
		}
		got = ""
		for {
			select {
			case f, ok := <-frames:
				if !ok {
					if got == "" {
						return fmt.Errorf("it is empty")
					}
					return nil
				}
				got += string(f.Data)
			case err := <-errs:
				return err
			}
		}
	})
	return got
}

func TestARegionThatIsCutOff(t *testing.T) {
	w, agents := threeRegions(t, "")
	us, eu := agents["us"], agents["eu"]
	if _, _, err := w.client(us).Jobs().Register(service("before", "eu", "exec sleep 1000"), nil); err != nil {
		t.Fatal(err)
	}
	awaitAllocs(t, us, "eu", "before", "running", 1)
	eventually(t, 20*time.Second, "us has the job in its summary of eu", func() error {
		_, _, body, err := us.get("/v1/federation/job/before")
		if err == nil && !strings.Contains(body, `"before"`) {
			err = fmt.Errorf("%s", body)
		}
		return err
	})
	w.cut("eu")

	for _, name := range []string{"us", "us-client"} {
		// What fails first waits for an answer, what follows fails at once.
		for i := range 3 {
			begun := time.Now()
			status, _, body, err := agents[name].get("/v1/job/before?region=eu")
			took := time.Since(begun)
			if err != nil || status != http.StatusBadGateway || !strings.Contains(body, `region "eu" is unreachable`) || !strings.Contains(body, "last contact") {
				t.Errorf("%s, request %d: status %d, %q, %v; want eu named as unreachable and since when", name, i, status, body, err)
			}
			if took > 2200*time.Millisecond {
				t.Errorf("%s, request %d took %s", name, i, took)
			}
		}
		begun := time.Now()
		status, header, body, err := agents[name].get("/v1/jobs?region=*")
		took := time.Since(begun)
		if h := header.Get("X-Atoll-Regions"); err != nil || status != http.StatusOK || !strings.Contains(h, "eu=stale;age=") || strings.Count(h, "=live") != 2 || !strings.Contains(body, `"before"`) {
			t.Errorf("%s: status %d, regions %q, %s, %v", name, status, h, body, err)
		}
		if took > 2200*time.Millisecond {
			t.Errorf("%s: all regions took %s", name, took)
		}
	}
	if _, _, err := w.client(us).Jobs().Register(service("lost", "eu", "exec sleep 1000"), nil); err == nil || !strings.Contains(err.Error(), `"eu"`) {
		t.Errorf("a write for eu: %v", err)
	}
	// Both sides go on by themselves.
	for name, region := range map[string]string{"us": "us", "eu": "eu"} {
		id := "meanwhile-" + name
		if _, _, err := w.client(agents[name]).Jobs().Register(service(id, region, "exec sleep 1000"), nil); err != nil {
			t.Errorf("a write in %s: %v", name, err)
		}
		awaitAllocs(t, agents[name], region, id, "running", 1)
	}
	w.heal("eu")
	begun := time.Now()
	eventually(t, 30*time.Second, "eu is live again without any action", func() error {
		_, header, _, err := us.get("/v1/jobs?region=*")
		if h := header.Get("X-Atoll-Regions"); err != nil || strings.Count(h, "=live") != 3 {
			return fmt.Errorf("regions %q, %v", h, err)
		}
		return nil
	})
	t.Logf("eu is live again %s after healing", time.Since(begun).Round(10*time.Millisecond))
	if _, _, err := w.client(us).Jobs().Info("meanwhile-eu", &api.QueryOptions{Region: "eu"}); err != nil {
		t.Errorf("what eu did meanwhile: %v", err)
	}
	_ = eu
}

func TestKillNineLosesNothingAndStartsNothingTwice(t *testing.T) {
	w, agents := threeRegions(t, "")
	starts := t.TempDir()
	count := func(id string) int {
		b, _ := os.ReadFile(filepath.Join(starts, id))
		return strings.Count(string(b), "\n")
	}
	ids := []string{"one", "two", "three"}
	for _, id := range ids {
		if _, _, err := w.client(agents["us"]).Jobs().Register(service(id, "eu", fmt.Sprintf("echo $$ >>%s/%s; exec sleep 1000", starts, id)), nil); err != nil {
			t.Fatal(err)
		}
		awaitAllocs(t, agents["us"], "eu", id, "running", 1)
	}
	for round := range 3 {
		// Submitted as the agent dies: if it was acked, it is there.
		id := fmt.Sprintf("late-%d", round)
		_, _, err := w.client(agents["eu"]).Jobs().Register(service(id, "eu", fmt.Sprintf("echo $$ >>%s/%s; exec sleep 1000", starts, id)), nil)
		if err != nil {
			t.Fatal(err)
		}
		agents["eu"].kill()
		ids = append(ids, id)
		agents["eu"].start()
		awaitRegions(t, agents["us"], "us", "eu")
		for _, id := range ids {
			alloc := awaitAllocs(t, agents["us"], "eu", id, "running", 1)
			if len(alloc) != 1 {
				t.Errorf("%s has %d allocations", id, len(alloc))
			}
			eventually(t, 10*time.Second, id+" has started", func() error {
				if count(id) == 0 {
					return fmt.Errorf("it has not")
				}
				return nil
			})
			if n := count(id); n != 1 {
				t.Errorf("after kill %d, %s was started %d times", round, id, n)
			}
		}
	}
	// A client alone, while its servers go on.
	edge := service("edge", "us", fmt.Sprintf("echo $$ >>%s/edge; exec sleep 1000", starts))
	edge.Constrain(api.NewConstraint("${node.unique.name}", "=", "us-client"))
	if _, _, err := w.client(agents["ap"]).Jobs().Register(edge, &api.WriteOptions{Region: "us"}); err != nil {
		t.Fatal(err)
	}
	alloc := awaitAllocs(t, agents["us"], "us", "edge", "running", 1)[0]
	agents["us-client"].kill()
	agents["us-client"].start()
	eventually(t, 20*time.Second, "the restarted client found its task", func() error {
		a, _, err := w.client(agents["us"]).Allocations().Info(alloc.ID, nil)
		if err != nil {
			return err
		}
		for _, e := range a.TaskStates["main"].Events {
			if e.Type == "Restored" {
				return nil
			}
		}
		return fmt.Errorf("its task is %+v", a.TaskStates["main"])
	})
	if n := count("edge"); n != 1 {
		t.Errorf("edge was started %d times", n)
	}
	// They are still ours to stop.
	for _, id := range ids {
		if _, _, err := w.client(agents["ap"]).Jobs().Deregister(id, false, &api.WriteOptions{Region: "eu"}); err != nil {
			t.Error(err)
		}
	}
	for _, id := range ids {
		b, _ := os.ReadFile(filepath.Join(starts, id))
		pid := strings.TrimSpace(string(b))
		eventually(t, 20*time.Second, id+" is gone", func() error {
			if cmd, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(cmd) > 0 {
				return fmt.Errorf("process %s runs %q", pid, cmd)
			}
			return nil
		})
	}
}

func TestDatacentersOfARegion(t *testing.T) {
	w := newWorld(t, "us")
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", dc: "dc1", server: true, client: true, servers: []string{"us"}})
	w.agent(agentConfig{name: "us2", host: "us", region: "us", dc: "dc2", client: true, servers: []string{"us"}, portBase: 5646})
	eventually(t, 30*time.Second, "two nodes are ready", func() error {
		nodes, _, err := w.client(us).Nodes().List(nil)
		if err != nil || len(nodes) != 2 {
			return fmt.Errorf("%d nodes, %v", len(nodes), err)
		}
		return nil
	})
	// Each node has 4000 MHz: six of 1000 MHz need both.
	ring := service("ring", "us", "exec sleep 1000")
	ring.Datacenters = []string{"dc1", "dc2"}
	n, cpu := 6, 1000
	ring.TaskGroups[0].Count = &n
	ring.TaskGroups[0].Tasks[0].Resources.CPU = &cpu
	if _, _, err := w.client(us).Jobs().Register(ring, nil); err != nil {
		t.Fatal(err)
	}
	on := make(map[string]int)
	for _, a := range awaitAllocs(t, us, "us", "ring", "running", 6) {
		on[a.NodeName]++
	}
	if on["us"] < 2 || on["us2"] < 2 || on["us"]+on["us2"] != 6 {
		t.Errorf("they run on %v; want 2 to 4 on each of both nodes", on)
	}

	far := service("far", "us", "exec sleep 1000")
	far.Datacenters = []string{"dc3"}
	resp, _, err := w.client(us).Jobs().Register(far, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "far is blocked with a reason", func() error {
		e, _, err := w.client(us).Evaluations().Info(resp.EvalID, nil)
		if err != nil {
			return err
		}
		m := e.FailedTGAllocs["g"]
		if e.Status != "complete" || m == nil || e.BlockedEval == "" {
			return fmt.Errorf("evaluation %+v", e)
		}
		b, _, err := w.client(us).Evaluations().Info(e.BlockedEval, nil)
		if err != nil || b.Status != "blocked" {
			return fmt.Errorf("blocked evaluation %+v, %v", b, err)
		}
		return nil
	})
	out, err := w.cli(us, "job", "status", "far")
	if err != nil || !strings.Contains(out, "Placement Failure") || !strings.Contains(out, "dc3") {
		t.Errorf("job status says %s, %v; want why far is not placed", out, err)
	}
	w.agent(agentConfig{name: "us3", host: "us", region: "us", dc: "dc3", client: true, servers: []string{"us"}, portBase: 6646})
	if got := awaitAllocs(t, us, "us", "far", "running", 1); got[0].NodeName != "us3" {
		t.Errorf("far runs on %s", got[0].NodeName)
	}
}
