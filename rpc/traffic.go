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

// regionTraffic counts requests and retries by itself, since each call would wait
// for a sink to make a name of their labels; Flush tells them.
type regionTraffic struct {
	labels            []metrics.Label
	open              atomic.Int64
	requests, retries atomic.Int64
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
		t.of(region).retries.Add(1)
		return
	}
	t.of(region).requests.Add(1)
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

// Flush tells the metrics what was counted since the last time, and returns how
// many calls to each region are under way; regions that were called before have 0.
// Who shows metrics calls it each second or so.
func (s *Server) Flush() (open map[string]int) {
	out := make(map[string]int)
	s.traffic.regions.Range(func(name, r any) bool {
		of := r.(*regionTraffic)
		out[name.(string)] = int(of.open.Load())
		for key, count := range map[string]*atomic.Int64{"requests": &of.requests, "retries": &of.retries} {
			if n := count.Swap(0); n > 0 {
				s.traffic.metrics.IncrCounterWithLabels([]string{"region", key}, float32(n), of.labels)
			}
		}
		return true
	})
	return out
}
