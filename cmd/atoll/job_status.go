package main

import (
	"cmp"
	"context"
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

func jobStatusCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "status [JOB]", Short: "List jobs, or show one", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			if m.all() {
				if shown, err := showShares(c, &m, prefix); shown || err != nil {
					return err
				}
				return jobsOfAllRegions(c, &m, prefix)
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			if prefix == "" {
				return listJobs(c.OutOrStdout(), &m, client)
			}
			id, err := findJob(client, prefix)
			if err != nil {
				return err
			}
			return showJob(c.OutOrStdout(), &m, client, id)
		},
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

// findJob returns the id of the one job that an id or its beginning names.
func findJob(client *api.Client, prefix string) (string, error) {
	jobs, _, err := client.Jobs().PrefixList(prefix)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	id, err := unique("job", prefix, ids)
	if err == nil {
		// All namespaces were asked, maybe; what follows is about this one's.
		client.SetNamespace(jobs[slices.Index(ids, id)].Namespace)
	}
	return id, err
}

func listJobs(w io.Writer, m *meta, client *api.Client) error {
	jobs, _, err := client.Jobs().List(nil)
	if err != nil {
		return err
	}
	if m.json {
		return printJSON(w, jobs)
	}
	if len(jobs) == 0 {
		fmt.Fprintln(w, "No running jobs")
		return nil
	}
	head, all := "ID", cmp.Or(m.namespace, env("NAMESPACE")) == model.AllNamespaces
	if all {
		head += "|Namespace"
	}
	rows := []string{head + "|Type|Priority|Status|Submit Date"}
	for _, j := range jobs {
		name := cell(j.ID)
		if all {
			name += "|" + cell(j.Namespace)
		}
		rows = append(rows, fmt.Sprintf("%s|%s|%d|%s|%s", name, jobType(j.Type, j.Periodic, j.ParameterizedJob), j.Priority, jobState(j.Status, j.Stop), date(j.SubmitTime)))
	}
	fmt.Fprintln(w, list(rows))
	return nil
}

func jobState(status string, stopped bool) string {
	if stopped {
		return status + " (stopped)"
	}
	return status
}

func jobsOfAllRegions(c *cobra.Command, m *meta, prefix string) error {
	jobs, answers, err := m.federation().Jobs(context.Background(), m.namespace, prefix)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	if m.json {
		return printJSON(w, map[string]any{"Jobs": jobs, "Regions": answers})
	}
	rows := []string{"Region|ID|Type|Priority|Status|Submit Date"}
	for _, j := range jobs {
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%d|%s|%s", j.Region, cell(j.ID), jobType(j.Type, j.Periodic, j.ParameterizedJob), j.Priority, jobState(j.Status, j.Stop), date(j.SubmitTime)))
	}
	silent := slices.ContainsFunc(answers, func(a model.RegionAnswer) bool { return a.Freshness == model.Unreachable })
	switch {
	case len(jobs) > 0:
		fmt.Fprintln(w, list(rows))
	case silent:
		fmt.Fprintln(w, "No running jobs in the regions that answered")
	default:
		fmt.Fprintln(w, "No running jobs")
	}
	showAnswers(w, answers)
	return nil
}

// showAnswers tells what each region's rows are worth.
func showAnswers(w io.Writer, answers []model.RegionAnswer) {
	rows := []string{"Region|Answer|Age|Index"}
	for _, a := range answers {
		old, index := "", ""
		if a.Freshness != model.Live && a.Age >= 0 {
			old = a.Age.Round(100 * time.Millisecond).String()
		}
		if a.Freshness != model.Unreachable {
			index = fmt.Sprint(a.Index)
		}
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%s", a.Region, a.Freshness, old, index))
	}
	fmt.Fprintln(w, title("Regions"))
	fmt.Fprintln(w, list(rows))
}

// jobType is a job's type, with what makes it one that runs as its children.
func jobType(of string, periodic, parameterized bool) string {
	if periodic {
		of += "/periodic"
	}
	if parameterized {
		of += "/parameterized"
	}
	return of
}

func showJob(w io.Writer, m *meta, client *api.Client, id string) error {
	job, _, err := client.Jobs().Info(id, nil)
	if err != nil {
		return err
	}
	if m.json {
		return printJSON(w, job)
	}
	about := []string{
		"ID|" + cell(deref(job.ID)), "Name|" + cell(deref(job.Name)), "Submit Date|" + date(deref(job.SubmitTime)), "Type|" + deref(job.Type),
		fmt.Sprintf("Priority|%d", deref(job.Priority)), "Datacenters|" + strings.Join(job.Datacenters, ","), "Namespace|" + deref(job.Namespace),
		"Node Pool|" + deref(job.NodePool), "Status|" + jobState(deref(job.Status), deref(job.Stop)),
		fmt.Sprintf("Periodic|%t", job.IsPeriodic()), fmt.Sprintf("Parameterized|%t", job.IsParameterized()),
	}
	if next := nextLaunch(job); next != "" {
		about = append(about, "Next Periodic Launch|"+next)
	}
	fmt.Fprintln(w, pairs(about))
	summary, _, err := client.Jobs().Summary(id, nil)
	if err != nil {
		return err
	}
	if job.IsPeriodic() || job.IsParameterized() {
		return showChildren(w, client, job, summary)
	}
	fmt.Fprintln(w, title("Summary"))
	rows := []string{"Task Group|Queued|Starting|Running|Failed|Complete|Lost|Unknown"}
	for _, g := range slices.Sorted(maps.Keys(summary.Summary)) {
		s := summary.Summary[g]
		rows = append(rows, fmt.Sprintf("%s|%d|%d|%d|%d|%d|%d|%d", cell(g), s.Queued, s.Starting, s.Running, s.Failed, s.Complete, s.Lost, s.Unknown))
	}
	fmt.Fprintln(w, list(rows))
	if err := showPlacementFailure(w, client, id); err != nil {
		return err
	}
	if job.IsMultiregion() {
		// One that was stopped everywhere is forgotten before its jobs are.
		if r, err := m.federation().Rollout(context.Background(), deref(job.Namespace), id, m.asked()); err == nil {
			showRollout(w, m, r)
		}
	}
	if d, _, err := client.Jobs().LatestDeployment(id, nil); err != nil {
		return err
	} else if d != nil {
		fmt.Fprintln(w, title("Latest Deployment"))
		fmt.Fprintln(w, pairs([]string{"ID|" + m.id(d.ID), "Status|" + d.Status, "Description|" + cell(d.StatusDescription)}))
		showDeployed(w, d)
	}
	allocs, _, err := client.Jobs().Allocations(id, false, nil)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, title("Allocations"))
	if len(allocs) == 0 {
		fmt.Fprintln(w, "No allocations placed")
		return nil
	}
	slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int { return int(b.CreateIndex) - int(a.CreateIndex) })
	fmt.Fprintln(w, allocTable(m, allocs))
	return nil
}

