//go:build power && linux

package cell

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"atoll/internal/forgetfs"
	"atoll/internal/wholefile"
)

// These tests take the power from all servers of a cell at one instant, again
// and again, on a disk that forgets what was not synced. What was acked must be
// there afterwards, at every server; no term and no vote may go back; no server
// may take for damage what a loss of power leaves; and the cell must go on.
//
// The instant is before some change of the disk, drawn by the seed. What a run
// meets also hangs on how the processes happen to be scheduled, so that a seed is
// no script: ATOLL_POWER_SEEDS=50 make power runs as many for longer.

// powerSeeds are the seeds of a run.
func powerSeeds(t *testing.T, f func(t *testing.T, r *rand.Rand)) {
	n := 1
	if s := os.Getenv("ATOLL_POWER_SEEDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("ATOLL_POWER_SEEDS is %q, want a number", s)
		}
	}
	for seed := range n {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { f(t, rand.New(rand.NewPCG(uint64(seed), 0))) })
	}
}

// outage is a cell on a disk that can lose its power.
type outage struct {
	*processes
	t       *testing.T
	disk    *forgetfs.Disk
	dir     string
	unmount func() error
	writes  int
}

func newOutage(t *testing.T, lies func(path string) bool) *outage {
	o := &outage{t: t, disk: forgetfs.New(lies), dir: t.TempDir()}
	o.mount()
	// The directories that servers are given are there and stay.
	for _, n := range ringNames {
		if err := os.Mkdir(filepath.Join(o.dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := wholefile.SyncDir(o.dir); err != nil {
		t.Fatal(err)
	}
	// Unmounted after the processes are killed.
	t.Cleanup(func() {
		if err := o.unmount(); err != nil {
			t.Error(err)
		}
	})
	o.processes = newProcesses(t, o.dir)
	return o
}

func (o *outage) mount() {
	o.t.Helper()
	var err error
	if o.unmount, err = o.disk.Mount(o.dir); err != nil {
		o.t.Fatal(err)
	}
}

// lose waits for the loss of power that was ordered with CutWhen, and ends the
// processes; the disk comes back with what chance adds to what was synced.
func (o *outage) lose(r *rand.Rand) {
	o.t.Helper()
	select {
	case <-o.disk.Off():
	case <-time.After(20 * time.Second):
		o.faulty("what the power was to be taken away at was not met within 20 s")
		o.disk.PowerOff()
	}
	o.kill()
	if err := o.unmount(); err != nil {
		o.t.Fatal(err)
	}
	o.disk.PowerOn(r)
	o.mount()
}

// back starts all servers and sees that nothing is lost and the cell goes on.
func (o *outage) back() {
	o.start(ringNames...)
	o.settle()
	o.more(20)
}

// more waits for n more writes, which go on.
func (o *outage) more(n int) {
	o.writes++
	o.write(fmt.Sprintf("r%d", o.writes), n)
}

// end reports what was wrong.
func (o *outage) end() {
	o.t.Helper()
	for _, fault := range o.faults() {
		o.t.Error(fault)
	}
	o.t.Logf("%d writes were acked in %d rounds", o.count(), o.writes)
}

// rounds counts to n, or until something is wrong: from there on nothing means
// anything.
func (o *outage) rounds(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; i < n && o.faults() == nil && yield(i); i++ {
		}
	}
}

// after is true from the nth change on after the first that at is true for.
func after(n int, at func(op, path string) bool) func(op, path string) bool {
	met := false
	return func(op, path string) bool {
		met = met || at(op, path)
		if met {
			n--
		}
		return n < 0
	}
}

func anything(string, string) bool { return true }

func TestPowerLossAtTheFirstStartOfACell(t *testing.T) {
	powerSeeds(t, func(t *testing.T, r *rand.Rand) {
		for range 6 {
			o := newOutage(t, nil)
			n := r.IntN(firstStart)
			o.disk.CutWhen(after(n, anything))
			o.start(ringNames...)
			o.tell("write", "first")
			o.lose(r)
			acked := o.count()
			o.back()
			if o.begun(); acked == 0 && o.count() == 0 {
				o.faulty("nothing was acked")
			}
			o.disk.CutWhen(after(r.IntN(50), anything))
			o.lose(r)
			o.back()
			o.kill()
			o.t.Logf("first cut after %d changes, with %d writes acked", n, acked)
			o.end()
		}
	})
}

// firstStart is about how many changes of the disk the three servers make before
// the cell has taken some writes.
const firstStart = 250

func TestPowerLossUnderWrites(t *testing.T) {
	powerSeeds(t, func(t *testing.T, r *rand.Rand) {
		o := newOutage(t, nil)
		o.back()
		o.begun()
		for range o.rounds(6) {
			o.disk.CutWhen(after(r.IntN(200), anything))
			o.lose(r)
			o.back()
		}
		o.end()
	})
}

// The log is cut short after each snapshot, so that what is in it alone is lost
// when the snapshot does not last.
func TestPowerLossDuringSnapshots(t *testing.T) {
	powerSeeds(t, func(t *testing.T, r *rand.Rand) {
		o := newOutage(t, nil)
		o.eager()
		o.back()
		o.begun()
		for range o.rounds(6) {
			// From the snapshot's directory to the cut of the log; or where it is
			// given its place.
			n, begin := r.IntN(60), "mkdir"
			if r.IntN(2) == 0 {
				n, begin = r.IntN(12), "rename"
			}
			o.disk.CutWhen(after(n, func(op, path string) bool {
				return op == begin && strings.Contains(path, "/snapshots/")
			}))
			o.lose(r)
			o.back()
		}
		o.end()
	})
}

func (o *outage) eager() {
	for _, s := range o.spec {
		s.Eager = true
	}
}

func TestPowerLossWhileAFollowerIsSentASnapshot(t *testing.T) {
	powerSeeds(t, func(t *testing.T, r *rand.Rand) {
		o := newOutage(t, nil)
		o.eager()
		o.back()
		o.begun()
		for range o.rounds(3) {
			late := ringNames[r.IntN(3)]
			o.killOne(late)
			// Until the others have cut from their logs what it needs.
			behind := o.newestPlace()
			o.more(60)
			o.wait("the others take snapshots", func() string {
				if o.newestPlace() < behind+100 {
					return fmt.Sprintf("the newest is of %d, after %d", o.newestPlace(), behind)
				}
				return ""
			})
			o.disk.CutWhen(after(r.IntN(40), func(op, path string) bool {
				return op == "mkdir" && strings.HasPrefix(path, late+"/raft/snapshots/")
			}))
			o.start(late)
			o.lose(r)
			o.back()
		}
		o.end()
	})
}

// newestPlace is the index of the newest snapshot of any server.
func (o *outage) newestPlace() (newest uint64) {
	for _, n := range ringNames {
		name, _ := newestSnapshot(filepath.Join(o.dir, n, "raft"))
		_, index, _ := placeOf(name)
		newest = max(newest, index)
	}
	return newest
}

func TestPowerLossWhileDamagedDataAreSetAside(t *testing.T) {
	powerSeeds(t, func(t *testing.T, r *rand.Rand) {
		for range 3 {
			o := newOutage(t, nil)
			o.back()
			o.begun()
			o.disk.CutWhen(after(r.IntN(200), anything))
			o.lose(r)

			o.given = "s3"
			raftDir := filepath.Join(o.dir, o.given, "raft")
			o.damage(filepath.Join(raftDir, fileLog))
			o.start("s1", "s2")
			o.settle()
			o.more(20)
			goesOn := filepath.Join(t.TempDir(), "goes on")
			if err := os.WriteFile(goesOn, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			o.spec[o.given].GoesOn = goesOn
			o.disk.CutWhen(after(r.IntN(60), func(op, path string) bool {
				return op == "rename" && strings.Contains(path, asideMark)
			}))
			o.start(o.given)
			o.lose(r)
			o.back()
			if kept, err := filepath.Glob(filepath.Join(raftDir+asideMark+"*", fileLog)); err != nil || len(kept) == 0 {
				o.faulty("the damaged data are not kept: %v, %v", kept, err)
			}
			o.kill()
			o.end()
		}
	})
}

// damage flips a byte of each record of the log that names a job.
func (o *outage) damage(log string) {
	o.t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		o.t.Fatal(err)
	}
	flipped := bytes.ReplaceAll(b, []byte("r1-"), []byte("r1+"))
	if bytes.Equal(b, flipped) {
		o.t.Fatalf("no job is in %s", log)
	}
	f, err := os.OpenFile(log, os.O_WRONLY, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	_, err = f.Write(flipped)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		o.t.Fatal(err)
	}
}

// What the tests above stand on: of a disk that does nothing where a sync is
// missing, they find it.
func TestPowerLossFindsMissingSyncs(t *testing.T) {
	for what, lies := range map[string]func(path string) bool{
		// bbolt's NoSync.
		"of the log": func(path string) bool { return strings.Contains(path, "/raft/"+fileLog) },
		// wholefile.Rename without its SyncDir.
		"of the directory of the log":   func(path string) bool { return strings.HasSuffix(path, "/raft") },
		"of the directory above":        func(path string) bool { return len(path) == len("s1") },
		"of the directory of snapshots": func(path string) bool { return strings.HasSuffix(path, "/snapshots") },
		"of a snapshot's directory":     func(path string) bool { return strings.HasSuffix(path, snapTemp) },
	} {
		t.Run(what, func(t *testing.T) {
			o := newOutage(t, lies)
			o.eager()
			o.back()
			o.begun()
			o.wait("logs were cut short", func() string {
				if o.newestPlace() < 200 {
					return "not yet"
				}
				return ""
			})
			// Where a snapshot has its place, and its log is not cut short yet.
			o.disk.CutWhen(func(op, path string) bool { return op == "sync" && strings.Contains(path, snapMetaSum) })
			o.lose(nil)
			o.back()
			if o.faults() == nil {
				t.Error("nothing was found to be wrong")
			}
			t.Log(o.faults())
		})
	}
}
