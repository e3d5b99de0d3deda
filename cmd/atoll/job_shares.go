package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
)

// showShares shows what each region has of a job, side by side; it reports
// whether any has.
func showShares(c *cobra.Command, m *meta, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	shares, page, err := m.federation().FederationJob(context.Background(), id, apiclient.Selection{Namespace: cmp.Or(m.namespace, env("NAMESPACE")), Fresh: true, PerPage: 1000})
	if err != nil || len(shares) == 0 {
		return false, err
	}
	w := c.OutOrStdout()
	if m.json {
		return true, printJSON(w, map[string]any{"Jobs": shares, "Regions": page.Regions})
	}
	fmt.Fprintln(w, pairs([]string{"ID|" + cell(id), "Namespace|" + shares[0].Namespace, "Type|" + shares[0].Type}))
	rows := []string{"Region|Status|Version|Submit Date|Deployment|Deployment Status"}
	groups := []string{"Region|Task Group|Count|Queued|Starting|Running|Failed|Complete|Lost|Unknown"}
	for _, j := range shares {
		rows = append(rows, fmt.Sprintf("%s|%s|%d|%s|%s|%s", j.Region, jobState(j.Status, j.Stop), j.Version, date(j.SubmitTime), m.id(j.DeploymentID), j.DeploymentStatus))
		for _, g := range j.Groups {
			groups = append(groups, fmt.Sprintf("%s|%s|%d|%d|%d|%d|%d|%d|%d|%d", j.Region, cell(g.Name), g.Count, g.Queued, g.Starting, g.Running, g.Failed, g.Complete, g.Lost, g.Unknown))
		}
	}
	fmt.Fprintln(w, title("Shares"))
	fmt.Fprintln(w, list(rows))
	fmt.Fprintln(w, title("Summary"))
	fmt.Fprintln(w, list(groups))
	showAnswers(w, page.Regions)
	return true, nil
}
