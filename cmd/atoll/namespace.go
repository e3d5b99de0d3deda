package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func namespaceListCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "list", Short: "List namespaces", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			all, _, err := client.Namespaces().List(nil)
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b *api.Namespace) int { return strings.Compare(a.Name, b.Name) })
			if m.json {
				return printJSON(c.OutOrStdout(), all)
			}
			rows := []string{"Name|Description"}
			for _, n := range all {
				rows = append(rows, cell(n.Name)+"|"+cell(n.Description))
			}
			fmt.Fprintln(c.OutOrStdout(), list(rows))
			return showAges(c, &m)
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	return c
}

// showAges says how old the region's copy of the namespaces is, when there are
// other regions.
func showAges(c *cobra.Command, m *meta) error {
	ages, err := m.federation().NamespaceAges(context.Background(), m.asked())
	if err != nil || len(ages) < 2 {
		return err
	}
	showAnswers(c.OutOrStdout(), ages)
	return nil
}

// findNamespace returns the one namespace that a name or its beginning names.
func findNamespace(client *api.Client, prefix string) (*api.Namespace, error) {
	all, _, err := client.Namespaces().PrefixList(prefix, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
	}
	name, err := unique("namespace", prefix, names)
	if err != nil {
		return nil, err
	}
	return all[slices.Index(names, name)], nil
}

func namespaceStatusCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "status NAMESPACE", Short: "Show a namespace", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			n, err := findNamespace(client, args[0])
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, n)
			}
			may := deref(n.Capabilities)
			fmt.Fprintln(w, pairs([]string{
				"Name|" + cell(n.Name), "Description|" + cell(n.Description), "Quota|" + n.Quota,
				"EnabledDrivers|" + cell(strings.Join(may.EnabledTaskDrivers, ",")), "DisabledDrivers|" + cell(strings.Join(may.DisabledTaskDrivers, ",")),
				"EnabledNetworkModes|" + cell(strings.Join(may.EnabledNetworkModes, ",")), "DisabledNetworkModes|" + cell(strings.Join(may.DisabledNetworkModes, ",")),
			}))
			if len(n.Meta) > 0 {
				var rows []string
				for _, key := range slices.Sorted(maps.Keys(n.Meta)) {
					rows = append(rows, cell(key)+"|"+cell(n.Meta[key]))
				}
				fmt.Fprintln(w, title("Metadata"))
				fmt.Fprintln(w, pairs(rows))
			}
			return showAges(c, &m)
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	return c
}

func namespaceInspectCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "inspect NAMESPACE", Short: "Print a namespace as JSON", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			n, err := findNamespace(client, args[0])
			if err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), n)
		}),
	}
	m.flags(c)
	return c
}

func namespaceDeleteCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "delete NAMESPACE", Short: "Delete a namespace that has no jobs but dead ones", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			// What is deleted is named whole.
			if _, err := client.Namespaces().Delete(args[0], nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Successfully deleted namespace %q!\n", args[0])
			return nil
		}),
	}
	m.flags(c)
	return c
}
