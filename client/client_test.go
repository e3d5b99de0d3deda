package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/drivers/mock"
	"atoll/drivers/rawexec"
	"atoll/internal/shim"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// The test's own binary is the shim of its tasks.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

// fakeServer answers a node as a region's server does, out of a list that the
// test writes.
type fakeServer struct {
	rpc  *rpc.Server
	addr string

	mu      sync.Mutex
	changed chan struct{}
	index   uint64
	allocs  map[string]*model.Allocation
	updates map[string]*model.AllocUpdate
	nodes   map[string]*model.Node
	pulls   int
	// deaf takes neither registrations nor heartbeats, mute no reports.
	deaf, mute bool
	// asks has heartbeats answered with the wish for a report.
	asks bool
	// hasty answers a query at once, whatever its index.
	hasty bool
}

type local struct{}

func (local) Region() string { return "reef" }
func (local) Route(context.Context, *rpc.Envelope, method.Spec) (rpc.Decision, error) {
	return rpc.Decision{Local: true}, nil
}
func (local) Report(string, string, error, time.Duration) {}
func (local) Leads(string, string)                        {}

func (local) Unreachable(region string, cause error) *model.Error {
	return model.Errorf(model.KindUnreachable, "%v", cause)
}

func newFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	s := &fakeServer{
		rpc: rpc.NewServer(rpc.ServerConfig{Router: local{}}), changed: make(chan struct{}), index: 10,
		allocs: map[string]*model.Allocation{}, updates: map[string]*model.AllocUpdate{}, nodes: map[string]*model.Node{},
	}
	rpc.Handle(s.rpc, method.NodeRegister, func(_ context.Context, _ *rpc.Inbound, q *method.NodeRegisterRequest) (*method.NodeHeartbeatResponse, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.deaf {
			return nil, model.Errorf(model.KindNoLeader, "no leader")
		}
		s.nodes[q.Node.ID] = q.Node
		return s.beat(), nil
	})
	rpc.Handle(s.rpc, method.NodeHeartbeat, func(_ context.Context, _ *rpc.Inbound, q *method.NodeHeartbeatRequest) (*method.NodeHeartbeatResponse, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.deaf {
			return nil, model.Errorf(model.KindNoLeader, "no leader")
		}
		if s.nodes[q.NodeID] == nil {
			return &method.NodeHeartbeatResponse{}, nil
		}
		return s.beat(), nil
	})
	rpc.Handle(s.rpc, method.NodePullAllocs, s.pull)
	rpc.Handle(s.rpc, method.NodeUpdate, func(_ context.Context, _ *rpc.Inbound, q *method.NodeUpdateAllocsRequest) (*method.IndexResponse, error) {
		var err error
		s.change(func() {
			if s.mute {
				err = model.Errorf(model.KindNoLeader, "no leader")
				return
			}
			for _, u := range q.Updates {
				s.updates[u.ID] = u
			}
		})
		return &method.IndexResponse{}, err
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ln := rpc.NewListener(l, l.Addr(), rpc.DialTCP, rpc.Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = ln.Serve(ctx, s.rpc.ServeConn) })
	t.Cleanup(func() {
		_ = s.rpc.Shutdown(context.Background())
		cancel()
		serving.Wait()
	})
	return s
}

func (s *fakeServer) beat() *method.NodeHeartbeatResponse {
	return &method.NodeHeartbeatResponse{TTL: time.Second, Registered: true, Servers: []string{s.addr}, Regions: map[string][]string{"reef": {s.addr}}, Report: s.asks}
}

