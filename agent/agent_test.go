package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll/agent/config"
	"atoll/internal/freeport"
	"atoll/internal/shim"
)

// The test's own binary is the shim of its tasks.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2]))
	}
	// Memberlist does not wait for the probe that is under way when it is shut
	// down; that ends by itself within a second or two.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// web makes requests that leave no connection.
var web = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// onLoopback is a configuration with free ports and data in dir. Gossip cannot
// say which port it was given, so one is found for it.
func onLoopback(t *testing.T, dir string) *config.Config {
	t.Helper()
	c := config.Default()
	c.Name, c.DataDir, c.LogLevel = "a", dir, "WARN"
	c.Ports = config.Ports{Serf: freeport.Port(t)}
	return c
}

// running is an agent in this process.
type running struct {
	*Agent
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, c *config.Config) *running {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Shim: []string{self, "shim"}}
	if testing.Verbose() {
		opts.Log = os.Stderr
	}
	a, err := New(t.Context(), c, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Agent: a, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx, func() bool { return false }) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the agent; a second time does nothing.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

func (r *running) get(path string, out any) error {
	resp, err := web.Get("http://" + r.HTTPAddr() + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// ready reports, by nil, that the agent's region has a leader, and a ready node
// if the agent is one.
func (r *running) ready() error {
	var leader string
	if err := r.get("/v1/status/leader", &leader); err != nil {
		return err
	}
	if r.node == nil {
		return nil
	}
	var node struct{ Status string }
	if err := r.get("/v1/node/"+r.node.NodeID(), &node); err != nil {
		return err
	}
	if node.Status != "ready" {
		return fmt.Errorf("its node is %s", node.Status)
	}
	return nil
}

// await waits for the thing itself.
func await(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestFiftyStartsAndStopsLeaveNothing(t *testing.T) {
	n := 50
	if testing.Short() {
		n = 5
	}
	server := func(c *config.Config) { c.Server.Enabled, c.Server.BootstrapExpect = true, 1 }
	for name, set := range map[string]func(*config.Config){
		"server": server,
		"client": func(c *config.Config) { c.Client.Enabled = true },
		"both":   func(c *config.Config) { server(c); c.Client.Enabled = true },
	} {
		t.Run(name, func(t *testing.T) {
			before, files := goleak.IgnoreCurrent(), openFiles()
			// A client has a server to go to, which outlives it.
			var host *running
			var address string
			if name == "client" {
				c := onLoopback(t, t.TempDir())
				server(c)
				host = start(t, c)
				await(t, "the server", func() error { return host.get("/v1/status/leader", &address) })
			}
			dir := t.TempDir()
			for range n {
				c := onLoopback(t, dir)
				set(c)
				if host != nil {
					c.Client.Servers = []string{address}
				}
				a := start(t, c)
				await(t, name, a.ready)
				a.stop(t)
			}
			if host != nil {
				host.stop(t)
			}
			if err := goleak.Find(before); err != nil {
				t.Error(err)
			}
			if now := openFiles(); now > files {
				t.Errorf("%d files are open, %d were before", now, files)
			}
		})
	}
}

// openFiles is how many descriptors this process has, 0 where that cannot be
// known.
func openFiles() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

func TestAnAgentThatCannotBeMadeLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for name, f := range map[string]struct {
		change func(*config.Config)
		want   string
		made   bool // the data directory is
	}{
		"no data_dir":          {func(c *config.Config) { c.DataDir = "" }, "data_dir is not set", false},
		"beyond loopback":      {func(c *config.Config) { c.BindAddr = "0.0.0.0" }, "is beyond loopback", false},
		"a template of none":   {func(c *config.Config) { c.BindAddr = `{{ GetInterfaceIP "none0" }}` }, "cannot use bind_addr", false},
		"an advertised name":   {func(c *config.Config) { c.Advertise.RPC = "a:b:c:d" }, "cannot use the advertised address", true},
		"the HTTP port":        {func(c *config.Config) { c.Ports.HTTP = port }, "for ports.http", true},
		"the RPC port":         {func(c *config.Config) { c.Ports.RPC = port }, "for ports.rpc", true},
		"the gossip port":      {func(c *config.Config) { c.Ports.Serf = port }, "cannot start gossip", true},
		"a plugin's switch":    {func(c *config.Config) { c.Plugin("raw_exec")["enabled"] = "perhaps" }, "neither true nor false", true},
		"a client's directory": {func(c *config.Config) { c.Client.StateDir = "/dev/null/x" }, "cannot make the node's data directory", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			c := onLoopback(t, dir)
			c.Server.Enabled, c.Server.BootstrapExpect, c.Client.Enabled = true, 1, true
			f.change(c)
			before, files := goleak.IgnoreCurrent(), openFiles()
			if _, err := New(t.Context(), c, Options{}); err == nil || !strings.Contains(err.Error(), f.want) {
				t.Fatalf("error %v, want one with %q", err, f.want)
			}
			if err := goleak.Find(before); err != nil {
				t.Error(err)
			}
			if now := openFiles(); now > files {
				t.Errorf("%d files are open, %d were before", now, files)
			}
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) == f.made {
				t.Errorf("the data directory: %v, made: want %v", err, f.made)
			}
			// The next one can be made in the same place.
			next := onLoopback(t, dir)
			next.Server.Enabled, next.Server.BootstrapExpect, next.Client.Enabled = true, 1, true
			start(t, next)
		})
	}
}

