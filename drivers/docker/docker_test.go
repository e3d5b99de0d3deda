package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll/drivers"
	"atoll/internal/tasklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine returns a driver of the engine that DOCKER_HOST names.
func engine(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if f := d.Fingerprint(t.Context()); !f.Healthy {
		t.Skip("no Docker engine: " + f.Description)
	}
	if _, err := d.engine.ImageInspect(t.Context(), "atoll-busybox:test"); err != nil {
		if out, err := exec.Command("../../scripts/images").CombinedOutput(); err != nil {
			t.Fatalf("scripts/images: %v: %s", err, out)
		}
	}
	return d
}

func newTask(t *testing.T, text string) *drivers.Task {
	t.Helper()
	dir := t.TempDir()
	tk := &drivers.Task{
		ID: fmt.Sprintf("%d.web.0", time.Now().UnixNano()), AllocID: fmt.Sprintf("alloc-%d", time.Now().UnixNano()), Name: "web",
		Dir: filepath.Join(dir, "web"), AllocDir: filepath.Join(dir, "alloc"), LogDir: filepath.Join(dir, "alloc", "logs"), PrivateDir: filepath.Join(dir, "private"),
		Env: map[string]string{"GREETING": "hello"}, CPU: 100, MemoryMB: 64, Logs: &tasklog.Limits{MaxFiles: 2, MaxBytes: 1 << 20},
		// The test's engine has no bridge.
		Config: map[string]any{"image": "atoll-busybox:test", "command": "/bin/sh", "args": []any{"-c", text}, "network_mode": "none", "labels": []any{map[string]any{"team": "reef"}}},
	}
	for _, d := range []string{tk.Dir + "/local", tk.Dir + "/secrets", tk.LogDir, tk.PrivateDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tk
}

func start(t *testing.T, d *Driver, tk *drivers.Task) drivers.Handle {
	t.Helper()
	h, err := d.Start(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), h); err != nil {
			t.Error(err)
		}
	})
	return h
}

func logged(tk *drivers.Task, stream string) string {
	b, _ := os.ReadFile(filepath.Join(tk.LogDir, "web."+stream+".0"))
	return string(b)
}

func waitLog(t *testing.T, tk *drivers.Task, want string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(logged(tk, "stdout"), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the log is %q after 10 s; want %q in it", logged(tk, "stdout"), want)
}

func TestAContainerRunsAndItsEndAndOutputAreKept(t *testing.T) {
	d := engine(t)
	tk := newTask(t, "echo $GREETING; echo oops >&2; echo shared >/alloc/x; echo own >/local/y; exit 7")
	h := start(t, d, tk)
	e, err := d.Wait(t.Context(), h)
	if err != nil || e.Code != 7 || e.OOMKilled || e.Err != "" {
		t.Fatalf("exit %+v, %v; want code 7", e, err)
	}
	if out, errs := logged(tk, "stdout"), logged(tk, "stderr"); out != "hello\n" || errs != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
	for file, want := range map[string]string{tk.AllocDir + "/x": "shared\n", tk.Dir + "/local/y": "own\n"} {
		if b, err := os.ReadFile(file); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", file, b, err)
		}
	}
	v, err := decode(h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.engine.ContainerInspect(t.Context(), v.Container)
	if err != nil || c.Config.Labels["team"] != "reef" || c.Config.Labels["com.hashicorp.nomad.alloc_id"] != tk.AllocID || c.HostConfig.Memory != 64<<20 {
		t.Errorf("labels %v, memory %d, %v", c.Config.Labels, c.HostConfig.Memory, err)
	}
}

func TestStopSignalsThenKills(t *testing.T) {
	d := engine(t)
	for _, c := range []struct {
		name, text, signal string
		timeout            time.Duration
		code               int
	}{
		{"heeds", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done", "", 10 * time.Second, 3},
		{"named signal", "trap 'exit 4' INT; echo up; while :; do sleep 0.1; done", "SIGINT", 10 * time.Second, 4},
		{"ignores", "trap '' TERM; echo up; while :; do sleep 0.1; done", "", 100 * time.Millisecond, 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			tk := newTask(t, c.text)
			h := start(t, d, tk)
			waitLog(t, tk, "up")
			if err := d.Stop(t.Context(), h, drivers.Stop{Signal: c.signal, Timeout: c.timeout}); err != nil {
				t.Fatal(err)
			}
			if e, err := d.Wait(t.Context(), h); err != nil || e.Code != c.code {
				t.Errorf("exit %+v, %v; want code %d", e, err, c.code)
			}
			if err := d.Stop(t.Context(), h, drivers.Stop{}); err != nil {
				t.Errorf("stopping it again: %v", err)
			}
		})
	}
}

func TestANewDriverFindsTheContainerAndGoesOnWithItsOutput(t *testing.T) {
	d := engine(t)
	tk := newTask(t, "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done")
	first, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := first.Start(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	waitLog(t, tk, "line 5\n")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// As if the agent had died before it kept the handle.
	found, err := d.Recover(t.Context(), tk, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Destroy(t.Context(), found); err != nil {
			t.Error(err)
		}
	}()
	if !bytes.Equal(found, h) {
		t.Errorf("recovered %s, started %s", found, h)
	}
	if e, err := d.Wait(t.Context(), found); err != nil || e.Code != 0 {
		t.Fatalf("exit %+v, %v", e, err)
	}
	var want strings.Builder
	for i := range 40 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if got := logged(tk, "stdout"); got != want.String() {
		t.Errorf("the log across two drivers is %q", got)
	}
}

func TestRecoverKnowsWhatWasNotStarted(t *testing.T) {
	d := engine(t)
	tk := newTask(t, "sleep 60")
	if _, err := d.Recover(t.Context(), tk, nil); !errors.Is(err, drivers.ErrNotStarted) {
		t.Fatalf("of nothing: %v", err)
	}
	start(t, d, tk)
	other := *tk
	other.ID = "another attempt"
	if _, err := d.Recover(t.Context(), &other, nil); !errors.Is(err, drivers.ErrNotStarted) {
		t.Errorf("of another attempt: %v", err)
	}
}

func TestAnImageThatCannotBeHadSaysSo(t *testing.T) {
	d := engine(t)
	tk := newTask(t, "true")
	tk.Config["image"] = "127.0.0.1:1/no/such:image"
	_, err := d.Start(t.Context(), tk)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1/no/such:image") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v; want one line that names the image", err)
	}
}

