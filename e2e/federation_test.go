//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	apiclient "atoll/api/client"
	"atoll/internal/relay"
	"atoll/model"
)

// wan puts a link before a host's RPC port, and returns what makes its agent say
// that it is to be reached there.
func (w *world) wan(host string, link relay.Link) (extra string) {
	w.t.Helper()
	r, err := relay.New("10.77.0.10:0", w.hosts[host].ip+":4647", link)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	return fmt.Sprintf("advertise {\n rpc = %q\n}\n", r.Addr())
}

// submit registers a job in a region, and returns the evaluation's id and the status.
func submit(c *http.Client, a *agent, region, token string, job any) (eval string, status int, err error) {
	if j, ok := job.(*api.Job); ok {
		j.Region = &region
	}
	body, err := json.Marshal(map[string]any{"Job": job})
	if err != nil {
		return "", 0, err
	}
	resp, err := c.Post(a.url()+"/v1/jobs?region="+region+"&idempotency_token="+token, "application/json", strings.NewReader(string(body)))
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode, fmt.Errorf("%d %s, %v", resp.StatusCode, b, err)
	}
	var out struct{ EvalID string }
	return out.EvalID, resp.StatusCode, json.Unmarshal(b, &out)
}

// A cell of six servers of which five are lost, each in a way of its own: what the
// last can answer is answered, through any region, and the rest ends in time and
// says why; nothing is left of it in the server that asked.
func TestFiveServersOfSixAreLost(t *testing.T) {
	six := []string{"e1", "e2", "e3", "e4", "e5", "e6"}
	w := newWorld(t, append([]string{"us"}, six...)...)
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, join: six, extra: measured})
	eu := make(map[string]*agent)
	for _, name := range six {
		eu[name] = w.agent(agentConfig{name: name, host: name, region: "eu", server: true, expect: 6, join: []string{"us", "e1", "e2"}})
	}
	job := mockJob("web")
	eventually(t, 60*time.Second, "eu takes a job through us", func() error {
		_, _, err := submit(w.httpClient(), us, "eu", "first", job)
		return err
	})
	for _, a := range eu {
		eventually(t, 60*time.Second, a.name+" has a vote, and the job", func() error {
			status, _, body, err := a.get("/v1/job/web?stale")
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("%d %s %v", status, body, err)
			}
			for _, m := range peers(t, a) {
				if !m.Voter {
					return fmt.Errorf("%s has none", m.Node)
				}
			}
			return nil
		})
	}
	before := us.settledGoroutines(10_000)

	eu["e1"].kill()
	eu["e2"].kill()
	for _, name := range []string{"e3", "e4"} {
		if err := eu[name].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = eu[name].cmd.Process.Signal(syscall.SIGCONT) })
	}
	w.cut("e5")
	// P4: two seconds of silence, and a machine that has other things to do.
	const bound = 2500 * time.Millisecond
	failed := 0
	for i := range 20 {
		begun := time.Now()
		status, _, body, err := us.get("/v1/job/web?region=eu&stale")
		took := time.Since(begun)
		if err == nil && status == http.StatusBadGateway && strings.Contains(body, `region "eu" is unreachable: no answer`) {
			failed++ // two servers are tried in the two seconds, and both may be frozen
		} else if err != nil || status != http.StatusOK {
			t.Errorf("read %d: %d %s %v", i, status, body, err)
		}
		if took > bound {
			t.Errorf("read %d took %s", i, took)
		}
	}
	if failed > 2 {
		t.Errorf("%d of 20 reads failed, with three servers that say nothing", failed)
	}
	// What needs a leader has its own time for one.
	for _, path := range []string{"/v1/job/web?region=eu", "/v1/jobs?region=eu&consistent"} {
		begun := time.Now()
		resp, err := w.httpClient().Get(us.url() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if took := time.Since(begun); resp.StatusCode < 500 || !slices.Contains([]string{"no_leader", "unreachable", "deadline"}, resp.Header.Get("X-Atoll-Error")) || took > 12*time.Second {
			t.Errorf("%s: %d %s %q after %s", path, resp.StatusCode, resp.Header.Get("X-Atoll-Error"), body, took)
		}
		t.Logf("%s: %s after %s: %s", path, resp.Header.Get("X-Atoll-Error"), time.Since(begun).Round(time.Millisecond), strings.TrimSpace(string(body)))
	}
	w.heal("e5")
	for _, name := range []string{"e3", "e4"} {
		if err := eu[name].cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 30*time.Second, "four of six take a write again", func() error {
		_, _, err := submit(w.httpClient(), us, "eu", "second", job)
		return err
	})
	us.settledGoroutines(before + 10)
}

