package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func nodeStatusCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "status [NODE]", Short: "List nodes, or show one", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			w := c.OutOrStdout()
			if m.all() {
				if len(args) > 0 {
					return m.oneRegion()
				}
				return nodesOfAllRegions(w, &m)
			}
			client, err := m.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return listNodes(w, &m, client)
			}
			id, err := findNode(client, args, false)
			if err != nil {
				return err
			}
			return showNode(w, &m, client, id)
		},
	}
	m.flags(c)
	m.verboseFlag(c)
	m.jsonFlag(c)
	return c
}

// findNode returns the one node that an id or its beginning names, or that of
// the agent itself.
func findNode(client *api.Client, args []string, self bool) (string, error) {
	if self == (len(args) == 1) {
		return "", errors.New("name a node, or give -self for that of the agent")
	}
	if self {
		agent, err := client.Agent().Self()
		if err != nil {
			return "", err
		}
		if id, ok := agent.Stats["client"]["node_id"]; ok {
			return id, nil
		}
		return "", errors.New("the agent is no client node; name a node")
	}
	nodes, _, err := client.Nodes().PrefixList(even(args[0]))
	if err != nil {
		return "", err
	}
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return unique("node", args[0], ids)
}

func listNodes(w io.Writer, m *meta, client *api.Client) error {
	nodes, _, err := client.Nodes().List(nil)
	if err != nil {
		return err
	}
	if m.json {
		return printJSON(w, nodes)
	}
	if len(nodes) == 0 {
		fmt.Fprintln(w, "No nodes registered")
		return nil
	}
	rows := []string{"ID|Node Pool|DC|Name|Class|Drain|Eligibility|Status"}
	for _, n := range nodes {
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%s|%s|%v|%s|%s", m.id(n.ID), n.NodePool, n.Datacenter, cell(n.Name), n.NodeClass, n.Drain, n.SchedulingEligibility, n.Status))
	}
	fmt.Fprintln(w, list(rows))
	return nil
}

func nodesOfAllRegions(w io.Writer, m *meta) error {
	nodes, answers, err := m.federation().Nodes(context.Background(), "")
	if err != nil {
		return err
	}
	if m.json {
		return printJSON(w, map[string]any{"Nodes": nodes, "Regions": answers})
	}
	rows := []string{"Region|ID|Node Pool|DC|Name|Class|Eligibility|Status"}
	for _, n := range nodes {
		rows = append(rows, fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s|%s", n.Region, m.id(n.ID), n.NodePool, n.Datacenter, cell(n.Name), n.NodeClass, n.SchedulingEligibility, n.Status))
	}
	if len(nodes) == 0 {
		fmt.Fprintln(w, "No nodes registered")
	} else {
		fmt.Fprintln(w, list(rows))
	}
	showAnswers(w, answers)
	return nil
}

func showNode(w io.Writer, m *meta, client *api.Client, id string) error {
	n, _, err := client.Nodes().Info(id, nil)
	if err != nil {
		return err
	}
	if m.json {
		return printJSON(w, n)
	}
	var drivers []string
	for _, name := range slices.Sorted(maps.Keys(n.Drivers)) {
		if d := n.Drivers[name]; d.Detected && d.Healthy {
			drivers = append(drivers, name)
		}
	}
	fmt.Fprintln(w, pairs([]string{
		"ID|" + m.id(n.ID), "Name|" + cell(n.Name), "Node Pool|" + n.NodePool, "Class|" + n.NodeClass, "DC|" + n.Datacenter,
		"Drain|" + drainText(n), "Eligibility|" + n.SchedulingEligibility, "Status|" + n.Status, "Drivers|" + strings.Join(drivers, ","),
	}))
	if len(n.Events) > 0 {
		rows := []string{"Time|Subsystem|Message"}
		for _, e := range slices.Backward(n.Events) {
			rows = append(rows, fmt.Sprintf("%s|%s|%s", date(e.Timestamp.UnixNano()), e.Subsystem, cell(e.Message)))
		}
		fmt.Fprintln(w, title("Node Events"))
		fmt.Fprintln(w, list(rows))
	}
	allocs, _, err := client.Nodes().Allocations(id, nil)
	if err != nil {
		return err
	}
	showNodeResources(w, n, allocs)
	fmt.Fprintln(w, title("Allocations"))
	if len(allocs) == 0 {
		fmt.Fprintln(w, "No allocations placed")
		return nil
	}
	var stubs []*api.AllocationListStub
	for _, a := range allocs {
		stubs = append(stubs, a.Stub())
	}
	slices.SortFunc(stubs, func(a, b *api.AllocationListStub) int { return int(b.CreateIndex) - int(a.CreateIndex) })
	fmt.Fprintln(w, allocTable(m, stubs))
	if m.verbose {
		rows := []string{}
		for _, k := range slices.Sorted(maps.Keys(n.Attributes)) {
			rows = append(rows, cell(k)+"|"+cell(n.Attributes[k]))
		}
		fmt.Fprintln(w, title("Attributes"))
		fmt.Fprintln(w, pairs(rows))
	}
	return nil
}

// showNodeResources shows what the node's live allocations hold of it.
func showNodeResources(w io.Writer, n *api.Node, allocs []*api.Allocation) {
	var cpu, memory, disk int64
	count := 0
	for _, a := range allocs {
		if a.AllocatedResources == nil || a.DesiredStatus != api.AllocDesiredStatusRun {
			continue
		}
		if a.ClientStatus != api.AllocClientStatusPending && a.ClientStatus != api.AllocClientStatusRunning {
			continue
		}
		count++
		disk += a.AllocatedResources.Shared.DiskMB
		for _, t := range a.AllocatedResources.Tasks {
			cpu += t.Cpu.CpuShares
			memory += t.Memory.MemoryMB
		}
	}
	r := n.NodeResources
	fmt.Fprintln(w, title("Allocated Resources"))
	fmt.Fprintln(w, list([]string{"CPU|Memory|Disk|Alloc Count", fmt.Sprintf("%d/%d MHz|%d/%d MiB|%d/%d MiB|%d", cpu, r.Cpu.CpuShares, memory, r.Memory.MemoryMB, disk, r.Disk.DiskMB, count)}))
}
