package cell

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"atoll/cell/state"
	"atoll/model"
)

// BenchmarkAllocs puts allocations through Raft on disk into the state, as
// plans, with a blocking query live for every node, and then takes and restores
// a snapshot. One iteration is the whole of it:
//
//	go test -run '^$' -bench Allocs -benchtime 1x ./cell
func BenchmarkAllocs(b *testing.B) {
	for _, size := range []struct{ allocs, jobs, nodes, perPlan int }{
		{100_000, 100, 1_000, 1_000},
		{100_000, 100, 1_000, 10},
		{1_000_000, 1_000, 1_000, 1_000},
	} {
		b.Run(fmt.Sprintf("allocs=%d/jobs=%d/nodes=%d/perPlan=%d", size.allocs, size.jobs, size.nodes, size.perPlan), func(b *testing.B) {
			for b.Loop() {
				benchAllocs(b, size.allocs, size.jobs, size.nodes, size.perPlan)
			}
		})
	}
}

func benchAllocs(b *testing.B, allocs, jobs, nodes, perPlan int) {
	c := openAlone(b, b.TempDir())
	ids := make([]model.UUID, nodes)
	for i := range ids {
		n := testNode(i)
		ids[i], _ = model.ParseUUID(n.ID)
		must(b, c, CmdNodeRegister, &NodeRegister{Node: n, Derive: NewDerive(1)})
	}
	for i := range jobs {
		must(b, c, CmdJobRegister, &JobRegister{Job: testJob(fmt.Sprintf("job-%d", i), allocs/jobs)})
	}
	before := liveHeap()

	// One blocking query a node, as its client keeps.
	ctx, cancel := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	woken := make([]int, nodes)
	for i, id := range ids {
		watchers.Go(func() { woken[i] = followNode(ctx, c, id) })
	}

	start := time.Now()
	pipeline := make(chan *Proposed, 4)
	done := make(chan error, 1)
	go func() {
		var err error
		for p := range pipeline {
			if _, _, e := p.Wait(context.Background()); e != nil {
				err = e
			}
		}
		done <- err
	}()
	next, perJob := 0, allocs/jobs
	for j := range jobs {
		for at := 0; at < perJob; at += perPlan {
			n := min(perPlan, perJob-at)
			plan := &model.Plan{
				EvalID: model.NewUUID(nil), JobKey: model.JobID{Namespace: model.DefaultNamespace, ID: fmt.Sprintf("job-%d", j)},
				Groups: []model.PlanGroup{{
					Name: "web", Resources: testJob("", 1).TaskGroups[0].AllocatedResources(),
					Metrics: &model.AllocMetric{NodesEvaluated: nodes, NodesAvailable: map[string]int{"dc1": nodes}},
				}},
			}
			for i := range n {
				plan.Place = append(plan.Place, model.Placement{ID: model.NewUUID(nil), NodeID: ids[next%nodes], Index: uint32(at + i)})
				next++
			}
			p, err := c.Propose(CmdPlan, nil, state.NewPlanCommand(plan, int64(at)))
			if err != nil {
				b.Fatal(err)
			}
			pipeline <- p
		}
	}
	close(pipeline)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	cancel()
	watchers.Wait()
	wakes := 0
	for _, w := range woken {
		wakes += w
	}
	if got := c.Snapshot().AllocCount(); got != allocs {
		b.Fatalf("%d allocations in the state, want %d", got, allocs)
	}
	b.ReportMetric(float64(allocs)/took.Seconds(), "allocs/s")
	b.ReportMetric(float64(wakes)/took.Seconds(), "wakes/s")
	b.ReportMetric(float64(int64(liveHeap()-before))/float64(allocs), "live-B/alloc")

	var buf bytes.Buffer
	start = time.Now()
	if err := c.Snapshot().Persist(&buf); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(allocs)/time.Since(start).Seconds(), "persist-allocs/s")
	b.ReportMetric(float64(buf.Len())/float64(allocs), "disk-B/alloc")
	fresh, err := state.New()
	if err != nil {
		b.Fatal(err)
	}
	start = time.Now()
	if err := fresh.Restore(&buf); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(allocs)/time.Since(start).Seconds(), "restore-allocs/s")
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}

// followNode does what the server does for a node's blocking query, and counts
// how often it was woken.
func followNode(ctx context.Context, c *Cell, id model.UUID) (wakes int) {
	var seen uint64
	for {
		ws := make(state.Watch)
		rows, index := c.Snapshot().AllocsOfNodeSince(ws, id, seen)
		if index > seen {
			for r := range rows {
				if r.AllocModifyIndex > seen {
					wakes++
					break
				}
			}
			seen = index
		}
		if ws.WatchCtx(ctx) != nil {
			return wakes
		}
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
