package region

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"atoll/federation"
	"atoll/federation/summary"
	"atoll/internal/clock"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/heartbeat"
	"atoll/rpc"
)

// local serves every call in this process, whatever its region.
type local struct{}

func (local) Region() string { return "region-0" }
func (local) Route(context.Context, *rpc.Envelope, method.Spec) (rpc.Decision, error) {
	return rpc.Decision{Local: true}, nil
}
func (local) Report(string, string, error, time.Duration) {}
func (local) Unreachable(region string, cause error) *model.Error {
	return model.NoAnswer(region, cause, time.Time{}, time.Now())
}

// manyRows are the rows of a region of so many jobs.
func manyRows(jobs int) *summary.Delta {
	d := &summary.Delta{State: "cell/1", Full: true, Index: uint64(jobs)}
	for i := range jobs {
		d.Rows.Jobs = append(d.Rows.Jobs, &model.JobRow{
			Namespace: model.DefaultNamespace, ID: fmt.Sprintf("service-%06d", i), Name: fmt.Sprintf("service-%06d", i), Type: model.JobTypeService,
			Status: model.JobStatusRunning, Priority: 50 + i%10, Version: 3, SubmitTime: 1_760_000_000_000_000_000 + int64(i), Datacenters: []string{"dc1", "dc2"},
			Groups:       []model.GroupRow{{Name: "web", Count: 10, Running: 9, Starting: 1}, {Name: "cache", Count: 3, Running: 3}},
			DeploymentID: model.NewUUID(nil).String(), DeploymentStatus: model.DeploymentSuccessful, CreateIndex: uint64(i), ModifyIndex: uint64(2 * i), JobModifyIndex: uint64(i),
		})
	}
	return d
}

