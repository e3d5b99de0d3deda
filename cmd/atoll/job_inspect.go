package main

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func jobInspectCommand() *cobra.Command {
	var m meta
	version := -1
	c := &cobra.Command{
		Use: "inspect JOB", Short: "Print a job as JSON", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			job, err := jobVersion(client, id, version)
			if err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), map[string]any{"Job": job})
		}),
	}
	m.flags(c)
	c.Flags().IntVar(&version, "version", -1, "`VERSION` to print, instead of the newest")
	c.Flags().BoolVar(&m.json, "json", true, "print JSON, which is the only form")
	return c
}

// jobVersion is a version of a job that is kept, the newest when version is
// negative.
func jobVersion(client *api.Client, id string, version int) (*api.Job, error) {
	if version < 0 {
		job, _, err := client.Jobs().Info(id, nil)
		return job, err
	}
	all, _, _, err := client.Jobs().Versions(id, false, nil)
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		if deref(j.Version) == uint64(version) {
			return j, nil
		}
	}
	return nil, fmt.Errorf("job %q has no version %d", id, version)
}