func (s *fakeServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeServer) pull(ctx context.Context, _ *rpc.Inbound, q *method.NodeAllocsRequest) (*method.NodeAllocsResponse, error) {
	for {
		s.mu.Lock()
		if s.index > q.MinIndex || s.hasty {
			s.hasty = false
			out := &method.NodeAllocsResponse{Indexes: map[string]uint64{}}
			out.Index = s.index
			for id, a := range s.allocs {
				out.Indexes[id] = a.AllocModifyIndex
				if a.AllocModifyIndex > q.MinIndex {
					out.Changed = append(out.Changed, a)
				}
			}
			s.pulls++
			s.mu.Unlock()
			return out, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// place gives the node an allocation of a job, or the changed one.
func (s *fakeServer) place(a *model.Allocation, f func(*model.Allocation)) {
	s.change(func() {
		s.index++
		next := *a
		if f != nil {
			f(&next)
		}
		next.AllocModifyIndex = s.index
		s.allocs[a.ID] = &next
	})
}

// await waits until the reported state of an allocation satisfies ok.
func (s *fakeServer) await(t testing.TB, id, what string, ok func(*model.AllocUpdate) bool) *model.AllocUpdate {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		s.mu.Lock()
		u, changed := s.updates[id], s.changed
		s.mu.Unlock()
		if u != nil && ok(u) {
			return u
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the allocation is not %s after 15 s: %+v %+v", what, u, u.TaskStates)
		}
	}
}

func (s *fakeServer) awaitStatus(t testing.TB, id, status string) *model.AllocUpdate {
	t.Helper()
	return s.await(t, id, status, func(u *model.AllocUpdate) bool { return u.ClientStatus == status })
}

// node is a running client.
type node struct {
	*Client
	stop func()
}

func startNode(t testing.TB, s *fakeServer, dir string, change func(*Config)) *node {
	t.Helper()
	cfg := Config{
		Name: "n1", Region: "reef", Datacenter: "dc1", NodePool: "default", StateDir: filepath.Join(dir, "client"), AllocDir: filepath.Join(dir, "alloc"),
		Servers: []string{s.addr}, Address: "127.0.0.1", Meta: map[string]string{"rack": "r7"}, Log: hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
		Drivers: []Installed{
			{mock.Kind, mock.New()},
			{rawexec.Kind, rawexec.New(rawexec.Config{Enabled: true, Shim: []string{os.Args[0], "shim"}, Environ: []string{"PATH=/usr/bin:/bin"}})},
		},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	n := &node{Client: c, stop: sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the node did not stop within 10 s")
		}
	})}
	t.Cleanup(n.stop)
	return n
}

func newAlloc(jobType string, tasks ...*model.Task) *model.Allocation {
	id := model.NewUUID(nil).String()
	job := &model.Job{ID: "web", Region: "reef", Type: jobType, Meta: map[string]string{"owner": "ops"}, TaskGroups: []*model.TaskGroup{{Name: "front", Count: 1, Tasks: tasks,
		RestartPolicy: &model.RestartPolicy{Attempts: 1, Interval: time.Minute, Delay: 10 * time.Millisecond, Mode: model.RestartModeFail}}}}
	for _, t := range tasks {
		t.KillTimeout = 2 * time.Second
	}
	job.Canonicalize()
	a := &model.Allocation{
		ID: id, Name: "web.front[3]", JobID: "web", Namespace: "default", TaskGroup: "front", Job: job,
		DesiredStatus: model.AllocDesiredRun, ClientStatus: model.AllocClientPending, AllocatedResources: job.TaskGroups[0].AllocatedResources(),
	}
	return a
}

func shell(name, script string) *model.Task {
	return &model.Task{Name: name, Driver: "raw_exec", Config: map[string]any{"command": "/bin/sh", "args": []any{"-c", script}}}
}

func mocked(name string, config map[string]any) *model.Task {
	return &model.Task{Name: name, Driver: "mock_driver", Config: config}
}

func events(u *model.AllocUpdate, task string) string {
	var out []string
	for _, e := range u.TaskStates[task].Events {
		out = append(out, e.Type)
	}
	return strings.Join(out, ", ")
}

