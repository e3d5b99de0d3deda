package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func allocStopCommand() *cobra.Command {
	var m meta
	var detach, noDelay bool
	c := &cobra.Command{
		Use: "stop ALLOCATION", Short: "Stop an allocation, and place another for it", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			a, err := findAlloc(client, args[0])
			if err != nil {
				return err
			}
			query := &api.QueryOptions{}
			if noDelay {
				query.Params = map[string]string{"no_shutdown_delay": "true"}
			}
			done, err := client.Allocations().Stop(a, query)
			if err != nil {
				return err
			}
			if detach {
				fmt.Fprintln(c.OutOrStdout(), done.EvalID)
				return nil
			}
			return m.follow(c, client, done.EvalID)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.BoolVar(&noDelay, "no-shutdown-delay", false, "stop without waiting for shutdown_delay")
	m.verboseFlag(c)
	return c
}
