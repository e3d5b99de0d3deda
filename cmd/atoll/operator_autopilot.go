package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func autopilotGetCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "get-config", Short: "Show autopilot's configuration", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			conf, _, err := client.Operator().AutopilotGetConfiguration(nil)
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), conf)
			}
			fmt.Fprintln(c.OutOrStdout(), pairs([]string{
				fmt.Sprintf("CleanupDeadServers|%v", conf.CleanupDeadServers), fmt.Sprintf("LastContactThreshold|%s", conf.LastContactThreshold),
				fmt.Sprintf("MaxTrailingLogs|%d", conf.MaxTrailingLogs), fmt.Sprintf("MinQuorum|%d", conf.MinQuorum),
				fmt.Sprintf("ServerStabilizationTime|%s", conf.ServerStabilizationTime),
			}))
			return nil
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	return c
}

func autopilotSetCommand() *cobra.Command {
	var m meta
	var cleanup bool
	var contact, stable time.Duration
	var trailing uint64
	var quorum uint
	c := &cobra.Command{
		Use: "set-config", Short: "Change autopilot's configuration; what is not given stays", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			conf, _, err := client.Operator().AutopilotGetConfiguration(nil)
			if err != nil {
				return err
			}
			for name, set := range map[string]func(){
				"cleanup-dead-servers":      func() { conf.CleanupDeadServers = cleanup },
				"last-contact-threshold":    func() { conf.LastContactThreshold = contact },
				"max-trailing-logs":         func() { conf.MaxTrailingLogs = trailing },
				"min-quorum":                func() { conf.MinQuorum = quorum },
				"server-stabilization-time": func() { conf.ServerStabilizationTime = stable },
			} {
				if c.Flags().Changed(name) {
					set()
				}
			}
			set, _, err := client.Operator().AutopilotCASConfiguration(conf, nil)
			if err != nil {
				return err
			}
			if !set {
				return errors.New("the configuration was changed by somebody else meanwhile; look at it, and try again")
			}
			fmt.Fprintln(c.OutOrStdout(), "Configuration updated!")
			return nil
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.BoolVar(&cleanup, "cleanup-dead-servers", true, "take dead servers out of the cell when others have come in their place")
	f.DurationVar(&contact, "last-contact-threshold", 0, "how long a healthy server may be without its leader")
	f.Uint64Var(&trailing, "max-trailing-logs", 0, "how many log entries a healthy server may be behind")
	f.UintVar(&quorum, "min-quorum", 0, "how many voting servers no clean-up goes below")
	f.DurationVar(&stable, "server-stabilization-time", 0, "how long a new server must be healthy before it has a vote")
	return c
}

func autopilotHealthCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "health", Short: "Show the health of the cell's servers; exit code 2 when one is not healthy", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			h, _, err := client.Operator().AutopilotServerHealth(nil)
			// An unhealthy cell is an answer too.
			var answer api.UnexpectedResponseError
			if errors.As(err, &answer) && answer.StatusCode() == http.StatusTooManyRequests {
				h = new(api.OperatorHealthReply)
				if json.Unmarshal([]byte(answer.Body()), h) == nil {
					err = nil
				}
			}
			if err != nil {
				return err
			}
			if m.json {
				err = printJSON(c.OutOrStdout(), h)
			} else {
				fmt.Fprintln(c.OutOrStdout(), healthText(h))
			}
			if err == nil && !h.Healthy {
				err = exitCode(2)
			}
			return err
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	return c
}

func healthText(h *api.OperatorHealthReply) string {
	rows := []string{"ID|Name|Address|SerfStatus|Version|Leader|Voter|Healthy|LastContact|LastTerm|LastIndex|StableSince"}
	for _, s := range h.Servers {
		contact := s.LastContact.Round(time.Millisecond).String()
		if s.LastContact < 0 {
			contact = "never"
		}
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%s|%s|%v|%v|%v|%s|%d|%d|%s", s.ID, cell(s.Name), s.Address, s.SerfStatus, s.Version,
			s.Leader, s.Voter, s.Healthy, contact, s.LastTerm, s.LastIndex, s.StableSince.Local().Format(time.RFC3339)))
	}
	return pairs([]string{
		fmt.Sprintf("Healthy|%v", h.Healthy), fmt.Sprintf("FailureTolerance|%d", h.FailureTolerance), "Leader|" + h.Leader,
	}) + "\n\n" + list(rows)
}
