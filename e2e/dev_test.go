//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var devAddress = regexp.MustCompile(`(?m)^  (\w+) +(http://\S+) pid (\d+)$`)

func TestADevelopmentFederationEndsWithItsCommandHoweverThatEnds(t *testing.T) {
	w := newWorld(t)
	for name, sig := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			temp := filepath.Join(w.dir, name)
			if err := os.Mkdir(temp, 0o700); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(w.dir, name+".out")
			log, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd := exec.Command(w.bin, "dev", "-regions", "us,eu")
			cmd.Env = append(os.Environ(), "TMPDIR="+temp)
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				w.endProcessesUnder(temp)
			})
			var said string
			eventually(t, 60*time.Second, "the federation is ready", func() error {
				b, _ := os.ReadFile(out)
				if said = string(b); !strings.Contains(said, "\nready after ") {
					return fmt.Errorf("it says %q", said)
				}
				return nil
			})
			address := make(map[string]string)
			for _, m := range devAddress.FindAllStringSubmatch(said, -1) {
				address[m[1]] = m[2]
			}
			pids := filepath.Join(w.dir, name+".pids")
			us := &agent{w: w, name: "us", address: address["us"]}
			if _, _, err := w.client(us).Jobs().Register(service("job", "eu", noteStart(pids)+"exec sleep 1000"), nil); err != nil {
				t.Fatal(err)
			}
			awaitAllocs(t, us, "eu", "job", "running", 1)

			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if sig == syscall.SIGINT && err != nil {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it did not end within 20 s")
			}
			eventually(t, 20*time.Second, "its agents and their tasks are gone", func() error {
				for _, pid := range startsIn(pids) {
					if alive(pid) {
						return fmt.Errorf("task %s runs", pid)
					}
				}
				if left := w.processesUnder(temp); len(left) > 0 {
					return fmt.Errorf("processes %v run", left)
				}
				return nil
			})
			if left, err := os.ReadDir(temp); sig == syscall.SIGINT && (err != nil || len(left) > 0) {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}
