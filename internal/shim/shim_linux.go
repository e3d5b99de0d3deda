package shim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processOf names a process, by its start in clock ticks since boot, field 22
// of proc_pid_stat(5). One that ended and was not waited for yet is not running.
func processOf(pid int) (p process, running bool, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false, err
	}
	// The second field, the command in parentheses, may hold anything.
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 20 {
		return p, false, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return p, false, fmt.Errorf("cannot read /proc/%d/stat: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return p, false, err
	}
	return process{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, fields[0] != "Z" && fields[0] != "X", nil
}

// prepare gives the task a process group of its own, its cgroup from its first
// instruction on, and its death with the shim's.
func prepare(cmd *exec.Cmd, login string, cg *cgroup) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cg.file != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cg.file.Fd())
	}
	return runAs(cmd, login)
}

// sockPath is a name of the socket that fits into sun_path, however long the
// directory's is.
func sockPath(dir string) (path string, done func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), sockFile), func() { _ = d.Close() }, nil
}

// cgroup holds everything that a task started. It is of the version 2
// hierarchy, which may be mounted beside version 1 without controllers: it is
// for finding and killing, not for limits. Its zero dir means that there is
// none, for want of rights or of a mount.
type cgroup struct {
	dir  string
	file *os.File
}

// newCgroup makes the task's cgroup. It and the shim move out of the agent's, so
// that a service manager that ends everything in that leaves them running.
func newCgroup(id string) *cgroup {
	mount := cgroup2Mount()
	if mount == "" {
		return &cgroup{}
	}
	shims := filepath.Join(mount, "atoll", "shims")
	if os.MkdirAll(shims, 0o755) == nil {
		_ = os.WriteFile(filepath.Join(shims, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	dir := filepath.Join(mount, "atoll", strings.NewReplacer("/", "_", "..", "_").Replace(id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &cgroup{}
	}
	f, err := os.Open(dir)
	if err != nil {
		return &cgroup{}
	}
	return &cgroup{dir: dir, file: f}
}

func (c *cgroup) path() string { return c.dir }

// kill ends every process in the cgroup.
func (c *cgroup) kill() {
	if c.dir == "" {
		return
	}
	// cgroup.kill came with Linux 5.14.
	if os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	for range 10 {
		b, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
		pids := strings.Fields(string(b))
		if err != nil || len(pids) == 0 {
			return
		}
		for _, s := range pids {
			if pid, err := strconv.Atoi(s); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// remove removes the cgroup once its processes are gone.
func (c *cgroup) remove() {
	if c.file != nil {
		_ = c.file.Close()
		c.file = nil
	}
	if c.dir == "" {
		return
	}
	for range 100 {
		if err := os.Remove(c.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// cgroup2Mount finds where the version 2 hierarchy is mounted, "" when nowhere.
func cgroup2Mount() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		// proc_pid_mountinfo(5): the mount point is the fifth field, the
		// type follows a dash.
		fields := strings.Fields(scan.Text())
		for i, s := range fields {
			if s == "-" && i > 4 && i+1 < len(fields) && fields[i+1] == "cgroup2" {
				return fields[4]
			}
		}
	}
	return ""
}

// waitFor waits for the task and ends what it started, before it reaps the task:
// until then nobody else can have its number, which is its group's too.
func (s *shim) waitFor() error {
	for {
		if err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	s.killAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reaped = true
	return s.cmd.Wait()
}
