package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func deploymentListCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "list", Short: "List deployments", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := m.client()
			if err != nil {
				return err
			}
			all, _, err := client.Deployments().List(nil)
			if err != nil {
				return err
			}
			return listDeployments(c.OutOrStdout(), &m, all)
		},
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

func listDeployments(w io.Writer, m *meta, all []*api.Deployment) error {
	if m.json {
		return printJSON(w, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "No deployments found")
		return nil
	}
	rows := []string{"ID|Job ID|Job Version|Status|Description"}
	for _, d := range all {
		rows = append(rows, fmt.Sprintf("%s|%s|%d|%s|%s", m.id(d.ID), cell(d.JobID), d.JobVersion, d.Status, cell(d.StatusDescription)))
	}
	fmt.Fprintln(w, list(rows))
	return nil
}

func deploymentStatusCommand() *cobra.Command {
	var m meta
	var watch bool
	c := &cobra.Command{
		Use: "status [DEPLOYMENT]", Short: "Show a deployment", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := m.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				all, _, err := client.Deployments().List(nil)
				if err != nil {
					return err
				}
				return listDeployments(c.OutOrStdout(), &m, all)
			}
			d, err := findDeployment(client, args[0])
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), d)
			}
			showDeployment(c.OutOrStdout(), &m, d)
			if d.IsMultiregion {
				if r, err := m.federation().Rollout(context.Background(), d.Namespace, d.JobID, m.asked()); err == nil && r.Won != nil && r.Won.Version == d.JobVersion {
					showRollout(c.OutOrStdout(), &m, r)
				}
			}
			if !watch {
				return nil
			}
			return (&monitor{meta: &m, client: client, out: c.OutOrStdout(), query: &api.QueryOptions{}}).deployment(c, d.ID)
		},
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	c.Flags().BoolVar(&watch, "monitor", false, "follow it to its end")
	return c
}

// findDeployment returns the one deployment that an id or its beginning names.
func findDeployment(client *api.Client, prefix string) (*api.Deployment, error) {
	all, _, err := client.Deployments().PrefixList(even(prefix))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, d := range all {
		ids = append(ids, d.ID)
	}
	id, err := unique("deployment", prefix, ids)
	if err != nil {
		return nil, err
	}
	return all[slices.Index(ids, id)], nil
}

func showDeployment(w io.Writer, m *meta, d *api.Deployment) {
	fmt.Fprintln(w, pairs([]string{
		"ID|" + m.id(d.ID), "Job ID|" + cell(d.JobID), fmt.Sprintf("Job Version|%d", d.JobVersion),
		"Status|" + d.Status, "Description|" + cell(d.StatusDescription),
	}))
	showDeployed(w, d)
}

// showDeployed tells how far each group is. Columns about canaries, reverts and
// deadlines are there when some group has them.
func showDeployed(w io.Writer, d *api.Deployment) {
	var revert, canaries, deadline bool
	for _, s := range d.TaskGroups {
		revert = revert || s.AutoRevert
		canaries = canaries || s.DesiredCanaries > 0
		deadline = deadline || s.ProgressDeadline > 0
	}
	row := func(group, auto, promoted, desired, canary, placed, healthy, unhealthy, by string) string {
		out := group
		add := func(show bool, s string) {
			if show {
				out += "|" + s
			}
		}
		add(revert, auto)
		add(canaries, promoted)
		add(true, desired)
		add(canaries, canary)
		add(true, placed+"|"+healthy+"|"+unhealthy)
		add(deadline, by)
		return out
	}
	rows := []string{row("Task Group", "Auto Revert", "Promoted", "Desired", "Canaries", "Placed", "Healthy", "Unhealthy", "Progress Deadline")}
	for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
		s := d.TaskGroups[name]
		promoted, by := "N/A", "N/A"
		if s.DesiredCanaries > 0 {
			promoted = fmt.Sprint(s.Promoted)
		}
		if !s.RequireProgressBy.IsZero() {
			by = s.RequireProgressBy.Format(time.RFC3339)
		}
		rows = append(rows, row(cell(name), fmt.Sprint(s.AutoRevert), promoted, fmt.Sprint(s.DesiredTotal), fmt.Sprint(s.DesiredCanaries),
			fmt.Sprint(s.PlacedAllocs), fmt.Sprint(s.HealthyAllocs), fmt.Sprint(s.UnhealthyAllocs), by))
	}
	fmt.Fprintln(w, title("Deployed"))
	fmt.Fprintln(w, list(rows))
}

// deploymentChange is a command that changes the deployment of an id, and follows
// what comes of it.
func deploymentChange(use, short string, more func(*cobra.Command), change func(*api.Client, *api.Deployment) (*api.DeploymentUpdateResponse, string, error)) *cobra.Command {
	var m meta
	var detach bool
	c := &cobra.Command{
		Use: use + " DEPLOYMENT", Short: short, Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			d, err := findDeployment(client, args[0])
			if err != nil {
				return err
			}
			return changeDeployment(c, &m, client, d, detach, change)
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&detach, "detach", false, "do not follow what comes of it")
	m.verboseFlag(c)
	if more != nil {
		more(c)
	}
	return c
}

func changeDeployment(c *cobra.Command, m *meta, client *api.Client, d *api.Deployment, detach bool, change func(*api.Client, *api.Deployment) (*api.DeploymentUpdateResponse, string, error)) error {
	w := c.OutOrStdout()
	out, done, err := change(client, d)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Deployment %q %s\n", m.id(d.ID), done)
	if out.RevertedJobVersion != nil {
		fmt.Fprintf(w, "The job is reverted to version %d\n", *out.RevertedJobVersion)
	}
	switch {
	case out.EvalID == "":
		return nil
	case detach:
		fmt.Fprintln(w, "Evaluation ID: "+out.EvalID)
		return nil
	}
	mon := &monitor{meta: m, client: client, out: w, query: &api.QueryOptions{}, deploymentAside: true}
	return mon.follow(c, out.EvalID)
}

func deploymentFailCommand() *cobra.Command {
	return deploymentChange("fail", "Fail a deployment", nil, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
		out, _, err := client.Deployments().Fail(d.ID, nil)
		return out, "failed", err
	})
}

func deploymentPauseCommand() *cobra.Command {
	return deploymentChange("pause", "Pause a deployment", nil, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
		out, _, err := client.Deployments().Pause(d.ID, true, nil)
		return out, "paused", err
	})
}

func deploymentResumeCommand() *cobra.Command {
	return deploymentChange("resume", "Let a paused deployment go on", nil, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
		out, _, err := client.Deployments().Pause(d.ID, false, nil)
		return out, "goes on", err
	})
}

func deploymentUnblockCommand() *cobra.Command {
	return deploymentChange("unblock", "Let a deployment that waits for other regions be", nil, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
		out, _, err := client.Deployments().Unblock(d.ID, nil)
		return out, "unblocked", err
	})
}

func deploymentPromoteCommand() *cobra.Command {
	var groups []string
	return deploymentChange("promote", "Promote a deployment's canaries", func(c *cobra.Command) {
		c.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` whose canaries are promoted, instead of all; may come again")
	}, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
		return promote(client, d, groups)
	})
}

func promote(client *api.Client, d *api.Deployment, groups []string) (out *api.DeploymentUpdateResponse, done string, err error) {
	if len(groups) == 0 {
		out, _, err = client.Deployments().PromoteAll(d.ID, nil)
	} else {
		out, _, err = client.Deployments().PromoteGroups(d.ID, groups, nil)
	}
	return out, "promoted", err
}
