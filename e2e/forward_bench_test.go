//go:build bench

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"atoll/internal/relay"
)

// freePorts returns ports that nobody listens on.
func freePorts(b *testing.B, n int) (ports []int) {
	b.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// startServer starts a server of a region of one, which others reach by way of a
// link, unless that is nil, and which joins the gossip at join, unless that is 0.
func startServer(b *testing.B, region string, link *relay.Link, join int) (a *devAgent, serf int) {
	b.Helper()
	bin := os.Getenv("ATOLL_BIN")
	if bin == "" {
		b.Fatal("ATOLL_BIN is not set: run these with make bench")
	}
	p := freePorts(b, 3)
	rpc := fmt.Sprintf("127.0.0.1:%d", p[1])
	if link != nil {
		r, err := relay.New("127.0.0.1:0", rpc, *link)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(r.Close)
		rpc = r.Addr()
	}
	conf := fmt.Sprintf("region = %q\nname = %q\ndata_dir = %q\nlog_level = \"WARN\"\nports {\n http = %d\n rpc = %d\n serf = %d\n}\nadvertise {\n rpc = %q\n}\nserver {\n enabled = true\n bootstrap_expect = 1\n",
		region, region, b.TempDir(), p[0], p[1], p[2], rpc)
	if join > 0 {
		conf += fmt.Sprintf(" server_join {\n retry_join = [\"127.0.0.1:%d\"]\n retry_interval = \"1s\"\n }\n", join)
	}
	file := filepath.Join(b.TempDir(), "agent.hcl")
	if err := os.WriteFile(file, []byte(conf+"}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	a = &devAgent{url: fmt.Sprintf("http://127.0.0.1:%d", p[0]), done: make(chan struct{})}
	a.cmd = exec.Command(bin, "agent", "-config", file)
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	a.run(b)
	a.until(b, "/v1/status/leader", hasLeader)
	return a, p[2]
}

// request is what callers repeat.
type request struct {
	client *http.Client
	make   func() (*http.Request, error)
}

func (r *request) once() error {
	req, err := r.make()
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return err
}

// press has callers repeat a request for a while, each as fast as it is answered
// or, when every is set, all of them together one each that long. It returns how
// long each took.
func press(b *testing.B, r *request, callers int, last, every time.Duration) (took []time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var slot atomic.Int64
	begun := time.Now()
	for range callers {
		wg.Go(func() {
			var mine []time.Duration
			for time.Since(begun) < last {
				start := time.Now()
				if every > 0 {
					// What waits for its turn too long is late by that.
					start = begun.Add(time.Duration(slot.Add(1)) * every)
					time.Sleep(time.Until(start))
				}
				if err := r.once(); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

// contest is what many turns came to.
type contest struct {
	p50, p99, rate []float64
	// calls took processor time of agents and callers in all.
	calls     int
	processor time.Duration
}

// turn has callers repeat a request, and adds what came of it.
func (m *contest) turn(b *testing.B, r *request, callers int, last, every time.Duration, agents ...*devAgent) {
	b.Helper()
	before := spent(b, agents)
	took := press(b, r, callers, last, every)
	m.processor += spent(b, agents) - before
	m.calls += len(took)
	m.p50 = append(m.p50, ms(took[len(took)/2]))
	m.p99 = append(m.p99, ms(took[len(took)*99/100]))
	m.rate = append(m.rate, float64(len(took))/last.Seconds())
}

// each is the processor time of one call, in microseconds.
func (m *contest) each() float64 { return float64(m.processor.Microseconds()) / float64(m.calls) }

// spent is the processor time that agents and this process took so far.
func spent(b *testing.B, agents []*devAgent) (all time.Duration) {
	b.Helper()
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		b.Fatal(err)
	}
	all = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for _, a := range agents {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		// Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second. The second
		// is the program's name, and may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] {
			n, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			all += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return all
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// BenchmarkForward holds a read and a write that are for another region against
// the same at a server of that region: turn by turn, so that both meet the same
// machine. On one machine a forwarded call costs the processor twice the HTTP and
// the RPC of a local one; what it costs in all (cpu-ratio) is to be had on a machine
// that does other things too.
func BenchmarkForward(b *testing.B) {
	const turn, turns = 700 * time.Millisecond, 7
	for _, delay := range []time.Duration{0, 10 * time.Millisecond} {
		var link *relay.Link
		if delay > 0 {
			link = &relay.Link{Delay: delay}
		}
		b.Run(fmt.Sprintf("delay=%s", delay), func(b *testing.B) {
			eu, serf := startServer(b, "eu", link, 0)
			us, _ := startServer(b, "us", nil, serf)
			us.until(b, "/v1/jobs?region=eu", func(status int, _ string) bool { return status == http.StatusOK })
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
			defer client.CloseIdleConnections()
			var n atomic.Int64
			job := func(id string) []byte {
				return fmt.Appendf(nil, `{"Job": {"ID": %q, "TaskGroups": [{"Name": "g", "Count": 0, "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}]}]}}`, id)
			}
			at := func(a *devAgent, kind string) *request {
				return &request{client, func() (*http.Request, error) {
					if kind == "read" {
						return http.NewRequest("GET", a.url+"/v1/job/there?region=eu", nil)
					}
					return http.NewRequest("PUT", a.url+"/v1/jobs?region=eu", bytes.NewReader(job(fmt.Sprintf("w-%d", n.Add(1)))))
				}}
			}
			there := &request{client, func() (*http.Request, error) {
				return http.NewRequest("PUT", us.url+"/v1/jobs?region=eu", bytes.NewReader(job("there")))
			}}
			if err := there.once(); err != nil {
				b.Fatal(err)
			}
			for _, kind := range []string{"read", "write"} {
				saturated := 0.0
				for _, load := range []string{"1", "16", "64", "30%"} {
					b.Run(kind+"/callers="+load, func(b *testing.B) {
						for b.Loop() {
							callers, every := 64, time.Duration(0)
							if load == "30%" {
								// Enough for the rate to be had over the link.
								callers, every = 256, time.Duration(float64(time.Second)/(0.3*saturated))
							} else if _, err := fmt.Sscan(load, &callers); err != nil {
								b.Fatal(err)
							}
							var local, far contest
							for range turns {
								local.turn(b, at(eu, kind), callers, turn, every, eu, us)
								far.turn(b, at(us, kind), callers, turn, every, eu, us)
							}
							rate := median(local.rate)
							if load == "64" {
								saturated = rate
							}
							b.ReportMetric(0, "ns/op")
							b.ReportMetric(rate, "local/s")
							b.ReportMetric(median(far.rate), "far/s")
							b.ReportMetric(median(far.rate)/rate, "rate-ratio")
							b.ReportMetric(median(local.p50), "local-p50-ms")
							b.ReportMetric(median(far.p50), "far-p50-ms")
							b.ReportMetric((median(far.p50)-ms(2*delay))/median(local.p50), "p50-ratio")
							b.ReportMetric(local.each(), "local-cpu-µs")
							b.ReportMetric(far.each(), "far-cpu-µs")
							b.ReportMetric(local.each()/far.each(), "cpu-ratio")
							b.ReportMetric(median(local.p99), "local-p99-ms")
							b.ReportMetric(median(far.p99), "far-p99-ms")
						}
					})
				}
			}
			if b.Failed() {
				b.Log(strings.Join([]string{eu.log.String(), us.log.String()}, "\n"))
			}
		})
	}
}