// Two versions of one job come to two regions at one moment, over a WAN: one wins
// everywhere, and the other's submitter is told so.
func TestOfTwoSubmitsAtOneMomentOneWins(t *testing.T) {
	w := newWorld(t, five...)
	agents := make(map[string]*agent)
	for _, r := range five {
		agents[r] = w.agent(agentConfig{name: r, host: r, region: r, server: true, client: true, join: five, servers: []string{r},
			extra: w.wan(r, relay.Link{Delay: 25 * time.Millisecond})})
	}
	for name, a := range agents {
		awaitRegions(t, a, name, five...)
	}
	job := func(id, value string) *model.Job {
		j := &model.Job{
			ID: id, Datacenters: []string{"*"}, Meta: map[string]string{"value": value}, Multiregion: &model.Multiregion{Strategy: &model.MultiregionStrategy{MaxParallel: 1}},
			TaskGroups: []*model.TaskGroup{{Name: "g", Update: model.NewUpdateStrategy(), Tasks: []*model.Task{{Name: "main", Driver: "raw_exec", Config: map[string]any{"command": "/bin/sleep", "args": []string{"1000"}}}}}},
		}
		j.TaskGroups[0].Update.MinHealthyTime = 100 * time.Millisecond
		for _, r := range five {
			j.Multiregion.Regions = append(j.Multiregion.Regions, &model.MultiregionRegion{Name: r, Count: 1})
		}
		return j
	}
	for round := range 6 {
		id := fmt.Sprintf("web-%d", round/3) // new ones, and new versions
		doors := [2]string{five[round%5], five[(round+2)%5]}
		var status [2]int
		var errs [2]error
		var wg sync.WaitGroup
		for i, door := range doors {
			wg.Go(func() {
				_, status[i], errs[i] = submit(w.httpClient(), agents[door], door, fmt.Sprintf("%s-%d", door, round), job(id, fmt.Sprintf("%d of %s", round, door)))
			})
		}
		wg.Wait()
		winner := slices.Index(status[:], http.StatusOK)
		if winner < 0 || status[1-winner] != http.StatusConflict {
			t.Fatalf("round %d: %v %v", round, status, errs)
		}
		want := fmt.Sprintf("%d of %s", round, doors[winner])
		for _, r := range five {
			eventually(t, 60*time.Second, fmt.Sprintf("round %d: %s runs what won", round, r), func() error {
				j, _, err := w.client(agents[r]).Jobs().Info(id, nil)
				if err != nil {
					return err
				}
				if j.Meta["value"] != want || *j.Version != uint64(round%3) {
					return fmt.Errorf("it has version %d, %q, and should have %q", *j.Version, j.Meta["value"], want)
				}
				return nil
			})
		}
		// The next is submitted when this one is everywhere.
		awaitShares(t, agents["r1"], 60*time.Second, id, uint64(round%3), "sssss")
	}
}

