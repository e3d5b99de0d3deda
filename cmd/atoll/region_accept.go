package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func regionAcceptCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "accept NAME CELL-ID", Short: "Make a quarantined cell the one that a region is", Args: cobra.ExactArgs(2),
		Long: "Make a cell that claims a region's name, and is quarantined for that, the one that the servers of the agent's region, or of -region, " +
			"know it as. Each region's servers decide for themselves: say it once for each region.",
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			out, err := m.federation().Accept(context.Background(), cmp.Or(m.region, env("REGION")), args[0], args[1])
			if err != nil {
				return err
			}
			slices.Sort(out.Accepted)
			fmt.Fprintf(c.OutOrStdout(), "Region %q is the cell %s for %s\n", args[0], args[1], strings.Join(out.Accepted, ", "))
			for _, name := range slices.Sorted(maps.Keys(out.Failed)) {
				fmt.Fprintf(c.ErrOrStderr(), "but not for %s: %s\n", name, out.Failed[name])
			}
			if len(out.Failed) > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	m.flags(c)
	return c
}
