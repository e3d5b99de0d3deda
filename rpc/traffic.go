package rpc

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-metrics"

	"atoll/model"
)

// traffic measures the calls that go to other agents, by their region:
//
//	region.requests    calls sent
//	region.retries     attempts after a call's first, at the same or another server
//	region.errors      calls that ended in an error, by kind; also those that
//	                   failed at once, because the region is known not to answer
//	region.round_trip  milliseconds until an answer that took no sign of life
//
// The calls that are open are counted, for whoever shows them.
type traffic struct {
	metrics *metrics.Metrics // nil measures nothing
	regions sync.Map         // *regionTraffic by name
}

type regionTraffic struct {
	labels []metrics.Label
	open   atomic.Int64
}

func (t *traffic) of(region string) *regionTraffic {
	if r, ok := t.regions.Load(region); ok {
		return r.(*regionTraffic)
	}
	r, _ := t.regions.LoadOrStore(region, &regionTraffic{labels: []metrics.Label{{Name: "region", Value: region}}})
	return r.(*regionTraffic)
}

// sent counts an attempt; again says that it is not the call's first.
func (t *traffic) sent(region string, again bool) {
	if t.metrics == nil {
		return
	}
	if again {
		t.metrics.IncrCounterWithLabels([]string{"region", "retries"}, 1, t.of(region).labels)
		return
	}
	t.metrics.IncrCounterWithLabels([]string{"region", "requests"}, 1, t.of(region).labels)
}

func (t *traffic) failed(region string, err error) {
	if t.metrics == nil {
		return
	}
	of := t.of(region).labels
	t.metrics.IncrCounterWithLabels([]string{"region", "errors"}, 1, append(of[:len(of):len(of)], metrics.Label{Name: "kind", Value: model.KindOf(err).String()}))
}

func (t *traffic) answered(region string, took time.Duration) {
	if t.metrics == nil {
		return
	}
	t.metrics.AddSampleWithLabels([]string{"region", "round_trip"}, float32(took.Seconds()*1000), t.of(region).labels)
}

// Open returns how many calls to each region are under way; regions that were
// called before have 0.
func (s *Server) Open() map[string]int {
	out := make(map[string]int)
	s.traffic.regions.Range(func(name, r any) bool {
		out[name.(string)] = int(r.(*regionTraffic).open.Load())
		return true
	})
	return out
}