// A thousand submits, each at a random region for a random region, over a WAN that
// loses one reply of five, to callers who lose one of five, while a region is
// killed and started again.
func TestAThousandSubmitsOverABadWAN(t *testing.T) {
	regions := []string{"us", "eu", "ap"}
	w := newWorld(t, regions...)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(4, 4))
	intN := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	var losses atomic.Bool
	var lost atomic.Int64
	lose := func() bool {
		if !losses.Load() || intN(5) > 0 {
			return false
		}
		lost.Add(1)
		return true
	}
	agents := make(map[string]*agent)
	for _, r := range regions {
		agents[r] = w.agent(agentConfig{name: r, host: r, region: r, server: true, join: regions, extra: w.wan(r, relay.Link{Delay: 10 * time.Millisecond, LoseReply: lose})})
	}
	for _, a := range agents {
		for _, r := range regions {
			eventually(t, 60*time.Second, a.name+" reaches "+r, func() error {
				status, _, body, err := a.get("/v1/jobs?region=" + r)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("%d %s", status, body)
				}
				return err
			})
		}
	}
	const n = 1000
	type acked struct{ region, eval string }
	jobs := make([]acked, n)
	losses.Store(true)
	c := &http.Client{Transport: &apiclient.Retry{Base: &relay.Transport{Base: w.httpClient().Transport, LoseReply: lose}}}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				j, region := mockJob(fmt.Sprintf("job-%d", i)), regions[intN(3)]
				*j.TaskGroups[0].Count = 0
				for begun := time.Now(); ; {
					eval, _, err := submit(c, agents[regions[intN(3)]], region, fmt.Sprintf("token-%d", i), j)
					if jobs[i] = (acked{region, eval}); err == nil {
						break
					}
					if time.Since(begun) > 2*time.Minute {
						t.Errorf("job-%d is not acked: %v", i, err)
						return
					}
				}
			}
		})
	}
	eventually(t, 2*time.Minute, "half are submitted", func() error {
		if i := next.Load(); i < n/2 {
			return fmt.Errorf("%d", i)
		}
		return nil
	})
	agents["eu"].kill()
	agents["eu"].start()
	wg.Wait()
	losses.Store(false)
	t.Logf("%d replies were lost", lost.Load())
	for _, r := range regions {
		eventually(t, 30*time.Second, r+" is there", func() error {
			status, _, _, err := agents[r].get("/v1/jobs")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d", status)
			}
			return err
		})
	}
	listed := 0
	for _, r := range regions {
		stubs, _, err := w.client(agents[r]).Jobs().List(nil)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(stubs)
	}
	if listed != n {
		t.Errorf("there are %d jobs of %d", listed, n)
	}
	for i, job := range jobs {
		c := w.client(agents[job.region])
		versions, _, _, err := c.Jobs().Versions(fmt.Sprintf("job-%d", i), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		evals, _, err := c.Jobs().Evaluations(fmt.Sprintf("job-%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(versions) != 1 || len(evals) != 1 || evals[0].ID != job.eval {
			t.Errorf("job-%d of %s has %d versions and %d evaluations; acked with %s", i, job.region, len(versions), len(evals), job.eval)
		}
	}
}

// A second cell that takes the name of a region is kept apart from it, loudly, and
// each goes on by itself.
func TestTwoCellsUnderOneName(t *testing.T) {
	w := newWorld(t, "us", "eu", "other")
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, join: []string{"eu"}})
	eu := w.agent(agentConfig{name: "eu", host: "eu", region: "eu", server: true, join: []string{"us"}})
	eventually(t, 60*time.Second, "eu takes a job through us", func() error {
		_, _, err := submit(w.httpClient(), us, "eu", "first", mockJob("real"))
		return err
	})
	for _, a := range []*agent{us, eu} {
		eventually(t, 20*time.Second, a.name+" knows which cell eu is", func() error {
			_, _, body, err := a.get("/v1/federation/regions")
			if err != nil || strings.Count(body, `"CellID":""`) > 0 || strings.Count(body, `"CellID"`) < 2 {
				return fmt.Errorf("%s %v", body, err)
			}
			return nil
		})
	}
	before := peers(t, eu)
	other := w.agent(agentConfig{name: "other", host: "other", region: "eu", server: true})
	eventually(t, 60*time.Second, "the other cell has a job of its own", func() error {
		_, _, err := submit(w.httpClient(), other, "eu", "first", mockJob("false"))
		return err
	})
	members := peers(t, other)
	places := map[*agent]int{us: logSize(t, us), eu: logSize(t, eu)}
	if out, err := w.cli(other, "server", "join", w.hosts["us"].ip+":4648"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for a, place := range places {
		t.Log(said(t, a, place, 20*time.Second, "[ERROR]", "another cell claims a region", w.hosts["other"].ip))
	}
	for range 20 {
		status, _, body, err := us.get("/v1/jobs?region=eu")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"real"`) || strings.Contains(body, `"false"`) {
			t.Errorf("the jobs of eu are %d %s %v", status, body, err)
		}
	}
	if out, err := w.cli(us, "region", "list"); err != nil || !strings.Contains(out, w.hosts["other"].ip) {
		t.Errorf("region list: %v %s", err, out)
	}
	for a, want := range map[*agent]int{eu: len(before), other: len(members)} {
		got := peers(t, a)
		if len(got) != want || got[a.host.ip+":4647"] == nil {
			t.Errorf("the members of %s are %v", a.name, got)
		}
	}
	// Each still takes writes.
	for _, a := range []*agent{eu, other} {
		if _, _, err := submit(w.httpClient(), a, "eu", "second", mockJob("second")); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}
