package main

import (
	"fmt"
	"net"
	"slices"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func serverMembersCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "members", Short: "List the servers of all regions", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			found, err := client.Agent().Members()
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, found.Members)
			}
			slices.SortFunc(found.Members, func(a, b *api.AgentMember) int {
				if api.AgentMembersNameSort([]*api.AgentMember{a, b}).Less(0, 1) {
					return -1
				}
				return 1
			})
			leaders, faults := leadersOf(client, found.Members)
			rows := []string{"Name|Address|Port|Status|Leader|Raft Version|Build|Datacenter|Region"}
			for _, s := range found.Members {
				leads := leaders[s.Tags["region"]] == net.JoinHostPort(s.Addr, s.Tags["port"])
				rows = append(rows, fmt.Sprintf("%s|%s|%d|%s|%v|%s|%s|%s|%s", cell(s.Name), s.Addr, s.Port, s.Status, leads, "3", s.Tags["build"], s.Tags["dc"], s.Tags["region"]))
			}
			fmt.Fprintln(w, list(rows))
			for _, fault := range faults {
				fmt.Fprintln(c.ErrOrStderr(), fault)
			}
			return nil
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	c.Flags().BoolVar(&m.verbose, "verbose", false, "accepted")
	return c
}

// leadersOf asks each region for its leader's address.
func leadersOf(client *api.Client, members []*api.AgentMember) (leaders map[string]string, faults []string) {
	leaders = make(map[string]string)
	for _, s := range members {
		region := s.Tags["region"]
		if _, asked := leaders[region]; asked {
			continue
		}
		addr, err := client.Status().RegionLeader(region)
		if leaders[region] = addr; err != nil {
			faults = append(faults, fmt.Sprintf("cannot tell the leader of region %q: %s", region, plainError(err)))
		}
	}
	return leaders, faults
}
