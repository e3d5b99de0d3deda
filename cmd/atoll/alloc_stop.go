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
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
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
			return (&monitor{meta: &m, client: client, out: c.OutOrStdout(), query: &api.QueryOptions{}}).follow(c, done.EvalID)
		},
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.BoolVar(&noDelay, "no-shutdown-delay", false, "stop without waiting for shutdown_delay")
	f.BoolVar(&m.verbose, "verbose", false, "show whole ids")
	return c
}
