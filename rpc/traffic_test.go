package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-metrics"
)

// figures are the sums that a sink has, by name and labels.
func figures(sink *metrics.InmemSink) map[string]float64 {
	out := make(map[string]float64)
	for _, interval := range sink.Data() {
		for _, kind := range []map[string]metrics.SampledValue{interval.Counters, interval.Samples} {
			for name, v := range kind {
				if strings.HasPrefix(name, "t.region.round_trip") {
					out[name] += float64(v.Count)
					continue
				}
				out[name] += v.Sum
			}
		}
	}
	return out
}

func TestWhatGoesToARegionIsMeasured(t *testing.T) {
	sink := metrics.NewInmemSink(time.Hour, 2*time.Hour)
	cfg := metrics.DefaultConfig("t")
	cfg.EnableHostname, cfg.EnableRuntimeMetrics = false, false
	m, err := metrics.New(cfg, sink)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Shutdown()
	us, eu := newPeer(t, "us"), newPeer(t, "eu")
	us.traffic.metrics = m
	us.router.to["eu"], us.router.to["ap"] = []string{deadAddr(t), eu.addr}, []string{deadAddr(t)}
	call := func(region string, n int) {
		for range n {
			_, _ = Call(t.Context(), us.Server, echo, To{Region: region}, &ping{})
		}
	}
	call("us", 5)
	call("eu", 3)
	call("ap", 2)
	_, _ = Call(t.Context(), us.Server, refuse, To{Region: "eu"}, &ping{})
	us.Flush()
	got := figures(sink)
	for name, want := range map[string]float64{
		"t.region.requests;region=eu":                4,
		"t.region.retries;region=eu":                 4, // the first server refuses each
		"t.region.errors;region=eu;kind=conflict":    1,
		"t.region.round_trip;region=eu":              4,
		"t.region.requests;region=ap":                2,
		"t.region.errors;region=ap;kind=unreachable": 2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "t.region.") && strings.Contains(name, "region=us") {
			t.Errorf("%s measures what stayed here", name)
		}
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(got)))
	}

	// A query that waits is open, and takes no part in round trips.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = Call(ctx, us.Server, block, To{Region: "eu"}, &ping{})
	}()
	<-eu.entered
	stream, err := Open(t.Context(), us.Server, count, To{Region: "eu"}, &ping{N: -1})
	if err != nil {
		t.Fatal(err)
	}
	// Each is open once it gave a sign of life.
	for deadline := time.Now().Add(10 * time.Second); us.Flush()["eu"] != 2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if open := us.Flush(); open["eu"] != 2 || open["ap"] != 0 {
		t.Errorf("open are %v", open)
	}
	cancel()
	<-done
	stream.Close()
	if open := us.Flush(); open["eu"] != 0 {
		t.Errorf("open are %v still", open)
	}
	if n := figures(sink)["t.region.round_trip;region=eu"]; n != 4 {
		t.Errorf("%v round trips", n)
	}
}