func TestANodeRegistersWithWhatItsMachineHas(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), nil)
	var seen *model.Node
	for seen == nil {
		s.mu.Lock()
		seen = s.nodes[n.NodeID()]
		s.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	for _, key := range []string{"arch", "cpu.numcores", "cpu.totalcompute", "kernel.name", "kernel.version", "memory.totalbytes", "unique.hostname", "driver.raw_exec", "driver.mock_driver", "nomad.version"} {
		if seen.Attributes[key] == "" {
			t.Errorf("attribute %s is missing", key)
		}
	}
	r := seen.NodeResources
	if r.Cpu.CpuShares <= 0 || r.Memory.MemoryMB <= 0 || r.Disk.DiskMB <= 0 || seen.Meta["rack"] != "r7" || !seen.Drivers["raw_exec"].Healthy {
		t.Errorf("node %+v, resources %+v", seen, r)
	}
}

func TestABatchTaskRunsToItsEnd(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	a := newAlloc(model.JobTypeBatch, shell("main", "exit 0"))
	s.place(a, nil)
	u := s.awaitStatus(t, a.ID, model.AllocClientComplete)
	if got := events(u, "main"); got != "Received, Task Setup, Started, Terminated" {
		t.Errorf("events %s", got)
	}
	st := u.TaskStates["main"]
	if st.Failed || st.State != model.TaskStateDead || st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
		t.Errorf("state %+v", st)
	}
}

func TestATaskThatFailsIsRestartedThenGivenUpAndTakesItsSiblingsAlong(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	a := newAlloc(model.JobTypeService, shell("bad", "exit 3"), mocked("good", nil))
	s.place(a, nil)
	u := s.await(t, a.ID, "failed and over", func(u *model.AllocUpdate) bool {
		return u.ClientStatus == model.AllocClientFailed && u.TaskStates["good"].State == model.TaskStateDead
	})
	if got := events(u, "bad"); got != "Received, Task Setup, Started, Terminated, Restarting, Task Setup, Started, Terminated, Not Restarting" {
		t.Errorf("events of the failing task: %s", got)
	}
	bad, good := u.TaskStates["bad"], u.TaskStates["good"]
	if !bad.Failed || bad.Restarts != 1 || good.Failed || !strings.Contains(events(u, "good"), "Sibling Task Failed") {
		t.Errorf("bad %+v, good %+v with %s", bad, good, events(u, "good"))
	}
}

func TestAStartThatFailsSaysWhy(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	a := newAlloc(model.JobTypeBatch, &model.Task{Name: "main", Driver: "raw_exec", Config: map[string]any{"command": "/no/such"}})
	a.Job.TaskGroups[0].Tasks[0].RestartPolicy.Attempts = 0
	s.place(a, nil)
	u := s.awaitStatus(t, a.ID, model.AllocClientFailed)
	found := false
	for _, e := range u.TaskStates["main"].Events {
		found = found || e.Type == model.TaskDriverFailure && strings.Contains(e.DisplayMessage, "/no/such")
	}
	if !found {
		t.Errorf("no event tells of /no/such: %s", events(u, "main"))
	}
}

func TestAnAllocationThatIsToStopIsStopped(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	a := newAlloc(model.JobTypeService, shell("main", "exec sleep 66"))
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	s.place(a, func(a *model.Allocation) { a.DesiredStatus = model.AllocDesiredStop })
	u := s.awaitStatus(t, a.ID, model.AllocClientComplete)
	if got := events(u, "main"); !strings.HasSuffix(got, "Started, Killing, Killing, Terminated, Killed") {
		t.Errorf("events %s", got)
	}
}

func TestALeadersEndEndsTheGroup(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	leader := mocked("leader", map[string]any{"run_for": "50ms"})
	leader.Leader = true
	a := newAlloc(model.JobTypeBatch, leader, mocked("helper", nil))
	s.place(a, nil)
	u := s.awaitStatus(t, a.ID, model.AllocClientComplete)
	if got := events(u, "helper"); !strings.Contains(got, "Leader Task Dead") {
		t.Errorf("events of the helper: %s", got)
	}
}

