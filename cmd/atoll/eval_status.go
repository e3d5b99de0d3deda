package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func evalStatusCommand() *cobra.Command {
	var m meta
	var follow bool
	c := &cobra.Command{
		Use: "status EVALUATION", Short: "Show an evaluation", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findEval(client, args[0])
			if err != nil {
				return err
			}
			if follow {
				return m.follow(c, client, id)
			}
			e, _, err := client.Evaluations().Info(id, nil)
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), e)
			}
			placed, _, err := client.Evaluations().Allocations(id, nil)
			if err != nil {
				return err
			}
			showEval(c.OutOrStdout(), &m, e, placed)
			return nil
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&follow, "monitor", false, "follow the evaluation to its end")
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

func showEval(w io.Writer, m *meta, e *api.Evaluation, placed []*api.AllocationListStub) {
	rows := []string{
		"ID|" + m.id(e.ID), "Create Time|" + ago(e.CreateTime), "Modify Time|" + ago(e.ModifyTime), "Status|" + e.Status, "Status Description|" + cell(e.StatusDescription),
		"Type|" + e.Type, "TriggeredBy|" + e.TriggeredBy, "Job ID|" + cell(e.JobID), "Namespace|" + e.Namespace,
	}
	if e.NodeID != "" {
		rows = append(rows, "Node ID|"+m.id(e.NodeID))
	}
	rows = append(rows, fmt.Sprintf("Priority|%d", e.Priority), "Placement Failures|"+placementFailures(e.Status, len(e.FailedTGAllocs) > 0))
	if !e.WaitUntil.IsZero() {
		rows = append(rows, "Wait Until|"+e.WaitUntil.Format(time.RFC3339))
	}
	rows = append(rows, "Previous Eval|"+m.id(e.PreviousEval), "Next Eval|"+m.id(e.NextEval), "Blocked Eval|"+m.id(e.BlockedEval))
	if e.DeploymentID != "" {
		rows = append(rows, "Deployment ID|"+m.id(e.DeploymentID))
	}
	fmt.Fprintln(w, pairs(rows))
	if len(e.RelatedEvals) > 0 {
		fmt.Fprintln(w, title("Related Evaluations"))
		rows := []string{"ID|Priority|Triggered By|Node ID|Status|Description"}
		for _, r := range e.RelatedEvals {
			rows = append(rows, fmt.Sprintf("%s|%d|%s|%s|%s|%s", m.id(r.ID), r.Priority, r.TriggeredBy, m.id(r.NodeID), r.Status, cell(r.StatusDescription)))
		}
		fmt.Fprintln(w, list(rows))
	}
	if len(placed) > 0 {
		fmt.Fprintln(w, title("Placed Allocations"))
		rows := []string{"ID|Node ID|Task Group|Version|Desired|Status|Created|Modified"}
		for _, a := range placed {
			rows = append(rows, fmt.Sprintf("%s|%s|%s|%d|%s|%s|%s|%s", m.id(a.ID), m.id(a.NodeID), a.TaskGroup, a.JobVersion, a.DesiredStatus, a.ClientStatus, ago(a.CreateTime), ago(a.ModifyTime)))
		}
		fmt.Fprintln(w, list(rows))
	}
	if len(e.FailedTGAllocs) > 0 {
		fmt.Fprintln(w, title("Failed Placements"))
		for _, g := range slices.Sorted(maps.Keys(e.FailedTGAllocs)) {
			n := e.FailedTGAllocs[g].CoalescedFailures + 1
			fmt.Fprintf(w, "Task Group %q (failed to place %d allocation%s):\n", g, n, plural(n))
			for _, line := range placement(e.FailedTGAllocs[g]) {
				fmt.Fprintln(w, "  * "+line)
			}
		}
		if e.BlockedEval != "" {
			fmt.Fprintf(w, "\nEvaluation %q waits for a node that can take the rest\n", m.id(e.BlockedEval))
		}
	}
}
