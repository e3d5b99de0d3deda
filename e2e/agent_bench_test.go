//go:build bench

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shirou/gopsutil/v4/process"
)

// These measure the real binary, on loopback, as a person who tries it out has
// it. One iteration is a series of runs; the figures are of the series:
//
//	make build && ATOLL_BIN=$PWD/bin/atoll go test -tags bench -run '^$' -bench . -benchtime 1x ./e2e

// runs is how often each thing is measured in a series.
const runs = 20

// devAgent is an "atoll agent -dev".
type devAgent struct {
	cmd  *exec.Cmd
	url  string
	log  bytes.Buffer
	done chan struct{}
	// stopped is true once it was told to.
	stopped bool
}

func startDev(b *testing.B) *devAgent {
	b.Helper()
	bin := os.Getenv("ATOLL_BIN")
	if bin == "" {
		b.Fatal("ATOLL_BIN is not set: run these with make bench")
	}
	var ports [3]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	args := []string{"agent", "-dev", "-log-level", "WARN", "-data-dir", b.TempDir()}
	for i, name := range []string{"-http-port", "-rpc-port", "-serf-port"} {
		args = append(args, name, fmt.Sprint(ports[i]))
	}
	a := &devAgent{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), done: make(chan struct{})}
	a.cmd = exec.Command(bin, args...)
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	return a
}

// run starts the process; the listeners that found its ports are closed by now.
func (a *devAgent) run(b *testing.B) {
	b.Helper()
	if err := a.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = a.cmd.Wait()
		close(a.done)
	}()
	// A benchmark that fails stops nothing itself.
	b.Cleanup(func() { a.stop(b) })
}

func (a *devAgent) stop(b *testing.B) {
	b.Helper()
	if a.stopped {
		return
	}
	a.stopped = true
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.done:
	case <-time.After(15 * time.Second):
		_ = a.cmd.Process.Kill()
		<-a.done
		b.Errorf("the agent did not stop in 15 s")
	}
	if b.Failed() {
		b.Logf("the agent's log:\n%s", a.log.String())
	}
}

// until asks for a path until ok says that the answer is what is waited for.
func (a *devAgent) until(b *testing.B, path string, ok func(status int, body string) bool) {
	b.Helper()
	last := errors.New("it was never asked")
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		resp, err := http.Get(a.url + path)
		if last = err; err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && ok(resp.StatusCode, string(body)) {
			return
		}
		last = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	b.Fatalf("%s: %v\n%s", path, last, a.log.String())
}

func hasLeader(status int, _ string) bool { return status == http.StatusOK }

func hasReadyNode(_ int, body string) bool { return strings.Contains(body, `"Status":"ready"`) }

// series reports the median and the ends of what was measured.
func series(b *testing.B, name string, of []float64) {
	b.Helper()
	slices.Sort(of)
	b.ReportMetric(of[len(of)/2], name+"-median")
	b.ReportMetric(of[0], name+"-min")
	b.ReportMetric(of[len(of)*9/10], name+"-p90")
	b.ReportMetric(of[len(of)-1], name+"-max")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkStart is from the start of the process until its API answers and its
// region has a leader, and until its node is ready for work.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		var leader, ready []float64
		for range runs {
			a := startDev(b)
			begun := time.Now()
			a.run(b)
			a.until(b, "/v1/status/leader", hasLeader)
			leader = append(leader, ms(time.Since(begun)))
			a.until(b, "/v1/nodes", hasReadyNode)
			ready = append(ready, ms(time.Since(begun)))
			a.stop(b)
		}
		series(b, "leader-ms", leader)
		series(b, "node-ms", ready)
	}
}

// BenchmarkRun is from a job's submit until its raw_exec task has begun, by its
// own clock, and until the API says that it runs, by blocking queries.
func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		a := startDev(b)
		a.run(b)
		a.until(b, "/v1/nodes", hasReadyNode)
		c, err := api.NewClient(&api.Config{Address: a.url})
		if err != nil {
			b.Fatal(err)
		}
		dir := b.TempDir()
		var began, running []float64
		for i := range runs {
			id := fmt.Sprintf("bench-%d", i)
			file := filepath.Join(dir, id)
			job := sleeper(id, file)
			begun := time.Now()
			if _, _, err := c.Jobs().Register(job, nil); err != nil {
				b.Fatal(err)
			}
			if err := untilRunning(c, id); err != nil {
				b.Fatal(err)
			}
			running = append(running, ms(time.Since(begun)))
			// It runs once its process is made; its shell may need longer.
			info, err := os.Stat(file)
			for ; errors.Is(err, os.ErrNotExist); info, err = os.Stat(file) {
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				b.Fatal(err)
			}
			began = append(began, ms(info.ModTime().Sub(begun)))
			// Stopped, so that each meets the same machine.
			if _, _, err := c.Jobs().Deregister(id, true, nil); err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
		a.stop(b)
		series(b, "began-ms", began)
		series(b, "running-ms", running)
	}
}

// sleeper is a job whose task makes a file when it begins.
func sleeper(id, file string) *api.Job {
	j := api.NewServiceJob(id, id, "global", 50)
	task := api.NewTask("main", "raw_exec").SetConfig("command", "/bin/sh").SetConfig("args", []string{"-c", ": > " + file + "; exec sleep 1000"})
	cpu, memory, timeout := 20, 16, time.Second
	task.Require(&api.Resources{CPU: &cpu, MemoryMB: &memory})
	task.KillTimeout = &timeout
	return j.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task))
}

// untilRunning follows a job's allocations.
func untilRunning(c *api.Client, job string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for index := uint64(1); ; {
		allocs, meta, err := c.Jobs().Allocations(job, false, (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("job %s does not run: %w", job, err)
		}
		for _, a := range allocs {
			if a.ClientStatus == "running" {
				return nil
			}
		}
		index = meta.LastIndex
	}
}

// BenchmarkIdle is what a development agent with a ready node, and nothing to do,
// holds of the memory ten seconds later, and takes of the processor meanwhile.
func BenchmarkIdle(b *testing.B) {
	const idle = 10 * time.Second
	for b.Loop() {
		var memory, share []float64
		for range runs / 2 {
			a := startDev(b)
			a.run(b)
			a.until(b, "/v1/nodes", hasReadyNode)
			before := used(b, a)
			timer := time.NewTimer(idle)
			<-timer.C
			p, err := process.NewProcess(int32(a.cmd.Process.Pid))
			if err != nil {
				b.Fatal(err)
			}
			m, err := p.MemoryInfo()
			if err != nil {
				b.Fatal(err)
			}
			memory = append(memory, float64(m.RSS)/(1<<20))
			share = append(share, 100*(used(b, a)-before)/idle.Seconds())
			a.stop(b)
		}
		series(b, "MiB", memory)
		series(b, "%cpu", share)
	}
}

// used is the processor time that the agent took so far, in seconds.
func used(b *testing.B, a *devAgent) float64 {
	b.Helper()
	p, err := process.NewProcess(int32(a.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	t, err := p.Times()
	if err != nil {
		b.Fatal(err)
	}
	return t.User + t.System
}
