package region

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"atoll/internal/freeport"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// BenchmarkPlacements measures placements end to end: from the submit of jobs to
// their allocations' commit in Raft, on disk, on 1,000 nodes.
func BenchmarkPlacements(b *testing.B) {
	for _, shape := range []struct{ jobs, count int }{{1, 50_000}, {100, 500}, {2000, 10}} {
		b.Run(fmt.Sprintf("%dx%d", shape.jobs, shape.count), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := startAt(b, freeport.Addr(b), freeport.Addr(b), Config{
					Name: "s1", Region: "us", DataDir: b.TempDir(), Expect: 1, Heartbeats: heartbeat.Config{MinTTL: heartbeat.DefaultMinTTL},
				})
				wait(b, "leader", func() error {
					if !s.IsLeader() {
						return fmt.Errorf("no leader")
					}
					return nil
				})
				for i := range 1000 {
					n, secret := aNode("dc1")
					n.Name = fmt.Sprintf("n%d", i)
					r := n.NodeResources
					r.Cpu.CpuShares, r.Memory.MemoryMB, r.Disk.DiskMB = 1_000_000, 1_000_000, 1_000_000
					call(b, s.RPC(), method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: n, SecretID: secret})
				}
				b.StartTimer()
				var wg sync.WaitGroup
				for w := range 16 {
					wg.Go(func() {
						for i := w; i < shape.jobs; i += 16 {
							j := aJob(fmt.Sprintf("j%d", i), shape.count, "dc1")
							if _, err := rpc.Call(context.Background(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: j}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				deadline := time.Now().Add(time.Minute)
				for s.cell.Snapshot().AllocCount() < shape.jobs*shape.count {
					if time.Now().After(deadline) {
						b.Fatalf("%d of %d are placed", s.cell.Snapshot().AllocCount(), shape.jobs*shape.count)
					}
					time.Sleep(time.Millisecond)
				}
				b.StopTimer()
				s.stop()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N*shape.jobs*shape.count)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}