func allocTable(m *meta, allocs []*api.AllocationListStub) string {
	rows := []string{"ID|Node ID|Task Group|Version|Desired|Status|Created|Modified"}
	for _, a := range allocs {
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%d|%s|%s|%s|%s", m.id(a.ID), m.id(a.NodeID), cell(a.TaskGroup), a.JobVersion, a.DesiredStatus, a.ClientStatus, ago(a.CreateTime), ago(a.ModifyTime)))
	}
	return list(rows)
}

// showPlacementFailure tells why the newest evaluation left something without a
// place.
func showPlacementFailure(w io.Writer, client *api.Client, id string) error {
	evals, _, err := client.Jobs().Evaluations(id, nil)
	if err != nil {
		return err
	}
	var newest *api.Evaluation
	for _, e := range evals {
		if e.Status == api.EvalStatusBlocked && e.FailedTGAllocs != nil || e.Status == api.EvalStatusComplete {
			if newest == nil || e.CreateIndex > newest.CreateIndex {
				newest = e
			}
		}
	}
	blocked := slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == api.EvalStatusBlocked })
	if newest == nil || !blocked || len(newest.FailedTGAllocs) == 0 {
		return nil
	}
	fmt.Fprintln(w, title("Placement Failure"))
	for _, g := range slices.Sorted(maps.Keys(newest.FailedTGAllocs)) {
		fmt.Fprintf(w, "Task Group %q:\n", g)
		for _, line := range placement(newest.FailedTGAllocs[g]) {
			fmt.Fprintln(w, "  * "+line)
		}
	}
	return nil
}
