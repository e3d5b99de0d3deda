//go:build !linux

package shim

import (
	"fmt"
	"path/filepath"

	ps "github.com/shirou/gopsutil/v4/process"
)

// processOf names a process by its start in milliseconds.
func processOf(pid int) (process, bool, error) {
	p, err := ps.NewProcess(int32(pid))
	if err != nil {
		return process{}, false, err
	}
	created, err := p.CreateTime()
	if err != nil {
		return process{}, false, err
	}
	return process{PID: pid, Start: uint64(created)}, true, nil
}

// maxSock is the shortest sun_path among the systems, less its zero.
const maxSock = 103

func sockPath(dir string) (string, func(), error) {
	path := filepath.Join(dir, sockFile)
	if len(path) > maxSock {
		return "", nil, fmt.Errorf("the path %s is longer than the %d bytes that a socket's may have: choose a shorter data_dir", path, maxSock)
	}
	return path, func() {}, nil
}

// cgroup exists on Linux alone.
type cgroup struct{ dir string }

func newCgroup(string) *cgroup { return &cgroup{} }
func (c *cgroup) path() string { return c.dir }
func (c *cgroup) kill()        {}
func (c *cgroup) remove()      {}

// waitFor waits for the task and then ends what it started.
func (s *shim) waitFor() error {
	err := s.cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reaped = true
	return err
}
