//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/rpc"
)

// measured lets a test read an agent's figures as of now.
const measured = "telemetry {\n prometheus_metrics = true\n}\n"

var goroutineLine = regexp.MustCompile(`(?m)^atoll_runtime_goroutines\S* (\S+)$`)

// goroutines is how many an agent has; it measures itself every second.
func (a *agent) goroutines() (int, error) {
	_, _, body, err := a.get("/v1/metrics?format=prometheus")
	if err != nil {
		return 0, err
	}
	m := goroutineLine.FindStringSubmatch(body)
	if m == nil {
		return 0, fmt.Errorf("there is no figure of goroutines in %.200q", body)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	return int(n), err
}

// settledGoroutines waits until an agent has had the same number of goroutines
// for longer than it takes to be measured, and no more than atMost.
func (a *agent) settledGoroutines(atMost int) int {
	a.w.t.Helper()
	last, since := -1, time.Now()
	eventually(a.w.t, 60*time.Second, fmt.Sprintf("%s has settled with at most %d goroutines", a.name, atMost), func() error {
		n, err := a.goroutines()
		if n != last || n > atMost {
			last, since = n, time.Now()
		}
		if same := time.Since(since); err != nil || same < 3*time.Second {
			return fmt.Errorf("it has had %d goroutines for %s, %v", n, same.Round(time.Millisecond), err)
		}
		return nil
	})
	return last
}

// oneLine fails unless text is a line of a sensible length that holds what is
// wanted.
func oneLine(t *testing.T, text string, want ...string) {
	t.Helper()
	text = strings.TrimSuffix(text, "\n")
	if text == "" || strings.ContainsAny(text, "\n\r") || len(text) > 1000 {
		t.Errorf("the error is %d lines of %d bytes: %.1000s", strings.Count(text, "\n")+1, len(text), text)
	}
	for _, part := range want {
		if !strings.Contains(text, part) {
			t.Errorf("the error is %.1000q; want %q in it", text, part)
		}
	}
}

func TestWrongInputIsRefusedInOneLineAndLeavesNothingBehind(t *testing.T) {
	w := newWorld(t, "us")
	us := w.agent(agentConfig{name: "us", host: "us", region: "us", server: true, client: true, servers: []string{"us"}, extra: measured})
	awaitRegions(t, us, "us", "us")
	if _, _, err := w.client(us).Jobs().Register(service("before", "us", "exec sleep 1000"), nil); err != nil {
		t.Fatal(err)
	}
	awaitAllocs(t, us, "us", "before", "running", 1)
	// Nothing of it changes any more.
	eventually(t, 30*time.Second, "the job is deployed", func() error {
		d, _, err := w.client(us).Jobs().LatestDeployment("before", nil)
		if err != nil || d == nil || d.Status != "successful" {
			return fmt.Errorf("%+v, %v", d, err)
		}
		return nil
	})
	goroutines := us.settledGoroutines(math.MaxInt)
	_, header, jobs, err := us.get("/v1/jobs")
	if err != nil {
		t.Fatal(err)
	}
	index := header.Get("X-Nomad-Index")

	t.Run("job files", func(t *testing.T) { wrongJobFiles(t, us) })
	t.Run("HTTP", func(t *testing.T) { wrongRequests(t, us) })
	t.Run("RPC", func(t *testing.T) { wrongConnections(t, us) })
	t.Run("agent configuration", func(t *testing.T) { wrongConfigurations(t, us) })

	_, header, after, err := us.get("/v1/jobs")
	if err != nil || after != jobs || header.Get("X-Nomad-Index") != index {
		t.Errorf("the jobs at %s were %s and are at %s %s, %v", index, jobs, header.Get("X-Nomad-Index"), after, err)
	}
	us.settledGoroutines(goroutines)
	if b, _ := os.ReadFile(us.log); bytes.Contains(b, []byte("panic")) {
		t.Errorf("the agent's log tells of a panic:\n%s", us.tail())
	}
}

// jobFile is a job of one group and one task, with lines in the job, the group
// and the task.
func jobFile(job, group, task string) string {
	return fmt.Sprintf("job \"wrong\" {\n%s\n  group \"g\" {\n%s\n    task \"t\" {\n%s\n    }\n  }\n}\n", job, group, task)
}

func wrongJobFiles(t *testing.T, a *agent) {
	const plain = `driver = "raw_exec"` + "\n" + `config { command = "/bin/true" }`
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a syntax error", jobFile("", "", `driver = "raw_exec`), []string{"wrong.nomad:6: "}},
		{"an unclosed block", `job "wrong" {` + "\n" + `group "g" {`, []string{"wrong.nomad:2: "}},
		{"an unknown attribute", jobFile("", "cuont = 2", plain), []string{`wrong.nomad:4: group "g": unknown attribute "cuont"; did you mean "count"?`}},
		{"an unknown block", jobFile("", "", plain+"\nresorces {}"), []string{`wrong.nomad:8: group "g" > task "t": unknown block "resorces"; did you mean "resources"?`}},
		{"a wrong type", jobFile("", `count = "many"`, plain), []string{`wrong.nomad:4: group "g" > count: "many" is not a whole number`}},
		{"a negative count", jobFile("", "count = -1", plain), []string{`wrong.nomad:4: group "g".count: -1 is negative`}},
		{"a missing driver configuration", jobFile("", "", `driver = "docker"`), []string{`wrong.nomad:5: group "g" > task "t": config.image: it is missing`}},
		{"an unknown key of a driver", jobFile("", "", "driver = \"raw_exec\"\nconfig {\ncommand = \"/bin/true\"\nargz = []\n}"), []string{`wrong.nomad:9: group "g" > task "t": config.argz: `}},
		{"an unknown region", jobFile(`region = "atlantis"`, "", plain), []string{`"atlantis"`, "us"}},
		{"an unsupported block", jobFile("multiregion {}\n", "", plain), []string{"wrong.nomad:2: job.multiregion: "}},
		{"a cron expression", jobFile("type = \"batch\"\nperiodic {\n cron = \"0 2 *\"\n time_zone = \"Mars\"\n}", "", plain), []string{`wrong.nomad:4: job.periodic.cron: "0 2 *" is no cron expression`, `wrong.nomad:5: job.periodic.time_zone: "Mars" is no time zone`}},
		{"nesting beyond all use", jobFile("meta { x = "+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+" }", "", plain), []string{"wrong.nomad:2: "}},
		{"a syntax error in JSON", "{\n \"Job\": {\n  \"ID\": wrong\n }\n}", []string{"wrong.json:3: "}},
		{"a wrong type in JSON", "{\n \"Job\": {\n  \"ID\": \"x\", \"TaskGroups\": [{\"Name\": \"g\",\n   \"Count\": \"many\"}]\n }\n}", []string{"wrong.json: Job.TaskGroups.Count: a JSON string cannot stand here"}},
		{"a negative count in JSON", `{"ID": "x", "TaskGroups": [{"Name": "g", "Count": -1}]}`, []string{`wrong.json: group "g".count: -1 is negative`}},
		{"an id of 10 MB in JSON", `{"ID": "` + strings.Repeat("x", 10<<20) + `"}`, []string{"wrong.json: job.id: 10485760 bytes are over the limit"}},
		{"10 MB", jobFile("meta { x = \""+strings.Repeat("x", 10<<20)+"\" }", "", plain), []string{"wrong.nomad: ", "over the limit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, flag := filepath.Join(t.TempDir(), "wrong.nomad"), "-json=false"
			if strings.HasPrefix(c.text, "{") {
				file, flag = strings.TrimSuffix(file, "nomad")+"json", "-json"
			}
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := a.w.cli(a, "job", "run", flag, file)
			if err == nil {
				t.Errorf("it was accepted: %s", out)
			}
			oneLine(t, strings.ReplaceAll(out, filepath.Dir(file)+"/", ""), append(c.want, "Error: ")...)
		})
	}
}

func wrongRequests(t *testing.T, a *agent) {
	register := func(job string) string { return `{"Job": ` + job + `}` }
	group := func(g string) string {
		return register(`{"ID": "wrong", "TaskGroups": [{"Name": "g", ` + g + `}]}`)
	}
	for _, c := range []struct {
		name, verb, path, body string
		status                 int
		want                   []string
	}{
		{"no JSON", "PUT", "/v1/jobs", "job", 400, []string{"cannot read the request's body"}},
		{"half a body", "PUT", "/v1/jobs", `{"Job": {"ID": "wro`, 400, []string{"cannot read the request's body"}},
		{"a wrong type", "PUT", "/v1/jobs", group(`"Count": "many"`), 400, []string{"Job.TaskGroups.Count"}},
		{"a negative count", "PUT", "/v1/jobs", group(`"Count": -1, "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "x"}}]`), 400, []string{`group "g".count: -1 is negative`}},
		{"a missing driver configuration", "PUT", "/v1/jobs", group(`"Tasks": [{"Name": "t", "Driver": "docker"}]`), 400, []string{`group "g" > task "t": config.image: it is missing`}},
		{"an unknown region", "PUT", "/v1/jobs?region=atlantis", group(`"Tasks": []`), 500, []string{`No path to region "atlantis"`}},
		{"every region", "PUT", "/v1/jobs?region=*", group(`"Tasks": []`), 400, []string{"name one region"}},
		{"a read of an unknown region", "GET", "/v1/jobs?region=atlantis", "", 500, []string{`No path to region "atlantis"`}},
		{"a body of 10 MB", "PUT", "/v1/jobs", register(`{"ID": "` + strings.Repeat("x", 10<<20) + `"}`), 413, []string{"over the limit"}},
		{"an id of 7 MB", "PUT", "/v1/jobs", register(`{"ID": "` + strings.Repeat("x", 7<<20) + `"}`), 400, []string{"job.id: 7340032 bytes are over the limit"}},
		{"a job file of 2 MB", "PUT", "/v1/jobs/parse", `{"JobHCL": "` + strings.Repeat("(", 2<<20) + `"}`, 413, []string{"over the limit"}},
		{"a job file with a syntax error", "PUT", "/v1/jobs/parse", `{"JobHCL": "job \"x\" {\n group {{\n}"}`, 400, []string{"job.nomad.hcl:2: "}},
		{"no index", "GET", "/v1/jobs?index=x", "", 400, []string{"index"}},
		{"a filter that is none", "GET", "/v1/jobs?filter=((", "", 400, []string{"filter"}},
		{"no such path", "GET", "/v1/jbos", "", 404, []string{"/v1/jbos"}},
		{"the wrong verb", "DELETE", "/v1/jobs", "", 405, []string{"DELETE"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.verb, a.url()+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := a.w.httpClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status {
				t.Errorf("status %d, %v; want %d", resp.StatusCode, err, c.status)
			}
			oneLine(t, string(b), c.want...)
		})
	}
}

// Bytes of the RPC port, as its peers write them.
const (
	forRaft, forCalls                              = 1, 2
	envelopeFrame, bodyFrame, endFrame, errorFrame = 1, 2, 3, 4
)

// frame is a frame with the length that it claims.
func frame(kind byte, claims uint32, payload []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, claims), kind), payload...)
}

func whole(kind byte, payload []byte) []byte { return frame(kind, uint32(len(payload)), payload) }

func wrongConnections(t *testing.T, a *agent) {
	addr := net.JoinHostPort(a.host.ip, strconv.Itoa(a.http+1))
	dial := func(t *testing.T, first ...byte) net.Conn {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	// The agent ends a connection that has said nothing, or nothing sensible,
	// for five seconds.
	for name, first := range map[string][]byte{
		"silence":               nil,
		"HTTP":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"no session":            append([]byte{forCalls}, bytes.Repeat([]byte{0xff}, 100)...),
		"nonsense for Raft":     append([]byte{forRaft}, bytes.Repeat([]byte{0xff}, 100)...),
		"a protocol unheard of": {99},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, first...)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it was still open after 10 s")
			}
		})
	}
	envelope, err := wire.Encode(&rpc.Envelope{Method: "Job.Register"})
	if err != nil {
		t.Fatal(err)
	}
	list, deep := []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x91}, 10_000)
	text := []byte{0xdb, 0x40, 0, 0, 0, 'x'}
	for _, c := range []struct {
		name string
		send []byte
		// says is what the answer says, "" when there is none to give.
		says string
	}{
		{"a truncated frame", frame(envelopeFrame, 1000, envelope), ""},
		{"a truncated head", []byte{0, 0}, ""},
		{"an unknown frame", whole(77, envelope), "malformed frame: type 77"},
		{"a body without envelope", whole(bodyFrame, list), "a call begins with its envelope"},
		{"a frame of 4 GB", frame(envelopeFrame, 0xffffffff, envelope), "over the limit"},
		{"a body of 1 GB", append(whole(envelopeFrame, envelope), frame(bodyFrame, 1<<30, list)...), "over the limit"},
		{"an envelope that is a list of 4 billion", whole(envelopeFrame, list), "cannot read the call"},
		{"an envelope that is nested 10,000 deep", whole(envelopeFrame, deep), "cannot read the call"},
		{"a truncated body", append(whole(envelopeFrame, envelope), frame(bodyFrame, 1000, list)...), ""},
		{"a body that is a list of 4 billion", append(whole(envelopeFrame, envelope), whole(bodyFrame, list)...), "cannot read the request"},
		{"a body that is nested 10,000 deep", append(whole(envelopeFrame, envelope), whole(bodyFrame, deep)...), "cannot read the request"},
		{"a body that claims a text of 1 GB", append(whole(envelopeFrame, envelope), whole(bodyFrame, text)...), "cannot read the request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := yamux.DefaultConfig()
			config.LogOutput = io.Discard
			session, err := yamux.Client(dial(t, forCalls), config)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			stream, err := session.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Write(c.send); err != nil {
				t.Fatal(err)
			}
			_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer, err := io.ReadAll(stream)
			if err != nil {
				t.Fatalf("after %q: %v", answer, err)
			}
			if c.says == "" {
				if len(answer) > 0 {
					t.Errorf("the answer is %q", answer)
				}
				return
			}
			if len(answer) < 5 || answer[4] != errorFrame || int(binary.BigEndian.Uint32(answer)) > len(answer)-5 {
				t.Fatalf("the answer is %q; want an error", answer)
			}
			e := new(model.Error)
			if err := wire.Decode(answer[5:5+binary.BigEndian.Uint32(answer)], e); err != nil || e.Kind != model.KindInvalid {
				t.Errorf("the answer is %+v, %v", e, err)
			}
			oneLine(t, e.Message, c.says)
		})
	}
}

