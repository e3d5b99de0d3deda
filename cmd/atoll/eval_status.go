package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

func evalStatusCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "status EVALUATION", Short: "Show an evaluation", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			found, _, err := client.Evaluations().PrefixList(even(args[0]))
			if err != nil {
				return err
			}
			var ids []string
			for _, e := range found {
				ids = append(ids, e.ID)
			}
			id, err := unique("evaluation", args[0], ids)
			if err != nil {
				return err
			}
			e, _, err := client.Evaluations().Info(id, nil)
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, e)
			}
			fmt.Fprintln(w, pairs([]string{
				"ID|" + m.id(e.ID), "Create Time|" + ago(e.CreateTime), "Modify Time|" + ago(e.ModifyTime), "Status|" + e.Status, "Status Description|" + cell(e.StatusDescription),
				"Type|" + e.Type, "TriggeredBy|" + e.TriggeredBy, "Job ID|" + cell(e.JobID), "Namespace|" + e.Namespace, fmt.Sprintf("Priority|%d", e.Priority),
				fmt.Sprintf("Placement Failures|%v", len(e.FailedTGAllocs) > 0), "Previous Eval|" + m.id(e.PreviousEval), "Next Eval|" + m.id(e.NextEval), "Blocked Eval|" + m.id(e.BlockedEval),
			}))
			if len(e.FailedTGAllocs) > 0 {
				fmt.Fprintln(w, title("Failed Placements"))
				for _, g := range slices.Sorted(maps.Keys(e.FailedTGAllocs)) {
					fmt.Fprintf(w, "Task Group %q:\n", g)
					for _, line := range placement(e.FailedTGAllocs[g]) {
						fmt.Fprintln(w, "  * "+line)
					}
				}
			}
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&m.verbose, "verbose", false, "show whole ids")
	c.Flags().BoolVar(&m.json, "json", false, "print JSON")
	return c
}
