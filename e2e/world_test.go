//go:build e2e && linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sys/unix"
)

// ownNetwork marks that the process has its network namespace.
const ownNetwork = "ATOLL_E2E_NETWORK"

// TestMain moves the whole process into a network namespace of its own, from
// which it speaks to all the others. Nothing that a test starts or calls, the
// client library's own dialling included, can then send a packet out of this
// machine.
func TestMain(m *testing.M) {
	if os.Getenv(ownNetwork) == "" {
		// A namespace is a thread's; what the thread executes is all in it.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownNetwork+"=1"))
		}
		fmt.Fprintf(os.Stderr, "cannot enter a network of its own: %v; these tests need root\n", err)
		os.Exit(1)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot set up the loopback: %v: %s\n", err, out)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// world is a set of network namespaces on one bridge: one a region, beside the
// test's own.
type world struct {
	t     testing.TB
	id    string
	bin   string
	dir   string
	hosts map[string]*host
}

// host is a namespace: a machine of its own as far as the network goes.
type host struct {
	w    *world
	name string // of the namespace; "" is the test's own
	ip   string
}

// newWorld makes a namespace for each name.
func newWorld(t testing.TB, names ...string) *world {
	t.Helper()
	bin := os.Getenv("ATOLL_BIN")
	if bin == "" {
		t.Fatal("ATOLL_BIN is not set: run these tests with make e2e")
	}
	// Unix sockets of a Docker engine need a short path.
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, id: fmt.Sprintf("at%d", os.Getpid()), bin: bin, dir: dir, hosts: map[string]*host{}}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	hub := w.id + "-hub"
	w.ip("netns", "add", hub)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", hub).Run() })
	w.ip("-n", hub, "link", "add", "br0", "type", "bridge")
	w.ip("-n", hub, "link", "set", "br0", "up")
	plug := func(i int, in ...string) {
		port := fmt.Sprintf("p%d", i)
		w.ip(append(in, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub)...)
		w.ip("-n", hub, "link", "set", port, "master", "br0", "up")
		w.ip(append(in, "addr", "add", fmt.Sprintf("10.77.0.%d/24", 10+i), "dev", "eth0")...)
		w.ip(append(in, "link", "set", "eth0", "up")...)
	}
	plug(0)
	t.Cleanup(func() { w.ip("link", "del", "eth0") })
	for i, name := range names {
		h := &host{w: w, name: w.id + "-" + name, ip: fmt.Sprintf("10.77.0.%d", 11+i)}
		w.hosts[name] = h
		w.ip("netns", "add", h.name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", h.name).Run() })
		w.ip("-n", h.name, "link", "set", "lo", "up")
		plug(1+i, "-n", h.name)
		w.ip("-n", h.name, "route", "add", "default", "dev", "eth0")
	}
	return w
}

func (w *world) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// cut drops every packet between the named host and the others, but for the
// test's own network; heal lifts it.
func (w *world) cut(name string) { w.cutting(name, "-A") }

func (w *world) heal(name string) { w.cutting(name, "-D") }

func (w *world) cutting(name, verb string) {
	w.t.Helper()
	h := w.hosts[name]
	for other, o := range w.hosts {
		if other == name {
			continue
		}
		for _, rule := range [][]string{{"INPUT", "-s"}, {"OUTPUT", "-d"}} {
			out, err := h.command("iptables", "-w", verb, rule[0], rule[1], o.ip, "-j", "DROP").CombinedOutput()
			if err != nil {
				w.t.Fatalf("iptables in %s: %v: %s", name, err, out)
			}
		}
	}
}

// command runs in the host's namespace. (Not by `ip netns exec`, which hides the
// cgroup mounts beneath /sys.)
func (h *host) command(name string, args ...string) *exec.Cmd {
	if h.name == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("nsenter", append([]string{"--net=/var/run/netns/" + h.name, name}, args...)...)
}

func (w *world) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// client is the official Go client, pointed at an agent.
func (w *world) client(a *agent) *api.Client {
	w.t.Helper()
	c, err := api.NewClient(&api.Config{Address: a.url(), HttpClient: w.httpClient()})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// agent is a process of the binary.
type agent struct {
	w    *world
	host *host
	name string
	args []string
	http int // the API's port
	// address is the API's, when it is not that of the host.
	address string
	log     string
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // how it ended, set before done is closed
}

// agentConfig is what differs between agents.
type agentConfig struct {
	name, host, region, dc string
	server                 bool
	expect                 int
	client                 bool
	join                   []string // hosts whose servers to join
	servers                []string // of a client-only agent: hosts
	portBase               int      // 0: 4646
	extra                  string
}

func (w *world) agent(c agentConfig) *agent {
	w.t.Helper()
	h := w.hosts[c.host]
	if c.portBase == 0 {
		c.portBase = 4646
	}
	if c.dc == "" {
		c.dc = "dc1"
	}
	quote := func(hosts []string, port int) string {
		var out []string
		for _, name := range hosts {
			out = append(out, fmt.Sprintf("%q", fmt.Sprintf("%s:%d", w.hosts[name].ip, port)))
		}
		return strings.Join(out, ", ")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "region = %q\ndatacenter = %q\nname = %q\ndata_dir = %q\nbind_addr = %q\ninsecure = true\nlog_level = \"DEBUG\"\n",
		c.region, c.dc, c.name, filepath.Join(w.dir, c.name), h.ip)
	fmt.Fprintf(&b, "ports {\n http = %d\n rpc = %d\n serf = %d\n}\n", c.portBase, c.portBase+1, c.portBase+2)
	if c.server {
		fmt.Fprintf(&b, "server {\n enabled = true\n bootstrap_expect = %d\n server_join {\n retry_join = [%s]\n retry_interval = \"1s\"\n }\n}\n", max(c.expect, 1), quote(c.join, 4648))
	}
	if c.client {
		fmt.Fprintf(&b, "client {\n enabled = true\n servers = [%s]\n cpu_total_compute = 4000\n memory_total_mb = 4000\n disk_total_mb = 20000\n}\n", quote(c.servers, 4647))
	}
	b.WriteString("plugin \"raw_exec\" {\n config {\n enabled = true\n }\n}\n" + c.extra)
	conf := filepath.Join(w.dir, c.name+".hcl")
	if err := os.WriteFile(conf, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.process(&agent{host: h, name: c.name, args: []string{"-config", conf}, http: c.portBase})
}

// process starts an agent that is described but for its log.
func (w *world) process(a *agent) *agent {
	w.t.Helper()
	a.w, a.log = w, filepath.Join(w.dir, a.name+".log")
	a.start()
	w.t.Cleanup(a.cleanup)
	return a
}

func (a *agent) url() string {
	if a.address != "" {
		return a.address
	}
	return fmt.Sprintf("http://%s:%d", a.host.ip, a.http)
}

func (a *agent) start() {
	a.w.t.Helper()
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer log.Close()
	a.cmd = a.host.command(a.w.bin, append([]string{"agent"}, a.args...)...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	if err := a.cmd.Start(); err != nil {
		a.w.t.Fatal(err)
	}
	a.done = make(chan struct{})
	go func() {
		a.err = a.cmd.Wait()
		close(a.done)
	}()
}

// kill is kill -9, and waits for the process to be gone. (nsenter becomes the
// program: the process id is the agent's.)
func (a *agent) kill() {
	a.w.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.w.t.Fatal(err)
	}
	<-a.done
}

// stop sends SIGTERM and returns how long the agent took.
func (a *agent) stop() time.Duration {
	a.w.t.Helper()
	start := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.w.t.Fatal(err)
	}
	select {
	case <-a.done:
	case <-time.After(30 * time.Second):
		_ = a.cmd.Process.Signal(syscall.SIGQUIT)
		<-a.done
		a.w.t.Fatalf("%s did not stop in 30 s:\n%s", a.name, a.tail())
	}
	return time.Since(start)
}

// cleanup ends the process and what it may have left: its shims carry its data
// directory in their arguments.
func (a *agent) cleanup() {
	if a.w.t.Failed() {
		a.w.t.Logf("last lines of %s:\n%s", a.name, a.tail())
	}
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.done:
	case <-time.After(15 * time.Second):
		_ = a.cmd.Process.Kill()
	}
	a.w.endProcessesUnder(filepath.Join(a.w.dir, a.name))
}

// endProcessesUnder kills those processes whose working directory or command
// line lies in a directory of this test.
func (w *world) endProcessesUnder(dir string) {
	for _, pid := range w.processesUnder(dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (w *world) processesUnder(dir string) []int {
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if bytes.Contains(cmdline, []byte(dir+"/")) || strings.HasPrefix(cwd, dir+"/") {
			out = append(out, pid)
		}
	}
	return out
}

func (a *agent) tail() string {
	b, _ := os.ReadFile(a.log)
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// get fetches a path from the agent.
func (a *agent) get(path string) (int, http.Header, string, error) {
	resp, err := a.w.httpClient().Get(a.url() + path)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// eventually waits for the thing itself, and says what it last saw when it
// does not come.
func eventually(t testing.TB, within time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cli runs the command line against an agent.
func (w *world) cli(a *agent, args ...string) (string, error) {
	cmd := exec.Command(w.bin, args...)
	cmd.Env = append(os.Environ(), "ATOLL_ADDR="+a.url())
	out, err := cmd.CombinedOutput()
	return string(out), err
}