func wrongConfigurations(t *testing.T, a *agent) {
	dir := t.TempDir()
	plain := fmt.Sprintf("data_dir = %q\nserver {\n enabled = true\n}\n", filepath.Join(dir, "data"))
	for _, c := range []struct {
		name, file, text string
		want             []string
	}{
		{"an unknown key", "a.hcl", plain + `bnid_addr = "127.0.0.1"`, []string{`a.hcl:5: unknown key "bnid_addr"; did you mean "bind_addr"?`}},
		{"an unknown key in a block", "a.hcl", "client {\n enabeld = true\n}\n" + plain, []string{`a.hcl:2: unknown key "client.enabeld"; did you mean "client.enabled"?`}},
		{"an unknown key in JSON", "a.json", "{\n \"server\": {\n  \"enabeld\": true\n }\n}", []string{`a.json:3: unknown key "server.enabeld"; did you mean "server.enabled"?`}},
		{"a syntax error", "a.hcl", plain + `region = "us`, []string{"a.hcl:5: "}},
		{"a syntax error in JSON", "a.json", "{\n \"region\": us\n}", []string{"a.json:2: "}},
		{"a wrong type", "a.hcl", plain + `ports { http = "many" }`, []string{"a.hcl:5: ports.http: "}},
		{"no data directory", "a.hcl", "server {\n enabled = true\n}", []string{"data_dir is not set"}},
		{"nothing to do", "a.hcl", "", []string{"server.enabled", "client.enabled"}},
		{"beyond loopback", "a.hcl", plain + `bind_addr = "0.0.0.0"`, []string{"insecure = true"}},
		{"a data directory in use", "a.hcl", fmt.Sprintf("data_dir = %q\nserver {\n enabled = true\n}\n", filepath.Join(a.w.dir, a.name)), []string{"cannot use data_dir", "one of its own"}},
		{"a port in use", "a.hcl", plain + fmt.Sprintf("insecure = true\nbind_addr = %q", a.host.ip), []string{fmt.Sprintf("%s:%d", a.host.ip, a.http), "ports.http"}},
		{"no such file", "", "", []string{"no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, c.file)
			if c.file == "" {
				file = filepath.Join(dir, "none.hcl")
			} else if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "nsenter", "--net=/var/run/netns/"+a.host.name, a.w.bin, "agent", "-config", file)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if ctx.Err() != nil || !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v; want it to exit with 1", err)
			}
			oneLine(t, strings.ReplaceAll(string(out), dir+"/", ""), append(c.want, "Error: ")...)
		})
	}
}