func TestPortsArePublishedInBothForms(t *testing.T) {
	ports := []drivers.Port{
		{Label: "http", HostIP: "10.0.0.1", Value: 20001, To: 80},
		{Label: "same", HostIP: "10.0.0.1", Value: 20002},
		{Label: "db", HostIP: "10.0.0.1", Value: 20003, Legacy: true},
	}
	for _, c := range []struct {
		name   string
		config map[string]any
		want   string
		fault  string
	}{
		{"ports", map[string]any{"ports": []any{"http", "same"}}, "20001>80 20002>20002 20003>20003", ""},
		{"port_map block", map[string]any{"port_map": []any{map[string]any{"db": 6379}}}, "20003>6379", ""},
		{"port_map text", map[string]any{"port_map": map[string]any{"db": "6379"}}, "20003>6379", ""},
		{"unknown label", map[string]any{"ports": []any{"nope"}}, "", `no port "nope"`},
		{"port_map of a group port", map[string]any{"port_map": map[string]any{"http": 80}}, "", `ports = ["http"]`},
		{"port_map of nothing", map[string]any{"port_map": map[string]any{"nope": 80}}, "", `no port "nope"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config["image"] = "x"
			set, err := read(c.config)
			if err != nil {
				t.Fatal(err)
			}
			_, bound, err := set.publish(&drivers.Task{Ports: ports})
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("error %v; want %q in it", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, _ := json.Marshal(bound)
			for _, pair := range strings.Fields(c.want) {
				host, inside, _ := strings.Cut(pair, ">")
				for _, proto := range []string{"tcp", "udp"} {
					if !strings.Contains(string(b), fmt.Sprintf(`"%s/%s":[{"HostIp":"10.0.0.1","HostPort":"%s"}]`, inside, proto, host)) {
						t.Errorf("%s/%s is not among %s", pair, proto, b)
					}
				}
			}
		})
	}
}

func TestWrongConfigurationNamesFieldValueAndRemedy(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, "config.image: it is missing"},
		{map[string]any{"image": "x", "imagee": "y"}, "config.imagee: the driver docker has no such setting"},
		{map[string]any{"image": "x", "privileged": true}, "config.privileged: it is not supported"},
		{map[string]any{"image": "x", "args": "one"}, "config.args: one is no list"},
		{map[string]any{"image": "x", "port_map": map[string]any{"db": "high"}}, `config.port_map: db = "high"`},
		{map[string]any{"image": "x", "network_mode": "moon"}, `config.network_mode: "moon"`},
		{map[string]any{"image": "x", "ports": []any{"a"}, "port_map": map[string]any{"b": 1}}, "the old form of ports"},
	} {
		if _, err := read(c.config); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: error %v; want one line with %q", c.config, err, c.want)
		}
	}
}
