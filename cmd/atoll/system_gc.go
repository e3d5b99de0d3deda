package main

import (
	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func systemGCCommand() *cobra.Command {
	return systemCommand(&cobra.Command{
		Use: "gc", Short: "Delete what is over from a region's state, without waiting for any threshold", Args: cobra.NoArgs,
	}, func(s *api.System) error { return s.GarbageCollect() })
}

func systemReconcileCommand() *cobra.Command {
	return systemCommand(&cobra.Command{
		Use: "summaries", Short: "Count each job's allocations anew", Args: cobra.NoArgs,
		Long: "Count each job's allocations anew. A job's summary tells of all the allocations it had; afterwards, of those that are still there.",
	}, func(s *api.System) error { return s.ReconcileSummaries() })
}

func systemCommand(c *cobra.Command, do func(*api.System) error) *cobra.Command {
	var m meta
	c.RunE = m.inOneRegion(func(_ *cobra.Command, client *api.Client, _ []string) error {
		return do(client.System())
	})
	m.flags(c)
	return c
}
