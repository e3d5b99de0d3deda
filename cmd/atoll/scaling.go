package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func scalingPolicyListCommand() *cobra.Command {
	var m meta
	var job, kind string
	c := &cobra.Command{
		Use: "list", Short: "List scaling policies", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			policies, _, err := client.Scaling().ListPolicies(&api.QueryOptions{Params: map[string]string{"job": job, "type": kind}})
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, policies)
			}
			if len(policies) == 0 {
				fmt.Fprintln(w, "No policies found")
				return nil
			}
			rows := []string{"ID|Enabled|Type|Target"}
			for _, p := range policies {
				rows = append(rows, fmt.Sprintf("%s|%t|%s|%s", m.id(p.ID), p.Enabled, p.Type, cell(target(p.Target))))
			}
			fmt.Fprintln(w, list(rows))
			return nil
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.StringVar(&job, "job", "", "policies of one `JOB` only")
	f.StringVar(&kind, "type", "", "policies of one `TYPE` only, such as horizontal")
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

// target is what a policy is about.
func target(of map[string]string) string {
	out := ""
	for _, key := range slices.Sorted(maps.Keys(of)) {
		if out != "" {
			out += ","
		}
		out += key + ":" + of[key]
	}
	return out
}

func scalingPolicyInfoCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "info POLICY", Short: "Show a scaling policy", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			policies, _, err := client.Scaling().ListPolicies(&api.QueryOptions{Prefix: even(args[0]), Namespace: "*"})
			if err != nil {
				return err
			}
			var ids []string
			for _, p := range policies {
				ids = append(ids, p.ID)
			}
			id, err := unique("scaling policy", args[0], ids)
			if err != nil {
				return err
			}
			p, _, err := client.Scaling().GetPolicy(id, nil)
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, p)
			}
			fmt.Fprintln(w, pairs([]string{
				"ID|" + m.id(p.ID), fmt.Sprintf("Enabled|%t", deref(p.Enabled)), "Type|" + p.Type, "Target|" + cell(target(p.Target)),
				fmt.Sprintf("Min|%d", deref(p.Min)), fmt.Sprintf("Max|%d", deref(p.Max)),
			}))
			fmt.Fprintln(w, title("Policy"))
			return printJSON(w, p.Policy)
		}),
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}
