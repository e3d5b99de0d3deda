package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"atoll/model"
)

// planFailed is the exit code when there is no plan, as scripts know it.
const planFailed = exitCode(255)

func jobPlanCommand() *cobra.Command {
	p := &jobPlan{}
	c := &cobra.Command{
		Use: "plan FILE", Short: "Show what submitting a job would do",
		Long: "Show what submitting a job would do, without doing it.\n\n" +
			"Exit code 0: nothing would be started or stopped. 1: something would. 255: there is no plan.",
		Args: func(c *cobra.Command, args []string) error { return planError(c, cobra.ExactArgs(1)(c, args)) },
		RunE: func(c *cobra.Command, args []string) error { return planError(c, p.run(c, args[0])) },
	}
	c.SetFlagErrorFunc(planError)
	p.flags(c)
	p.in.flags(c)
	f := c.Flags()
	f.BoolVar(&p.diff, "diff", true, "show what differs from the job as it is")
	f.StringVar(&p.without, "without", "", "plan a multi-region job as if `REGION` were lost: the others take over its share")
	f.BoolVar(&p.override, "policy-override", false, "not supported")
	f.BoolVar(&p.verbose, "verbose", false, "show what is within things that are new or gone")
	return c
}

// planError says what went wrong and ends with the code of that.
func planError(c *cobra.Command, err error) error {
	var code exitCode
	if err == nil || errors.As(err, &code) {
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), "Error: "+plainError(err))
	return planFailed
}

// jobPlan is one plan.
type jobPlan struct {
	meta
	in             jobInput
	diff, override bool
	without        string
}

func (p *jobPlan) run(c *cobra.Command, file string) error {
	if err := p.oneRegion(); err != nil {
		return err
	}
	job, err := p.in.read(c, file)
	if err != nil {
		return err
	}
	switch {
	case p.in.job.Multiregional():
		return p.everywhere(c, job, file)
	case p.without != "":
		return fmt.Errorf("-without %q is about multi-region jobs, and job %q is none", p.without, p.in.job.ID)
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	write, _ := pointAt(client, job)
	plan, info, err := client.Jobs().PlanOpts(job, &api.PlanOptions{Diff: p.diff, PolicyOverride: p.override}, write)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	if plan.Diff != nil {
		(&diffPrinter{w, p.verbose}).job(plan.Diff)
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Scheduler dry-run:")
	showDryRun(w, job, plan, info.LastIndex)
	if plan.Warnings != "" {
		fmt.Fprintf(w, "\nJob Warnings:\n%s\n", plan.Warnings)
	}
	fmt.Fprintf(w, "\nJob Modify Index: %d\nTo submit the job only if it is still at this index:\n\n%s\n", plan.JobModifyIndex, p.hint(plan.JobModifyIndex, file))
	if changes(plan) {
		return exitCode(1)
	}
	return nil
}

// everywhere shows the plans of all regions of a multi-region job.
func (p *jobPlan) everywhere(c *cobra.Command, job *api.Job, file string) error {
	asked := p.asked()
	plans, err := p.federation().Plan(context.Background(), p.in.job, asked, p.without, p.diff)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	changed, silent := false, false
	for _, of := range plans {
		fmt.Fprintf(w, "Region %q:\n\n", of.Region)
		if silent = silent || of.Plan == nil; of.Plan == nil {
			fmt.Fprintf(w, "No plan: %s\n\n", of.Error)
			continue
		}
		// The printers know the official client's types.
		b, err := json.Marshal(of.Plan)
		if err != nil {
			return err
		}
		plan := new(api.JobPlanResponse)
		if err := json.Unmarshal(b, plan); err != nil {
			return err
		}
		if plan.Diff != nil {
			(&diffPrinter{w, p.verbose}).job(plan.Diff)
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, "Scheduler dry-run:")
		showDryRun(w, job, plan, of.Plan.Index)
		fmt.Fprintln(w)
		changed = changed || changes(plan)
	}
	switch {
	case silent:
		return planFailed
	case changed:
		return exitCode(1)
	}
	return nil
}

// showDryRun tells what the scheduler would achieve, on the state of an index.
func showDryRun(w io.Writer, job *api.Job, plan *api.JobPlanResponse, index uint64) {
	switch {
	case len(plan.FailedTGAllocs) == 0:
		fmt.Fprintln(w, "- All tasks successfully allocated.")
	case deref(job.Type) == model.JobTypeSystem || deref(job.Type) == model.JobTypeSysBatch:
		fmt.Fprintln(w, "- WARNING: Failed to place allocations on all nodes.")
	default:
		fmt.Fprintln(w, "- WARNING: Failed to place all allocations.")
	}
	for _, group := range slices.Sorted(maps.Keys(plan.FailedTGAllocs)) {
		metric := plan.FailedTGAllocs[group]
		n := metric.CoalescedFailures + 1
		fmt.Fprintf(w, "  Task Group %q (failed to place %d allocation%s):\n", group, n, plural(n))
		for _, line := range placement(metric) {
			fmt.Fprintln(w, "    * "+line)
		}
	}
	if t := plan.NextPeriodicLaunch; !t.IsZero() {
		fmt.Fprintf(w, "- If submitted now, the next periodic launch is at %s.\n", t.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "- This holds for the region's state at index %d.\n", index)
}

// changes reports whether anything would be started or stopped.
func changes(plan *api.JobPlanResponse) bool {
	if plan.Annotations == nil {
		return false
	}
	for _, u := range plan.Annotations.DesiredTGUpdates {
		if u.Place+u.Stop+u.Migrate+u.DestructiveUpdate+u.Canary > 0 {
			return true
		}
	}
	return false
}

// hint is the command that submits what was planned.
func (p *jobPlan) hint(index uint64, file string) string {
	words := []string{"atoll", "job", "run", "-check-index", fmt.Sprint(index)}
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				words = append(words, flag, quoted(v))
			}
		}
	}
	add("-address", p.address)
	add("-region", p.region)
	add("-namespace", p.namespace)
	add("-var", p.in.vars...)
	add("-var-file", p.in.varFiles...)
	if p.in.json {
		words = append(words, "-json")
	}
	return strings.Join(append(words, quoted(file)), " ")
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
