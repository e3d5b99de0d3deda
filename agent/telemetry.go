package agent

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-metrics"
	"github.com/hashicorp/go-metrics/prometheus"
	client_prometheus "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"atoll/agent/config"
)

// telemetry gathers the agent's figures, in memory for /v1/metrics.
type telemetry struct {
	memory     *metrics.InmemSink
	metrics    *metrics.Metrics
	prometheus http.Handler // nil when off
	interval   time.Duration
	// flush are of each part of the agent that makes calls: they tell their
	// counters, and how many calls are open to each region.
	flush []func() map[string]int
}

func newTelemetry(cfg *config.Config) (*telemetry, error) {
	t := &telemetry{interval: max(cfg.Telemetry.CollectionInterval, time.Second)}
	t.memory = metrics.NewInmemSink(10*time.Second, time.Minute)
	sinks := metrics.FanoutSink{t.memory}
	if cfg.Telemetry.PrometheusMetrics {
		registry := client_prometheus.NewRegistry()
		sink, err := prometheus.NewPrometheusSinkFrom(prometheus.PrometheusOpts{Expiration: time.Minute, Registerer: registry})
		if err != nil {
			return nil, fmt.Errorf("cannot gather metrics: %w", err)
		}
		sinks = append(sinks, sink)
		t.prometheus = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	}
	c := metrics.DefaultConfig("atoll")
	c.EnableHostname, c.EnableHostnameLabel = false, !cfg.Telemetry.DisableHostname
	// Its collector would never end; run measures the process instead.
	c.EnableRuntimeMetrics = false
	var err error
	// Raft and Serf emit to the global one.
	if t.metrics, err = metrics.NewGlobal(c, sinks); err != nil {
		return nil, fmt.Errorf("cannot gather metrics: %w", err)
	}
	return t, nil
}

// run measures the process itself until ctx ends.
func (t *telemetry) run(ctx context.Context) error {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	var idle idleness
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if now := time.Now(); idle.due(m.NumGC, now) {
			debug.FreeOSMemory()
			idle.collected(time.Since(now))
		}
		t.metrics.SetGauge([]string{"runtime", "goroutines"}, float32(runtime.NumGoroutine()))
		t.metrics.SetGauge([]string{"runtime", "alloc_bytes"}, float32(m.HeapAlloc))
		t.metrics.SetGauge([]string{"runtime", "sys_bytes"}, float32(m.Sys))
		t.metrics.SetGauge([]string{"runtime", "gc_runs"}, float32(m.NumGC))
		t.streams()
	}
}

// streams measures the calls that are open to each region, logs and waiting
// queries among them. It is a gauge, which must be set again to last.
func (t *telemetry) streams() {
	sum := make(map[string]int)
	for _, flush := range t.flush {
		for region, n := range flush() {
			sum[region] += n
		}
	}
	for region, n := range sum {
		t.metrics.SetGaugeWithLabels([]string{"region", "streams"}, float32(n), []metrics.Label{{Name: "region", Value: region}})
	}
}

// idleness says when memory should be collected, and given back, in a process
// that makes too little garbage for Go to do it: after 10,000 clients have gone,
// say. Go itself waits two minutes, and longer to give it back.
type idleness struct {
	runs  uint32
	since time.Time
	rest  time.Duration
}

// idleFor is how long nothing must have been collected; a collection that takes
// longer than a hundredth of it makes the next wait for longer.
const idleFor = 20 * time.Second

// due reports whether to collect, after so many collections.
func (i *idleness) due(runs uint32, now time.Time) bool {
	if i.since.IsZero() || runs != i.runs {
		i.runs, i.since = runs, now
		return false
	}
	return now.Sub(i.since) >= max(idleFor, i.rest)
}

// collected says how long a collection took.
func (i *idleness) collected(took time.Duration) { i.rest = 100 * took }
