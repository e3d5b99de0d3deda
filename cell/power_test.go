package cell

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// memberEnv makes the test binary a member of a cell, in a process that can be
// killed: its value is the name, the data directory and the members, name=addr.
const memberEnv = "ATOLL_TEST_MEMBER"

// memberMain runs a member that takes commands from its input, a line each, and
// answers each with a line: "put ID" and "list".
func memberMain(spec string) error {
	parts := strings.Split(spec, ",")
	name, dir := parts[0], parts[1]
	var servers []Server
	var addr string
	for _, p := range parts[2:] {
		n, a, _ := strings.Cut(p, "=")
		servers = append(servers, Server{n, a})
		if n == name {
			addr = a
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	c, err := Open(Config{ServerID: name, DataDir: dir, Stream: tcpStream{l}, Advertise: addr, SnapshotThreshold: 50})
	if err != nil {
		return err
	}
	go func() { _ = c.Run(context.Background()) }() // until the process is killed
	fresh, err := c.Fresh()
	if err != nil {
		return err
	}
	if fresh {
		if err := c.Bootstrap(servers); err != nil {
			return err
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		cmd, id, _ := strings.Cut(in.Text(), " ")
		switch cmd {
		case "put":
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			_, _, err := c.ApplyOnce(ctx, CmdJobRegister, request(id, 1), &JobRegister{Job: testJob(id, 1)})
			cancel()
			fmt.Println("put", id, err == nil)
		case "list":
			if err := c.Barrier(3 * time.Second); err != nil {
				fmt.Println("list -")
				continue
			}
			out := "list"
			for j := range c.Snapshot().Jobs(nil, "*", "") {
				out += " " + j.ID
			}
			fmt.Println(out)
		}
	}
	return in.Err()
}

// process is a member in a process of its own.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	mu  sync.Mutex // one command at a time
	out *bufio.Scanner
}

func startProcess(t *testing.T, name, dir string, addrs map[string]string) *process {
	t.Helper()
	spec := name + "," + dir
	for _, n := range ringNames {
		spec += "," + n + "=" + addrs[n]
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+spec)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<20)
	return p
}

// ask returns the answer to a command, "" when the process was killed first.
func (p *process) ask(command string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintln(p.in, command); err != nil || !p.out.Scan() {
		return ""
	}
	return p.out.Text()
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func TestNothingAckedIsLostWhenAllServersAreKilledAtOnce(t *testing.T) {
	dirs, addrs := map[string]string{}, map[string]string{}
	for _, n := range ringNames {
		l := listen(t)
		dirs[n], addrs[n] = t.TempDir(), l.Addr().String()
		_ = l.Close()
	}
	members := map[string]*process{}
	defer func() {
		for _, p := range members {
			p.kill()
		}
	}()
	acked := map[string]bool{}
	for round := range 4 {
		for _, n := range ringNames {
			members[n] = startProcess(t, n, dirs[n], addrs)
		}
		if round > 0 {
			var have string
			for deadline := time.Now().Add(30 * time.Second); have == ""; {
				if time.Now().After(deadline) {
					t.Fatal("no leader within 30 s of a restart")
				}
				for _, p := range members {
					if got := p.ask("list"); got != "list -" {
						have = got + " "
						break
					}
				}
			}
			for id := range acked {
				if !strings.Contains(have, " "+id+" ") {
					t.Errorf("round %d: %s was acked and is lost", round, id)
				}
			}
		}
		// Many writers, so that the kill comes amid their writes.
		var mu sync.Mutex
		enough := make(chan struct{})
		want := len(acked) + 60
		stop, cancel := context.WithCancel(context.Background())
		var writers sync.WaitGroup
		for w, n := range ringNames {
			writers.Go(func() {
				for i := 0; stop.Err() == nil; i++ {
					id := fmt.Sprintf("r%d-w%d-%d", round, w, i)
					if members[n].ask("put "+id) != "put "+id+" true" {
						continue
					}
					mu.Lock()
					acked[id] = true
					if len(acked) == want {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(60 * time.Second):
			t.Error("too few writes within a minute")
		}
		for _, p := range members {
			_ = p.cmd.Process.Kill()
		}
		cancel()
		for _, p := range members {
			p.kill()
		}
		writers.Wait()
	}
	if len(acked) < 200 {
		t.Errorf("%d writes were acked: too few to say anything", len(acked))
	}
}
