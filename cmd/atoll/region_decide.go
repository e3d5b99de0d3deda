package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func regionAcceptCommand() *cobra.Command {
	return regionDecision(&cobra.Command{
		Use: "accept NAME CELL-ID", Short: "Make a quarantined cell the one that a region is", Args: cobra.ExactArgs(2),
		Long: "Make a cell that claims a region's name, and is quarantined for that, the one that the servers of the agent's region, or of -region, " +
			"know it as. Each region's servers decide for themselves: say it once for each region.",
	}, func(m *meta, args []string) (decision, error) {
		out, err := m.federation().Accept(context.Background(), m.asked(), args[0], args[1])
		if err != nil {
			return decision{}, err
		}
		return decision{fmt.Sprintf("is the cell %s for", args[1]), "for", out.Accepted, out.Failed}, nil
	})
}

func regionForgetCommand() *cobra.Command {
	return regionDecision(&cobra.Command{
		Use: "forget NAME", Short: "Forget a region that is lost for good", Args: cobra.ExactArgs(1),
		Long: "Drop a region that has no server alive from what the servers of the agent's region, or of -region, remember. " +
			"Each region's servers decide for themselves: say it once for each region. It is known again once a server of it is there.",
	}, func(m *meta, args []string) (decision, error) {
		out, err := m.federation().Forget(context.Background(), m.asked(), args[0])
		if err != nil {
			return decision{}, err
		}
		return decision{"is forgotten by", "by", out.Forgotten, out.Failed}, nil
	})
}

// decision is what the servers of a region made of what was said about another.
type decision struct {
	done, not string
	servers   []string
	failed    map[string]string
}

// regionDecision is a command about the region that is its first argument; it
// fails when a server did not follow.
func regionDecision(c *cobra.Command, say func(*meta, []string) (decision, error)) *cobra.Command {
	var m meta
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := m.oneRegion(); err != nil {
			return err
		}
		d, err := say(&m, args)
		if err != nil {
			return err
		}
		slices.Sort(d.servers)
		fmt.Fprintf(c.OutOrStdout(), "Region %q %s %s\n", args[0], d.done, strings.Join(d.servers, ", "))
		for _, name := range slices.Sorted(maps.Keys(d.failed)) {
			fmt.Fprintf(c.ErrOrStderr(), "but not %s %s: %s\n", d.not, name, d.failed[name])
		}
		if len(d.failed) > 0 {
			return exitCode(1)
		}
		return nil
	}
	m.flags(c)
	return c
}
