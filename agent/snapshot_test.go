package agent

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	apisurface "atoll/api"
)

const jobsSaved = 220

// The official client saves and restores, through an agent that is no server,
// more than a request's body may hold.
func TestSnapshotsGoThroughAnyAgent(t *testing.T) {
	client := throughANode(t, nil)
	register := func(id string) {
		t.Helper()
		job := api.NewServiceJob(id, id, "us", 50).AddDatacenter("dc9").AddTaskGroup(
			api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true").SetMeta("noise", noise(60_000))))
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if _, _, err = client.Jobs().Register(job, nil); err == nil {
				return
			}
		}
		t.Fatal(err)
	}
	for i := range jobsSaved {
		register("kept-" + string(rune('a'+i%26)) + string(rune('a'+i/26)))
	}
	in, err := client.Operator().Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(in) // with its digest checked by the client
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if len(archive) < apisurface.MaxBody {
		t.Fatalf("an archive of %d bytes is too small for the test", len(archive))
	}
	register("lost")
	if _, err := client.Operator().SnapshotRestore(bytes.NewReader(archive), nil); err != nil {
		t.Fatal(err)
	}
	jobs, _, err := client.Jobs().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) != jobsSaved {
		t.Errorf("%d jobs, want %d", len(jobs), jobsSaved)
	}
	for name, body := range map[string]string{"something else": "hello", "nothing": ""} {
		if _, err := client.Operator().SnapshotRestore(strings.NewReader(body), nil); status(err) != http.StatusBadRequest {
			t.Errorf("%s: %v, want 400", name, err)
		}
	}
}

// noise is a text that does not compress, the same each time.
func noise(n int) string {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = 'A' + byte(x%58)
	}
	return string(b)
}
