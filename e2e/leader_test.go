//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/nomad/api"

	"atoll/model"
)

// The history of one job is that of a register: what a read sees is what was
// registered last, or that it is stopped, or that it was never there.
type jobOp struct {
	verb  string // register, stop or read
	job   string
	value string // of a register
}

const (
	absent  = ""
	stopped = "stopped"
)

var jobRegister = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := make(map[string][]porcupine.Operation)
		for _, op := range history {
			job := op.Input.(jobOp).job
			by[job] = append(by[job], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range by {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return absent },
	Step: func(state, input, output any) (bool, any) {
		in, out, was := input.(jobOp), output.(string), state.(string)
		switch in.verb {
		case "register":
			return true, in.value
		case "stop":
			if was == absent {
				return out == absent, absent
			}
			return out == stopped, stopped
		}
		return out == was, was
	},
	DescribeOperation: func(input, output any) string {
		in := input.(jobOp)
		return fmt.Sprintf("%s %s %s → %q", in.verb, in.job, in.value, output)
	},
}

// cellClient speaks to the servers of a region, to whichever is there.
type cellClient struct {
	servers []*agent
	http    *http.Client
	rng     *rand.Rand
	shape   func(*api.Job) // what a job that it registers is beside a mockJob; may be nil
}

func (c *cellClient) register(j *api.Job) error {
	body, err := json.Marshal(map[string]any{"Job": j})
	if err != nil {
		return err
	}
	status, b, err := c.send("PUT", "/v1/jobs", model.NewRequestID(time.Now(), nil), body)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, b)
	}
	return err
}

// send sends a request with one token to servers in turn until one knows what
// became of it. The answer's status is 200 or 404.
func (c *cellClient) send(method, path, token string, body []byte) (int, []byte, error) {
	var last error
	for begun := time.Now(); time.Since(begun) < 60*time.Second; time.Sleep(10 * time.Millisecond) {
		s := c.servers[c.rng.IntN(len(c.servers))]
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		req, err := http.NewRequest(method, s.url()+path+sep+"idempotency_token="+token, bytes.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		resp, err := c.http.Do(req)
		if err != nil {
			last = err
			continue
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			last = err
			continue
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNotFound {
			return resp.StatusCode, b, nil
		}
		last = fmt.Errorf("%d: %s", resp.StatusCode, b)
		if resp.StatusCode < 500 {
			return 0, nil, last
		}
	}
	return 0, nil, fmt.Errorf("given up after a minute: %w", last)
}

// do carries an operation out and returns what it came to.
func (c *cellClient) do(op jobOp) (string, error) {
	token := model.NewRequestID(time.Now(), nil)
	switch op.verb {
	case "register":
		j := mockJob(op.job)
		j.Meta = map[string]string{"value": op.value}
		if c.shape != nil {
			c.shape(j)
		}
		return op.value, c.register(j)
	case "stop":
		status, _, err := c.send("DELETE", "/v1/job/"+op.job, token, nil)
		if status == http.StatusNotFound {
			return absent, err
		}
		return stopped, err
	}
	status, b, err := c.send("GET", "/v1/job/"+op.job+"?consistent", token, nil)
	if err != nil || status == http.StatusNotFound {
		return absent, err
	}
	var j struct {
		Stop bool
		Meta map[string]string
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return "", err
	}
	if j.Stop {
		return stopped, nil
	}
	return j.Meta["value"], nil
}

func mockJob(id string) *api.Job {
	j := api.NewServiceJob(id, id, "us", 50)
	j.Datacenters = []string{"*"}
	task := api.NewTask("main", "mock_driver")
	cpu, mem := 10, 10
	task.Require(&api.Resources{CPU: &cpu, MemoryMB: &mem})
	files, size := 1, 1
	task.LogConfig = &api.LogConfig{MaxFiles: &files, MaxFileSizeMB: &size}
	g := api.NewTaskGroup("g", 1).AddTask(task)
	disk := 1
	g.EphemeralDisk = &api.EphemeralDisk{SizeMB: &disk}
	j.AddTaskGroup(g)
	return j
}

// tight makes jobs for which there is just room: of a pair, named by odd and even
// numbers, each takes the same port, and half of a node's processor is taken by
// each half of a number of jobs and one more.
func tight(t *testing.T, c *api.Client, jobs int) func(*api.Job) {
	t.Helper()
	nodes, _, err := c.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	share := math.MaxInt
	for _, n := range nodes {
		info, _, err := c.Nodes().Info(n.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		share = min(share, (int(info.NodeResources.Cpu.CpuShares)-int(info.ReservedResources.Cpu.CpuShares))/(jobs/len(nodes)+1))
	}
	return func(j *api.Job) {
		g := j.TaskGroups[0]
		g.Tasks[0].Resources.CPU = &share
		if n, err := strconv.Atoi(strings.TrimPrefix(*j.ID, "j")); err == nil {
			g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "p", Value: 10000 + n/len(nodes)}}}}
		}
	}
}

