package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"atoll/agent"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintf(c.OutOrStdout(), "Atoll %s\n%s on %s/%s\n", agent.Build, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
