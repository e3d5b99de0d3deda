package cell

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"atoll/cell/state"
	"atoll/internal/wire"
)

// contents is all that Raft can read of a log file.
func contents(t testing.TB, path string) string {
	t.Helper()
	s, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	var out strings.Builder
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d %d %d %x %x %d\n", l.Index, l.Term, l.Type, l.Data, l.Extensions, l.AppendedAt.UnixNano())
	}
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		v, err := s.Get([]byte(key))
		fmt.Fprintf(&out, "%s %x %v\n", key, v, err)
	}
	return out.String()
}

// filledDir is the raft directory of a closed member with entries small and
// large, overwritten and deleted ones.
func filledDir(t testing.TB) dataDir {
	t.Helper()
	dir := t.TempDir()
	c := openAlone(t, dir)
	for i := range 60 {
		j := testJob(fmt.Sprint(i), 1)
		if i%20 == 7 {
			j.Meta = map[string]string{"large": strings.Repeat("x", 9000)}
		}
		must(t, c, CmdJobRegister, &JobRegister{Job: j})
	}
	if err := c.current().log.DeleteRange(1, 20); err != nil {
		t.Fatal(err)
	}
	if err := c.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("last", 1)})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return dataDir{filepath.Join(dir, "raft"), "v-test"}
}

