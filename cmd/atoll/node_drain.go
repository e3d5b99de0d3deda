package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

// drainFlags are what a drain is asked for by.
type drainFlags struct {
	enable, disable, monitor, detach, self bool
	force, noDeadline, ignoreSystem        bool
	keepIneligible                         bool
	deadline                               time.Duration
	message                                string
	meta                                   map[string]string
}

// defaultDeadline is that of a drain for which none was given.
const defaultDeadline = time.Hour

func nodeDrainCommand() *cobra.Command {
	var m meta
	var in drainFlags
	c := &cobra.Command{
		Use: "drain [NODE]", Short: "Move a node's work to other nodes, and follow that", Args: cobra.MaximumNArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			if err := in.check(c); err != nil {
				return err
			}
			id, err := findNode(client, args, in.self)
			if err != nil {
				return err
			}
			ctx := c.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			return in.run(ctx, c.OutOrStdout(), &m, client, id)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&in.enable, "enable", false, "drain the node")
	f.BoolVar(&in.disable, "disable", false, "end the drain; the node is eligible again")
	f.BoolVar(&in.monitor, "monitor", false, "follow a drain that goes on already")
	f.BoolVar(&in.detach, "detach", false, "do not follow the drain")
	f.BoolVar(&in.self, "self", false, "the node of the agent itself")
	f.DurationVar(&in.deadline, "deadline", defaultDeadline, "what has not left after `TIME` is stopped")
	f.BoolVar(&in.force, "force", false, "stop everything at once")
	f.BoolVar(&in.noDeadline, "no-deadline", false, "wait for as long as it takes")
	f.BoolVar(&in.ignoreSystem, "ignore-system", false, "leave system jobs where they are")
	f.BoolVar(&in.keepIneligible, "keep-ineligible", false, "with -disable: the node stays ineligible")
	f.StringVarP(&in.message, "message", "m", "", "why, as kept with the node `TEXT`")
	f.StringToStringVar(&in.meta, "meta", nil, "more to keep with the node `KEY=VALUE`")
	m.verboseFlag(c)
	f.Bool("yes", false, "accepted; nothing is asked")
	return c
}

// check refuses flags that do not go together.
func (in *drainFlags) check(c *cobra.Command) error {
	asked := 0
	for _, f := range []bool{in.enable, in.disable, in.monitor && !in.enable} {
		if f {
			asked++
		}
	}
	given := c.Flags().Changed("deadline")
	switch {
	case asked != 1:
		return errors.New("give one of -enable, -disable and -monitor")
	case !in.enable && (given || in.force || in.noDeadline || in.ignoreSystem):
		return errors.New("-deadline, -force, -no-deadline and -ignore-system go with -enable")
	case in.force && in.noDeadline, given && (in.force || in.noDeadline):
		return errors.New("give one of -deadline, -force and -no-deadline")
	case given && in.deadline <= 0:
		return fmt.Errorf("-deadline %s is not positive; use -force or -no-deadline", in.deadline)
	case in.monitor && in.detach:
		return errors.New("-monitor follows the drain and -detach does not")
	case in.keepIneligible && !in.disable:
		return errors.New("-keep-ineligible goes with -disable")
	}
	return nil
}

// spec is the drain asked for; nil ends one.
func (in *drainFlags) spec() *api.DrainSpec {
	switch {
	case in.disable:
		return nil
	case in.force:
		return &api.DrainSpec{Deadline: -1 * time.Second, IgnoreSystemJobs: in.ignoreSystem}
	case in.noDeadline:
		return &api.DrainSpec{IgnoreSystemJobs: in.ignoreSystem}
	}
	return &api.DrainSpec{Deadline: in.deadline, IgnoreSystemJobs: in.ignoreSystem}
}

func (in *drainFlags) run(ctx context.Context, w io.Writer, m *meta, client *api.Client, id string) error {
	if !in.enable && !in.disable {
		n, read, err := client.Nodes().Info(id, nil)
		if err != nil {
			return err
		}
		if n.DrainStrategy == nil {
			return fmt.Errorf("node %s does not drain", m.id(id))
		}
		return followDrain(ctx, w, client, id, read.LastIndex, n.DrainStrategy.IgnoreSystemJobs)
	}
	meta := map[string]string{}
	for k, v := range in.meta {
		meta[k] = v
	}
	if in.message != "" {
		meta["message"] = in.message
	}
	done, err := client.Nodes().UpdateDrainOpts(id, &api.DrainOptions{DrainSpec: in.spec(), MarkEligible: in.disable && !in.keepIneligible, Meta: meta}, nil)
	if err != nil {
		return err
	}
	if in.disable {
		fmt.Fprintf(w, "Node %q drain strategy unset\n", m.id(id))
		return nil
	}
	fmt.Fprintf(w, "Node %q drain strategy set\n", m.id(id))
	if in.detach {
		return nil
	}
	return followDrain(ctx, w, client, id, done.LastIndex, in.ignoreSystem)
}

// followDrain tells what leaves the node until nothing is left. It ends with the
// drain, which does not end with it.
func followDrain(ctx context.Context, w io.Writer, client *api.Client, id string, index uint64, ignoreSystem bool) error {
	line := func(text string) { fmt.Fprintf(w, "%s: %s\n", time.Now().Format(time.RFC3339), text) }
	line("Ctrl-C ends the following, not the drain")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for msg := range client.Nodes().MonitorDrain(ctx, id, index, ignoreSystem) {
		if msg.Level == api.MonitorMsgLevelError {
			return errors.New(msg.Message)
		}
		line(msg.Message)
	}
	return nil
}

// drainText says whether and how a node drains.
func drainText(n *api.Node) string {
	d := n.DrainStrategy
	if d == nil {
		return "false"
	}
	parts := []string{"true"}
	switch {
	case d.Deadline < 0:
		parts = append(parts, "force drain")
	case d.ForceDeadline.IsZero():
		parts = append(parts, "no deadline")
	default:
		parts = append(parts, fmt.Sprintf("%s deadline, in %s", d.Deadline, age(time.Until(d.ForceDeadline))))
	}
	if d.IgnoreSystemJobs {
		parts = append(parts, "ignoring system jobs")
	}
	return strings.Join(parts, "; ")
}