// BenchmarkAggregates asks a server that leads one of ten regions for a page of
// the jobs of all, 10,000 each, and encodes it. Three of them may be lost.
func BenchmarkAggregates(b *testing.B) {
	const regions, jobs = 10, 10_000
	calls := rpc.NewServer(rpc.ServerConfig{Router: local{}})
	rpc.HandleStream(calls, method.SummaryPull, func(_ context.Context, c *rpc.Inbound, req *method.SummaryPullRequest, send func(*method.SummaryFrame) error) error {
		if req.State != "" {
			return send(&method.SummaryFrame{State: req.State, Index: jobs})
		}
		return summary.Send(manyRows(jobs), send)
	})
	dir, err := federation.NewDirectory(federation.DirectoryConfig{Region: "region-0", Self: "region-0:1", Clock: clock.Real})
	if err != nil {
		b.Fatal(err)
	}
	var peers []federation.Peer
	for i := range regions {
		name := fmt.Sprintf("region-%d", i)
		peers = append(peers, federation.Peer{Name: name, ID: name, Region: name, RPC: name + ":1", Alive: true})
	}
	dir.Update(peers)
	whole := manyRows(jobs)
	own := summary.NewOwn("region-0", func(req *method.SummaryPullRequest) (*summary.Delta, error) {
		if req.State == "" {
			return whole, nil
		}
		return &summary.Delta{State: req.State, Index: jobs}, nil
	}, clock.Real)
	s := &aggregates{
		region: "region-0", dir: dir, own: own, calls: calls, leads: func() bool { return true }, leader: func() string { return "region-0:1" }, clock: clock.Real,
		copies: summary.NewCopies(summary.Config{Region: "region-0", Caller: calls, Regions: dir.Regions}),
	}
	s.bind(calls)
	read := &reader{contact: func() time.Duration { return 0 }, leader: s.leader}
	rpc.Handle(calls, method.SummaryJobs, ownRows(&summaries{reader: read, region: "region-0", dir: dir, own: own}, jobRows))
	rpc.Handle(calls, method.SummaryTotals, (&summaries{reader: read, region: "region-0", dir: dir, own: own}).totals)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.copies.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	for i := 1; i < regions; i++ {
		wait(b, "all copies", func() error {
			if c := s.copies.Of(fmt.Sprintf("region-%d", i)); c == nil || c.Jobs.Len() != jobs {
				return errors.New("not yet")
			}
			return nil
		})
	}
	page := func(token, filter string) *method.FederationRequest {
		return &method.FederationRequest{SummaryRequest: method.SummaryRequest{Query: method.Query{PerPage: 100, NextToken: token, Filter: filter}}}
	}
	first, err := rpc.Call(b.Context(), calls, method.FederationJobs, rpc.To{}, page("", ""))
	if err != nil || len(first.Rows) != 100 {
		b.Fatalf("%d rows, %v", len(first.Rows), err)
	}
	middle := summary.Position{RowKey: model.RowKey{Namespace: model.DefaultNamespace, ID: "service-005000"}, Region: "region-4"}.String()
	cases := []struct {
		name string
		req  *method.FederationRequest
		rows int
	}{
		{"first page", page("", ""), 100},
		{"page in the middle", page(middle, ""), 100},
		{"filter: a tenth", page("", "Priority == 55"), 100},
		{"filter: one in 10,000", page("", `ID == "service-005000"`), 10},
		{"filter: none", page("", `Status == "dead"`), 0},
	}
	run := func(name string, req *method.FederationRequest, rows int, lost int) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				out, err := rpc.Call(b.Context(), calls, method.FederationJobs, rpc.To{}, req)
				if err != nil || len(out.Rows) != rows || len(out.Regions) != regions {
					b.Fatalf("%d rows of %d regions, %v", len(out.Rows), len(out.Regions), err)
				}
				marked := 0
				for _, a := range out.Regions {
					if a.Error != "" {
						marked++
					}
				}
				if marked != lost {
					b.Fatalf("%d regions are marked as lost, want %d", marked, lost)
				}
				if _, err := json.Marshal(out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/page")
		})
	}
	for _, c := range cases {
		run(c.name, c.req, c.rows, 0)
	}
	b.Run("regions", func(b *testing.B) {
		for b.Loop() {
			out, err := rpc.Call(b.Context(), calls, method.FederationRegions, rpc.To{}, &method.FederationRequest{})
			if err != nil || len(out.Regions) != regions || out.Regions[3].Jobs[model.JobStatusRunning] != jobs {
				b.Fatalf("%+v, %v", out, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/page")
	})
	for _, name := range []string{"region-2", "region-5", "region-8"} {
		dir.Report(name, name+":1", errors.New("no route"))
	}
	run("page in the middle, 3 regions lost", cases[1].req, 100, 3)
}

// counted counts what its connections carry.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// BenchmarkSummaryTraffic counts what one server's copy of another region costs
// on the wire, both ways, TCP's own apart: while nothing changes, and while 100
// jobs a second do.
func BenchmarkSummaryTraffic(b *testing.B) {
	const changes, seconds = 100, 10
	for _, jobs := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%d jobs", jobs), func(b *testing.B) {
			var wire atomic.Int64
			beats := heartbeat.Config{MinTTL: time.Hour, Grace: time.Hour}
			eu := startAt(b, freeport.Addr(b), freeport.Addr(b), Config{Name: "e1", Region: "eu", DataDir: b.TempDir(), Expect: 1, Heartbeats: beats})
			lead(b, eu)
			var wg sync.WaitGroup
			for w := range 32 {
				wg.Go(func() {
					for i := w; i < jobs; i += 32 {
						if _, err := rpc.Call(b.Context(), eu.RPC(), method.JobRegister, rpc.To{Timeout: time.Minute}, &method.JobRegisterRequest{Job: aJob(fmt.Sprintf("service-%06d", i), 1)}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			us := startAt(b, freeport.Addr(b), freeport.Addr(b), Config{
				Name: "u1", Region: "us", DataDir: b.TempDir(), Expect: 1, Heartbeats: beats, Join: []string{eu.cfg.AdvertiseSerf},
				Dial: func(ctx context.Context, addr string) (net.Conn, error) {
					c, err := rpc.DialTCP(ctx, addr)
					if err != nil || addr != eu.cfg.AdvertiseRPC {
						return c, err
					}
					return counted{c, &wire}, nil
				},
			})
			wait(b, "the copy", func() error {
				if c := us.sums.copies.Of("eu"); c == nil || c.Jobs.Len() != jobs {
					return errors.New("not yet")
				}
				return nil
			})
			whole := wire.Load()
			// What its beginning costs besides is over, and the scheduler has seen
			// every job.
			for last, now := -1, us.sums.copies.Traffic("eu"); now.Rows != last || now.Answers < 12; now = us.sums.copies.Traffic("eu") {
				last = now.Rows
				<-time.After(3 * time.Second)
			}
			for b.Loop() {
				still := wire.Load()
				<-time.After(seconds * time.Second)
				idle := wire.Load() - still
				before, rows := wire.Load(), us.sums.copies.Traffic("eu")
				tick := time.NewTicker(time.Second / changes)
				for i := range changes * seconds {
					<-tick.C
					job := aJob(fmt.Sprintf("service-%06d", i*7919%jobs), 1)
					job.Priority = 1 + i%100
					if _, err := rpc.Call(b.Context(), eu.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: job}); err != nil {
						b.Fatal(err)
					}
				}
				tick.Stop()
				now := us.sums.copies.Traffic("eu")
				b.ReportMetric(float64(idle)/seconds, "idle_bytes/s")
				b.ReportMetric(float64(wire.Load()-before)/seconds, "bytes/s")
				b.ReportMetric(float64(now.Rows-rows.Rows)/seconds, "rows/s")
				if now.Full != 1 {
					b.Errorf("it was told whole %d times", now.Full)
				}
			}
			b.ReportMetric(float64(whole), "bytes_whole")
		})
	}
}
