//go:build linux && power

package forgetfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(databaseEnv); path != "" {
		keys, err := strconv.Atoi(os.Getenv(databaseEnv + "_KEYS"))
		if err = cmp.Or(err, database(path, keys)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// lost mounts a disk, lets f work on it, takes the power away, and returns what
// is there when it is back: paths, with the contents of files behind a "=".
func lost(t *testing.T, lies func(string) bool, f func(dir string)) []string {
	t.Helper()
	d, dir := New(lies), t.TempDir()
	mounted(t, d, dir, func() {
		f(dir)
		d.PowerOff()
		if _, err := os.ReadDir(dir); !errors.Is(err, syscall.EIO) {
			t.Errorf("without power the disk says %v", err)
		}
	})
	d.PowerOn(nil)
	var found []string
	mounted(t, d, dir, func() {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			name, _ := filepath.Rel(dir, path)
			if !e.IsDir() {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				name += "=" + string(b)
			}
			found = append(found, name)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	return found
}

func mounted(t *testing.T, d *Disk, dir string, f func()) {
	t.Helper()
	unmount, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	}()
	f()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes a file, over what it was, and syncs it if it should.
func put(t *testing.T, name, content string, sync bool) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	_, err = f.WriteString(content)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	must(t, err)
	must(t, errors.Join(d.Sync(), d.Close()))
}

func TestWhatIsLostWithThePower(t *testing.T) {
	kept := func(dir string) string { // a file that lasts
		name := filepath.Join(dir, "f")
		put(t, name, "old", true)
		syncDir(t, dir)
		return name
	}
	for _, c := range []struct {
		name string
		do   func(dir string)
		want string
	}{
		{"a file that was not synced", func(dir string) { put(t, filepath.Join(dir, "f"), "x", false) }, ""},
		{"a synced file in a directory that was not", func(dir string) { put(t, filepath.Join(dir, "f"), "x", true) }, ""},
		{"the content alone", func(dir string) { put(t, filepath.Join(dir, "f"), "x", false); syncDir(t, dir) }, "f="},
		{"nothing", func(dir string) { kept(dir) }, "f=old"},
		{"a write over it", func(dir string) { put(t, kept(dir), "new", false) }, "f=old"},
		{"no synced write over it", func(dir string) { put(t, kept(dir), "newer", true) }, "f=newer"},
		{"a truncation", func(dir string) { must(t, os.Truncate(kept(dir), 1)) }, "f=old"},
		{"a removal", func(dir string) { must(t, os.Remove(kept(dir))) }, "f=old"},
		{"no synced removal", func(dir string) { must(t, os.Remove(kept(dir))); syncDir(t, dir) }, ""},
		{"a rename", func(dir string) { must(t, os.Rename(kept(dir), filepath.Join(dir, "g"))) }, "f=old"},
		{"no synced rename", func(dir string) { must(t, os.Rename(kept(dir), filepath.Join(dir, "g"))); syncDir(t, dir) }, "g=old"},
		{"a rename over it", func(dir string) {
			put(t, filepath.Join(dir, "f.new"), "new", true)
			must(t, os.Rename(filepath.Join(dir, "f.new"), kept(dir)))
		}, "f.new=new f=old"},
		{"a directory that was not synced in its own", func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
			kept(filepath.Join(dir, "d"))
		}, ""},
		{"what is in a directory", func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
			put(t, filepath.Join(dir, "d", "f"), "x", true)
			syncDir(t, dir)
		}, "d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lost(t, nil, c.do)
			want := strings.Fields(c.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%q are left, want %q", got, want)
			}
		})
	}
}

func TestADiskThatLiesAboutSyncsKeepsNothing(t *testing.T) {
	synced := func(dir string) { put(t, filepath.Join(dir, "f"), "x", true); syncDir(t, dir) }
	if got := lost(t, func(path string) bool { return path == "f" }, synced); !slices.Equal(got, []string{"f="}) {
		t.Errorf("%q are left of a synced file on a disk that lies about it", got)
	}
	if got := lost(t, func(path string) bool { return path == "" }, synced); len(got) > 0 {
		t.Errorf("%q are left of a synced file on a disk that lies about its directory", got)
	}
}

func TestThePowerGoesJustBeforeAChange(t *testing.T) {
	d, dir := New(nil), t.TempDir()
	mounted(t, d, dir, func() {
		d.CutWhen(func(op, path string) bool { return op == "rename" && path == "d/g" })
		must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
		put(t, filepath.Join(dir, "d", "f"), "x", true)
		if err := os.Rename(filepath.Join(dir, "d", "f"), filepath.Join(dir, "d", "g")); !errors.Is(err, syscall.EIO) {
			t.Errorf("the rename without power says %v", err)
		}
		select {
		case <-d.Off():
		case <-time.After(10 * time.Second):
			t.Error("the disk does not say that it is off")
		}
	})
}

// bbolt reads its file through a map, and must see there what it wrote; and what
// it committed lasts. It runs in a process of its own: one that serves a disk and
// waits for a page of its map may wait for itself.
func TestADatabaseLasts(t *testing.T) {
	d, dir := New(nil), t.TempDir()
	self := func(keys string) {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), databaseEnv+"="+filepath.Join(dir, "db"), databaseEnv+"_KEYS="+keys)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	mounted(t, d, dir, func() {
		self("100")
		d.PowerOff()
	})
	d.PowerOn(nil)
	mounted(t, d, dir, func() { self("0") })
}

const databaseEnv = "ATOLL_TEST_DATABASE"

// database adds keys, one a transaction, and then looks for a hundred.
func database(path string, keys int) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return err
	}
	bucket := []byte("b")
	for i := range keys {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			if err != nil {
				return err
			}
			if i > 0 && b.Get([]byte{byte(i - 1)}) == nil {
				return fmt.Errorf("key %d is not to be seen in the next transaction", i-1)
			}
			return b.Put([]byte{byte(i)}, make([]byte, 3000))
		})
		if err != nil {
			return err
		}
	}
	return db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(bucket).Stats().KeyN; n != 100 {
			return fmt.Errorf("%d keys are there of 100", n)
		}
		return nil
	})
}
