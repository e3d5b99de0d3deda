package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/cell"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// spoil flips a byte in every place of a file where a text stands: the live one
// is among them.
func spoil(t *testing.T, file, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := bytes.Count(b, []byte(text))
	if n == 0 {
		t.Fatalf("%q is not in %s", text, file)
	}
	bad := text[:len(text)-1] + string(text[len(text)-1]^1)
	if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(text), []byte(bad)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAServerWithADamagedLogComesBackAsANewMember(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	c.writes("before")
	victim := "s1"
	if c.leader().cfg.Name == victim {
		victim = "s2"
	}
	old := c.servers[victim].cell.ID()
	c.kill(victim)
	log := filepath.Join(c.dirs[victim], "server", "raft", "log.db")
	spoil(t, log, "before")
	c.writes("meanwhile")

	s := c.start(victim, 3, "s1", "s2", "s3")
	why := s.cell.Down()
	var damage *cell.Damage
	if !errors.As(why, &damage) || damage.File != log || damage.Offset <= 0 {
		t.Errorf("it is down for %v; want the file and the place", why)
	}
	// As a door it is of use all the same.
	wait(t, "a call through the damaged server", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err := rpc.Call(ctx, s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("through", 1)})
		return err
	})
	wait(t, "a new member in the old one's place", func() error {
		if id := s.cell.ID(); id == old {
			return errors.New("it has its old id")
		}
		conf, err := c.configuration()
		if err != nil {
			return err
		}
		for _, m := range conf.Servers {
			if m.ID == old {
				return errors.New("the old member is still there")
			}
			if m.ID == s.cell.ID() && m.Voter {
				return nil
			}
		}
		return fmt.Errorf("it has no vote yet: %+v", conf.Servers)
	})
	c.members("s1 s2 s3")
	c.writes("after")
	for _, id := range []string{"before", "meanwhile", "through"} {
		if s.cell.Snapshot().Job(nil, model.JobID{Namespace: model.DefaultNamespace, ID: id}) == nil {
			t.Errorf("the write %q is not there", id)
		}
	}
	kept, err := filepath.Glob(filepath.Join(c.dirs[victim], "server", "raft.damaged-*", "log.db"))
	if err != nil || len(kept) != 1 {
		t.Errorf("the damaged log is kept as %v, %v", kept, err)
	}
}

func TestALoneServerWithADamagedLogRefusesToStart(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, "s1", "us", dir, 1)
	wait(t, "a write", func() error {
		_, err := rpc.Call(context.Background(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("only-copy", 1)})
		return err
	})
	s.stop()
	log := filepath.Join(dir, "server", "raft", "log.db")
	spoil(t, log, "only-copy")
	cfg := s.cfg
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.RPC = l
	_, err = New(cfg)
	var damage *cell.Damage
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), log) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
}