func TestADataDirectoryIsOneAgents(t *testing.T) {
	dir := t.TempDir()
	c := onLoopback(t, dir)
	c.Server.Enabled, c.Server.BootstrapExpect = true, 1
	start(t, c)
	second := onLoopback(t, dir)
	second.Server.Enabled = true
	if _, err := New(t.Context(), second, Options{}); err == nil || !strings.Contains(err.Error(), "each agent needs one of its own") {
		t.Errorf("a second agent in the same directory: %v", err)
	}
}

func TestADevelopmentAgentsDataGoesWithIt(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	c := onLoopback(t, "")
	c.MakeDev()
	c.LogLevel = "WARN"
	a := start(t, c)
	await(t, "dev", a.ready)
	if _, err := os.Stat(c.DataDir); err != nil {
		t.Fatal(err)
	}
	a.stop(t)
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// post registers a job, as JSON.
func (r *running) post(job string) error {
	resp, err := web.Post("http://"+r.HTTPAddr()+"/v1/jobs", "application/json", strings.NewReader(job))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

func TestStoppingEndsWhatIsUnderWay(t *testing.T) {
	dir := t.TempDir()
	c := onLoopback(t, dir)
	c.MakeDev()
	c.LogLevel = "WARN"
	a := start(t, c)
	await(t, "dev", a.ready)
	if err := a.post(`{"Job": {"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "raw_exec",
		"Config": {"command": "/bin/sh", "args": ["-c", "echo begun; exec sleep 1000"]},
		"Resources": {"CPU": 10, "MemoryMB": 10}, "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1}}]}]}}`); err != nil {
		t.Fatal(err)
	}
	var allocs []struct{ ID, ClientStatus string }
	await(t, "the task", func() error {
		if err := a.get("/v1/job/j/allocations", &allocs); err != nil {
			return err
		}
		if len(allocs) != 1 || allocs[0].ClientStatus != "running" {
			return fmt.Errorf("%+v", allocs)
		}
		return nil
	})
	// A followed log, which has begun, and a blocking query.
	log, err := web.Get("http://" + a.HTTPAddr() + "/v1/client/fs/logs/" + allocs[0].ID + "?task=t&type=stdout&follow=true&plain=true")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Body.Close()
	first := make([]byte, len("begun"))
	if _, err := io.ReadFull(log.Body, first); err != nil || string(first) != "begun" {
		t.Fatalf("the log begins with %q: %v", first, err)
	}
	ended := make(chan error, 2)
	go func() {
		_, err := io.ReadAll(log.Body)
		ended <- err
	}()
	go func() {
		ended <- a.get("/v1/jobs?index=1000000&wait=5m", &allocs)
	}()
	a.stop(t)
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("what was broken off looks complete")
		}
	}
	// A development agent's tasks end with it.
	if left := tasksUnder(dir); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// tasksUnder are the processes that work in dir, none where that cannot be known.
func tasksUnder(dir string) (out []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range all {
		if cwd, _ := os.Readlink(link); strings.HasPrefix(cwd, dir+"/") {
			out = append(out, link)
		}
	}
	return out
}

func TestWarningsOfTheConfigurationAreLogged(t *testing.T) {
	var log bytes.Buffer
	c := onLoopback(t, t.TempDir())
	if err := c.Parse("a.hcl", []byte(`acl { enabled = true }`)); err != nil {
		t.Fatal(err)
	}
	c.Server.Enabled, c.Server.BootstrapExpect = true, 2
	c.Ports.HTTP = -1 // it ends there
	if _, err := New(t.Context(), c, Options{Log: &log}); err == nil {
		t.Fatal("an agent on port -1")
	}
	for _, want := range []string{"a.hcl:1: acl has no effect", "server.bootstrap_expect 2 is even"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log: %s", want, log.String())
		}
	}
}

func TestAdvertisedAddresses(t *testing.T) {
	for name, f := range map[string]struct{ given, bind, want string }{
		"as bound":              {"", "127.0.0.1:4647", "127.0.0.1:4647"},
		"a host takes the port": {"10.0.0.9", "0.0.0.0:4647", "10.0.0.9:4647"},
		"a host with a port":    {"10.0.0.9:9", "0.0.0.0:4647", "10.0.0.9:9"},
		"a name":                {"n1.example.com", "0.0.0.0:4647", "n1.example.com:4647"},
		"IPv6":                  {"2001:db8::1", "[::]:4647", "[2001:db8::1]:4647"},
		"IPv6 in brackets":      {"[2001:db8::1]", "[::]:4647", "[2001:db8::1]:4647"},
		"IPv6 with a port":      {"[2001:db8::1]:9", "[::]:4647", "[2001:db8::1]:9"},
	} {
		if got, err := advertise(f.given, f.bind); err != nil || got != f.want {
			t.Errorf("%s: %q %v, want %q", name, got, err, f.want)
		}
	}
}
