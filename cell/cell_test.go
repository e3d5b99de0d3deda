package cell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/model"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(memberEnv); spec != "" {
		if err := memberMain(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// tcpStream is Raft's stream layer over plain loopback TCP.
type tcpStream struct{ net.Listener }

func (tcpStream) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func openAlone(t testing.TB, dir string) *Cell {
	t.Helper()
	l := listen(t)
	c, err := Open(Config{ServerID: "s1", DataDir: dir, Stream: tcpStream{l}, Advertise: l.Addr().String(), Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	fresh, err := c.Fresh()
	if err != nil {
		t.Fatal(err)
	}
	if fresh {
		if err := c.Bootstrap([]Server{{"s1", l.Addr().String()}}); err != nil {
			t.Fatal(err)
		}
	}
	for leads := range c.Leadership() {
		if leads {
			break
		}
	}
	if err := c.Barrier(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB, c *Cell, cmd Command, body any) any {
	t.Helper()
	_, v, err := c.Apply(context.Background(), cmd, body)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func testJob(id string, count int) *model.Job {
	j := &model.Job{
		ID: id, Name: id, Namespace: model.DefaultNamespace, Type: model.JobTypeService, Priority: 50,
		Datacenters: []string{"*"}, NodePool: model.NodePoolDefault,
		TaskGroups: []*model.TaskGroup{{
			Name: "web", Count: count, EphemeralDisk: model.NewEphemeralDisk(),
			Tasks: []*model.Task{{Name: "main", Driver: "raw_exec", Config: map[string]any{"command": "/bin/true"}, Resources: model.NewResources()}},
		}},
	}
	return j
}

func testNode(i int) *model.Node {
	return &model.Node{
		ID: model.NewUUID(nil).String(), Name: "node-" + string(rune('a'+i%26)), Status: model.NodeStatusReady, Datacenter: "dc1",
		Attributes: map[string]string{"cpu.arch": "amd64"}, Meta: map[string]string{},
	}
}

func TestAWriteWaitsForItsTurnAndIsTakenBackWhenItsTimeEnds(t *testing.T) {
	c := openAlone(t, t.TempDir())
	writes := c.current().writes
	for range maxWrites {
		writes <- struct{}{}
	}
	before := c.current().raft.LastIndex()
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan error, 1)
	go func() {
		_, _, err := c.Apply(ctx, CmdJobRegister, &JobRegister{Job: testJob("late", 1)})
		late <- err
	}()
	cancel()
	if err := <-late; model.KindOf(err) != model.KindBusy || c.current().raft.LastIndex() != before {
		t.Errorf("a write whose turn never came: %v, index %d after %d", err, c.current().raft.LastIndex(), before)
	}
	// A place that comes free is the next one's, and is given back.
	done := make(chan error, 1)
	go func() {
		_, _, err := c.Apply(t.Context(), CmdJobRegister, &JobRegister{Job: testJob("next", 1)})
		done <- err
	}()
	<-writes
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(writes); n != maxWrites-1 {
		t.Errorf("%d writes are under way, %d were put there", n, maxWrites-1)
	}
	if snap := c.Snapshot(); snap.Job(nil, testJob("late", 1).Key()) != nil || snap.Job(nil, testJob("next", 1).Key()) == nil {
		t.Error("what was taken back was written, or what was not is missing")
	}
}

// Raft writes its term before the first entry of a cell.
func TestABootstrapThatWasInterruptedIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	d := dataDir{path: filepath.Join(dir, "raft")}
	if _, err := d.prepare(openBolt, "s1"); err != nil {
		t.Fatal(err)
	}
	inner, err := openBolt(d.file(fileLog))
	if err != nil {
		t.Fatal(err)
	}
	log := newCheckedLog(inner, d.file(fileLog), "", hclog.NewNullLogger())
	if err := errors.Join(log.SetUint64([]byte(keyTerm), 1), log.Close()); err != nil {
		t.Fatal(err)
	}
	c := openAlone(t, dir)
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("web", 1)})
}

// An entry that no server can read would stop them all, for good.
func TestWhatCannotBeReadAgainIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir)
	var wrote, refused int
	for depth := 1; depth < 200; depth++ {
		job := testJob(fmt.Sprint("deep-", depth), 1)
		job.TaskGroups[0].Tasks[0].Config["deep"] = nest(depth)
		switch _, _, err := c.Apply(t.Context(), CmdJobRegister, &JobRegister{Job: job}); {
		case err == nil:
			wrote++
		case model.KindOf(err) == model.KindInvalid:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if wrote < 50 || refused < 50 {
		t.Errorf("%d were written and %d refused", wrote, refused)
	}
	var saved bytes.Buffer
	if err := c.Snapshot().Persist(&saved); err != nil {
		t.Fatal(err)
	}
	m, err := NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.fsm.Restore(io.NopCloser(&saved)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	openAlone(t, dir)
}

// nest is so many lists and maps within each other.
func nest(depth int) (v any) {
	for i := range depth {
		if i%2 == 0 {
			v = map[string]any{"a": v}
		} else {
			v = []any{v}
		}
	}
	return v
}
