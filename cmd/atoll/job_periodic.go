package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func jobPeriodicForceCommand() *cobra.Command {
	var m meta
	var detach bool
	c := &cobra.Command{
		Use: "force JOB", Short: "Launch a periodic job now, even if it prohibits an overlap", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findParent(client, args[0], func(j *api.JobListStub) bool { return j.Periodic })
			if err != nil {
				return err
			}
			evalID, _, err := client.Jobs().PeriodicForce(id, nil)
			if err != nil {
				return err
			}
			if detach {
				fmt.Fprintln(c.OutOrStdout(), "Force periodic successful\nEvaluation ID: "+evalID)
				return nil
			}
			return m.follow(c, client, evalID)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	m.verboseFlag(c)
	return c
}
