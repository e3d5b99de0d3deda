package main

import (
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func raftListPeersCommand() *cobra.Command {
	var m meta
	var stale bool
	c := &cobra.Command{
		Use: "list-peers", Short: "List the members of the cell", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			conf, err := client.Operator().RaftGetConfiguration(&api.QueryOptions{AllowStale: stale})
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), conf)
			}
			rows := []string{"Node|ID|Address|State|Voter|RaftProtocol"}
			for _, s := range conf.Servers {
				state := "follower"
				if s.Leader {
					state = "leader"
				}
				rows = append(rows, fmt.Sprintf("%s|%s|%s|%s|%v|%s", cell(s.Node), s.ID, s.Address, state, s.Voter, s.RaftProtocol))
			}
			fmt.Fprintln(c.OutOrStdout(), list(rows))
			return nil
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&stale, "stale", false, "let any server answer, when there is no leader")
	m.jsonFlag(c)
	return c
}

// peerCommand acts on one member of the cell.
func peerCommand(c *cobra.Command, done string, byID, byAddress func(*api.Operator, string, *api.WriteOptions) error) *cobra.Command {
	var m meta
	var id, address string
	c.Args = cobra.NoArgs
	c.RunE = m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
		if (id == "") == (address == "") {
			return errors.New("give either -peer-id or -peer-address; see atoll operator raft list-peers")
		}
		by, name, act := "id", id, byID
		if id == "" {
			by, name, act = "address", address, byAddress
		}
		if err := act(client.Operator(), name, nil); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s peer with %s %q\n", done, by, name)
		return nil
	})
	m.flags(c)
	c.Flags().StringVar(&id, "peer-id", "", "the server's `ID` in Raft")
	c.Flags().StringVar(&address, "peer-address", "", "the server's `ADDRESS` in Raft, IP:PORT")
	return c
}

func raftRemovePeerCommand() *cobra.Command {
	return peerCommand(&cobra.Command{
		Use: "remove-peer", Short: "Take a server out of the cell",
		Long: "Take a server that is gone for good out of the cell. One that still runs is admitted again, at first without a vote: stop it before.",
	}, "Removed", (*api.Operator).RaftRemovePeerByID, (*api.Operator).RaftRemovePeerByAddress)
}

func raftTransferCommand() *cobra.Command {
	return peerCommand(&cobra.Command{Use: "transfer-leadership", Short: "Make another server the leader"},
		"Transferred leadership to", (*api.Operator).RaftTransferLeadershipByID, (*api.Operator).RaftTransferLeadershipByAddress)
}
