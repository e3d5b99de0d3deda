package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func allocStatusCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "status ALLOCATION", Short: "Show an allocation", Args: cobra.ExactArgs(1),
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			a, err := findAlloc(client, args[0])
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), a)
			}
			showAlloc(c.OutOrStdout(), &m, a)
			return nil
		}),
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

// findAlloc returns the one allocation that an id or its beginning names.
func findAlloc(client *api.Client, prefix string) (*api.Allocation, error) {
	found, _, err := client.Allocations().PrefixList(even(prefix))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, a := range found {
		ids = append(ids, a.ID)
	}
	id, err := unique("allocation", prefix, ids)
	if err != nil {
		return nil, err
	}
	a, _, err := client.Allocations().Info(id, nil)
	return a, err
}

func showAlloc(w io.Writer, m *meta, a *api.Allocation) {
	version := uint64(0)
	if a.Job != nil {
		version = deref(a.Job.Version)
	}
	fmt.Fprintln(w, pairs([]string{
		"ID|" + a.ID, "Eval ID|" + m.id(a.EvalID), "Name|" + cell(a.Name), "Node ID|" + m.id(a.NodeID), "Node Name|" + cell(a.NodeName),
		"Job ID|" + cell(a.JobID), fmt.Sprintf("Job Version|%d", version), "Client Status|" + a.ClientStatus, "Client Description|" + cell(a.ClientDescription),
		"Desired Status|" + a.DesiredStatus, "Desired Description|" + cell(a.DesiredDescription), "Created|" + ago(a.CreateTime), "Modified|" + ago(a.ModifyTime),
	}))
	if a.AllocatedResources != nil && len(a.AllocatedResources.Shared.Ports) > 0 {
		rows := []string{"Label|Dynamic|Address"}
		for _, p := range a.AllocatedResources.Shared.Ports {
			to := ""
			if p.To > 0 {
				to = fmt.Sprintf(" -> %d", p.To)
			}
			rows = append(rows, fmt.Sprintf("*%s|%s|%s:%d%s", cell(p.Label), dynamic(a, p.Label), p.HostIP, p.Value, to))
		}
		fmt.Fprintln(w, title("Allocation Addresses:"))
		fmt.Fprintln(w, list(rows))
	}
	for _, name := range slices.Sorted(maps.Keys(a.TaskStates)) {
		showTask(w, a, name, a.TaskStates[name])
	}
	if m.verbose && a.Metrics != nil {
		rows := []string{"Node|Score"}
		for _, s := range a.Metrics.ScoreMetaData {
			rows = append(rows, fmt.Sprintf("%s|%.3f", s.NodeID, s.NormScore))
		}
		fmt.Fprintln(w, title("Placement Metrics"))
		fmt.Fprintln(w, list(rows))
	}
}

func dynamic(a *api.Allocation, label string) string {
	for _, n := range a.AllocatedResources.Shared.Networks {
		for _, p := range n.DynamicPorts {
			if p.Label == label {
				return "yes"
			}
		}
	}
	return "no"
}

func showTask(w io.Writer, a *api.Allocation, name string, s *api.TaskState) {
	fmt.Fprintln(w, title(fmt.Sprintf("Task %q is %q", name, s.State)))
	if a.AllocatedResources != nil && a.AllocatedResources.Tasks[name] != nil {
		r := a.AllocatedResources.Tasks[name]
		var addrs []string
		for _, n := range r.Networks {
			for _, p := range slices.Concat(n.ReservedPorts, n.DynamicPorts) {
				addrs = append(addrs, fmt.Sprintf("%s: %s:%d", p.Label, n.IP, p.Value))
			}
		}
		fmt.Fprintln(w, "Task Resources:")
		fmt.Fprintln(w, list([]string{"CPU|Memory|Disk|Addresses", fmt.Sprintf("%d MHz|%d MiB|%d MiB|%s", r.Cpu.CpuShares, r.Memory.MemoryMB, a.AllocatedResources.Shared.DiskMB, cell(strings.Join(addrs, ", ")))}))
	}
	when := func(t time.Time) string {
		if t.IsZero() {
			return "N/A"
		}
		return t.Format(time.RFC3339)
	}
	fmt.Fprintln(w, "\nTask Events:")
	fmt.Fprintln(w, pairs([]string{
		"Started At|" + when(s.StartedAt), "Finished At|" + when(s.FinishedAt), fmt.Sprintf("Total Restarts|%d", s.Restarts), "Last Restart|" + when(s.LastRestart),
	}))
	rows := []string{"Time|Type|Description"}
	for _, e := range slices.Backward(s.Events) {
		rows = append(rows, fmt.Sprintf("%s|%s|%s", date(e.Time), e.Type, cell(e.DisplayMessage)))
	}
	fmt.Fprintln(w, "\nRecent Events:")
	fmt.Fprintln(w, list(rows))
}
