package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apiclient "atoll/api/client"
	"atoll/internal/freeport"
	"atoll/internal/relay"
)

// dice are rolled by many.
type dice struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func (d *dice) intN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

// emptyJob is a job that places nothing, so that its submit makes one evaluation
// and that one makes no other.
func emptyJob(id string, priority int) string {
	return fmt.Sprintf(`{"Job": {"ID": %q, "Priority": %d, "TaskGroups": [{"Name": "g", "Count": 0, "Tasks": [{"Name": "t", "Driver": "raw_exec",
		"Config": {"command": "/bin/true"}}]}]}}`, id, priority)
}

// A thousand submits, each at a random region for a random region, while one reply
// of five is lost between the regions and one of five between client and agent.
func TestAThousandSubmitsAreAppliedOnceEachThoughRepliesAreLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := &dice{rand: rand.New(rand.NewPCG(seed, 0))}
	regions := []string{"us", "eu", "ap"}
	agents := make(map[string]*running)
	var between, before atomic.Int64 // replies lost
	var losses atomic.Bool
	oneOfFive := func(count *atomic.Int64) func() bool {
		return func() bool {
			if !losses.Load() || d.intN(5) > 0 {
				return false
			}
			count.Add(1)
			return true
		}
	}
	var first string
	for _, region := range regions {
		c := onLoopback(t, t.TempDir())
		c.Region, c.Name, c.Server.Enabled, c.Server.BootstrapExpect = region, region+"1", true, 1
		c.Ports.RPC = freeport.Port(t)
		// Whoever calls this server does so over a bad network.
		r, err := relay.New("127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", c.Ports.RPC), relay.Link{LoseReply: oneOfFive(&between)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		c.Advertise.RPC = r.Addr()
		if first != "" {
			c.Server.Join.RetryJoin = []string{first}
		} else {
			first = c.SerfAddr()
		}
		agents[region] = start(t, c)
	}
	for _, at := range regions {
		for _, of := range regions {
			await(t, at+" reaches "+of, func() error {
				var jobs []any
				return agents[at].get("/v1/jobs?region="+of, &jobs)
			})
		}
	}

	base := &http.Transport{MaxIdleConnsPerHost: 32}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &apiclient.Retry{Base: &relay.Transport{Base: base, LoseReply: oneOfFive(&before)}}}
	// submit answers with the evaluation's id, or the error.
	submit := func(c *http.Client, door, region, token, body string) (string, int, error) {
		resp, err := c.Post("http://"+agents[door].HTTPAddr()+"/v1/jobs?region="+region+"&idempotency_token="+token, "application/json", strings.NewReader(body))
		if err != nil {
			return "", 0, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return "", resp.StatusCode, fmt.Errorf("%d %s, %v", resp.StatusCode, b, err)
		}
		var out struct{ EvalID string }
		return out.EvalID, resp.StatusCode, json.NewDecoder(bytes.NewReader(b)).Decode(&out)
	}
	type submitted struct{ region, eval string }
	const n = 1000
	jobs := make([]submitted, n)
	losses.Store(true)
	var wg sync.WaitGroup
	var next, repeated atomic.Int64
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				region := regions[d.intN(3)]
				for try := 0; jobs[i].eval == ""; try++ {
					eval, _, err := submit(client, regions[d.intN(3)], region, fmt.Sprintf("token-%d", i), emptyJob(fmt.Sprintf("job-%d", i), 50))
					if jobs[i] = (submitted{region, eval}); err != nil {
						// The region was held lost for a moment, say.
						if repeated.Add(1); try > 100 {
							t.Errorf("job-%d is not acked after %d tries: %v", i, try, err)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
	losses.Store(false)
	t.Logf("%d replies were lost between the regions, %d before; %d submits were repeated by hand", between.Load(), before.Load(), repeated.Load())
	if between.Load() < 100 || before.Load() < n/10 {
		t.Errorf("too few replies were lost for this to say anything")
	}

	listed := 0
	for _, region := range regions {
		var rows []struct{ ID string }
		await(t, region+" is reached again", func() error { return agents["us"].get("/v1/jobs?region="+region, &rows) })
		listed += len(rows)
	}
	if listed != n {
		t.Errorf("there are %d jobs, want %d", listed, n)
	}
	for i, job := range jobs {
		at := agents[job.region]
		var versions struct{ Versions []struct{ Version uint64 } }
		var evals []struct{ ID string }
		if err := at.get(fmt.Sprintf("/v1/job/job-%d/versions", i), &versions); err != nil {
			t.Fatal(err)
		}
		if err := at.get(fmt.Sprintf("/v1/job/job-%d/evaluations", i), &evals); err != nil {
			t.Fatal(err)
		}
		if len(versions.Versions) != 1 || len(evals) != 1 || evals[0].ID != job.eval {
			t.Errorf("job-%d of %s: versions %v, evaluations %v, acked with %s", i, job.region, versions.Versions, evals, job.eval)
		}
	}
	// At every door, the same again has the first answer, and a token means no
	// other job.
	for i := 0; i < n; i += n / 20 {
		for _, door := range regions {
			token, id := fmt.Sprintf("token-%d", i), fmt.Sprintf("job-%d", i)
			if eval, _, err := submit(web, door, jobs[i].region, token, emptyJob(id, 50)); err != nil || eval != jobs[i].eval {
				t.Errorf("%s again at %s: %s, %v; first %s", id, door, eval, err, jobs[i].eval)
			}
			if _, status, err := submit(web, door, jobs[i].region, token, emptyJob(id, 60)); status != http.StatusConflict {
				t.Errorf("%s with another priority at %s: %v", id, door, err)
			}
		}
	}

	// What went on is in the metrics, by region.
	await(t, "metrics of the other regions", func() error {
		var shown struct {
			Counters []struct {
				Name   string
				Labels map[string]string
			}
			Gauges []struct {
				Name   string
				Labels map[string]string
			}
			Samples []struct {
				Name   string
				Labels map[string]string
			}
		}
		var rows []any
		_ = agents["us"].get("/v1/jobs?region=eu", &rows)
		if err := agents["us"].get("/v1/metrics", &shown); err != nil {
			return err
		}
		want := map[string]bool{"atoll.region.requests": false, "atoll.region.round_trip": false, "atoll.region.streams": false}
		for _, kind := range [][]struct {
			Name   string
			Labels map[string]string
		}{shown.Counters, shown.Gauges, shown.Samples} {
			for _, m := range kind {
				if _, ok := want[m.Name]; ok && m.Labels["region"] == "eu" {
					want[m.Name] = true
				}
			}
		}
		for name, there := range want {
			if !there {
				return fmt.Errorf("%s is not there: %+v", name, want)
			}
		}
		return nil
	})
}
