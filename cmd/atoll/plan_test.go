package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	httpapi "atoll/api"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// terminal is a command line before a region of one server and one node.
type terminal struct {
	t   *testing.T
	url string
	dir string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serf := freeport.Addr(t)
	s, err := region.New(region.Config{
		Name: "s1", Region: "global", Datacenter: "dc1", DataDir: t.TempDir(), RPC: l, AdvertiseRPC: l.Addr().String(),
		BindSerf: serf, AdvertiseSerf: serf, Expect: 1, Version: "test", Heartbeats: heartbeat.Config{MinTTL: 10 * time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func() bool { return false }) }()
	web := httptest.NewServer(httpapi.New(httpapi.Config{Region: "global", Name: "s1", Version: "test", Caller: s.RPC(), Server: s}))
	t.Cleanup(func() {
		web.Close()
		cancel()
		<-done
	})
	n := &model.Node{
		ID: model.NewUUID(nil).String(), Name: "n1", Datacenter: "dc1", NodePool: model.NodePoolDefault,
		Drivers: map[string]*model.DriverInfo{"mock_driver": {Detected: true, Healthy: true}},
		NodeResources: &model.NodeResources{
			Cpu: model.NodeCpuResources{CpuShares: 1000}, Memory: model.NodeMemoryResources{MemoryMB: 1000}, Disk: model.NodeDiskResources{DiskMB: 10_000},
		},
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := rpc.Call(t.Context(), s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: model.NewUUID(nil).String()})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return &terminal{t, web.URL, t.TempDir()}
}

// run runs a command and returns what it says and its exit code.
func (m *terminal) run(args ...string) (said string, code int) {
	m.t.Helper()
	m.t.Setenv("ATOLL_ADDR", m.url)
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(longFlags(args))
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.Execute()
	var exit exitCode
	switch {
	case errors.As(err, &exit):
		return out.String(), int(exit)
	case err != nil:
		return out.String() + "Error: " + plainError(err), 1
	}
	return out.String(), 0
}

// expect runs a command that ends with a code and says each of want.
func (m *terminal) expect(code int, want []string, args ...string) string {
	m.t.Helper()
	said, got := m.run(args...)
	if got != code {
		m.t.Errorf("%s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, said)
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			m.t.Errorf("%s: does not say %q:\n%s", strings.Join(args, " "), w, said)
		}
	}
	return said
}

// file writes a file and returns its name.
func (m *terminal) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// job is a job file.
func (m *terminal) job(name, more string, count int, env string) string {
	return m.file(name+".nomad.hcl", fmt.Sprintf(`
variable "mode" {
  default = %q
}
job %q {
  %s
  update {
    max_parallel = 0
  }
  group "g" {
    count = %d
    scaling {
      min = 1
      max = 5
    }
    task "t" {
      driver = "mock_driver"
      env {
        MODE = var.mode
      }
      resources {
        cpu    = 100
        memory = 100
      }
      logs {
        max_files     = 1
        max_file_size = 1
      }
    }
  }
}
`, env, name, more, count))
}

func TestAJobIsPlannedSubmittedAndScaledFromTheCommandLine(t *testing.T) {
	m := newTerminal(t)
	file := m.job("web", "", 2, "fast")
	said := m.expect(1, []string{
		"+ Job: \"web\"\n+ Task Group: \"g\" (2 create)\n  + Task: \"t\" (forces create)\n\nScheduler dry-run:\n- All tasks successfully allocated.\n",
		"- This holds for the region's state at index ",
		"\nJob Modify Index: 0\n", "\natoll job run -check-index 0 " + file + "\n",
	}, "job", "plan", file)
	if strings.Contains(said, "MODE") {
		t.Errorf("the contents of a new job are shown unasked:\n%s", said)
	}
	m.expect(1, []string{`    + Env[MODE]:`, `+ Driver:`}, "plan", "-verbose", file)
	if jobs, _ := m.run("job", "status"); !strings.Contains(jobs, "No running jobs") {
		t.Errorf("a plan left a job:\n%s", jobs)
	}
	m.expect(0, nil, "job", "run", "-check-index", "0", file)
	m.expect(1, []string{"Enforcing job modify index 0"}, "job", "run", "-check-index", "0", file)
	m.expect(0, []string{"Job: \"web\"\nTask Group: \"g\" (2 ignore)\n  Task: \"t\"\n"}, "job", "plan", file)
	m.expect(1, []string{
		"+/- Job: \"web\"\n+/- Task Group: \"g\" (2 create/destroy update)\n  +/- Task: \"t\" (forces create/destroy update)\n    +/- Env[MODE]: \"fast\" => \"slow\"\n",
		" -var mode=slow ",
	}, "job", "plan", "-var", "mode=slow", file)
	if said := m.expect(1, nil, "job", "plan", "-diff=false", "-var", "mode=slow", file); strings.Contains(said, "Task Group") {
		t.Errorf("a diff that was not asked for:\n%s", said)
	}
	// What finds no place is told.
	m.expect(1, []string{"- WARNING: Failed to place all allocations.\n  Task Group \"g\" (failed to place 1 allocation):", "No nodes were eligible for evaluation"},
		"job", "plan", m.job("far", `datacenters = ["dc9"]`, 1, "x"))

	m.expect(255, []string{"Error: ", "no such file"}, "job", "plan", filepath.Join(m.dir, "absent"))
	m.expect(255, []string{"Error: unknown flag"}, "job", "plan", "-colour", file)
	m.expect(255, []string{"Error: accepts 1 arg"}, "job", "plan")
	m.expect(255, []string{"PolicyOverride is not supported"}, "job", "plan", "-policy-override", file)
	m.expect(255, []string{`namespace "elsewhere" does not exist`}, "job", "plan", "-namespace", "elsewhere", file)

	m.expect(0, []string{"finished with status"}, "job", "scale", "web", "4")
	m.expect(0, []string{"Evaluation ID: "}, "job", "scale", "-detach", "web", "g", "3")
	m.expect(1, []string{"above the maximum of its scaling policy, 5"}, "job", "scale", "web", "6")
	m.expect(1, []string{`the count "many" is no whole number`}, "job", "scale", "web", "g", "many")
	m.expect(1, []string{`has no group "h"`}, "job", "scale", "web", "h", "3")
	m.expect(1, []string{"Enforcing job modify index 1"}, "job", "scale", "-check-index", "1", "web", "3")
	m.expect(0, []string{"Enabled", "horizontal", "Group:g,Job:web,Namespace:default"}, "scaling", "policy", "list", "-job", "web")
	list := m.expect(0, nil, "scaling", "policy", "list")
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	m.expect(0, []string{"Min     = 1", "Max     = 5"}, "scaling", "policy", "info", id)

	m.expect(0, []string{"\nDiff\n+/- Job: \"web\"\n+/- Task Group: \"g\"\n  +/- Count: \"4\" => \"3\"\n", `+/- Count: "2" => "4"`}, "job", "history", "-p", "web")
	m.expect(0, []string{`+/- Count: "2" => "3"`}, "job", "history", "-diff-version", "0", "-version", "2", "web")
	m.expect(0, []string{`"Version": 1`, `"Count": 4`}, "job", "inspect", "-version", "1", "web")
	m.expect(1, []string{"has no version 9"}, "job", "inspect", "-version", "9", "web")
	// A register may leave the count as it was scaled.
	m.expect(0, nil, "job", "run", "-preserve-counts", file)
	m.expect(0, []string{`"Count": 3`}, "job", "inspect", "web")
}

func TestNamespacesAreKeptFromTheCommandLine(t *testing.T) {
	m := newTerminal(t)
	m.expect(0, []string{"default  Default shared namespace"}, "namespace", "list")
	m.expect(0, []string{`Successfully applied namespace "team"`}, "namespace", "apply", "-description", "ours", "team")
	file := m.file("ops.hcl", `
name        = "ops"
description = "all of it"
capabilities {
  enabled_task_drivers = ["mock_driver"]
}
meta {
  owner = "eve"
  floor = 3
}
`)
	m.expect(0, nil, "namespace", "apply", file)
	m.expect(0, []string{"Name", "ops", "EnabledDrivers       = mock_driver", "DisabledDrivers      = <none>", "owner = eve", "floor = 3"}, "namespace", "status", "ops")
	// A name with flags changes what they say only.
	m.expect(0, nil, "namespace", "apply", "-description", "some of it", "ops")
	m.expect(0, []string{`"Description": "some of it"`, `"owner": "eve"`}, "namespace", "inspect", "ops")
	m.expect(0, nil, "namespace", "apply", "-json", m.file("j.json", `{"Name":"json"}`))
	m.expect(1, []string{"a quota is not supported"}, "namespace", "apply", "-quota", "q", "team")
	m.expect(1, []string{"ops.hcl", "colour"}, "namespace", "apply", m.file("ops.hcl", "name = \"x\"\ncolour = 1\n"))
	m.expect(1, []string{"node_pool_config block is not supported"}, "namespace", "apply", m.file("pool.hcl", "name = \"x\"\nnode_pool_config {\n allowed = [\"a\"]\n}\n"))

	m.expect(0, nil, "job", "run", m.job("web", `namespace = "team"`, 1, "x"))
	m.expect(0, []string{"No running jobs"}, "job", "status")
	m.expect(0, []string{"ID   Namespace  Type", "web  team       service"}, "job", "status", "-namespace", "*")
	m.expect(0, []string{"Namespace     = team"}, "job", "status", "-namespace", "*", "web")
	m.expect(1, []string{`cannot delete namespace "team": job "web" in it is`}, "namespace", "delete", "team")
	m.expect(0, nil, "job", "stop", "-detach", "-namespace", "team", "web")
	m.expect(0, []string{`Successfully deleted namespace "team"`}, "namespace", "delete", "team")
	m.expect(1, []string{`no namespace begins with "team"`}, "namespace", "status", "team")
	m.expect(1, []string{"it is always there"}, "namespace", "delete", "default")
}

func TestADiffIsLaidOut(t *testing.T) {
	d := &api.JobDiff{
		Type: "Edited", ID: "web",
		Fields: []*api.FieldDiff{{Type: "Added", Name: "Meta[a]", New: "1"}, {Type: "Edited", Name: "Priority", Old: "50", New: "70"}},
		Objects: []*api.ObjectDiff{{Type: "Deleted", Name: "Constraint", Fields: []*api.FieldDiff{
			{Type: "Deleted", Name: "LTarget", Old: "${a}"}, {Type: "Deleted", Name: "Operand", Old: "="},
		}}},
		TaskGroups: []*api.TaskGroupDiff{
			{Type: "Edited", Name: "g", Updates: map[string]uint64{"ignore": 2, "create": 1},
				Fields: []*api.FieldDiff{{Type: "Edited", Name: "Count", Old: "2", New: "3", Annotations: []string{"forces create"}}},
				Tasks: []*api.TaskDiff{
					{Type: "Edited", Name: "t", Annotations: []string{"forces create/destroy update"}, Objects: []*api.ObjectDiff{{Type: "Edited", Name: "Config", Fields: []*api.FieldDiff{
						{Type: "Edited", Name: "image", Old: "redis:3.2", New: "redis:4.0"}, {Type: "None", Name: "port_map[0][db]", Old: "6379", New: "6379"},
					}}}},
					{Type: "Added", Name: "u", Fields: []*api.FieldDiff{{Type: "Added", Name: "Driver", New: "docker"}}},
					{Type: "None", Name: "v"},
				}},
			{Type: "Deleted", Name: "h", Updates: map[string]uint64{"destroy": 4}, Fields: []*api.FieldDiff{{Type: "Deleted", Name: "Count", Old: "4"}}},
		},
	}
	var b bytes.Buffer
	(&diffPrinter{w: &b}).job(d)
	const want = `+/- Job: "web"
+   Meta[a]:  "1"
+/- Priority: "50" => "70"
-   Constraint {
  - LTarget: "${a}"
  - Operand: "="
    }
+/- Task Group: "g" (1 create, 2 ignore)
  +/- Count: "2" => "3" (forces create)
  +/- Task: "t" (forces create/destroy update)
    +/- Config {
      +/- image:           "redis:3.2" => "redis:4.0"
          port_map[0][db]: "6379"
        }
  + Task: "u"
  Task: "v"

- Task Group: "h" (4 destroy)
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	(&diffPrinter{w: &b, verbose: true}).job(d)
	if !strings.Contains(b.String(), "  + Task: \"u\"\n    + Driver: \"docker\"\n") || !strings.Contains(b.String(), "(4 destroy)\n  - Count: \"4\"\n") {
		t.Errorf("verbose:\n%s", b.String())
	}
}

func TestAHintCanBePastedIntoAShell(t *testing.T) {
	for s, want := range map[string]string{"web.nomad": "web.nomad", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "x=$HOME": "'x=$HOME'", "a=1": "a=1"} {
		if got := quoted(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
