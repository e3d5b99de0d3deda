//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/model"
)

// federated is what the endpoints of all regions answer with.
type federated struct {
	Regions []model.RegionAnswer
	Jobs    []*model.JobRow
	Nodes   []*model.NodeRow
}

// ask asks an agent a question about all regions, within the bound of any answer.
func ask(t *testing.T, a *agent, path string) (out federated, err error) {
	t.Helper()
	begun := time.Now()
	status, _, body, err := a.get(path)
	if took := time.Since(begun); took > answerBound {
		t.Errorf("%s at %s took %s", path, a.name, took)
	}
	if err != nil || status != http.StatusOK {
		return out, fmt.Errorf("status %d, %s, %v", status, body, err)
	}
	return out, json.Unmarshal([]byte(body), &out)
}

func worths(answers []model.RegionAnswer) string {
	var out []string
	for _, a := range answers {
		out = append(out, a.Region+"="+string(a.Freshness))
	}
	return strings.Join(out, " ")
}

func TestWhatIsKnownOfARegionThatIsCutOff(t *testing.T) {
	w, agents := threeRegions(t, "")
	for _, r := range []string{"us", "eu", "ap"} {
		for _, id := range []string{"web", "only-" + r} {
			if _, _, err := w.client(agents["us"]).Jobs().Register(service(id, r, "exec sleep 1000"), nil); err != nil {
				t.Fatal(err)
			}
			awaitAllocs(t, agents["us"], r, id, "running", 1)
		}
	}
	// Six jobs of three regions, all running, and the nodes; freshly asked, of all
	// of them that is what is, not what was.
	for _, name := range []string{"us", "us-client", "ap"} {
		eventually(t, 20*time.Second, name+" knows of all jobs", func() error {
			out, err := ask(t, agents[name], "/v1/federation/jobs")
			if err != nil {
				return err
			}
			running := 0
			for _, j := range out.Jobs {
				running += j.Groups[0].Running
			}
			if len(out.Jobs) != 6 || running != 6 || strings.Contains(worths(out.Regions), "unreachable") {
				return fmt.Errorf("%d jobs, %d running, of %s", len(out.Jobs), running, worths(out.Regions))
			}
			return nil
		})
		if out, err := ask(t, agents[name], "/v1/federation/nodes?fresh"); err != nil || len(out.Nodes) != 4 || worths(out.Regions) != "ap=live eu=live us=live" {
			t.Errorf("the nodes at %s: %d of %s, %v", name, len(out.Nodes), worths(out.Regions), err)
		}
	}
	eventually(t, 30*time.Second, "us knows how far each region is from each other", func() error {
		_, _, body, err := agents["us"].get("/v1/federation/regions")
		if err != nil {
			return err
		}
		var out struct{ Regions []*model.RegionOverview }
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			return err
		}
		for _, o := range out.Regions {
			if len(o.RTT) != 2 {
				return fmt.Errorf("%s knows %v", o.Region, o.RTT)
			}
		}
		return nil
	})
	events := follow(t, agents["us-client"])
	w.cut("eu")
	for _, name := range []string{"us", "us-client", "ap"} {
		own := strings.TrimSuffix(name, "-client")
		for _, path := range []string{"/v1/federation/jobs", "/v1/federation/jobs?fresh", "/v1/federation/job/web?fresh"} {
			out, err := ask(t, agents[name], path)
			if err != nil {
				t.Errorf("%s at %s: %v", path, name, err)
				continue
			}
			for _, a := range out.Regions {
				live := a.Region == own || a.Region != "eu" && strings.Contains(path, "fresh")
				if live != (a.Freshness == model.Live) || !live && (a.Freshness != model.Stale || a.Age <= 0 || a.Index == 0) {
					t.Errorf("%s at %s: %+v", path, name, a)
				}
			}
			if want := map[bool]int{true: 3, false: 6}[strings.Contains(path, "/job/")]; len(out.Jobs) != want {
				t.Errorf("%s at %s: %d rows, want %d", path, name, len(out.Jobs), want)
			}
		}
	}
	// The same by the command line, with eu known to be out of reach.
	eventually(t, 20*time.Second, "region list shows that eu is out of reach", func() error {
		out, err := w.cli(agents["us"], "region", "list")
		for _, line := range strings.Split(out, "\n") {
			if strings.HasPrefix(line, "eu ") && strings.Contains(line, "unreachable") && strings.Contains(line, "stale") && strings.Contains(line, "2/2") {
				return err
			}
		}
		return fmt.Errorf("%s, %v", out, err)
	})
	if out, err := w.cli(agents["us"], "region", "status", "eu"); err != nil || !strings.Contains(out, "2 running") || !strings.Contains(out, "Round Trips") || !strings.Contains(out, "is unreachable") {
		t.Errorf("region status: %s, %v", out, err)
	}
	if out, err := w.cli(agents["us-client"], "job", "status", "-region", "*", "web"); err != nil || strings.Count(out, "  g  ") != 3 || !strings.Contains(out, "stale") {
		t.Errorf("the shares of web: %s, %v", out, err)
	}
	if out, err := w.cli(agents["ap"], "status", "-region", "*"); err != nil || strings.Count(out, "only-") != 3 || !strings.Contains(out, "stale") {
		t.Errorf("the jobs of all regions: %s, %v", out, err)
	}

	events("eu is told to be out of reach", func(e *model.RegionEvents) bool {
		return e.Region == "eu" && e.Freshness == model.Unreachable && e.Age > 0 && strings.Contains(e.Error, `"eu"`)
	})

	// What changes meanwhile is told once it is back.
	if _, _, err := w.client(agents["eu"]).Jobs().Register(service("meanwhile", "eu", "exec sleep 1000"), nil); err != nil {
		t.Fatal(err)
	}
	w.heal("eu")
	begun := time.Now()
	eventually(t, 30*time.Second, "us and its client know of what eu did meanwhile", func() error {
		for _, name := range []string{"us", "us-client"} {
			out, err := ask(t, agents[name], "/v1/federation/job/meanwhile")
			if err != nil {
				return err
			}
			if len(out.Jobs) != 1 {
				return fmt.Errorf("%s: %d rows", name, len(out.Jobs))
			}
		}
		return nil
	})
	t.Logf("known %s after healing", time.Since(begun).Round(10*time.Millisecond))
	events("eu is told to be back", func(e *model.RegionEvents) bool { return e.Region == "eu" && e.Freshness == model.Live })
	events("what eu did meanwhile", func(e *model.RegionEvents) bool {
		return e.Region == "eu" && slices.ContainsFunc(e.Events, func(ev *model.Event) bool { return ev.Key == "meanwhile" })
	})
}

// follow opens a stream of the events of all regions; the function that it returns
// waits for a line of it.
func follow(t *testing.T, a *agent) func(what string, find func(*model.RegionEvents) bool) {
	t.Helper()
	resp, err := a.w.httpClient().Get(a.url() + "/v1/federation/event/stream?topic=Job")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	lines, done := make(chan *model.RegionEvents, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for in := bufio.NewReader(resp.Body); ; {
			b, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			e := new(model.RegionEvents)
			if err := json.Unmarshal(b, e); err != nil {
				t.Errorf("%s: %v", b, err)
				return
			}
			lines <- e
		}
	}()
	t.Cleanup(func() {
		_ = resp.Body.Close()
		<-done
	})
	return func(what string, find func(*model.RegionEvents) bool) {
		t.Helper()
		late := time.After(30 * time.Second)
		for {
			select {
			case e := <-lines:
				if find(e) {
					return
				}
			case <-late:
				t.Fatalf("no line: %s", what)
			}
		}
	}
}
