//go:build e2e && linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// answerBound is within which a door answers for a region that does not.
const answerBound = 2200 * time.Millisecond

// goneServers are the ways in which a client loses its region's servers. Each
// does its worst and returns what undoes it.
var goneServers = []struct {
	name string
	lose func(w *world, server *agent) (undo func())
}{
	{"killed", func(_ *world, server *agent) func() {
		server.kill()
		return server.start
	}},
	{"cut off", func(w *world, _ *agent) func() {
		w.cut("us")
		return func() { w.heal("us") }
	}},
}

func TestAClientWhoseServersAreGoneReachesOtherRegions(t *testing.T) {
	w := newWorld(t, "us", "eu", "edge")
	both := []string{"us", "eu"}
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, join: both})
	eu := w.agent(agentConfig{name: "eu", host: "eu", region: "eu", server: true, client: true, join: both, servers: []string{"eu"}})
	awaitRegions(t, us, "us", "eu")
	edge := w.agent(agentConfig{name: "edge", host: "edge", region: "us", client: true, servers: []string{"us"}})
	awaitRegions(t, edge, "edge", both...)
	if _, _, err := w.client(edge).Jobs().Register(service("before", "eu", "echo I am before; exec sleep 1000"), nil); err != nil {
		t.Fatal(err)
	}
	alloc := awaitAllocs(t, edge, "eu", "before", "running", 1)[0]

	eventually(t, 20*time.Second, "eu has a summary of us", func() error {
		_, header, _, err := eu.get("/v1/federation/jobs")
		if h := header.Get("X-Atoll-Regions"); err != nil || !strings.Contains(h, "us=stale") {
			return fmt.Errorf("regions %q, %v", h, err)
		}
		return nil
	})
	for _, way := range goneServers {
		t.Run(way.name, func(t *testing.T) {
			undo := way.lose(w, us)
			// The first to ask may be the first to learn of it.
			for i := range 3 {
				timed(t, fmt.Sprintf("read %d of eu", i), func() error {
					job, _, err := w.client(edge).Jobs().Info("before", &api.QueryOptions{Region: "eu"})
					if err == nil && *job.Region != "eu" {
						err = fmt.Errorf("the job is of region %q", *job.Region)
					}
					return err
				})
			}
			timed(t, "its own region", func() error {
				status, _, body, err := edge.get("/v1/jobs?region=us")
				if err != nil || status != http.StatusBadGateway || !strings.Contains(body, `region "us" is unreachable`) || !strings.Contains(body, "last contact") {
					return fmt.Errorf("status %d, %q, %v; want us named as unreachable and since when", status, body, err)
				}
				return nil
			})
			timed(t, "all regions", func() error {
				status, header, body, err := edge.get("/v1/jobs?region=*")
				if h := header.Get("X-Atoll-Regions"); err != nil || status != http.StatusOK || !strings.Contains(h, "eu=live") || !strings.Contains(h, "us=stale;age=") || !strings.Contains(body, `"before"`) {
					return fmt.Errorf("status %d, regions %q, %s, %v", status, h, body, err)
				}
				return nil
			})
			timed(t, "what is known of all regions", func() error {
				out, err := ask(t, edge, "/v1/federation/jobs")
				if err == nil && (worths(out.Regions) != "eu=live us=stale" || len(out.Jobs) == 0) {
					err = fmt.Errorf("%d jobs of %s", len(out.Jobs), worths(out.Regions))
				}
				return err
			})
			id := strings.ReplaceAll(way.name, " ", "-")
			timed(t, "a write for eu", func() error {
				_, _, err := w.client(edge).Jobs().Register(service(id, "eu", "exec sleep 1000"), nil)
				return err
			})
			awaitAllocs(t, edge, "eu", id, "running", 1)
			full, _, err := w.client(edge).Allocations().Info(alloc.ID, &api.QueryOptions{Region: "eu"})
			if err != nil {
				t.Fatal(err)
			}
			if got := readLog(t, w, edge, full, "eu"); !strings.Contains(got, "I am before") {
				t.Errorf("the log of before is %q", got)
			}

			// It remembers over a restart of its own.
			edge.stop()
			edge.start()
			eventually(t, 20*time.Second, "the restarted client reads eu", func() error {
				_, _, err := w.client(edge).Jobs().Info("before", &api.QueryOptions{Region: "eu"})
				return err
			})

			undo()
			eventually(t, 30*time.Second, "all is live again at the client", func() error {
				_, header, _, err := edge.get("/v1/jobs?region=*")
				if h := header.Get("X-Atoll-Regions"); err != nil || strings.Count(h, "=live") != 2 {
					return fmt.Errorf("regions %q, %v", h, err)
				}
				return nil
			})
		})
	}
}

// timed fails unless f succeeds within the bound.
func timed(t *testing.T, what string, f func() error) {
	t.Helper()
	begun := time.Now()
	err := f()
	if took := time.Since(begun); err != nil || took > answerBound {
		t.Errorf("%s: after %s: %v", what, took.Round(time.Millisecond), err)
	}
}
