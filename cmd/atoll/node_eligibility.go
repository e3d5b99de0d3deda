package main

import (
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func nodeEligibilityCommand() *cobra.Command {
	var m meta
	var enable, disable, self bool
	c := &cobra.Command{
		Use: "eligibility [NODE]", Short: "Say whether new work may be placed on a node", Args: cobra.MaximumNArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			if enable == disable {
				return errors.New("give either -enable or -disable")
			}
			id, err := findNode(client, args, self)
			if err != nil {
				return err
			}
			if _, err := client.Nodes().ToggleEligibility(id, enable, nil); err != nil {
				return err
			}
			word := "ineligible"
			if enable {
				word = "eligible"
			}
			fmt.Fprintf(c.OutOrStdout(), "Node %q scheduling eligibility set: %s for scheduling\n", m.id(id), word)
			return nil
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&enable, "enable", false, "new work may be placed on it")
	f.BoolVar(&disable, "disable", false, "no new work is placed on it; what runs there goes on")
	f.BoolVar(&self, "self", false, "the node of the agent itself")
	m.verboseFlag(c)
	return c
}
