package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
	"atoll/model"
)

func regionStatusCommand() *cobra.Command {
	var m meta
	var fresh bool
	c := &cobra.Command{
		Use: "status [NAME]", Short: "Show how all regions are, or one", Args: cobra.MaximumNArgs(1),
		Long: "Show how all regions are and how far they are from each other, or one of them with its servers. What is known of a region stands beside how old " +
			"it is; with -fresh each region is asked itself.",
		RunE: func(c *cobra.Command, args []string) error {
			regions, err := m.federation().Regions(context.Background(), apiclient.Selection{Regions: args, Fresh: fresh})
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			switch {
			case m.json:
				return printJSON(w, regions)
			case len(args) == 1 && len(regions) == 1:
				showRegion(w, regions[0])
			default:
				listRegions(w, &m, regions)
				showRoundTrips(w, regions)
			}
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&fresh, "fresh", false, "ask each region itself, not what is known of it here")
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

func showRegion(w io.Writer, r *model.RegionOverview) {
	rows := []string{
		"Name|" + r.Region, "Health|" + regionHealth(r), "Last Contact|" + contactText(r.LastContact), "Cell|" + r.CellID, "Leader|" + r.Leader,
		"Counts|" + worth(r.RegionAnswer),
	}
	if r.Error != "" {
		rows = append(rows, "Cause|"+cell(r.Error))
	}
	fmt.Fprintln(w, pairs(append(rows, "Nodes|"+counts(r.Nodes), "Jobs|"+counts(r.Jobs), "Deployments|"+counts(r.Deployments))))
	servers := []string{"Name|Address|Alive|Leader|Round Trip|Build|Protocol"}
	for _, s := range r.Servers {
		servers = append(servers, fmt.Sprintf("%s|%s|%v|%v|%s|%s|%d-%d", cell(s.Name), s.Address, s.Alive, s.Leader, rtt(s.RTT), s.Build, s.ProtocolMin, s.ProtocolMax))
	}
	fmt.Fprintln(w, title("Servers"))
	fmt.Fprintln(w, list(servers))
	for _, q := range r.Quarantined {
		fmt.Fprintln(w, title("Quarantined"))
		fmt.Fprintf(w, "cell %s at %s\n", q.CellID, strings.Join(q.Servers, ", "))
	}
	showRoundTrips(w, []*model.RegionOverview{r})
}

func counts(by map[string]int) string {
	if by == nil {
		return "unknown"
	}
	var out []string
	for _, status := range slices.Sorted(maps.Keys(by)) {
		out = append(out, fmt.Sprintf("%d %s", by[status], status))
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, ", ")
}

// showRoundTrips shows each region's own estimates, a row each.
func showRoundTrips(w io.Writer, regions []*model.RegionOverview) {
	names := make(map[string]bool)
	for _, r := range regions {
		for name := range r.RTT {
			names[name] = true
		}
	}
	if len(names) == 0 {
		return
	}
	to := slices.Sorted(maps.Keys(names))
	rows := []string{"From|" + strings.Join(to, "|")}
	for _, r := range regions {
		row := r.Region
		for _, name := range to {
			row += "|" + rtt(r.RTT[name])
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w, title("Round Trips"))
	fmt.Fprintln(w, list(rows))
}

func rtt(d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return d.Round(10 * time.Microsecond).String()
}
