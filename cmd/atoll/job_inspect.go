package main

import "github.com/spf13/cobra"

func jobInspectCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "inspect JOB", Short: "Print a job as JSON", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			job, _, err := client.Jobs().Info(id, nil)
			if err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), map[string]any{"Job": job})
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&m.json, "json", true, "print JSON, which is the only form")
	return c
}
