//go:build e2e && linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stopBound is how long an agent may take to stop, whatever it is doing.
const stopBound = 10 * time.Second

// load is a number of requests that an agent is busy with: followed logs, and
// queries that wait for a change.
type load struct {
	busy atomic.Int64 // requests that are open
	wg   sync.WaitGroup
}

// open sends a request, and holds it open until the agent ends it. A followed
// log counts as open once its first line has come, a query that waits once it
// was sent.
func (l *load) open(ctx context.Context, a *agent, path string, follows bool) {
	l.wg.Go(func() {
		req, err := http.NewRequestWithContext(ctx, "GET", a.url()+path, nil)
		if err != nil {
			return
		}
		if !follows {
			l.busy.Add(1)
			defer l.busy.Add(-1)
		}
		resp, err := a.w.httpClient().Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		if follows {
			if _, err := lines.ReadString('\n'); err != nil {
				return
			}
			l.busy.Add(1)
			defer l.busy.Add(-1)
		}
		_, _ = io.Copy(io.Discard, lines)
	})
}

func (l *load) await(t *testing.T, n int64) {
	t.Helper()
	eventually(t, 20*time.Second, "the agent is busy", func() error {
		if busy := l.busy.Load(); busy < n {
			return fmt.Errorf("%d of %d requests are open", busy, n)
		}
		return nil
	})
}

// alive reports whether a process runs: a dead one that nobody has waited for
// has no command line.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/cmdline")
	return err == nil && len(b) > 0
}

// noteStart is the beginning of a task's script, which adds its process id to a
// file; startsIn reads it.
func noteStart(file string) string { return "echo $$ >>" + file + "; " }

func startsIn(file string) []string {
	b, _ := os.ReadFile(file)
	return strings.Fields(string(b))
}

var stoppedPart = regexp.MustCompile(`stopped: part=(\w+)`)

func TestSIGTERMStopsABusyAgentAndLeavesItsTasks(t *testing.T) {
	w := newWorld(t, "us", "eu")
	both := []string{"us", "eu"}
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, client: true, join: both, servers: []string{"us"}})
	eu := w.agent(agentConfig{name: "eu", host: "eu", region: "eu", server: true, client: true, join: both, servers: []string{"eu"}})
	awaitRegions(t, us, "us", both...)
	awaitRegions(t, eu, "eu", both...)

	starts := t.TempDir()
	talk, deaf := filepath.Join(starts, "talk"), filepath.Join(starts, "deaf")
	for id, script := range map[string]string{
		"talk": noteStart(talk) + "while true; do echo still here; sleep 0.1; done",
		"deaf": noteStart(deaf) + "trap '' TERM INT; while true; do sleep 1; done",
	} {
		if _, _, err := w.client(us).Jobs().Register(service(id, "us", script), nil); err != nil {
			t.Fatal(err)
		}
	}
	alloc := awaitAllocs(t, us, "us", "talk", "running", 1)[0].ID
	awaitAllocs(t, us, "us", "deaf", "running", 1)

	// Log tails and waiting queries, of its own clients and of the other
	// region's, and a connection that sends nothing.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var l load
	for range 10 {
		l.open(ctx, us, "/v1/client/fs/logs/"+alloc+"?task=main&type=stdout&follow=true", true)
		l.open(ctx, eu, "/v1/client/fs/logs/"+alloc+"?task=main&type=stdout&follow=true&region=us", true)
		l.open(ctx, us, "/v1/jobs?index=1000000&wait=5m", false)
		l.open(ctx, us, "/v1/nodes?index=1000000&wait=5m", false)
		l.open(ctx, eu, "/v1/jobs?index=1000000&wait=5m&region=us", false)
	}
	l.await(t, 50)

	took := us.stop()
	t.Logf("us stopped in %s", took.Round(time.Millisecond))
	if took > stopBound || us.err != nil {
		t.Errorf("it took %s and ended with %v; want at most %s, and success", took, us.err, stopBound)
	}
	log, _ := os.ReadFile(us.log)
	var order []string
	for _, m := range stoppedPart.FindAllStringSubmatch(string(log), -1) {
		order = append(order, m[1])
	}
	if got := strings.Join(order, " "); got != "http client server telemetry" {
		t.Errorf("its parts stopped in the order %s", got)
	}
	// Whoever asked at the other region has an answer too.
	ended := make(chan struct{})
	go func() { l.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Errorf("%d requests are still open 5 s later", l.busy.Load())
	}

	// Its tasks go on, and the next agent finds them.
	for _, file := range []string{talk, deaf} {
		if pids := startsIn(file); len(pids) != 1 || !alive(pids[0]) {
			t.Errorf("%s was started as %v and runs no more", filepath.Base(file), pids)
		}
	}
	us.start()
	awaitRegions(t, eu, "eu", "us")
	for id, file := range map[string]string{"talk": talk, "deaf": deaf} {
		awaitAllocs(t, eu, "us", id, "running", 1)
		if pids := startsIn(file); len(pids) != 1 || !alive(pids[0]) {
			t.Errorf("after the restart %s was started as %v", id, pids)
		}
	}
}

func TestADevelopmentAgentTakesItsTasksAndDataWithIt(t *testing.T) {
	w := newWorld(t)
	temp := filepath.Join(w.dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	dev := w.process(&agent{host: &host{w: w, ip: "127.0.0.1"}, name: "dev", args: []string{"-dev"}, http: 4646})
	awaitRegions(t, dev, "dev", "global")

	pids := filepath.Join(w.dir, "pids")
	for id, script := range map[string]string{
		"polite": "exec sleep 1000",
		"deaf":   "trap '' TERM INT; while true; do sleep 1; done",
		"parent": "sleep 1000 & wait",
	} {
		if _, _, err := w.client(dev).Jobs().Register(service(id, "global", noteStart(pids)+script), nil); err != nil {
			t.Fatal(err)
		}
		awaitAllocs(t, dev, "global", id, "running", 1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var l load
	for range 10 {
		l.open(ctx, dev, "/v1/jobs?index=1000000&wait=5m", false)
	}
	l.await(t, 10)

	took := dev.stop()
	t.Logf("the agent stopped in %s", took.Round(time.Millisecond))
	if took > stopBound || dev.err != nil {
		t.Errorf("it took %s and ended with %v; want at most %s, and success", took, dev.err, stopBound)
	}
	started := startsIn(pids)
	if len(started) != 3 {
		t.Fatalf("the tasks were started as %v", started)
	}
	for _, pid := range started {
		if alive(pid) {
			t.Errorf("process %s still runs", pid)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if running := w.processesUnder(temp); len(running) > 0 {
		t.Errorf("processes %v run in its directory", running)
	}
	l.wg.Wait()
}
