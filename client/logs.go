package client

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"atoll/internal/tasklog"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// maxFrameData bounds a frame of a log.
const maxFrameData = 64 << 10

// lookAgain is how often a followed log is looked at. The files are written by
// other processes.
const lookAgain = 100 * time.Millisecond

// logs serves a task's log. A followed one ends when the task is dead and all of
// it was sent.
func (c *Client) logs(ctx context.Context, _ *rpc.Inbound, req *method.LogsRequest, send func(*method.LogFrame) error) error {
	r := c.runner(req.AllocID)
	if r == nil {
		return model.NotFound("allocation on this node", req.AllocID)
	}
	at := slices.IndexFunc(r.tasks, func(t *taskRunner) bool { return t.task.Name == req.Task })
	if at < 0 {
		return model.NotFound("task", req.Task)
	}
	task := r.tasks[at]
	switch {
	case req.Type != tasklog.Stdout && req.Type != tasklog.Stderr:
		return model.Invalidf("type", "cannot read the log: type %q is neither stdout nor stderr", req.Type)
	case req.Origin != "" && req.Origin != "start" && req.Origin != "end":
		return model.Invalidf("origin", "cannot read the log: origin %q is neither start nor end", req.Origin)
	case req.Offset < 0:
		return model.Invalidf("offset", "cannot read the log: offset %d is negative", req.Offset)
	}
	root, err := os.OpenRoot(r.dirs.logs())
	if errors.Is(err, os.ErrNotExist) {
		return model.Errorf(model.KindNotFound, "task %q of allocation %s has no log yet: it has not started", req.Task, req.AllocID)
	}
	if err != nil {
		return model.Errorf(model.KindInternal, "cannot open the logs of allocation %s: %w", req.AllocID, err)
	}
	defer root.Close()
	reader, err := tasklog.NewReader(root, tasklog.Base(req.Task, req.Type), req.Offset, req.Origin == "end")
	if err != nil {
		return err
	}
	defer reader.Close()
	buf := make([]byte, maxFrameData)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dead := task.dead() // before the last look at the files
		piece, err := reader.Next(buf)
		switch {
		case err == nil:
			frame := &method.LogFrame{Offset: piece.Offset, Data: slices.Clone(piece.Data), File: piece.File}
			if piece.Truncated {
				frame.FileEvent = "file truncated"
			}
			if piece.Deleted {
				frame.FileEvent = "file deleted"
			}
			if err := send(frame); err != nil {
				return err
			}
			continue
		case !errors.Is(err, io.EOF):
			return model.Errorf(model.KindInternal, "cannot read the log of task %q: %w", req.Task, err)
		case !req.Follow || dead:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
