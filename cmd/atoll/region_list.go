package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
	"atoll/model"
)

func regionListCommand() *cobra.Command {
	var m meta
	var fresh bool
	c := &cobra.Command{
		Use: "list", Short: "List the regions, and how they are", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			regions, err := m.federation().Regions(context.Background(), apiclient.Selection{Fresh: fresh})
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), regions)
			}
			listRegions(c.OutOrStdout(), &m, regions)
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&fresh, "fresh", false, "ask each region itself, not what is known of it here")
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

func listRegions(w io.Writer, m *meta, regions []*model.RegionOverview) {
	rows := []string{"Name|Servers|Nodes Ready|Jobs Running|Health|Last Contact|Counts|Cell"}
	claims := []string{"Region|Cell|Servers|Known As"}
	refused := []string{"Region|Server|Version|Cause"}
	for _, r := range regions {
		for _, q := range r.Quarantined {
			claims = append(claims, fmt.Sprintf("%s|%s|%s|%s", r.Region, q.CellID, strings.Join(q.Servers, ","), q.KnownAs))
		}
		for _, s := range r.Refused {
			refused = append(refused, fmt.Sprintf("%s|%s|%s|%s", r.Region, s.Name, s.Build, s.Cause))
		}
		alive := 0
		for _, s := range r.Servers {
			if s.Alive {
				alive++
			}
		}
		rows = append(rows, fmt.Sprintf("%s|%d/%d|%s|%s|%s|%s|%s|%s", r.Region, alive, len(r.Servers), part(r.Nodes, model.NodeStatusReady), part(r.Jobs, model.JobStatusRunning),
			regionHealth(r), contactText(r.LastContact), worth(r.RegionAnswer), m.id(r.CellID)))
	}
	fmt.Fprintln(w, list(rows))
	if len(claims) > 1 {
		fmt.Fprintln(w, title("Quarantined: other cells under the names of these regions"))
		fmt.Fprintln(w, list(claims))
	}
	if len(refused) > 1 {
		fmt.Fprintln(w, title("Not used: servers that speak another protocol"))
		fmt.Fprintln(w, list(refused))
	}
}

// part is how many of those counted have a status, of all.
func part(by map[string]int, status string) string {
	if by == nil {
		return "unknown"
	}
	total := 0
	for _, n := range by {
		total += n
	}
	return fmt.Sprintf("%d/%d", by[status], total)
}

func regionHealth(r *model.RegionOverview) string {
	health := "reachable"
	if !r.Healthy {
		health = "unreachable"
	}
	if len(r.Quarantined) > 0 {
		health += ", contested"
	}
	return health
}

func contactText(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return d.Round(100*time.Millisecond).String() + " ago"
}

// worth says what rows are worth: live, or how old they are.
func worth(a model.RegionAnswer) string {
	if a.Freshness == model.Live || a.Age < 0 {
		return string(a.Freshness)
	}
	return fmt.Sprintf("%s, %s", a.Freshness, a.Age.Round(100*time.Millisecond))
}
