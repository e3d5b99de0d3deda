// Command atoll is the agent and its command line. Each command parses flags,
// calls the HTTP API and prints; only agent.go and dev.go know the agent.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"atoll/internal/shim"
)

func main() {
	// A task's shim is this program too, as quick to start and as small as can
	// be.
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2]))
	}
	os.Exit(run(os.Args[1:]))
}

// exitCode ends the process with a code, after what was to be said was said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(args []string) int {
	root := newRoot()
	root.SetArgs(longFlags(args))
	err := root.Execute()
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "Error: "+plainError(err))
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "atoll", Short: "Atoll runs work on machines in many regions.",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	group := func(use, short string, subs ...*cobra.Command) *cobra.Command {
		g := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q of %q; see atoll %s -help", args[0], use, use)
			}
			return c.Help()
		}}
		g.AddCommand(subs...)
		return g
	}
	root.AddCommand(
		agentCommand(), devCommand(), versionCommand(),
		group("job", "Submit, look at and stop jobs", jobRunCommand(), jobStatusCommand(), jobStopCommand(), jobInspectCommand(),
			jobHistoryCommand(), jobPromoteCommand(), jobRevertCommand(), jobPlanCommand(), jobScaleCommand(),
			jobDispatchCommand(),
			group("periodic", "Launch periodic jobs", jobPeriodicForceCommand())),
		group("deployment", "Look at deployments, and steer them", deploymentListCommand(), deploymentStatusCommand(), deploymentPromoteCommand(),
			deploymentFailCommand(), deploymentPauseCommand(), deploymentResumeCommand(), deploymentUnblockCommand()),
		group("namespace", "Make, look at and delete namespaces", namespaceApplyCommand(), namespaceDeleteCommand(), namespaceInspectCommand(),
			namespaceListCommand(), namespaceStatusCommand()),
		group("scaling", "Look at how jobs are scaled",
			group("policy", "Look at scaling policies", scalingPolicyListCommand(), scalingPolicyInfoCommand())),
		group("node", "Look at nodes, and take them out of use", nodeStatusCommand(), nodeEligibilityCommand(), nodeDrainCommand()),
		group("alloc", "Look at allocations, and stop them", allocStatusCommand(), allocLogsCommand(), allocStopCommand()),
		group("eval", "Look at evaluations and delete them", evalListCommand(), evalStatusCommand(), evalDeleteCommand()),
		group("server", "Look at servers, join them and declare them gone", serverMembersCommand(), serverJoinCommand(), serverForceLeaveCommand()),
		group("region", "Look at regions", regionListCommand(), regionStatusCommand(), regionAcceptCommand()),
		group("operator", "Tend a region's servers",
			group("raft", "Look at and change the members of a region's cell", raftListPeersCommand(), raftRemovePeerCommand(), raftTransferCommand()),
			group("snapshot", "Save, look at and restore the state of a region", snapshotSaveCommand(), snapshotInspectCommand(), snapshotRestoreCommand()),
			group("autopilot", "How a cell's leader tends its servers", autopilotGetCommand(), autopilotSetCommand(), autopilotHealthCommand()),
			group("scheduler", "How a region's work is placed, and whether any is", schedulerGetCommand(), schedulerSetCommand())),
	)
	root.AddCommand(group("system", "Tend a region's state", systemGCCommand(),
		group("reconcile", "Set right what a region's state sums up", systemReconcileCommand())))
	// Nomad's short forms.
	for _, c := range []*cobra.Command{jobRunCommand(), jobStatusCommand(), jobStopCommand(), jobInspectCommand(), jobPlanCommand()} {
		c.Hidden = true
		root.AddCommand(c)
	}
	return root
}

// longFlags gives long flags with one dash their second, so that both forms
// work. What follows "--" is left alone.
func longFlags(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		name, _, _ := strings.Cut(a, "=")
		if len(name) > 2 && name[0] == '-' && name[1] != '-' && (name[1] < '0' || name[1] > '9') {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

// plainError is an error as a user should read it: what the agent said, without
// the client's own words around it.
func plainError(err error) string {
	var answer api.UnexpectedResponseError
	if errors.As(err, &answer) && answer.HasBody() {
		text := strings.TrimSpace(answer.Body())
		if answer.HasStatusCode() {
			text += fmt.Sprintf(" (%d)", answer.StatusCode())
		}
		return text
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
