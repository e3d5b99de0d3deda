package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func serverJoinCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "join ADDRESS...", Short: "Make a server join the gossip of others", Args: cobra.MinimumNArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			n, err := client.Agent().Join(args...)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Joined %d servers successfully\n", n)
			return nil
		}),
	}
	m.flags(c)
	return c
}
