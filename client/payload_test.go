package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll/model"
)

func dispatchedAlloc(t *testing.T, payload string, task *model.Task) *model.Allocation {
	t.Helper()
	a := newAlloc(model.JobTypeBatch, task)
	packed, err := model.CompressPayload([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	a.Job.Dispatched, a.Job.Payload = true, packed
	return a
}

func TestAPayloadIsThereBeforeTheTaskAndOnlyOnce(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	out := filepath.Join(t.TempDir(), "out")
	// The first attempt writes the file anew and fails; the second finds that.
	task := shell("main", `cat "$NOMAD_TASK_DIR/in/config.json" >> `+out+`; printf own > "$NOMAD_TASK_DIR/in/config.json"; [ "$(cat `+out+`)" = '{"a":1}own' ]`)
	task.DispatchPayload = &model.DispatchPayloadConfig{File: "in/config.json"}
	a := dispatchedAlloc(t, `{"a":1}`, task)
	s.place(a, nil)
	s.awaitStatus(t, a.ID, model.AllocClientComplete)
	if b, err := os.ReadFile(out); err != nil || string(b) != `{"a":1}own` {
		t.Errorf("the task read %q, %v", b, err)
	}
}

func TestAPayloadStaysInItsDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		prepare func(local string) error
	}{
		"dots":             {"../secrets/x", func(string) error { return nil }},
		"an absolute path": {"/etc/atoll-test", func(string) error { return nil }},
		"a link to elsewhere": {"out/x", func(local string) error {
			return os.Symlink(filepath.Join(filepath.Dir(local), "secrets"), filepath.Join(local, "out"))
		}},
	} {
		d := dirs{filepath.Join(t.TempDir(), "alloc")}
		task := &model.Task{Name: "t", DispatchPayload: &model.DispatchPayloadConfig{File: c.file}}
		if err := d.make(task); err != nil {
			t.Fatal(err)
		}
		if err := c.prepare(d.local("t")); err != nil {
			t.Fatal(err)
		}
		packed, err := model.CompressPayload([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.putPayload(&model.Job{Payload: packed}, task); err == nil || !strings.Contains(err.Error(), "cannot write the dispatch payload") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(d.secret("t")); err != nil || len(left) > 0 {
			t.Errorf("%s: %v was written, %v", name, left, err)
		}
	}
}
