package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"atoll/api/client"
	"atoll/internal/backoff"
	"atoll/model"
)

// submitEverywhere submits a multi-region job and follows it through its regions.
func submitEverywhere(c *cobra.Command, m *meta, job *model.Job, opts client.RegisterOptions, detach bool) error {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	fed := m.federation()
	out, err := fed.Register(ctx, job, opts)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	if out.Warnings != "" {
		fmt.Fprintf(c.ErrOrStderr(), "Job Warnings:\n%s\n\n", out.Warnings)
	}
	version := uint64(0)
	if out.Version != nil {
		version = *out.Version
	}
	fmt.Fprintf(w, "Job registration successful: version %d\n", version)
	for _, h := range out.Regions {
		if !h.Holds {
			fmt.Fprintf(w, "Region %s does not have it yet: %s\n", h.Region, h.Error)
		}
	}
	if detach {
		if out.EvalID != "" {
			fmt.Fprintln(w, "Evaluation ID: "+out.EvalID)
		}
		return nil
	}
	namespace := job.Namespace
	if namespace == "" {
		namespace = m.space()
	}
	return followRollout(ctx, w, fed, namespace, job.ID, version)
}

// followRollout tells what becomes of a version until there is nothing more to
// wait for. It returns exitCode(2) when a region failed.
func followRollout(ctx context.Context, w io.Writer, fed *client.Client, namespace, id string, version uint64) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTime)
	defer cancel()
	line := func(format string, args ...any) {
		fmt.Fprintf(w, "    %s: %s\n", time.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	told := make(map[string]model.ShareState)
	pace := backoff.Policy{Min: 200 * time.Millisecond, Max: time.Second}
	for n := 0; ; n++ {
		r, err := fed.Rollout(ctx, namespace, id, "")
		switch {
		case ctx.Err() != nil:
			line("it goes on without being watched; see atoll job status %s", id)
			return nil
		case err != nil:
			line("cannot see how far it is: %v; trying on", err)
		case r.Won == nil || r.Won.Version < version:
		case r.Won.Version > version:
			line("version %d has taken its place", r.Won.Version)
			return nil
		default:
			failed, done := false, true
			for _, s := range r.Shares {
				failed = failed || s.State == model.ShareFailed
				done = done && (s.State.Over() || s.State == model.ShareBlocked)
				if told[s.Region] == s.State {
					continue
				}
				told[s.Region] = s.State
				if s.Why != "" {
					line("region %s is %s: %s", s.Region, s.State, s.Why)
				} else {
					line("region %s is %s", s.Region, s.State)
				}
			}
			switch {
			case done && failed:
				return exitCode(2)
			case r.Settled():
				return nil
			}
		}
		if !pace.Sleep(ctx, min(n, 3)) {
			continue
		}
	}
}

// showRollout is the table of a multi-region job's regions.
func showRollout(w io.Writer, m *meta, r *model.Rollout) {
	if r.Won == nil {
		return
	}
	rows := []string{"Region|Deployment|Status|Description"}
	for _, s := range r.Shares {
		d := "none"
		if s.DeploymentID != "" {
			d = m.id(s.DeploymentID)
		}
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%s", s.Region, d, s.State, cell(s.Why)))
	}
	fmt.Fprintln(w, title("Multiregion Deployment"))
	fmt.Fprintf(w, "Version = %d\n\n", r.Won.Version)
	fmt.Fprintln(w, list(rows))
}
