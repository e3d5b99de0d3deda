package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func evalListCommand() *cobra.Command {
	var m meta
	var job, status, filter, token string
	var perPage int32
	c := &cobra.Command{
		Use: "list", Short: "List evaluations", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			if m.all() {
				if perPage > 0 || token != "" {
					return fmt.Errorf("a list of all regions has no pages; narrow it by -job, -status or -filter")
				}
				evals, answers, err := m.federation().Evals(context.Background(), cmp.Or(m.namespace, env("NAMESPACE")), job, status, filter)
				if err != nil {
					return err
				}
				if m.json {
					return printJSON(w, map[string]any{"Evals": evals, "Regions": answers})
				}
				rows := []string{"Region|ID|Priority|Triggered By|Job ID|Namespace|Node ID|Status|Placement Failures"}
				for _, e := range evals {
					rows = append(rows, e.Region+"|"+evalLine(&m, e.ID, e.Priority, e.TriggeredBy, e.JobID, e.Namespace, e.NodeID, e.Status, len(e.FailedTGAllocs)))
				}
				if len(evals) == 0 {
					fmt.Fprintln(w, "No evals found")
				} else {
					fmt.Fprintln(w, list(rows))
				}
				showAnswers(w, answers)
				return nil
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			evals, info, err := client.Evaluations().List(&api.QueryOptions{
				Filter: filter, PerPage: perPage, NextToken: token, Params: map[string]string{"job": job, "status": status},
			})
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(w, evals)
			}
			if len(evals) == 0 {
				fmt.Fprintln(w, "No evals found")
				return nil
			}
			rows := []string{"ID|Priority|Triggered By|Job ID|Namespace|Node ID|Status|Placement Failures"}
			for _, e := range evals {
				rows = append(rows, evalLine(&m, e.ID, e.Priority, e.TriggeredBy, e.JobID, e.Namespace, e.NodeID, e.Status, len(e.FailedTGAllocs)))
			}
			fmt.Fprintln(w, list(rows))
			if info.NextToken != "" {
				fmt.Fprintf(w, "\nResults have been paginated. To get the next page, run:\n\natoll eval list -per-page %d -page-token %s\n", perPage, info.NextToken)
			}
			return nil
		},
	}
	m.flags(c)
	f := c.Flags()
	f.StringVar(&job, "job", "", "only of the job `ID`")
	f.StringVar(&status, "status", "", "only those that are `STATUS`: blocked, canceled, complete, failed or pending")
	f.StringVar(&filter, "filter", "", "only those for which the `EXPRESSION` holds")
	f.Int32Var(&perPage, "per-page", 0, "how many to list at once `N`")
	f.StringVar(&token, "page-token", "", "where to go on `TOKEN`")
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

func evalLine(m *meta, id string, priority int, trigger, job, namespace, node, status string, failures int) string {
	return fmt.Sprintf("%s|%d|%s|%s|%s|%s|%s|%s", m.id(id), priority, trigger, cell(job), namespace, m.id(node), status, placementFailures(status, failures > 0))
}

// placementFailures are not known before an evaluation was looked at.
func placementFailures(status string, failed bool) string {
	switch {
	case status == api.EvalStatusBlocked:
		return "N/A - In Progress"
	case status == api.EvalStatusPending:
		return "N/A - Pending"
	case status == api.EvalStatusCancelled:
		return "N/A - Cancelled"
	}
	return fmt.Sprint(failed)
}
