package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func allocLogsCommand() *cobra.Command {
	var m meta
	var l logFlags
	c := &cobra.Command{
		Use: "logs ALLOCATION [TASK]", Short: "Show what a task wrote", Args: cobra.RangeArgs(1, 2),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			a, err := l.allocation(client, args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				l.task = args[1]
			}
			if l.task, err = taskOf(a, l.task); err != nil {
				return err
			}
			return l.show(c.OutOrStdout(), client, a)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVarP(&l.follow, "follow", "f", false, "go on as the task writes")
	f.BoolVar(&l.stderr, "stderr", false, "what it wrote as errors")
	f.Bool("stdout", true, "what it wrote as output, which is the default")
	f.BoolVar(&l.tail, "tail", false, "the end only")
	f.Int64VarP(&l.lines, "lines", "n", 0, "the last `NUMBER` of lines, with -tail")
	f.Int64VarP(&l.bytes, "bytes", "c", 0, "the last `NUMBER` of bytes, with -tail")
	f.BoolVar(&l.job, "job", false, "the argument names a job; one of its allocations is chosen")
	f.StringVar(&l.task, "task", "", "the task `NAME`")
	m.verboseFlag(c)
	return c
}

type logFlags struct {
	follow, stderr, tail, job bool
	lines, bytes              int64
	task                      string
}

// lineBytes is what a line is taken to be long when only the last are asked for.
const lineBytes = 120

// allocation finds the allocation, of a job one that runs if there is one.
func (l *logFlags) allocation(client *api.Client, name string) (*api.Allocation, error) {
	if !l.job {
		return findAlloc(client, name)
	}
	id, err := findJob(client, name)
	if err != nil {
		return nil, err
	}
	all, _, err := client.Jobs().Allocations(id, false, nil)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("job %q has no allocations", id)
	}
	running := slices.DeleteFunc(slices.Clone(all), func(a *api.AllocationListStub) bool { return a.ClientStatus != api.AllocClientStatusRunning })
	if len(running) == 0 {
		running = all
	}
	a, _, err := client.Allocations().Info(running[rand.IntN(len(running))].ID, nil)
	return a, err
}

// taskOf returns the task whose log is shown: the named, or the only one.
func taskOf(a *api.Allocation, name string) (string, error) {
	tasks := slices.Sorted(maps.Keys(a.TaskStates))
	if len(tasks) == 0 {
		return "", fmt.Errorf("allocation %s has not started yet", a.ID)
	}
	if name == "" && len(tasks) == 1 {
		return tasks[0], nil
	}
	if !slices.Contains(tasks, name) {
		return "", fmt.Errorf("allocation %s has no task %q; it has %v", a.ID, name, tasks)
	}
	return name, nil
}

func (l *logFlags) show(w io.Writer, client *api.Client, a *api.Allocation) error {
	stream, origin, offset := "stdout", api.OriginStart, int64(0)
	if l.stderr {
		stream = "stderr"
	}
	if l.tail || l.lines > 0 || l.bytes > 0 {
		origin, offset = api.OriginEnd, l.bytes
		if l.bytes == 0 {
			l.lines = max(l.lines, 0)
			if l.lines == 0 {
				l.lines = 10
			}
			offset = l.lines * lineBytes
		}
	}
	cancel := make(chan struct{})
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	frames, errs := client.AllocFS().Logs(a, l.follow, l.task, stream, origin, offset, cancel, nil)
	if frames == nil {
		return <-errs
	}
	defer close(cancel)
	var last []byte
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				_, err := w.Write(lastLines(last, l.lines))
				return err
			}
			// The last lines are known when all are there.
			if l.lines > 0 && !l.follow {
				last = append(last, f.Data...)
				continue
			}
			if _, err := w.Write(f.Data); err != nil {
				return err
			}
		case err := <-errs:
			return err
		case <-interrupted:
			return nil
		}
	}
}

// lastLines returns the last n lines of text.
func lastLines(text []byte, n int64) []byte {
	if n <= 0 {
		return nil
	}
	at := len(bytes.TrimSuffix(text, []byte("\n")))
	for ; n > 0 && at >= 0; n-- {
		at = bytes.LastIndexByte(text[:at], '\n')
	}
	return text[at+1:]
}
