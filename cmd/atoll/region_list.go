package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func regionListCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "list", Short: "List the regions that the agent knows", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			regions, err := m.federation().Regions(context.Background())
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), regions)
			}
			rows := []string{"Name|Servers|Health|Last Contact"}
			for _, r := range regions {
				health, contact := "reachable", "never"
				if !r.Healthy {
					health = "unreachable"
				}
				if r.LastContact >= 0 {
					contact = r.LastContact.Round(100*time.Millisecond).String() + " ago"
				}
				rows = append(rows, fmt.Sprintf("%s|%d|%s|%s", r.Name, len(r.Servers), health, contact))
			}
			fmt.Fprintln(c.OutOrStdout(), list(rows))
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&m.json, "json", false, "print JSON")
	return c
}
