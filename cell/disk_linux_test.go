package cell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of a few megabytes.
func smallDisk(t *testing.T, bytes string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("cannot unmount: %v", err)
		}
	})
	return dir
}

func TestADiskThatFillsUpIsOutlivedAndComesBack(t *testing.T) {
	for _, who := range []string{"a follower", "the leader"} {
		t.Run(who, func(t *testing.T) {
			// Any of them may lead: all have small disks, and one is filled.
			disks := map[string]string{}
			for _, name := range ringNames {
				disks[name] = smallDisk(t, "24m")
			}
			r := newRing(t)
			r.dirs = disks
			r.begin()
			victim, _ := r.leader("")
			if who == "a follower" {
				victim = r.follower(victim)
			}
			acked := r.put("before", 10)

			ballast := filepath.Join(r.dirs[victim], "ballast")
			fill(t, ballast)
			filled := time.Now()
			n := 0
			r.until("the member is out", func() bool {
				n++
				acked = append(acked, r.put("full-"+strings.Repeat("i", n), 3)...)
				return r.cell(victim).Down() != nil
			})
			if took := time.Since(filled); took > 10*time.Second {
				t.Errorf("it was out after %s, want ten seconds at the most", took)
			}
			if why := r.cell(victim).Down().Error(); !strings.Contains(why, "no space left on device") {
				t.Errorf("it is out because %s", why)
			}
			acked = append(acked, r.put("without", 20)...)
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			for _, name := range ringNames {
				r.has(name, acked)
			}
		})
	}
}

// fill writes a file until the disk takes no more.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
