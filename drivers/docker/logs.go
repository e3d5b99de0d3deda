package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"atoll/drivers"
	"atoll/internal/backoff"
	"atoll/internal/tasklog"
)

// copier copies a container's output into its task's log files.
type copier struct {
	engine    *client.Client
	container string
	writers   map[byte]*tasklog.Writer
	// mark is the file that holds the time of the last line copied.
	mark string
	last time.Time
	// from is last as it was when the engine was asked: what is not after it
	// was copied before.
	from time.Time
	done chan struct{}
}

// Streams as the engine numbers them.
const (
	engineStdout = 1
	engineStderr = 2
)

// maxFrame bounds a piece of output; the engine's are of 16 KiB.
const maxFrame = 1 << 20

// copy starts to copy a container's output, unless that is under way.
func (d *Driver) copy(containerID string, t *drivers.Task) {
	if t.Logs == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tasks[containerID] != nil {
		return
	}
	c := &copier{
		engine: d.engine, container: containerID, mark: filepath.Join(t.PrivateDir, t.ID+".copied"), done: make(chan struct{}),
		writers: map[byte]*tasklog.Writer{
			engineStdout: tasklog.NewWriter(t.LogDir, tasklog.Base(t.Name, tasklog.Stdout), *t.Logs),
			engineStderr: tasklog.NewWriter(t.LogDir, tasklog.Base(t.Name, tasklog.Stderr), *t.Logs),
		},
	}
	d.tasks[containerID] = c
	d.copies.Go("logs", func(ctx context.Context) error {
		defer close(c.done)
		if err := c.run(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("the output of a container is not copied on", "container", containerID, "error", err)
		}
		return nil
	})
}

// drained waits until the output of an ended container is copied; not for ever,
// since the engine may be gone.
func (c *copier) drained(ctx context.Context) {
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (c *copier) run(ctx context.Context) error {
	defer func() {
		for _, w := range c.writers {
			_ = w.Close()
		}
	}()
	if b, err := os.ReadFile(c.mark); err == nil {
		c.last, _ = time.Parse(time.RFC3339Nano, string(b))
	}
	gone := func(err error) bool { return errdefs.IsNotFound(err) }
	return backoff.Policy{}.Retry(ctx, gone, func(ctx context.Context) error {
		opts := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Timestamps: true}
		if c.from = c.last; !c.from.IsZero() {
			opts.Since = fmt.Sprintf("%d.%09d", c.last.Unix(), c.last.Nanosecond())
		}
		out, err := c.engine.ContainerLogs(ctx, c.container, opts)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := c.frames(bufio.NewReaderSize(out, 64<<10)); err != nil {
			return err
		}
		// The stream ends with the container, and with the engine.
		if state, err := c.engine.ContainerInspect(ctx, c.container); err != nil {
			return err
		} else if state.State.Running {
			return errors.New("the engine ended the stream of a running container")
		}
		return nil
	})
}

// frames copies the engine's frames: a stream number, three zero bytes, a length
// in four bytes, and that much of "time output".
func (c *copier) frames(r *bufio.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(head[4:])
		if size > maxFrame {
			return fmt.Errorf("the engine sent %d bytes at once", size)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		c.write(head[0], body)
	}
}

func (c *copier) write(stream byte, body []byte) {
	w := c.writers[stream]
	if w == nil {
		return
	}
	for i, b := range body {
		if b != ' ' {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, string(body[:i]))
		if err != nil {
			break
		}
		if !at.After(c.from) {
			return
		}
		_, _ = w.Write(body[i+1:])
		// The two streams' times are not in one order.
		if at.After(c.last) {
			c.last = at
			// A crash just before this copies one line twice.
			_ = os.WriteFile(c.mark, body[:i], 0o600)
		}
		return
	}
	_, _ = w.Write(body)
}