// A task notes its starts in a file outside its directories.
func counting(t *testing.T) (script, file string) {
	file = filepath.Join(t.TempDir(), "starts")
	return fmt.Sprintf("echo $$ >>%s; exec sleep 67", file), file
}

func starts(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func TestARestartedNodeFindsItsTasksAndStartsNoneTwice(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	script, file := counting(t)
	first := startNode(t, s, dir, nil)
	a := newAlloc(model.JobTypeService, shell("main", script))
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	id := first.NodeID()
	first.stop()
	for range 2 {
		s.change(func() { delete(s.updates, a.ID) })
		again := startNode(t, s, dir, nil)
		s.await(t, a.ID, "restored", func(u *model.AllocUpdate) bool {
			return u.ClientStatus == model.AllocClientRunning && strings.Contains(events(u, "main"), "Restored")
		})
		if again.NodeID() != id {
			t.Errorf("the node is %s now, was %s", again.NodeID(), id)
		}
		if got := starts(t, file); len(got) != 1 {
			t.Fatalf("the task was started %d times: %v", len(got), got)
		}
		again.stop()
	}
	last := startNode(t, s, dir, nil)
	s.place(a, func(a *model.Allocation) { a.DesiredStatus = model.AllocDesiredStop })
	s.awaitStatus(t, a.ID, model.AllocClientComplete)
	last.stop()
}

func TestANodeThatDiedWhileStartingFindsOut(t *testing.T) {
	// The record says that the driver was called, not what it answered.
	for _, started := range []bool{true, false} {
		t.Run(fmt.Sprintf("started %v", started), func(t *testing.T) {
			s := newFakeServer(t)
			dir := t.TempDir()
			script, file := counting(t)
			n := startNode(t, s, dir, nil)
			a := newAlloc(model.JobTypeService, shell("main", script))
			s.place(a, nil)
			s.awaitStatus(t, a.ID, model.AllocClientRunning)
			rec := *n.runner(a.ID).tasks[0].rec
			n.stop()
			want := 1
			if !started {
				// An attempt whose driver never got to act.
				rec.Attempt++
				want = 2
				defer func(h []byte) {
					_ = rawexec.New(rawexec.Config{}).Destroy(context.Background(), h)
				}(rec.Handle)
			}
			rec.Handle = nil
			db, err := openStore(filepath.Join(dir, "client"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.putTask(a.ID, "main", &rec), db.close()); err != nil {
				t.Fatal(err)
			}
			s.change(func() { delete(s.updates, a.ID) })
			again := startNode(t, s, dir, func(c *Config) { c.StopTasks = true })
			s.await(t, a.ID, "settled", func(u *model.AllocUpdate) bool {
				e := u.TaskStates["main"].Events
				return u.ClientStatus == model.AllocClientRunning && (e[len(e)-1].Type == model.TaskRestored) == started && len(starts(t, file)) >= want
			})
			if got := starts(t, file); len(got) != want {
				t.Errorf("the task was started %d times: %v; want %d", len(got), got, want)
			}
			again.stop()
		})
	}
}

func TestADevNodeStopsItsTasksWithItself(t *testing.T) {
	s := newFakeServer(t)
	script, file := counting(t)
	n := startNode(t, s, t.TempDir(), func(c *Config) { c.StopTasks = true })
	a := newAlloc(model.JobTypeService, shell("main", script))
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	n.stop()
	pid := starts(t, file)[0]
	if b, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(b) > 0 {
		t.Errorf("process %s still runs %q", pid, b)
	}
}

func TestAnOlderAnswerStopsNothing(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), func(c *Config) { c.StopTasks = true })
	a := newAlloc(model.JobTypeService, mocked("main", nil))
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	// A server that lags behind, and does not have the allocation yet.
	var pulls int
	s.change(func() {
		pulls = s.pulls
		s.index, s.hasty = s.index-1, true
		delete(s.allocs, a.ID)
	})
	for range 1000 {
		s.mu.Lock()
		now := s.pulls
		s.mu.Unlock()
		if now > pulls+1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n.runner(a.ID).terminal() {
		t.Fatal("the allocation was stopped by an answer older than itself")
	}
	s.change(func() { s.index += 5 })
	s.awaitStatus(t, a.ID, model.AllocClientComplete)
}

func TestTheServersForgetAndTheFilesGo(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	n := startNode(t, s, dir, nil)
	a := newAlloc(model.JobTypeService, mocked("main", nil))
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	s.change(func() { delete(s.allocs, a.ID); s.index++ })
	for range 1000 {
		if n.runner(a.ID) == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := os.Stat(filepath.Join(dir, "alloc", a.ID)); !errors.Is(err, os.ErrNotExist) || n.runner(a.ID) != nil {
		t.Errorf("the files are still there: %v", err)
	}
}

func TestOnlyTheNewestEndedAreKept(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	startNode(t, s, dir, func(c *Config) { c.KeepEnded = 2 })
	var ids []string
	for range 4 {
		a := newAlloc(model.JobTypeBatch, mocked("main", map[string]any{"run_for": "1ms"}))
		ids = append(ids, a.ID)
		s.place(a, nil)
		s.awaitStatus(t, a.ID, model.AllocClientComplete)
	}
	var left []string
	for range 1000 {
		left = nil
		for _, id := range ids {
			if _, err := os.Stat(filepath.Join(dir, "alloc", id)); err == nil {
				left = append(left, id)
			}
		}
		if len(left) == 2 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(left) != 2 || left[0] != ids[2] || left[1] != ids[3] {
		t.Errorf("kept %v of %v; want the last two", left, ids)
	}
}

func TestAForgottenNodeRegistersAnew(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), nil)
	for range 2 {
		ok := false
		for range 1000 {
			s.mu.Lock()
			if ok = s.nodes[n.NodeID()] != nil; ok {
				delete(s.nodes, n.NodeID())
			}
			s.mu.Unlock()
			if ok {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if !ok {
			t.Fatal("the node is not registered after 5 s")
		}
	}
}

func TestLogsAreFollowedToTheTasksEnd(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), func(c *Config) { c.StopTasks = true })
	task := shell("main", "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); sleep 0.02; done")
	a := newAlloc(model.JobTypeBatch, task)
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	var got strings.Builder
	err := n.logs(t.Context(), nil, &method.LogsRequest{AllocID: a.ID, Task: "main", Type: "stdout", Follow: true}, func(f *method.LogFrame) error {
		got.Write(f.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 20 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if got.String() != want.String() {
		t.Errorf("read %q", got.String())
	}
	for _, c := range []struct {
		req  method.LogsRequest
		kind model.Kind
	}{
		{method.LogsRequest{AllocID: "nope", Task: "main", Type: "stdout"}, model.KindNotFound},
		{method.LogsRequest{AllocID: a.ID, Task: "nope", Type: "stdout"}, model.KindNotFound},
		{method.LogsRequest{AllocID: a.ID, Task: "main", Type: "stdin"}, model.KindInvalid},
		{method.LogsRequest{AllocID: a.ID, Task: "main", Type: "stdout", Origin: "middle"}, model.KindInvalid},
		{method.LogsRequest{AllocID: a.ID, Task: "main", Type: "stdout", Offset: -1}, model.KindInvalid},
	} {
		if err := n.logs(t.Context(), nil, &c.req, nil); model.KindOf(err) != c.kind {
			t.Errorf("%+v: error %v of kind %v, want %v", c.req, err, model.KindOf(err), c.kind)
		}
	}
}

func TestFiftyStartsAndStopsLeaveNothing(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	a := newAlloc(model.JobTypeService, mocked("main", nil))
	s.place(a, nil)
	for range 50 {
		s.change(func() { delete(s.updates, a.ID) })
		n := startNode(t, s, dir, nil)
		s.await(t, a.ID, "reported", func(*model.AllocUpdate) bool { return true })
		n.stop()
	}
}
