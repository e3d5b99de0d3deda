package cell

import (
	"net"
	"strconv"
	"testing"
	"time"
)

func TestASnapshotIsTakenByWhatAStartWouldCost(t *testing.T) {
	var l net.Listener = listen(t)
	c, err := Open(Config{ServerID: "s1", DataDir: t.TempDir(), Stream: tcpStream{l}, Advertise: l.Addr().String(), Alone: true, replay: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Bootstrap([]Server{{"s1", l.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	for leads := range c.Leadership() {
		if leads {
			break
		}
	}
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("j", 1)})
	r := c.current().raft
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, err := strconv.Atoi(r.Stats()["last_snapshot_index"]); err != nil || n > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an entry was applied, and no snapshot was taken")
		}
	}
}

func TestALargeSnapshotIsNotTakenAgainAtOnce(t *testing.T) {
	var r replay
	r.applying.Store(int64(time.Second))
	if !r.due(replayLimit, 0) {
		t.Error("a first snapshot is put off")
	}
	r.writing.Store(int64(2 * time.Second))
	for since, due := range map[time.Duration]bool{19 * time.Second: false, 21 * time.Second: true} {
		if r.due(replayLimit, since) != due {
			t.Errorf("%s after a snapshot of two seconds: due is %t", since, !due)
		}
	}
	r.applying.Store(int64(time.Millisecond))
	if r.due(replayLimit, time.Hour) {
		t.Error("a snapshot is taken for a millisecond's replay")
	}
}
