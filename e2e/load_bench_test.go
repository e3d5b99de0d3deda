//go:build bench

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"

	"atoll/client"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// BenchmarkFullLoad has three servers take all that the machine has, for
// ATOLL_MINUTES (1 when it is not set), and fails when their leader changes: 200
// nodes heartbeat and wait for work, eight writers change jobs of five allocations as
// fast as they can, and eight readers list what there is.
func BenchmarkFullLoad(b *testing.B) {
	minutes := 1
	if s := os.Getenv("ATOLL_MINUTES"); s != "" {
		var err error
		if minutes, err = strconv.Atoi(s); err != nil {
			b.Fatalf("ATOLL_MINUTES=%q is no number", s)
		}
	}
	for b.Loop() {
		fullLoad(b, time.Duration(minutes)*time.Minute)
	}
}

func fullLoad(b *testing.B, length time.Duration) {
	servers := startServers(b, 3)
	leading(b, servers)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.rpc)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for n := range 200 {
		c := rpc.NewClient(rpc.ClientConfig{Region: model.GlobalRegion})
		c.SetServers(addrs)
		node := &model.Node{
			ID: model.NewUUID(nil).String(), Name: fmt.Sprint("n", n), Datacenter: "dc1", NodePool: model.NodePoolDefault,
			Attributes: map[string]string{"kernel.name": "linux"}, Drivers: map[string]*model.DriverInfo{"mock_driver": {Detected: true, Healthy: true}},
			NodeResources: &model.NodeResources{
				Cpu: model.NodeCpuResources{CpuShares: 4000}, Memory: model.NodeMemoryResources{MemoryMB: 8000}, Disk: model.NodeDiskResources{DiskMB: 100_000},
			},
		}
		secret := model.NewUUID(nil).String()
		registered := make(chan struct{})
		first := sync.OnceFunc(func() { close(registered) })
		running.Go(func() {
			defer func() { _ = c.Shutdown(context.Background()) }()
			_ = (&client.Registrar{
				Caller: c, Node: func() *model.Node { return node }, SecretID: secret, Log: hclog.NewNullLogger(),
				Heard: func(*method.NodeHeartbeatResponse, bool) { first() },
			}).Run(ctx)
		})
		running.Go(func() {
			select {
			case <-registered:
			case <-ctx.Done():
			}
			for index := uint64(0); ctx.Err() == nil; {
				got, err := rpc.Call(ctx, c, method.NodePullAllocs, rpc.To{AllowStale: true}, &method.NodeAllocsRequest{
					Query: method.Query{MinIndex: index, MaxWait: time.Minute}, NodeID: node.ID, SecretID: secret,
				})
				if index = 0; err == nil {
					index = got.Index
				}
			}
		})
	}
	term := func() (terms []string) {
		for _, s := range servers {
			self, err := s.api.Agent().Self()
			if err != nil {
				b.Fatal(err)
			}
			terms = append(terms, self.Stats["raft"]["term"])
		}
		return terms
	}
	before := term()
	var writes, reads, failed atomic.Int64
	for n := range 8 {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				j := api.NewBatchJob(fmt.Sprintf("job-%d-%d", n, i%10), "load", "", 50)
				task := api.NewTask("main", "mock_driver")
				cpu, mem, mb := 10, 10, 1
				task.Require(&api.Resources{CPU: &cpu, MemoryMB: &mem})
				task.LogConfig = &api.LogConfig{MaxFiles: &mb, MaxFileSizeMB: &mb}
				// Each is another one than before, so that all of it is placed anew.
				task.Env = map[string]string{"I": fmt.Sprint(i)}
				g := api.NewTaskGroup("g", 5).AddTask(task)
				g.EphemeralDisk = &api.EphemeralDisk{SizeMB: &mb}
				j.AddTaskGroup(g)
				if _, _, err := servers[i%3].api.Jobs().Register(j, nil); err != nil {
					failed.Add(1)
					continue
				}
				writes.Add(1)
			}
		})
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, _, err := servers[i%3].api.Allocations().List(&api.QueryOptions{PerPage: 100, AllowStale: i%2 == 0}); err != nil && !errors.Is(err, context.Canceled) {
					failed.Add(1)
					continue
				}
				reads.Add(1)
			}
		})
	}
	timer := time.NewTimer(length)
	<-timer.C
	after := term()
	if fmt.Sprint(before) != fmt.Sprint(after) {
		b.Errorf("the leader changed under load: the servers' terms were %v and are %v", before, after)
	}
	b.ReportMetric(float64(writes.Load())/length.Seconds(), "writes/s")
	b.ReportMetric(float64(reads.Load())/length.Seconds(), "reads/s")
	b.ReportMetric(float64(failed.Load()), "failed")
	b.Logf("%s of full load: terms %v, %d writes, %d reads, %d failed", length, after, writes.Load(), reads.Load(), failed.Load())
}
