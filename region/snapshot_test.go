package region

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// saved is a region's archive, checked against what announced it.
func saved(t *testing.T, c rpc.Caller, to rpc.To) []byte {
	t.Helper()
	stream, err := rpc.Open(t.Context(), c, method.SnapshotSave, to, &method.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	head, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(f.Data)
	}
	if sum := sha256.Sum256(out.Bytes()); int64(out.Len()) != head.Size || !bytes.Equal(sum[:], head.SHA256) {
		t.Fatalf("%d bytes came, %d were announced, or their sum is another", out.Len(), head.Size)
	}
	return out.Bytes()
}

func restore(t *testing.T, c rpc.Caller, to rpc.To, archive []byte) (*method.IndexResponse, error) {
	t.Helper()
	id := model.NewUUID(nil).String()
	for at := 0; at < len(archive); at += 5000 {
		piece := archive[at:min(at+5000, len(archive))]
		for range 2 { // a piece that comes twice does no harm
			if _, err := rpc.Call(t.Context(), c, method.SnapshotStage, to, &method.SnapshotPiece{ID: id, Offset: int64(at), Data: piece}); err != nil {
				return nil, err
			}
		}
	}
	sum := sha256.Sum256(archive)
	return rpc.Call(t.Context(), c, method.SnapshotRestore, to, &method.SnapshotRestoreRequest{ID: id, Size: int64(len(archive)), SHA256: sum[:]})
}

func (c *cluster) has(t *testing.T, want map[string]bool) {
	t.Helper()
	for name, s := range c.servers {
		wait(t, "the restored state at "+name, func() error {
			snap := s.cell.Snapshot()
			for id, there := range want {
				if got := snap.Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id}) != nil; got != there {
					return fmt.Errorf("job %s is there: %v", id, got)
				}
			}
			return nil
		})
	}
}

func TestARegionIsSavedAndRestoredFromAnotherOne(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	eu := c.joinedBy("eu")
	us := rpc.To{Region: "us"}
	node, secret := aNode("dc1")
	call(t, eu.RPC(), method.NodeRegister, us, &method.NodeRegisterRequest{Node: node, SecretID: secret})
	c.writes("kept")
	wait(t, "its placement", func() error { return placed(eu.RPC(), "us", "kept", 1) })
	before := *c.leader().cell.Snapshot().Cell(nil)
	archive := saved(t, eu.RPC(), us)
	info, _, err := state.InspectArchive(bytes.NewReader(archive), "")
	if err != nil || info.Cell.Region != "us" || info.Written != "test" {
		t.Fatalf("inspected as %+v, %v", info, err)
	}
	c.writes("lost")

	pull := func(index uint64) *method.NodeAllocsResponse {
		t.Helper()
		return call(t, eu.RPC(), method.NodePullAllocs, us, &method.NodeAllocsRequest{
			Query: method.Query{MinIndex: index, MaxWait: time.Minute}, NodeID: node.ID, SecretID: secret,
		})
	}
	known := pull(0).Index
	// Whoever waits on the old state hears of the new one.
	waiting := make(chan error, 1)
	go func() {
		r, err := rpc.Call(context.Background(), eu.RPC(), method.JobList, us, &method.ListRequest{Query: method.Query{MinIndex: c.leader().cell.Snapshot().Index(), MaxWait: time.Minute}})
		if err == nil && len(r.Jobs) != 1 {
			err = fmt.Errorf("%d jobs", len(r.Jobs))
		}
		waiting <- err
	}()

	out, err := restore(t, eu.RPC(), us, archive)
	if err != nil {
		t.Fatal(err)
	}
	c.has(t, map[string]bool{"kept": true, "lost": false})
	if err := <-waiting; err != nil {
		t.Errorf("a blocking query over the restore: %v", err)
	}
	after := *c.leader().cell.Snapshot().Cell(nil)
	if after.ID != before.ID || after.Incarnation == before.Incarnation || after.Incarnation == "" || after.Restored != out.Index {
		t.Errorf("the cell was %+v, is %+v, restored at %d", before, after, out.Index)
	}
	// A node takes no lower index than it has seen, and must hear of all again.
	if r := pull(known); r.Index <= known || len(r.Changed) != 1 || len(r.Indexes) != 1 {
		t.Errorf("the node hears of %d allocations, %d changed, at index %d after %d", len(r.Indexes), len(r.Changed), r.Index, known)
	}
	// The region goes on, with another leader too.
	c.writes("after")
	c.kill(c.leader().cfg.Name)
	c.writes("after-the-leader")
	c.has(t, map[string]bool{"kept": true, "lost": false, "after": true})
}

func TestASnapshotIsRestoredIntoAFreshCellOfItsRegionOnly(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	register(t, s.RPC(), "", aJob("a", 3))
	archive := saved(t, s.RPC(), rpc.To{})
	id := s.cell.Snapshot().Cell(nil).ID
	s.stop()

	fresh := startServer(t, "s1", "us", t.TempDir(), 1)
	wait(t, "a leader", func() error {
		if !fresh.cell.Leads() {
			return errors.New("none yet")
		}
		return nil
	})
	flipped := bytes.Clone(archive)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{"flipped": flipped, "cut": archive[:len(archive)-9], "something else": []byte("hello")} {
		if _, err := restore(t, fresh.RPC(), rpc.To{}, bad); model.KindOf(err) != model.KindInvalid || err == nil {
			t.Errorf("%s: %v, want kind invalid", name, err)
		}
	}
	if _, err := rpc.Call(t.Context(), fresh.RPC(), method.SnapshotRestore, rpc.To{}, &method.SnapshotRestoreRequest{ID: "never sent"}); model.KindOf(err) != model.KindConflict {
		t.Errorf("what was never sent: %v", err)
	}
	if n := fresh.cell.Snapshot().Restored(); n != 0 {
		t.Errorf("something was restored at %d", n)
	}
	if _, err := restore(t, fresh.RPC(), rpc.To{}, archive); err != nil {
		t.Fatal(err)
	}
	j := call(t, fresh.RPC(), method.JobGet, rpc.To{}, &method.JobRequest{JobID: "a"}).Job
	if j == nil || j.TaskGroups[0].Count != 3 || fresh.cell.Snapshot().Cell(nil).ID != id {
		t.Errorf("restored: %+v in %+v", j, fresh.cell.Snapshot().Cell(nil))
	}
	// It is on disk.
	dir, cfg := fresh.cfg.DataDir, fresh.cfg
	fresh.stop()
	again := startServer(t, cfg.Name, "us", dir, 1)
	wait(t, "the state after a restart", func() error {
		if again.cell.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: "a"}) == nil {
			return errors.New("it is not there")
		}
		return nil
	})

	eu := startServer(t, "e1", "eu", t.TempDir(), 1)
	wait(t, "another region's leader", func() error {
		if !eu.cell.Leads() {
			return errors.New("none yet")
		}
		return nil
	})
	if _, err := restore(t, eu.RPC(), rpc.To{}, archive); model.KindOf(err) != model.KindConflict {
		t.Errorf("a snapshot of another region: %v, want kind conflict", err)
	}
}
