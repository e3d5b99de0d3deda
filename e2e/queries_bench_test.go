//go:build bench

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// BenchmarkBlockingQueries holds 10,000 blocking queries open on one server, each
// on a connection of its own: first 100 on each of 100 jobs, of which one is
// changed at a time, and then all on the list of jobs. It measures from the
// moment the change is sent to the moment an answer is read whole (compressed, as
// the official client asks for it). A minute after each crowd went it looks at
// the server: Go's runtime keeps half a kilobyte for each goroutine that there
// was, 10 MB here, and uses it again, so that what stays after the second crowd
// and did not stay after the first would be a leak. The clients are this process;
// both share the machine.
func BenchmarkBlockingQueries(b *testing.B) {
	const jobs, each, rounds = 100, 100, 50
	for b.Loop() {
		s := startServers(b, 1)[0]
		leading(b, []*benchServer{s})
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			// Nothing but what is measured is to change anything.
			_, _, err := s.api.Operator().SchedulerSetConfiguration(&api.SchedulerConfiguration{PauseEvalBroker: true}, nil)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				b.Fatal(err)
			}
		}
		for i := range jobs {
			s.change(b, i, 50)
		}
		s.idle(b)
		look := func(when string) {
			goroutines, heap, rss := s.process(b)
			b.ReportMetric(goroutines, "goroutines-"+when)
			b.ReportMetric(heap/1e6, "heap-MB-"+when)
			b.ReportMetric(rss/1e6, "rss-MB-"+when)
		}
		look("before")

		waiting := openQueries(b, s, jobs*each, func(i int) string { return fmt.Sprintf("/v1/job/j%d", i%jobs) })
		s.idle(b)
		look("waiting")
		var some, writes []time.Duration
		for round := range rounds {
			some = append(some, waiting.woken(b, each, func() {
				begun := time.Now()
				s.change(b, round, 60)
				writes = append(writes, time.Since(begun))
			})...)
		}
		report(b, "some", some)
		report(b, "write", writes)
		waiting.close()
		time.Sleep(time.Minute)
		look("between")

		waiting = openQueries(b, s, jobs*each, func(int) string { return "/v1/jobs" })
		s.idle(b)
		report(b, "all", waiting.woken(b, jobs*each, func() { s.change(b, 0, 70) }))
		waiting.close()
		time.Sleep(time.Minute)
		look("after")
	}
}

func report(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	at := func(part float64) float64 { return ms(took[min(len(took)-1, int(part*float64(len(took))))]) }
	b.ReportMetric(at(0.5), name+"-p50-ms")
	b.ReportMetric(at(0.99), name+"-p99-ms")
	b.ReportMetric(at(1), name+"-max-ms")
}

// change registers a job of a priority.
func (s *benchServer) change(b *testing.B, i, priority int) {
	b.Helper()
	job := api.NewServiceJob(fmt.Sprint("j", i), fmt.Sprint("j", i), "global", priority).AddDatacenter("dc1").
		AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")))
	if _, _, err := s.api.Jobs().Register(job, nil); err != nil {
		b.Fatal(err)
	}
}

// process is what the server says of itself, after it had time to say so, and
// what the system does.
func (s *benchServer) process(b *testing.B) (goroutines, heap, rss float64) {
	b.Helper()
	time.Sleep(22 * time.Second) // two intervals of the metrics
	m, _, err := s.api.Operator().MetricsSummary(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, g := range m.Gauges {
		switch g.Name {
		case "atoll.runtime.goroutines":
			goroutines = float64(g.Value)
		case "atoll.runtime.alloc_bytes":
			heap = float64(g.Value)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(kb)[0], 64)
			rss = n * 1024
		}
	}
	return goroutines, heap, rss
}

// idle waits until the server has next to nothing to do for a second.
func (s *benchServer) idle(b *testing.B) {
	b.Helper()
	used := func() int64 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+2:])
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		return user + system
	}
	for deadline := time.Now().Add(time.Minute); ; {
		before := used()
		time.Sleep(time.Second)
		if used()-before < 10 { // hundredths of a second
			return
		}
		if time.Now().After(deadline) {
			b.Fatal("the server is busy for a minute")
		}
	}
}

// queries are connections that each have a blocking query under way.
type queries struct {
	addr  string
	conns []net.Conn
	done  chan result
	wg    sync.WaitGroup
}

type result struct {
	at  time.Time
	err error
}

// openQueries opens n of them, each for what path says, as of now.
func openQueries(b *testing.B, s *benchServer, n int, path func(int) string) *queries {
	b.Helper()
	q := &queries{addr: strings.TrimPrefix(s.api.Address(), "http://"), conns: make([]net.Conn, n), done: make(chan result, n)}
	_, meta, err := s.api.Jobs().List(nil)
	if err != nil {
		b.Fatal(err)
	}
	few := make(chan struct{}, 64)
	failed := make(chan error, n)
	for i := range n {
		few <- struct{}{}
		q.wg.Go(func() {
			conn, err := net.Dial("tcp", q.addr)
			if err == nil {
				_, err = fmt.Fprintf(conn, "GET %s?index=%d&wait=5m HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n", path(i), meta.LastIndex)
			}
			<-few
			if failed <- err; err != nil {
				return
			}
			q.conns[i] = conn
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			q.done <- result{time.Now(), err}
		})
	}
	for range n {
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
	}
	return q
}

// woken makes a change and returns how long each of the n queries that it
// concerns took from then.
func (q *queries) woken(b *testing.B, n int, change func()) (took []time.Duration) {
	b.Helper()
	begun := time.Now()
	change()
	for range n {
		select {
		case r := <-q.done:
			if r.err != nil {
				b.Fatal(r.err)
			}
			took = append(took, r.at.Sub(begun))
		case <-time.After(30 * time.Second):
			b.Fatalf("%d of %d answers after 30 s", len(took), n)
		}
	}
	if len(q.done) > 0 {
		b.Errorf("%d queries were answered that the change did not concern", len(q.done))
	}
	return took
}

func (q *queries) close() {
	for _, c := range q.conns {
		_ = c.Close()
	}
	q.wg.Wait()
}
