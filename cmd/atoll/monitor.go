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

// monitor follows an evaluation, and those that follow on it, to its end.
type monitor struct {
	meta   *meta
	client *api.Client
	out    io.Writer
	query  *api.QueryOptions

	// deploymentAside leaves the deployment, if there is one, alone.
	deploymentAside bool

	status string
	allocs map[string]bool
}

// monitorTime bounds the following: an evaluation that takes longer goes on
// without a watcher.
const monitorTime = 5 * time.Minute

func (m *monitor) line(format string, args ...any) {
	fmt.Fprintf(m.out, "    %s: %s\n", time.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
}

func (m *monitor) headline(format string, args ...any) {
	fmt.Fprintf(m.out, "==> %s: %s\n", time.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
}

// follow shows what comes of an evaluation.
func (m *meta) follow(c *cobra.Command, client *api.Client, evalID string) error {
	return (&monitor{meta: m, client: client, out: c.OutOrStdout(), query: &api.QueryOptions{}}).follow(c, evalID)
}

// follow returns exitCode(2) when something could not be placed.
func (m *monitor) follow(c *cobra.Command, evalID string) error {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, monitorTime)
	defer cancel()
	deployment := ""
	for evalID != "" {
		m.status, m.allocs = "", make(map[string]bool)
		m.headline("Monitoring evaluation %q", m.meta.id(evalID))
		eval, err := m.one(ctx, evalID)
		if err != nil {
			return err
		}
		m.headline("Evaluation %q finished with status %q", m.meta.id(evalID), eval.Status)
		m.failures(eval)
		if eval.BlockedEval != "" {
			m.line("Evaluation %q waits for a node that can take the rest", m.meta.id(eval.BlockedEval))
		}
		if len(eval.FailedTGAllocs) > 0 {
			return exitCode(2)
		}
		if eval.Status == api.EvalStatusCancelled {
			if evalID, err = m.newer(eval); err != nil {
				return err
			} else if evalID != "" {
				m.line("A newer evaluation of the job does its work")
				continue
			}
		}
		if eval.Status != api.EvalStatusComplete {
			return fmt.Errorf("evaluation %s ended as %s: %s", m.meta.id(evalID), eval.Status, eval.StatusDescription)
		}
		deployment = eval.DeploymentID
		if evalID = eval.NextEval; evalID != "" {
			if next, _, err := m.client.Evaluations().Info(evalID, m.query); err == nil && next.WaitUntil.After(time.Now()) {
				m.line("The next evaluation, %q, is due at %s", m.meta.id(evalID), next.WaitUntil.Format(time.RFC3339))
				break
			}
		}
	}
	if deployment == "" || m.deploymentAside {
		return nil
	}
	return m.deployment(c, deployment)
}

// deployment follows a deployment to its end, and the one that takes the job back
// when it failed. It takes as long as that takes.
func (m *monitor) deployment(c *cobra.Command, id string) error {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	m.headline("Monitoring deployment %q", m.meta.id(id))
	said, index := "", uint64(0)
	for {
		q := *m.query
		q.WaitIndex, q.AllowStale = index, true
		d, meta, err := m.client.Deployments().Info(id, q.WithContext(ctx))
		if err != nil {
			return err
		}
		index = meta.LastIndex
		if now := progress(d); now != said {
			said = now
			m.line("%s", now)
		}
		switch d.Status {
		case api.DeploymentStatusSuccessful:
			m.headline("Deployment %q is successful", m.meta.id(id))
			showDeployment(m.out, m.meta, d)
			return nil
		case api.DeploymentStatusFailed, api.DeploymentStatusCancelled:
			m.headline("Deployment %q is %s", m.meta.id(id), d.Status)
			showDeployment(m.out, m.meta, d)
			return m.rollback(c, d)
		}
	}
}

// progress is a deployment in a line.
func progress(d *api.Deployment) string {
	out := d.Status
	if d.StatusDescription != "" {
		out = d.StatusDescription
	}
	for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
		s := d.TaskGroups[name]
		out += fmt.Sprintf("; %s: %d placed, %d healthy, %d unhealthy of %d", name, s.PlacedAllocs, s.HealthyAllocs, s.UnhealthyAllocs, s.DesiredTotal)
	}
	return out
}

