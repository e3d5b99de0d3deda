package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func jobStopCommand() *cobra.Command {
	var m meta
	var detach, purge, global bool
	c := &cobra.Command{
		Use: "stop JOB", Short: "Stop a job", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id := args[0]
			if !global {
				var err error
				if id, err = findJob(client, id); err != nil {
					return err
				}
			}
			evalID, _, err := client.Jobs().DeregisterOpts(id, &api.DeregisterOptions{Purge: purge, Global: global}, nil)
			if err != nil {
				return err
			}
			if evalID == "" {
				return nil
			}
			if detach {
				fmt.Fprintln(c.OutOrStdout(), evalID)
				return nil
			}
			return m.follow(c, client, evalID)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.BoolVar(&purge, "purge", false, "forget the job and its history too")
	f.BoolVar(&global, "global", false, "stop a multi-region job in all its regions")
	m.verboseFlag(c)
	f.Bool("yes", false, "accepted; nothing is asked")
	return c
}