// cellOfThree is three servers of us on hosts of their own, and two nodes.
func cellOfThree(t testing.TB) (w *world, servers []*agent) {
	w = newWorld(t, "s1", "s2", "s3", "n1")
	hosts := []string{"s1", "s2", "s3"}
	for _, h := range hosts {
		servers = append(servers, w.agent(agentConfig{name: h, host: h, region: "us", server: true, expect: 3, join: hosts}))
	}
	for i, base := range []int{4646, 5646} {
		w.agent(agentConfig{name: fmt.Sprintf("n%d", i+1), host: "n1", region: "us", client: true, servers: hosts, portBase: base, extra: "plugin \"mock_driver\" {\n config {\n enabled = true\n }\n}\n"})
	}
	eventually(t, 60*time.Second, "the cell has a leader and two nodes", func() error {
		nodes, _, err := w.client(servers[0]).Nodes().List(nil)
		if err != nil || len(nodes) != 2 {
			return fmt.Errorf("%d nodes, %v", len(nodes), err)
		}
		return nil
	})
	return w, servers
}

// leaderOf returns the server that leads, nil while there is none.
func leaderOf(servers []*agent) *agent {
	for _, s := range servers {
		status, _, body, err := s.get("/v1/status/leader")
		if err != nil || status != http.StatusOK {
			continue
		}
		for _, l := range servers {
			if strings.HasPrefix(strings.Trim(body, `"`+"\n"), l.host.ip+":") {
				return l
			}
		}
	}
	return nil
}

// number reads a setting of the environment, for runs longer than CI's.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, s)
	}
	return n
}

// TestWritesThroughTheDeathOfLeaders kills the leader again and again under
// writers that never pause. ATOLL_KILLS makes it longer: the budget is measured
// over 200.
func TestWritesThroughTheDeathOfLeaders(t *testing.T) {
	kills := number(t, "ATOLL_KILLS", 30)
	w, servers := cellOfThree(t)
	const writers, jobsEach = 4, 12
	shape := tight(t, w.client(servers[0]), writers*jobsEach)
	var mu sync.Mutex
	var history []porcupine.Operation
	begun := time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var acked atomic.Int64
	for wr := range writers {
		wg.Go(func() {
			c := &cellClient{servers: servers, http: &http.Client{Timeout: 15 * time.Second}, rng: rand.New(rand.NewPCG(7, uint64(wr))), shape: shape}
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// Writers share jobs, so that their operations overlap.
				op := jobOp{verb: "register", job: fmt.Sprintf("j%d", c.rng.IntN(writers*jobsEach)), value: fmt.Sprintf("%d-%d", wr, n)}
				switch r := c.rng.IntN(10); {
				case r < 3:
					op.verb, op.value = "read", ""
				case r < 4:
					op.verb, op.value = "stop", ""
				}
				call := time.Since(begun)
				out, err := c.do(op)
				if err != nil {
					t.Errorf("%+v: %v", op, err)
					return
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: wr, Input: op, Output: out, Call: int64(call), Return: int64(time.Since(begun))})
				mu.Unlock()
				if op.verb != "read" {
					acked.Add(1)
				}
			}
		})
	}
	// A prober of its own measures how long no write is accepted.
	var gaps []time.Duration
	prober := &cellClient{servers: servers, http: &http.Client{Timeout: 15 * time.Second}, rng: rand.New(rand.NewPCG(9, 9)), shape: shape}
	for k := range kills {
		// Between deaths the cell is at work: a run in which little happens
		// says little.
		enough := acked.Load() + 20
		eventually(t, 30*time.Second, "writes are acknowledged", func() error {
			if n := acked.Load(); n < enough {
				return fmt.Errorf("%d of %d are", n, enough)
			}
			return nil
		})
		var leader *agent
		eventually(t, 30*time.Second, "there is a leader to kill", func() error {
			if leader = leaderOf(servers); leader == nil {
				return fmt.Errorf("there is none")
			}
			return nil
		})
		// The servers that are left take the write.
		prober.servers = slices.DeleteFunc(slices.Clone(servers), func(a *agent) bool { return a == leader })
		leader.kill()
		at := time.Now()
		if _, err := prober.do(jobOp{verb: "register", job: "probe", value: fmt.Sprint(k)}); err != nil {
			t.Fatalf("kill %d: %v", k, err)
		}
		gap := time.Since(at)
		gaps = append(gaps, gap)
		if gap > 2*time.Second {
			t.Errorf("kill %d: the next write was accepted after %s", k, gap)
		}
		leader.start()
		eventually(t, 30*time.Second, leader.name+" is back", func() error {
			status, _, body, err := leader.get("/v1/jobs?prefix=probe&stale")
			if err != nil || status != http.StatusOK || !strings.Contains(body, "probe") {
				return fmt.Errorf("%d %s %v", status, body, err)
			}
			return nil
		})
	}
	close(stop)
	wg.Wait()
	var took []time.Duration
	for _, op := range history {
		took = append(took, time.Duration(op.Return-op.Call))
	}
	slices.Sort(took)
	slices.Sort(gaps)
	t.Logf("%d operations: median %s, p90 %s, max %s", len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)*9/10].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	t.Logf("%d kills, %d acknowledged writes; next accepted write after a kill: median %s, p90 %s, p99 %s, max %s", kills, acked.Load(),
		gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)*9/10].Round(time.Millisecond), gaps[len(gaps)*99/100].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
	if result := porcupine.CheckOperationsTimeout(jobRegister, history, 2*time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %s", len(history), result)
	}
	checkPlacements(t, servers[0].w.client(servers[0]))
}

