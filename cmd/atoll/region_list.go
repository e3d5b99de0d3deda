package main

import (
	"context"
	"fmt"
	"strings"
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
			rows := []string{"Name|Servers|Health|Last Contact|Cell"}
			claims := []string{"Region|Cell|Servers|Known As"}
			refused := []string{"Region|Server|Version|Cause"}
			for _, r := range regions {
				health, contact := "reachable", "never"
				if !r.Healthy {
					health = "unreachable"
				}
				if len(r.Quarantined) > 0 {
					health += ", contested"
				}
				for _, q := range r.Quarantined {
					claims = append(claims, fmt.Sprintf("%s|%s|%s|%s", r.Name, q.CellID, strings.Join(q.Servers, ","), q.KnownAs))
				}
				for _, s := range r.Refused {
					refused = append(refused, fmt.Sprintf("%s|%s|%s|%s", r.Name, s.Name, s.Build, s.Cause))
				}
				if r.LastContact >= 0 {
					contact = r.LastContact.Round(100*time.Millisecond).String() + " ago"
				}
				rows = append(rows, fmt.Sprintf("%s|%d|%s|%s|%s", r.Name, len(r.Servers), health, contact, m.id(r.CellID)))
			}
			fmt.Fprintln(c.OutOrStdout(), list(rows))
			if len(claims) > 1 {
				fmt.Fprintln(c.OutOrStdout(), title("Quarantined: other cells under the names of these regions"))
				fmt.Fprintln(c.OutOrStdout(), list(claims))
			}
			if len(refused) > 1 {
				fmt.Fprintln(c.OutOrStdout(), title("Not used: servers that speak another protocol"))
				fmt.Fprintln(c.OutOrStdout(), list(refused))
			}
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&m.verbose, "verbose", false, "show whole ids")
	c.Flags().BoolVar(&m.json, "json", false, "print JSON")
	return c
}
