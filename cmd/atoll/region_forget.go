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

func regionForgetCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "forget NAME", Short: "Forget a region that is lost for good", Args: cobra.ExactArgs(1),
		Long: "Drop a region that has no server alive from what the servers of the agent's region, or of -region, remember. " +
			"Each region's servers decide for themselves: say it once for each region. It is known again once a server of it is there.",
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			out, err := m.federation().Forget(context.Background(), cmp.Or(m.region, env("REGION")), args[0])
			if err != nil {
				return err
			}
			slices.Sort(out.Forgotten)
			fmt.Fprintf(c.OutOrStdout(), "Region %q is forgotten by %s\n", args[0], strings.Join(out.Forgotten, ", "))
			for _, name := range slices.Sorted(maps.Keys(out.Failed)) {
				fmt.Fprintf(c.ErrOrStderr(), "but not by %s: %s\n", name, out.Failed[name])
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
