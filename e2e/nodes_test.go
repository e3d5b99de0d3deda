//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// twoNodes is a region of one server whose clients are machines of their own; the
// second comes when it is started. Nodes are missed after a few seconds.
func twoNodes(t *testing.T) (w *world, server, one *agent, startTwo func() *agent) {
	t.Helper()
	w = newWorld(t, "srv", "one", "two")
	server = w.agent(agentConfig{name: "srv", host: "srv", region: "us", server: true, extra: "server {\n heartbeat_grace = \"3s\"\n min_heartbeat_ttl = \"3s\"\n}\n"})
	node := func(name string) *agent {
		return w.agent(agentConfig{name: name, host: name, region: "us", client: true, servers: []string{"srv"}})
	}
	one = node("one")
	nodeIs(t, server, "one", "ready")
	return w, server, one, func() *agent { return node("two") }
}

// nodeIs waits until a node has a status, and returns its id.
func nodeIs(t *testing.T, a *agent, name, status string) (id string) {
	t.Helper()
	eventually(t, 60*time.Second, name+" is "+status, func() error {
		nodes, _, err := a.w.client(a).Nodes().List(nil)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Name == name && n.Status == status {
				id = n.ID
				return nil
			}
		}
		return fmt.Errorf("nodes: %v", nodes)
	})
	return id
}

// shift is one life of a task, as the task noted it.
type shift struct{ start, end time.Time }

// journal reads what a journalled task noted: a line at each start, and one every
// tenth of a second while it lives.
func journal(t *testing.T, dir string) (shifts map[string]shift) {
	t.Helper()
	shifts = make(map[string]shift)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(b))
		if len(lines) == 0 {
			continue
		}
		at := func(s string) time.Time {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			return time.Unix(0, n)
		}
		// The last line may be half written.
		if last := len(lines) - 1; len(lines[last]) < len(lines[0]) {
			lines = lines[:last]
		}
		shifts[filepath.Base(f)] = shift{at(lines[0]), at(lines[len(lines)-1])}
	}
	return shifts
}

// journalled is a job whose task notes when it lives.
func journalled(t *testing.T, w *world, id string, d *api.DisconnectStrategy) (*api.Job, string) {
	t.Helper()
	dir := filepath.Join(w.dir, "journal-"+id)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	j := service(id, "us", fmt.Sprintf("while :; do date +%%s%%N >> %s/$NOMAD_ALLOC_ID; sleep 0.1; done", dir))
	j.TaskGroups[0].Disconnect = d
	return j, dir
}

