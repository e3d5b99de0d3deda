package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func serverForceLeaveCommand() *cobra.Command {
	var m meta
	var prune bool
	c := &cobra.Command{
		Use: "force-leave NAME", Short: "Declare a failed server gone, so that its region's cell goes on without it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			if err := client.Agent().ForceLeaveWithOptions(args[0], api.ForceLeaveOpts{Prune: prune}); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Server %q is declared gone\n", args[0])
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&prune, "prune", false, "take it out of the list of members too")
	return c
}
