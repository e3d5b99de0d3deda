package tasklog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readAll(t *testing.T, r *Reader) (data string, events []string) {
	t.Helper()
	buf := make([]byte, 7)
	for {
		p, err := r.Next(buf)
		if errors.Is(err, io.EOF) {
			return data, events
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case p.Deleted:
			events = append(events, "deleted")
		case p.Truncated:
			events = append(events, "truncated")
		}
		data += string(p.Data)
	}
}

func open(t *testing.T, dir string, offset int64, fromEnd bool) *Reader {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	r, err := NewReader(root, "web.stdout", offset, fromEnd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestRotationKeepsTheNewestFilesAndWholeLines(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 3, MaxBytes: 40})
	for i := range 30 {
		if _, err := fmt.Fprintf(w, "line %02d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	files, err := List(root, "web.stdout")
	if err != nil || len(files) != 3 {
		t.Fatalf("files: %v, %v; want 3", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 40 || !strings.HasSuffix(string(b), "\n") {
			t.Errorf("%s holds %q: over 40 bytes, or a broken line", f.Name, b)
		}
	}
	got, _ := readAll(t, open(t, dir, 0, false))
	if want := "line 29\n"; !strings.HasSuffix(got, want) || strings.Contains(got, "line 00") {
		t.Errorf("read %q", got)
	}
}

func TestAWriterContinuesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 10, MaxBytes: 25})
		_, _ = io.WriteString(w, "0123456789\n")
		_ = w.Close()
	}
	if got, _ := readAll(t, open(t, dir, 0, false)); got != strings.Repeat("0123456789\n", 3) {
		t.Errorf("read %q", got)
	}
}

func TestALineLongerThanAFileIsSplitAndNothingIsLost(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 100, MaxBytes: 10})
	long := strings.Repeat("abcdefg", 20)
	_, _ = io.WriteString(w, "x\n"+long)
	if got, _ := readAll(t, open(t, dir, 0, false)); got != "x\n"+long {
		t.Errorf("read %q", got)
	}
}

func TestOffsetsCountFromEitherEnd(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 10, MaxBytes: 10})
	_, _ = io.WriteString(w, "aaaaaaaaa\nbbbbbbbbb\nccccc\n")
	for _, c := range []struct {
		offset  int64
		fromEnd bool
		want    string
	}{
		{0, false, "aaaaaaaaa\nbbbbbbbbb\nccccc\n"},
		{10, false, "bbbbbbbbb\nccccc\n"},
		{15, false, "bbbb\nccccc\n"},
		{1000, false, ""},
		{0, true, ""},
		{6, true, "ccccc\n"},
		{8, true, "b\nccccc\n"},
		{1000, true, "aaaaaaaaa\nbbbbbbbbb\nccccc\n"},
	} {
		if got, _ := readAll(t, open(t, dir, c.offset, c.fromEnd)); got != c.want {
			t.Errorf("offset %d from end %v: %q, want %q", c.offset, c.fromEnd, got, c.want)
		}
	}
}

func TestFollowingSeesWhatIsWrittenLaterRotationAndLoss(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, 0, false)
	if got, _ := readAll(t, r); got != "" {
		t.Fatalf("read %q of nothing", got)
	}
	w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 2, MaxBytes: 10})
	_, _ = io.WriteString(w, "one\n")
	if got, _ := readAll(t, r); got != "one\n" {
		t.Fatalf("read %q", got)
	}
	_, _ = io.WriteString(w, "two\nthree\n")
	if got, events := readAll(t, r); got != "two\nthree\n" || events != nil {
		t.Fatalf("read %q, %v", got, events)
	}
	for i := range 10 {
		_, _ = fmt.Fprintf(w, "lost %03d\n", i)
	}
	got, events := readAll(t, r)
	if !strings.HasSuffix(got, "lost 009\n") || len(events) == 0 || events[0] != "deleted" {
		t.Fatalf("read %q, %v; want the end, and word of what was deleted", got, events)
	}
}

func TestAFileThatShrinksIsReadFromItsStart(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "web.stdout", Limits{MaxFiles: 2, MaxBytes: 100})
	_, _ = io.WriteString(w, "before\n")
	r := open(t, dir, 0, false)
	_, _ = readAll(t, r)
	if err := os.Truncate(filepath.Join(dir, "web.stdout.0"), 0); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "new\n")
	got, events := readAll(t, r)
	if got != "new\n" || len(events) != 1 || events[0] != "truncated" {
		t.Errorf("read %q, %v", got, events)
	}
}

func TestALinkOutOfTheDirectoryIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "web.stdout.0")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r := &Reader{root: root, base: "web.stdout", opened: true}
	p, err := r.Next(make([]byte, 100))
	if err == nil || strings.Contains(string(p.Data), "canary") {
		t.Errorf("read %q, %v through a link", p.Data, err)
	}
}
