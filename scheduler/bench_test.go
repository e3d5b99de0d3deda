package scheduler

import (
	"fmt"
	"testing"

	"atoll/model"
)

// BenchmarkPropose plans services on empty nodes: 1,200 allocations on 5,000
// nodes is the budget's size; 100,000 is what a plan may grow to.
//
//	go test -run '^$' -bench Propose ./scheduler
func BenchmarkPropose(b *testing.B) {
	for _, size := range []struct{ allocs, nodes int }{{1_200, 5_000}, {100_000, 5_000}} {
		b.Run(fmt.Sprintf("allocs=%d/nodes=%d", size.allocs, size.nodes), func(b *testing.B) {
			w := newWorld()
			for i := range size.nodes {
				w.node(fmt.Sprint(i), roomy)
			}
			j := w.register(job("a", size.allocs))
			e := w.eval(j, model.TriggerJobRegister)
			for b.Loop() {
				p, err := Propose(w, e, w.opts())
				if err != nil || len(p.Plan.Place) != size.allocs {
					b.Fatalf("%d placed: %v", len(p.Plan.Place), err)
				}
			}
			b.ReportMetric(float64(size.allocs)*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}

// BenchmarkReconcile looks at a service of 100,000 that is as it should be.
func BenchmarkReconcile(b *testing.B) {
	const allocs, nodes = 100_000, 5_000
	w := newWorld()
	for i := range nodes {
		w.node(fmt.Sprint(i), roomy)
	}
	j := w.register(job("a", allocs))
	w.apply(w.proposeOn(b, j))
	for i := range w.rows {
		w.rows[i].Client = model.ClientRunning
	}
	e := w.eval(j, model.TriggerNodeUpdate)
	for b.Loop() {
		if p, err := Propose(w, e, w.opts()); err != nil || !p.Plan.NoOp() {
			b.Fatalf("%+v, %v", p.Plan, err)
		}
	}
	b.ReportMetric(float64(allocs)*float64(b.N)/b.Elapsed().Seconds(), "allocs/s")
}

// BenchmarkCheck is the applier's part of the same.
func BenchmarkCheck(b *testing.B) {
	const allocs, nodes = 1_200, 5_000
	w := newWorld()
	for i := range nodes {
		w.node(fmt.Sprint(i), roomy)
	}
	plan := w.proposeOn(b, w.register(job("a", allocs)))
	for b.Loop() {
		if accepted, _ := Check(w, plan); len(accepted.Place) != allocs {
			b.Fatalf("%d stand", len(accepted.Place))
		}
	}
	b.ReportMetric(float64(allocs)*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
}

// roomy makes a node of 8 GHz, 16 GB and 100 GB of disk.
func roomy(n *model.Node) {
	n.NodeResources.Cpu.CpuShares, n.NodeResources.Memory.MemoryMB, n.NodeResources.Disk.DiskMB = 8_000, 16_000, 100_000
}
