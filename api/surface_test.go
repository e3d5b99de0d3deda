package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-metrics"
	"go.uber.org/goleak"

	"atoll/api"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region"
	"atoll/rpc"
)

// Memberlist does not wait for the probe that is under way when it is shut down;
// that ends by itself within a second or two.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// surface is a region's server, without a node, and its HTTP surface.
type surface struct {
	*region.Server
	t    testing.TB
	url  string
	api  *api.API
	serf string
	web  *http.Client
	stop func()
}

// newSurface starts a region of one server and waits for its leader.
func newSurface(t testing.TB, name string, join ...string) *surface {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &surface{t: t, serf: freeport.Addr(t)}
	s.Server, err = region.New(region.Config{
		Name: name + "-1", Region: name, Datacenter: "dc1", DataDir: t.TempDir(), RPC: l, AdvertiseRPC: l.Addr().String(),
		BindSerf: s.serf, AdvertiseSerf: s.serf, Expect: 1, Join: join, JoinInterval: time.Second, Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func() bool { return false }) }()
	s.api = api.New(api.Config{
		Region: name, Datacenter: "dc1", Name: name + "-1", Version: "test", Caller: s.RPC(), Server: s.Server,
		Shown: map[string]any{"Region": name}, Metrics: metrics.NewInmemSink(time.Second, time.Minute),
	})
	server := httptest.NewUnstartedServer(s.api)
	// Requests that wait end with the surface.
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	s.url, s.web = server.URL, &http.Client{Transport: &http.Transport{DisableCompression: true}}
	s.stop = func() {
		cancel()
		s.web.CloseIdleConnections()
		server.Close()
		<-done
		s.stop = func() {}
	}
	t.Cleanup(func() { s.stop() })
	wait(t, "the leader of "+name, func() error {
		if !s.IsLeader() {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	return s
}

func wait(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// answer is an HTTP answer, read whole.
type answer struct {
	status int
	http.Header
	body string
}

// index is the answer's X-Nomad-Index.
func (a *answer) index() uint64 {
	n, _ := strconv.ParseUint(a.Get("X-Nomad-Index"), 10, 64)
	return n
}

// do makes a request; body is JSON's source, a string sent as it is, or nil.
func (s *surface) do(verb, path string, body any, header ...string) *answer {
	s.t.Helper()
	a, err := s.try(s.t.Context(), verb, path, body, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *surface) try(ctx context.Context, verb, path string, body any, header ...string) (*answer, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		src, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(src)
	}
	req, err := http.NewRequestWithContext(ctx, verb, s.url+path, r)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &answer{resp.StatusCode, resp.Header, string(b)}, err
}

// get reads a path's JSON.
func get[T any](s *surface, path string) (out T, a *answer) {
	s.t.Helper()
	a = s.do("GET", path, nil)
	if a.status != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		s.t.Fatalf("GET %s: %v: %s", path, err, a.body)
	}
	return out, a
}

type object = map[string]any

// aJob is a job's JSON as clients send it, changed by whatever follows.
func aJob(id string, more ...object) object {
	job := object{
		"ID": id, "Datacenters": []string{"dc1"}, "TaskGroups": []object{{
			"Name": "g", "Count": 1, "Tasks": []object{{"Name": "t", "Driver": "mock", "Resources": object{"CPU": 10, "MemoryMB": 10}, "LogConfig": object{"MaxFiles": 1, "MaxFileSizeMB": 1}}},
		}},
	}
	for _, m := range more {
		for k, v := range m {
			job[k] = v
		}
	}
	return job
}

// register registers a job and returns the answer.
func (s *surface) register(job object) *answer {
	s.t.Helper()
	a := s.do("PUT", "/v1/jobs", object{"Job": job})
	if a.status != http.StatusOK {
		s.t.Fatalf("register: %d %s", a.status, a.body)
	}
	return a
}

// addNode registers a node that can run mock tasks, as its agent would.
func (s *surface) addNode() *model.Node {
	s.t.Helper()
	n := &model.Node{
		ID: model.NewUUID(nil).String(), Name: "n1", Datacenter: "dc1", NodePool: model.NodePoolDefault,
		Attributes: map[string]string{"kernel.name": "linux"}, Drivers: map[string]*model.DriverInfo{"mock": {Detected: true, Healthy: true}},
		NodeResources: &model.NodeResources{
			Cpu: model.NodeCpuResources{CpuShares: 1000}, Memory: model.NodeMemoryResources{MemoryMB: 1000}, Disk: model.NodeDiskResources{DiskMB: 10_000},
		},
	}
	secret := model.NewUUID(nil).String()
	// A leader takes nodes once its term's loops run; nodes try until then.
	wait(s.t, "a node's registration", func() error {
		_, err := rpc.Call(s.t.Context(), s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
		return err
	})
	return n
}
