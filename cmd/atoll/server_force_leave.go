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
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			if err := client.Agent().ForceLeaveWithOptions(args[0], api.ForceLeaveOpts{Prune: prune}); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Server %q is declared gone\n", args[0])
			return nil
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&prune, "prune", false, "take it out of the list of members too")
	return c
}
