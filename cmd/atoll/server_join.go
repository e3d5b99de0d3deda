package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func serverJoinCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "join ADDRESS...", Short: "Make a server join the gossip of others", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			n, err := client.Agent().Join(args...)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Joined %d servers successfully\n", n)
			return nil
		},
	}
	m.flags(c)
	return c
}
