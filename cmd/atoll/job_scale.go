package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"atoll/model"
)

func jobScaleCommand() *cobra.Command {
	var m meta
	var detach bool
	var index uint64
	c := &cobra.Command{
		Use: "scale JOB [GROUP] COUNT", Short: "Change how many allocations of a group should run", Args: cobra.RangeArgs(2, 3),
		Long: "Change how many allocations of a group should run. The group may be left out when the job has only one.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			given := args[len(args)-1]
			count, err := strconv.ParseInt(given, 10, 32)
			if err != nil {
				return fmt.Errorf("the count %q is no whole number", given)
			}
			group := args[1]
			if len(args) == 2 {
				if group, err = onlyGroup(client, id); err != nil {
					return err
				}
			}
			out, _, err := client.Jobs().ScaleWithRequest(id, &api.ScalingRequest{
				Count: &count, Message: "scaled by atoll job scale", JobModifyIndex: index,
				Target: map[string]string{model.ScalingTargetJob: id, model.ScalingTargetGroup: group},
			}, nil)
			if err != nil {
				return err
			}
			if out.Warnings != "" {
				fmt.Fprintf(c.ErrOrStderr(), "Job Warnings:\n%s\n\n", out.Warnings)
			}
			// A multi-region job is scaled by a new version, which goes its way.
			if r, err := m.federation().Rollout(context.Background(), m.space(), id, m.asked()); err == nil && r.Live() {
				fmt.Fprintf(c.OutOrStdout(), "Job scaled by version %d\n", r.Won.Version)
				if detach {
					return nil
				}
				return followRollout(context.Background(), c.OutOrStdout(), m.federation(), m.space(), id, r.Won.Version)
			}
			if detach || out.EvalID == "" {
				fmt.Fprintln(c.OutOrStdout(), "Evaluation ID: "+out.EvalID)
				return nil
			}
			return m.follow(c, client, out.EvalID)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.Uint64Var(&index, "check-index", 0, "scale only if the job's modify `INDEX` is this")
	m.verboseFlag(c)
	return c
}

// onlyGroup is the name of a job's group when it has one only.
func onlyGroup(client *api.Client, id string) (string, error) {
	job, _, err := client.Jobs().Info(id, nil)
	if err != nil {
		return "", err
	}
	var names []string
	for _, g := range job.TaskGroups {
		names = append(names, deref(g.Name))
	}
	if len(names) != 1 {
		return "", fmt.Errorf("job %q has the groups %s; name one of them", id, strings.Join(names, ", "))
	}
	return names[0], nil
}