// checkPlacements waits until what runs is what is registered, and sees that
// nothing is placed twice and no node holds more than it has.
func checkPlacements(t *testing.T, c *api.Client) {
	t.Helper()
	eventually(t, 60*time.Second, "what runs is what is registered", func() error {
		jobs, _, err := c.Jobs().List(nil)
		if err != nil {
			return err
		}
		want := make(map[string]bool)
		for _, j := range jobs {
			if !j.Stop && !j.ParameterizedJob {
				want[j.ID] = true
			}
		}
		allocs, _, err := c.Allocations().List(nil)
		if err != nil {
			return err
		}
		live := make(map[string]int)
		for _, a := range allocs {
			if a.DesiredStatus == "run" && a.ClientStatus == "running" {
				live[a.JobID]++
			} else if a.ClientStatus == "running" || a.ClientStatus == "pending" {
				return fmt.Errorf("%s is %s and should %s", a.Name, a.ClientStatus, a.DesiredStatus)
			}
		}
		for id := range want {
			if live[id] != 1 {
				return fmt.Errorf("job %s has %d running allocations", id, live[id])
			}
		}
		if len(live) != len(want) {
			return fmt.Errorf("%d jobs run, %d should", len(live), len(want))
		}
		return nil
	})
	nodes, _, err := c.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		info, _, err := c.Nodes().Info(n.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		allocs, _, err := c.Nodes().Allocations(n.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		cpu, memory, ports := 0, 0, make(map[int]string)
		for _, a := range allocs {
			if a.DesiredStatus != "run" || a.ClientStatus != "running" {
				continue
			}
			for _, task := range a.AllocatedResources.Tasks {
				cpu += int(task.Cpu.CpuShares)
				memory += int(task.Memory.MemoryMB)
			}
			for _, p := range a.AllocatedResources.Shared.Ports {
				if other, taken := ports[p.Value]; taken {
					t.Errorf("on node %s both %s and %s have port %d", n.Name, other, a.Name, p.Value)
				}
				ports[p.Value] = a.Name
			}
		}
		has := info.NodeResources
		if cpu > int(has.Cpu.CpuShares) || memory > int(has.Memory.MemoryMB) {
			t.Errorf("node %s holds %d MHz of %d, and %d MB of %d", n.Name, cpu, has.Cpu.CpuShares, memory, has.Memory.MemoryMB)
		}
		t.Logf("node %s holds %d of %d MHz and %d ports", n.Name, cpu, has.Cpu.CpuShares, len(ports))
	}
}
