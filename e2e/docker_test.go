//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// engine is a Docker engine of the test's own, within a host's network.
type engine struct {
	t    testing.TB
	host string // as DOCKER_HOST has it
}

// engine starts an engine on a host, and makes the local images in it.
func (h *host) engine() *engine {
	t, dir := h.w.t, filepath.Join(h.w.dir, "docker")
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, host: "unix://" + filepath.Join(dir, "sock")}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := h.command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", e.host)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		if ids, err := e.docker("ps", "-aq"); err == nil && ids != "" {
			_, _ = e.docker(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		h.w.endProcessesUnder(dir)
		unmountUnder(dir)
	})
	eventually(t, 60*time.Second, "the Docker engine answers", func() error {
		select {
		case err := <-done:
			done <- err
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("the Docker engine ended: %v\n%s", err, b)
		default:
		}
		out, err := e.docker("version")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	images := exec.Command("../scripts/images")
	images.Env = append(os.Environ(), "DOCKER_HOST="+e.host)
	if out, err := images.CombinedOutput(); err != nil {
		t.Fatalf("scripts/images: %v: %s", err, out)
	}
	return e
}

// docker runs the engine's own command line.
func (e *engine) docker(args ...string) (string, error) {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.host)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// agentBlock points an agent's docker driver at the engine.
func (e *engine) agentBlock() string {
	return fmt.Sprintf("plugin \"docker\" {\n config {\n endpoint = %q\n }\n}\n", e.host)
}

// unmountUnder unmounts what an engine that was killed has left.
func unmountUnder(dir string) {
	b, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(b), "\n")
	slices.Reverse(lines)
	for _, l := range lines {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

// redis sends a command to a redis and returns its answer.
func redis(addr, command string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(conn, command+"\r\nQUIT\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	// It closes without waiting for what else we might say.
	if errors.Is(err, syscall.ECONNRESET) && len(b) > 0 {
		err = nil
	}
	return string(bytes.TrimSuffix(b, []byte("+OK\r\n"))), err
}

// runID is the id that a redis gives itself at its start.
func runID(t *testing.T, addr string) (id string) {
	t.Helper()
	info, err := redis(addr, "INFO server")
	if _, rest, ok := strings.Cut(info, "run_id:"); ok {
		id, _, _ = strings.Cut(rest, "\r\n")
	}
	if err != nil || id == "" {
		t.Fatalf("redis at %s tells %q of itself, %v", addr, info, err)
	}
	return id
}

func TestTheTalksRedisRunsInAContainerThatOutlivesTheAgent(t *testing.T) {
	w := newWorld(t, "us", "eu")
	eng := w.hosts["eu"].engine()
	all := []string{"us", "eu"}
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, client: true, join: all, servers: []string{"us"}})
	eu := w.agent(agentConfig{name: "eu", host: "eu", region: "eu", server: true, client: true, join: all, servers: []string{"eu"}, extra: eng.agentBlock()})
	awaitRegions(t, us, "us", all...)

	if out, err := w.cli(us, "job", "run", "-region", "eu", "../examples/redis.nomad"); err != nil {
		t.Fatalf("job run: %v: %s", err, out)
	}
	id := awaitAllocs(t, us, "eu", "cache", "running", 1)[0].ID
	alloc, _, err := w.client(us).Allocations().Info(id, &api.QueryOptions{Region: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	network := alloc.AllocatedResources.Tasks["redis"].Networks[0]
	if network.IP != w.hosts["eu"].ip || len(network.DynamicPorts) != 1 || network.DynamicPorts[0].Label != "db" {
		t.Fatalf("its network is %+v", network)
	}
	addr := fmt.Sprintf("%s:%d", network.IP, network.DynamicPorts[0].Value)
	ping := func() error {
		if got, err := redis(addr, "PING"); err != nil || got != "+PONG\r\n" {
			return fmt.Errorf("PING at %s answers %q, %v", addr, got, err)
		}
		return nil
	}
	eventually(t, 20*time.Second, "redis answers PING on its mapped port", ping)
	run := runID(t, addr)

	// The agent dies, the container lives; a new agent finds it.
	eu.kill()
	if err := ping(); err != nil {
		t.Errorf("while its agent is gone: %v", err)
	}
	eu.start()
	awaitRegions(t, us, "us", "eu")
	eventually(t, 30*time.Second, "the restarted agent found the task", func() error {
		a, _, err := w.client(us).Allocations().Info(id, &api.QueryOptions{Region: "eu"})
		if err != nil {
			return err
		}
		events := a.TaskStates["redis"].Events
		for _, e := range events {
			if e.Type == "Restored" {
				return nil
			}
		}
		return fmt.Errorf("its last event is %+v", events[len(events)-1])
	})
	if got := awaitAllocs(t, us, "eu", "cache", "running", 1); got[0].ID != id {
		t.Errorf("allocation %s took the place of %s", got[0].ID, id)
	}
	if got := runID(t, addr); got != run {
		t.Errorf("redis was started anew: it was %s and is %s", run, got)
	}
	if ids, err := eng.docker("ps", "-aq"); err != nil || len(strings.Fields(ids)) != 1 {
		t.Errorf("containers %q, %v; want one", ids, err)
	}

	// Its output was copied once, whichever agent copied it.
	eventually(t, 10*time.Second, "redis's log can be read in another region", func() error {
		out, err := w.cli(us, "alloc", "logs", "-region", "eu", id)
		if n := strings.Count(out, "Ready to accept connections"); err != nil || n != 1 {
			return fmt.Errorf("it is ready %d times in %q, %v", n, out, err)
		}
		return nil
	})

	if out, err := w.cli(us, "job", "stop", "-region", "eu", "cache"); err != nil {
		t.Fatalf("job stop: %v: %s", err, out)
	}
	eventually(t, 20*time.Second, "the container is gone", func() error {
		if ids, err := eng.docker("ps", "-aq"); err != nil || ids != "" {
			return fmt.Errorf("containers %q, %v", ids, err)
		}
		return nil
	})
}
