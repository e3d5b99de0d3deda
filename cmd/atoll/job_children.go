package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"atoll/model"
)

// nextLaunch tells when a periodic job is launched next, "" when that is not
// known or never. It is by this machine's clock.
func nextLaunch(job *api.Job) string {
	if !job.IsPeriodic() || job.IsParameterized() || deref(job.Stop) {
		return ""
	}
	p := job.Periodic
	if p.Enabled != nil && !*p.Enabled {
		return "none (not enabled)"
	}
	s, err := (&model.PeriodicConfig{Spec: deref(p.Spec), Specs: p.Specs, TimeZone: deref(p.TimeZone)}).Schedule()
	if err != nil {
		return ""
	}
	now := time.Now()
	next := s.Next(now)
	if next.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%s (%s from now)", next.Format(time.RFC3339), age(next.Sub(now)))
}

// showChildren tells of a job that runs as its children only.
func showChildren(w io.Writer, client *api.Client, job *api.Job, summary *api.JobSummary) error {
	if job.IsParameterized() {
		p := job.ParameterizedJob
		fmt.Fprintln(w, title("Parameterized Job"))
		fmt.Fprintln(w, pairs([]string{
			"Payload|" + p.Payload, "Required Metadata|" + cell(strings.Join(p.MetaRequired, ", ")), "Optional Metadata|" + cell(strings.Join(p.MetaOptional, ", ")),
		}))
	}
	counts, children := "Children Job Summary", "Previously Launched Jobs"
	if job.IsParameterized() {
		counts, children = "Parameterized Job Summary", "Dispatched Jobs"
	}
	fmt.Fprintln(w, title(counts))
	c := deref(summary.Children)
	fmt.Fprintln(w, list([]string{"Pending|Running|Dead", fmt.Sprintf("%d|%d|%d", c.Pending, c.Running, c.Dead)}))
	jobs, _, err := client.Jobs().PrefixList(deref(job.ID) + "/")
	if err != nil {
		return err
	}
	rows := []string{"ID|Status"}
	for _, j := range jobs {
		if j.ParentID == deref(job.ID) {
			rows = append(rows, cell(j.ID)+"|"+jobState(j.Status, j.Stop))
		}
	}
	fmt.Fprintln(w, title(children))
	if len(rows) == 1 {
		fmt.Fprintln(w, "No instances of the job")
		return nil
	}
	fmt.Fprintln(w, list(rows))
	return nil
}
