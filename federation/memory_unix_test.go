//go:build unix

package federation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"atoll/internal/clock"
)

// A disk that hangs holds up neither those who ask where a call goes nor gossip, and
// what it did not take is written once it works.
func TestADiskThatHangsHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	open := func() *Directory {
		return newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", DataDir: dir, Clock: clock.Real})
	}
	// To open a pipe for writing waits for a reader.
	pipe := filepath.Join(dir, "regions.json.tmp")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	d := open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.Update(peersOf("eu", "eu1"))
	eventually(t, "the write begins", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.unwritten.servers {
			return errors.New("not yet")
		}
		return nil
	})
	d.Update(peersOf("eu", "eu1", "eu2"))
	if got := addresses(d, "eu"); !slices.Equal(got, []string{"eu1", "eu2"}) {
		t.Errorf("servers %v", got)
	}
	reader, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := os.Remove(pipe); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := addresses(open(), "eu"); !slices.Equal(got, []string{"eu1", "eu2"}) {
		t.Errorf("after a restart: servers %v", got)
	}
}
