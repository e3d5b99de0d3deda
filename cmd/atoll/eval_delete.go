package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func evalDeleteCommand() *cobra.Command {
	var m meta
	var filter string
	var yes bool
	c := &cobra.Command{
		Use: "delete [EVALUATION...]", Short: "Delete evaluations",
		Long: "Delete evaluations of any status by id, or all for which a filter holds. Work goes on meanwhile: nothing is to be paused for it. " +
			"An evaluation by which allocations that are not over were placed is not deleted: named by id it is an error, and a filter passes it over. " +
			"What a deleted evaluation was to do is left undone until the job is evaluated again.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			if (len(args) == 0) == (filter == "") {
				return fmt.Errorf("name evaluations, or give a -filter")
			}
			req := &api.EvalDeleteRequest{Filter: filter}
			count := len(args)
			if filter != "" {
				found, _, err := client.Evaluations().Count(&api.QueryOptions{Filter: filter})
				if err != nil {
					return err
				}
				if count = found.Count; count == 0 {
					fmt.Fprintln(c.OutOrStdout(), "No evals matched the filter")
					return nil
				}
			}
			for _, arg := range args {
				id, err := findEval(client, arg)
				if err != nil {
					return err
				}
				req.EvalIDs = append(req.EvalIDs, id)
			}
			if count > 1 && !yes {
				fmt.Fprintf(c.OutOrStdout(), "Are you sure you want to delete %d evals? [y/N] ", count)
				answer, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n')
				if strings.TrimSpace(answer) != "y" {
					fmt.Fprintln(c.OutOrStdout(), "Cancelling eval deletion")
					return nil
				}
			}
			out, _, err := client.Evaluations().DeleteOpts(req, nil)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Successfully deleted %d evaluation%s\n", out.Count, plural(out.Count))
			return nil
		}),
	}
	m.flags(c)
	c.Flags().StringVar(&filter, "filter", "", "delete all for which the `EXPRESSION` holds")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask whether several are to be deleted")
	return c
}

// findEval returns the one evaluation whose id begins with prefix.
func findEval(client *api.Client, prefix string) (string, error) {
	found, _, err := client.Evaluations().PrefixList(even(prefix))
	if err != nil {
		return "", err
	}
	var ids []string
	for _, e := range found {
		ids = append(ids, e.ID)
	}
	return unique("evaluation", prefix, ids)
}