func TestANodeThatIsCutOffAndComesBack(t *testing.T) {
	w, server, one, startTwo := twoNodes(t)
	hour, fence, yes := time.Hour, 8*time.Second, true
	keeps, _ := journalled(t, w, "keeps", &api.DisconnectStrategy{LostAfter: &hour, Replace: &yes})
	fenced, shifts := journalled(t, w, "fenced", &api.DisconnectStrategy{StopOnClientAfter: &fence, Replace: &yes})
	plain, _ := journalled(t, w, "plain", nil)
	jobs := w.client(server).Jobs()
	first := map[string]*api.AllocationListStub{}
	for _, j := range []*api.Job{keeps, fenced, plain} {
		if _, _, err := jobs.Register(j, nil); err != nil {
			t.Fatal(err)
		}
		first[*j.ID] = awaitAllocs(t, server, "us", *j.ID, "running", 1)[0]
	}
	agents := map[string]*agent{"one": one, "two": startTwo()}
	nodeIs(t, server, "two", "ready")

	w.cut("one")
	start := time.Now()
	nodeIs(t, server, "one", "disconnected")
	t.Logf("disconnected after %s", time.Since(start).Round(100*time.Millisecond))
	// A stand-in while the first may go on; another for what is lost.
	awaitAllocs(t, server, "us", "keeps", "unknown", 1)
	awaitAllocs(t, server, "us", "keeps", "running", 1)
	awaitAllocs(t, server, "us", "plain", "running", 1)
	// The node ends what must not go on by itself, though it reaches nobody; only
	// then another is placed.
	eventually(t, 30*time.Second, "the fenced task runs elsewhere", func() error {
		if n := len(journal(t, shifts)); n != 2 {
			return fmt.Errorf("%d were started", n)
		}
		return nil
	})
	t.Logf("the fenced task runs elsewhere after %s", time.Since(start).Round(100*time.Millisecond))
	was := journal(t, shifts)[first["fenced"].ID]
	if alive := was.end.Sub(start); alive > fence+2*time.Second {
		t.Errorf("the fenced task lived for %s after the cut, want %s", alive, fence)
	}
	for id, s := range journal(t, shifts) {
		if id != first["fenced"].ID && s.start.Before(was.end) {
			t.Errorf("two of the fenced task lived for %s", was.end.Sub(s.start))
		}
	}

	w.heal("one")
	healed := time.Now()
	nodeIs(t, server, "one", "ready")
	// One of each is left, and nothing is open.
	for _, id := range []string{"keeps", "fenced", "plain"} {
		eventually(t, 30*time.Second, "one of "+id+" is left", func() error {
			all, _, err := jobs.Allocations(id, false, nil)
			if err != nil {
				return err
			}
			running := 0
			for _, a := range all {
				switch {
				case a.DesiredStatus == "run" && a.ClientStatus == "running":
					running++
				case a.ClientStatus == "running", a.ClientStatus == "pending", a.ClientStatus == "unknown":
					return fmt.Errorf("allocation %s should %s and is %s", a.ID, a.DesiredStatus, a.ClientStatus)
				}
			}
			if running != 1 {
				return fmt.Errorf("%d run", running)
			}
			return nil
		})
	}
	t.Logf("settled %s after the network healed", time.Since(healed).Round(100*time.Millisecond))
	// A restarted agent that reaches nobody grants no more time.
	a := awaitAllocs(t, server, "us", "fenced", "running", 1)[0]
	w.cut(a.NodeName)
	cut := time.Now()
	agents[a.NodeName].kill()
	agents[a.NodeName].start()
	eventually(t, 20*time.Second, "the fenced task ends under a restarted agent", func() error {
		if silent := time.Since(journal(t, shifts)[a.ID].end); silent < time.Second {
			return fmt.Errorf("it lives")
		}
		return nil
	})
	if alive := journal(t, shifts)[a.ID].end.Sub(cut); alive > fence+2*time.Second {
		t.Errorf("under a restarted agent the fenced task lived for %s, want %s", alive, fence)
	}
}

func TestADrainIsFollowedToItsEnd(t *testing.T) {
	w, server, one, startTwo := twoNodes(t)
	const count, maxParallel = 20, 4
	job := service("web", "us", "exec sleep 300")
	n, most, healthy := count, maxParallel, 300*time.Millisecond
	job.TaskGroups[0].Count = &n
	job.TaskGroups[0].Migrate = &api.MigrateStrategy{MaxParallel: &most, MinHealthyTime: &healthy}
	if _, _, err := w.client(server).Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	awaitAllocs(t, server, "us", "web", "running", count)
	startTwo()
	nodeIs(t, server, "two", "ready")
	done := make(chan struct{})
	least := count
	go func() {
		defer close(done)
		for {
			all, _, err := w.client(server).Jobs().Allocations("web", false, nil)
			if err != nil {
				continue
			}
			running, left := 0, 0
			for _, a := range all {
				if a.ClientStatus == "running" && a.DesiredStatus == "run" {
					running++
				}
				if a.NodeName == "one" && (a.ClientStatus == "running" || a.ClientStatus == "pending") {
					left++
				}
			}
			if least = min(least, running); left == 0 {
				return
			}
		}
	}()
	start := time.Now()
	out, err := w.cli(one, "node", "drain", "-enable", "-self", "-yes", "-m", "a new disk", "-deadline", "2m")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("drained of %d in %s", count, time.Since(start).Round(100*time.Millisecond))
	for _, want := range []string{"drain strategy set", "marked for migration", "status running -> complete", "Drain complete for node", "have stopped"} {
		if !strings.Contains(out, want) {
			t.Errorf("the command did not say %q:\n%s", want, out)
		}
	}
	<-done
	if least < count-maxParallel {
		t.Errorf("only %d of %d ran at a time, with max_parallel %d", least, count, maxParallel)
	}
	for _, a := range awaitAllocs(t, server, "us", "web", "running", count) {
		if a.NodeName != "two" {
			t.Errorf("an allocation runs on %s", a.NodeName)
		}
	}
	out, err = w.cli(server, "node", "status")
	if err != nil || !strings.Contains(out, "ineligible") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := w.cli(one, "node", "drain", "-monitor", "-self"); err == nil || !strings.Contains(out, "does not drain") {
		t.Errorf("following no drain: %v: %s", err, out)
	}
	if out, err := w.cli(one, "node", "eligibility", "-enable", "-self"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
