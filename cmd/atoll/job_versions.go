package main

import (
	"fmt"
	"strconv"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func jobPromoteCommand() *cobra.Command {
	var m meta
	var detach bool
	var groups []string
	c := &cobra.Command{
		Use: "promote JOB", Short: "Promote the canaries of a job's newest deployment", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			d, _, err := client.Jobs().LatestDeployment(id, nil)
			if err != nil {
				return err
			}
			if d == nil {
				return fmt.Errorf("job %q has no deployment", id)
			}
			return changeDeployment(c, &m, client, d, detach, func(client *api.Client, d *api.Deployment) (*api.DeploymentUpdateResponse, string, error) {
				return promote(client, d, groups)
			})
		}),
	}
	m.flags(c)
	c.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` whose canaries are promoted, instead of all; may come again")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow what comes of it")
	m.verboseFlag(c)
	return c
}

func jobRevertCommand() *cobra.Command {
	var m meta
	var detach bool
	c := &cobra.Command{
		Use: "revert JOB VERSION", Short: "Register an earlier version of a job anew", Args: cobra.ExactArgs(2),
		Long: "Register an earlier version of a job anew, named by its number or its tag.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			version, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				tagged, _, err := client.Jobs().VersionByTag(id, args[1], nil)
				if err != nil {
					return err
				}
				version = deref(tagged.Version)
			}
			out, _, err := client.Jobs().Revert(id, version, nil, nil, "", "")
			if err != nil {
				return err
			}
			if detach || out.EvalID == "" {
				fmt.Fprintln(c.OutOrStdout(), "Evaluation ID: "+out.EvalID)
				return nil
			}
			return m.follow(c, client, out.EvalID)
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the evaluation")
	m.verboseFlag(c)
	return c
}

func jobHistoryCommand() *cobra.Command {
	var m meta
	var diffs, full bool
	var opts api.VersionsOptions
	version, against := -1, -1
	c := &cobra.Command{
		Use: "history JOB", Short: "List the versions of a job that are kept", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := m.client()
			if err != nil {
				return err
			}
			id, err := findJob(client, args[0])
			if err != nil {
				return err
			}
			if against >= 0 {
				v := uint64(against)
				opts.DiffVersion = &v
			}
			opts.Diffs = diffs || against >= 0 || opts.DiffTag != ""
			all, changed, _, err := client.Jobs().VersionsOpts(id, &opts, nil)
			if err != nil {
				return err
			}
			var shown []*api.Job
			of := make(map[*api.Job]*api.JobDiff)
			for i, j := range all {
				if version < 0 || deref(j.Version) == uint64(version) {
					shown = append(shown, j)
				}
				if i < len(changed) {
					of[j] = changed[i]
				}
			}
			if len(shown) == 0 {
				return fmt.Errorf("job %q has no version %d", id, version)
			}
			w := c.OutOrStdout()
			if m.json {
				return printJSON(w, shown)
			}
			if full {
				for _, j := range shown {
					if err := printJSON(w, j); err != nil {
						return err
					}
				}
				return nil
			}
			for i, j := range shown {
				if i > 0 {
					fmt.Fprintln(w)
				}
				rows := []string{fmt.Sprintf("Version|%d", deref(j.Version)), fmt.Sprintf("Stable|%t", deref(j.Stable)), "Submit Date|" + date(deref(j.SubmitTime))}
				if t := j.VersionTag; t != nil {
					rows = append(rows, "Tag Name|"+cell(t.Name), "Tag Description|"+cell(t.Description))
				}
				fmt.Fprintln(w, pairs(rows))
				if d := of[j]; d != nil {
					fmt.Fprintln(w, title("Diff"))
					(&diffPrinter{w: w}).job(d)
				}
			}
			return nil
		},
	}
	m.flags(c)
	c.Flags().IntVar(&version, "version", -1, "show one `VERSION` only")
	c.Flags().BoolVarP(&diffs, "p", "p", false, "show what differs from the version before")
	c.Flags().StringVar(&opts.DiffTag, "diff-tag", "", "show what differs from the version of this `TAG`")
	c.Flags().IntVar(&against, "diff-version", -1, "show what differs from this `VERSION`")
	c.Flags().BoolVar(&full, "full", false, "print the whole jobs")
	m.jsonFlag(c)
	return c
}