// rollback follows the deployment that takes the job back after one failed, and
// says that it did.
func (m *monitor) rollback(c *cobra.Command, d *api.Deployment) error {
	failed := fmt.Errorf("deployment %s is %s: %s", m.meta.id(d.ID), d.Status, d.StatusDescription)
	reverts := slices.ContainsFunc(slices.Collect(maps.Values(d.TaskGroups)), func(s *api.DeploymentState) bool { return s.AutoRevert })
	if d.Status != api.DeploymentStatusFailed || !reverts {
		return failed
	}
	// The scheduler makes it a moment after the job was registered anew.
	time.Sleep(time.Second)
	q := *m.query
	next, _, err := m.client.Jobs().LatestDeployment(d.JobID, &q)
	if err != nil {
		return err
	}
	if next == nil || next.ID == d.ID || next.JobVersion <= d.JobVersion {
		return failed
	}
	m.line("The job is taken back by deployment %q", m.meta.id(next.ID))
	if err := m.deployment(c, next.ID); err != nil {
		return err
	}
	return failed
}

// newer returns the newest evaluation of a cancelled one's job that came after
// it, "" when there is none: of many that wait only the newest is worked on.
func (m *monitor) newer(eval *api.Evaluation) (string, error) {
	q := api.QueryOptions{}
	if m.query != nil {
		q = *m.query
	}
	q.Namespace = eval.Namespace
	all, _, err := m.client.Jobs().Evaluations(eval.JobID, &q)
	if err != nil {
		return "", err
	}
	newest := eval
	for _, e := range all {
		if e.CreateIndex > newest.CreateIndex && e.Status != api.EvalStatusCancelled {
			newest = e
		}
	}
	if newest == eval {
		return "", nil
	}
	return newest.ID, nil
}

// one follows an evaluation to its end.
func (m *monitor) one(ctx context.Context, id string) (*api.Evaluation, error) {
	for wait := 50 * time.Millisecond; ; wait = min(wait*2, time.Second) {
		eval, _, err := m.client.Evaluations().Info(id, m.query)
		if err != nil {
			return nil, err
		}
		if m.status == "" {
			if eval.JobID != "" {
				m.line("Evaluation triggered by job %q", eval.JobID)
			}
		} else if m.status != eval.Status {
			m.line("Evaluation status changed: %q -> %q", m.status, eval.Status)
		}
		first := m.status == ""
		m.status = eval.Status
		allocs, _, err := m.client.Evaluations().Allocations(id, m.query)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int { return int(a.CreateIndex) - int(b.CreateIndex) })
		for _, a := range allocs {
			if !m.allocs[a.ID] {
				m.allocs[a.ID] = true
				m.line("Allocation %q created: node %q, group %q", m.meta.id(a.ID), m.meta.id(a.NodeID), a.TaskGroup)
			}
		}
		switch eval.Status {
		case api.EvalStatusComplete, api.EvalStatusFailed, api.EvalStatusCancelled:
			if first {
				m.line("Evaluation status is %q", eval.Status)
			}
			return eval, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("evaluation %s is still %s; watch it with atoll eval status %s", m.meta.id(id), eval.Status, m.meta.id(id))
		case <-time.After(wait):
		}
	}
}

// failures tells what found no place, and why.
func (m *monitor) failures(eval *api.Evaluation) {
	for group, metric := range eval.FailedTGAllocs {
		m.line("Task Group %q (failed to place %d allocation%s):", group, metric.CoalescedFailures+1, plural(metric.CoalescedFailures+1))
		for _, line := range placement(metric) {
			fmt.Fprintln(m.out, "      * "+line)
		}
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// placement words why no node would do.
func placement(m *api.AllocationMetric) (out []string) {
	if m.NodesEvaluated == 0 {
		out = append(out, "No nodes were eligible for evaluation")
	}
	for dc, n := range m.NodesAvailable {
		if n == 0 {
			out = append(out, fmt.Sprintf("No nodes are available in datacenter %q", dc))
		}
	}
	for class, n := range m.ClassFiltered {
		out = append(out, fmt.Sprintf("Class %q: %d node%s excluded by filter", class, n, plural(n)))
	}
	for c, n := range m.ConstraintFiltered {
		out = append(out, fmt.Sprintf("Constraint %q: %d node%s excluded by filter", c, n, plural(n)))
	}
	if m.NodesExhausted > 0 {
		out = append(out, fmt.Sprintf("Resources exhausted on %d node%s", m.NodesExhausted, plural(m.NodesExhausted)))
	}
	for dim, n := range m.DimensionExhausted {
		out = append(out, fmt.Sprintf("Dimension %q exhausted on %d node%s", dim, n, plural(n)))
	}
	slices.Sort(out)
	return out
}