// A byte of the log file may be flipped without being found only where nothing
// lies that Raft can read.
func TestAFlippedByteOfTheLogIsFoundAndPlaced(t *testing.T) {
	d := filledDir(t)
	path := d.file(fileLog)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.check(); err != nil {
		t.Fatal(err)
	}
	want := contents(t, path)
	step := 61
	if testing.Short() {
		step = 607
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := 0
	flip := func(at int) {
		t.Helper()
		if _, err := f.WriteAt([]byte{good[at] ^ 1<<(at%8)}, int64(at)); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = f.WriteAt(good[at:at+1], int64(at)) }()
		_, err := d.check()
		var damage *Damage
		switch {
		case errors.As(err, &damage):
			found++
			near := func(from int64) bool { return from-4*4096 <= int64(at) && int64(at) < from+4*4096 }
			var from int64 = -1
			if _, leads, ok := strings.Cut(damage.What, "to which byte "); ok {
				_, _ = fmt.Sscan(leads, &from)
			}
			if damage.File != path || !near(damage.Offset) && !(from >= 0 && near(from)) {
				t.Errorf("byte %d flipped, and found at %d of %s", at, damage.Offset, damage.File)
			}
		case err != nil:
			t.Fatalf("byte %d flipped: %v", at, err)
		case contents(t, path) != want:
			t.Fatalf("byte %d flipped: the log reads otherwise, and nothing was found", at)
		}
	}
	for at := 0; at < len(good); at += step {
		flip(at)
	}
	// Each byte of a live record and its neighbours, and of the meta pages.
	at := bytes.LastIndex(good, []byte("raw_exec"))
	for i := at - 200; i < at+200; i++ {
		flip(i)
	}
	for i := range 16 + 64 {
		flip(i)
		flip(4096 + i)
	}
	if found < 500 {
		t.Errorf("%d flips were found: the file is not what the test thinks", found)
	}
	for _, cut := range []int64{0, 100, 4096, int64(len(good)) / 2} {
		if err := os.WriteFile(path, good[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		var damage *Damage
		if _, err := d.check(); !errors.As(err, &damage) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestAFlippedByteOfASnapshotIsFoundAndPlaced(t *testing.T) {
	d := filledDir(t)
	name, err := newestSnapshot(d.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{snapState, snapMeta, snapMetaSum} {
		path := filepath.Join(snapshotDir(d.path), name, file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(good); at += 1 + len(good)/300 {
			bad := bytes.Clone(good)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var damage *Damage
			if _, err := d.check(); !errors.As(err, &damage) || damage.Offset > int64(at) || filepath.Dir(damage.File) != filepath.Dir(path) {
				t.Fatalf("%s, byte %d flipped: %v", file, at, err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.check(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(snapshotDir(d.path), name)); err != nil {
		t.Fatal(err)
	}
	var damage *Damage
	if _, err := d.check(); !errors.As(err, &damage) {
		t.Errorf("a snapshot that is gone: %v", err)
	}
}

// flipIn flips a byte of text in a file; in the log, of a live record.
func flipIn(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(b, []byte(text))
	if filepath.Base(path) == fileLog {
		at = -1
		if err := walkBolt(path, map[string]visitor{
			"logs": func(_, value []byte, offset int64) (string, string) {
				if i := bytes.Index(value, []byte(text)); i >= 0 {
					at = int(offset) + i
				}
				return "", ""
			},
			"conf": func([]byte, []byte, int64) (string, string) { return "", "" },
		}); err != nil {
			t.Fatal(err)
		}
	}
	if at < 0 {
		t.Fatalf("%q is not in %s", text, path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryOpenAlone(t *testing.T, dataDir string) error {
	t.Helper()
	l := listen(t)
	c, err := Open(Config{ServerID: "s1", DataDir: dataDir, Stream: tcpStream{l}, Advertise: l.Addr().String(), Alone: true, Version: "v-old"})
	if err == nil {
		_ = c.Close()
	}
	_ = l.Close()
	return err
}

func TestTheOnlyServerRefusesDamagedDataAndChangesNothing(t *testing.T) {
	d := filledDir(t)
	flipIn(t, d.file(fileLog), "raw_exec")
	before := sums(t, d.path)
	err := tryOpenAlone(t, filepath.Dir(d.path))
	var damage *Damage
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), d.file(fileLog)) || !strings.Contains(err.Error(), "no other server") {
		t.Errorf("%v", err)
	}
	if after := sums(t, d.path); !maps.Equal(before, after) {
		t.Error("files changed")
	}
}

func TestDataOfANewerVersionAreRefusedAndKept(t *testing.T) {
	store := func(t *testing.T, d dataDir, l *raft.Log) {
		s, err := openBolt(d.file(fileLog))
		if err != nil {
			t.Fatal(err)
		}
		last, _ := s.LastIndex()
		l.Index, l.Term = last+1, 2
		if err := errors.Join(s.StoreLog(sealed(l)), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*testing.T, dataDir)
		want  []string
	}{
		"a log entry": {func(t *testing.T, d dataDir) {
			store(t, d, &raft.Log{Type: raft.LogCommand, Data: []byte{250, 1}, Extensions: []byte("v-new")})
		}, []string{"command 250", "v-new", "v-old"}},
		"a field of a log entry": {func(t *testing.T, d dataDir) {
			store(t, d, &raft.Log{Type: raft.LogCommand, Data: entryWith(t, "Shiny", ""), Extensions: []byte("v-new")})
		}, []string{"command 5", "Shiny", "v-new", "v-old"}},
		"a snapshot": {func(t *testing.T, d dataDir) {
			name, err := newestSnapshot(d.path)
			if err != nil {
				t.Fatal(err)
			}
			spoilSnapshot(t, filepath.Join(snapshotDir(d.path), name))
		}, []string{"snapshot format 99", "v-new", "v-old"}},
		"the directory": {func(t *testing.T, d dataDir) {
			if err := os.WriteFile(d.file(fileFormat), formatLine(9), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"format 9", "format 2", "v-old"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := filledDir(t)
			tc.spoil(t, d)
			before := sums(t, filepath.Dir(d.path))
			err := tryOpenAlone(t, filepath.Dir(d.path))
			var newer *state.Newer
			if !errors.As(err, &newer) {
				t.Fatalf("%v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
			if after := sums(t, filepath.Dir(d.path)); !maps.Equal(before, after) {
				t.Error("files changed")
			}
		})
	}
}

// newerSnapshot is one of a format that is not known yet.
func newerSnapshot(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/snapshot-newer.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spoilSnapshot(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, snapState), newerSnapshot(t), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotOfANewerLeaderIsRefusedBeforeItTakesAPlace(t *testing.T) {
	d := filledDir(t)
	failed := func(err error) error { t.Error(err); return err }
	s, err := openSnapshots(d.path, "v-old", hclog.NewNullLogger(), failed)
	if err != nil {
		t.Fatal(err)
	}
	before := sums(t, d.path)
	good, err := s.List()
	if err != nil || len(good) != 1 {
		t.Fatal(good, err)
	}
	_, r, err := s.Open(good[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"newer":              {newerSnapshot(t), "snapshot format 99, written by version v-new"},
		"damaged on its way": {flipped, "damaged at byte"},
		"cut":                {whole[:len(whole)-20], "ends early"},
	} {
		sink, err := s.Create(1, 1000, 9, raft.Configuration{}, 1, transport{})
		if err != nil {
			t.Fatal(err)
		}
		// As Raft does it: copy, then Close or Cancel.
		if _, err = io.Copy(sink, bytes.NewReader(tc.data)); err != nil {
			err = errors.Join(err, sink.Cancel())
		} else {
			err = sink.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if after := sums(t, d.path); !maps.Equal(before, after) {
			t.Errorf("%s: files changed", name)
		}
	}
}

// entryWith is a log entry that has a field more than this version knows in its body
// or its request, unless that is "".
func entryWith(t *testing.T, inBody, inRequest string) []byte {
	t.Helper()
	fields := func(known, more string) map[string]any {
		out := map[string]any{known: nil}
		if more != "" {
			out[more] = true
		}
		return out
	}
	r, err := wire.Encode(fields("ID", inRequest))
	if err != nil {
		t.Fatal(err)
	}
	body, err := wire.Encode(fields("Evals", inBody))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat([]byte{entryOnce, 0, byte(len(r))}, r, []byte{byte(CmdEvals)}, body)
}

func TestAnEntryThatIsNotKnownInAllIsNotApplied(t *testing.T) {
	apply := func(data []byte) (panicked any) {
		s, err := state.New()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { panicked = recover() }()
		(&fsm{store: s, replay: &replay{}}).Apply(&raft.Log{Index: 1, Data: data})
		return nil
	}
	if p := apply(entryWith(t, "", "")); p != nil {
		t.Fatalf("one that is known: %v", p)
	}
	for what, data := range map[string][]byte{"a field of the body": entryWith(t, "Shiny", ""), "a field of the request": entryWith(t, "", "Shiny")} {
		if p := fmt.Sprint(apply(data)); !strings.Contains(p, "newer version") || !strings.Contains(p, "Shiny") {
			t.Errorf("%s: %s", what, p)
		}
	}
}

func TestAFollowerRefusesAnEntryOfANewerLeader(t *testing.T) {
	d := filledDir(t)
	s, err := openBolt(d.file(fileLog))
	if err != nil {
		t.Fatal(err)
	}
	c := newCheckedLog(s, d.file(fileLog), "v-old", hclog.NewNullLogger())
	defer c.Close()
	last, err := c.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"a command": {250}, "a field of the body": entryWith(t, "Shiny", ""), "a field of the request": entryWith(t, "", "Shiny"),
	} {
		err := c.StoreLogs([]*raft.Log{{Index: last + 1, Term: 2, Type: raft.LogCommand, Data: data, Extensions: []byte("v-new")}})
		var newer *state.Newer
		if !errors.As(err, &newer) || !strings.Contains(err.Error(), "v-new") || !strings.Contains(err.Error(), "v-old") {
			t.Errorf("%s: %v", what, err)
		}
		if now, _ := c.LastIndex(); now != last {
			t.Errorf("%s: it is stored", what)
		}
	}
	if c.broken.Load() != nil {
		t.Error("it counts as a failure of the disk")
	}
}

func TestADirectoryOfVersion1IsTakenOver(t *testing.T) {
	dir := t.TempDir()
	unpack(t, "testdata/v1.tar.gz", dir)
	server := filepath.Join(dir, "server")
	for round := range 2 {
		l := listen(t)
		c, err := Open(Config{DataDir: server, Stream: tcpStream{l}, Advertise: "127.0.0.1:41207", Alone: true})
		if err != nil {
			t.Fatal(err)
		}
		if id := c.ID(); id != "11111111-2222-4333-8444-555555555555" {
			t.Errorf("its id is %s", id)
		}
		n := 0
		for range c.Snapshot().Jobs(nil, "*", "") {
			n++
		}
		if n != 16 {
			t.Errorf("round %d: %d jobs from the snapshot, want 16", round, n)
		}
		if last := c.current().raft.LastIndex(); last != 33 {
			t.Errorf("round %d: the log ends at %d, want 33", round, last)
		}
		for i := uint64(1); i <= 33; i++ {
			var entry raft.Log
			if err := c.current().log.GetLog(i, &entry); err != nil || entry.Index != i {
				t.Fatalf("entry %d: %+v, %v", i, entry, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (dataDir{filepath.Join(server, "raft"), ""}).check(); err != nil {
		t.Error(err)
	}
}

func unpack(t *testing.T, archive, to string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(to, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(name, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestALostDirectoryIsAnotherMember(t *testing.T) {
	dir := t.TempDir()
	id := func() string {
		l := listen(t)
		c, err := Open(Config{DataDir: dir, Stream: tcpStream{l}, Advertise: l.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ID()
	}
	first := id()
	if again := id(); again != first {
		t.Errorf("after a restart it is %s, was %s", again, first)
	}
	if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
		t.Fatal(err)
	}
	if after := id(); after == first {
		t.Error("without its data it is the same member, who may have voted")
	}
}

func FuzzLogFile(f *testing.F) {
	d := filledDir(f)
	good, err := os.ReadFile(d.file(fileLog))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, []byte{1})
	f.Add(4096*2, []byte{0xff, 0xff, 0xff, 0xff})
	path := filepath.Join(f.TempDir(), "log.db")
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		bad := bytes.Clone(good)
		if at < 0 || at >= len(bad) {
			return
		}
		copy(bad[at:], patch)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		// It ends, and does not panic.
		_ = walkBolt(path, map[string]visitor{
			"logs": func([]byte, []byte, int64) (string, string) { return "", "" },
			"conf": func([]byte, []byte, int64) (string, string) { return "", "" },
		})
	})
}

func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{300, 60_000} {
		b.Run(fmt.Sprintf("entry=%d", size), func(b *testing.B) {
			d := dataDir{path: b.TempDir()}
			s, err := openBolt(d.file(fileLog))
			if err != nil {
				b.Fatal(err)
			}
			body, err := wire.Encode(strings.Repeat("x", size))
			if err != nil {
				b.Fatal(err)
			}
			const total = 128 << 20
			for i := uint64(1); i <= uint64(total/size); {
				var batch []*raft.Log
				for range 1000 {
					batch = append(batch, sealed(&raft.Log{Index: i, Term: 1, Data: append([]byte{byte(CmdPlan)}, body...)}))
					i++
				}
				if err := s.StoreLogs(batch); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			var n int64
			for b.Loop() {
				out, err := d.check()
				if err != nil {
					b.Fatal(err)
				}
				n += out.bytes
			}
			b.ReportMetric(float64(n)/1e6/b.Elapsed().Seconds(), "MB/s")
		})
	}
}
