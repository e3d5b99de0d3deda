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
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
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
			return (&monitor{meta: &m, client: client, out: c.OutOrStdout(), query: &api.QueryOptions{}}).follow(c, evalID)
		},
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.BoolVar(&m.verbose, "verbose", false, "show whole ids")
	return c
}
