package client

import (
	"testing"
	"time"

	"atoll/model"
)

func TestRestartPolicy(t *testing.T) {
	start := time.Unix(1000, 0)
	fail := model.RestartPolicy{Attempts: 2, Interval: time.Minute, Delay: 8 * time.Second, Mode: model.RestartModeFail}
	delay := fail
	delay.Mode = model.RestartModeDelay
	none := fail
	none.Attempts = 0
	type end struct {
		after   time.Duration // since start
		success bool
		want    verdict // but for why
	}
	restart := func(d time.Duration) verdict { return verdict{restart: true, delay: d} }
	for _, c := range []struct {
		name    string
		policy  model.RestartPolicy
		jobType string
		jitter  float64
		ends    []end
	}{
		{"gives up after its attempts", fail, model.JobTypeService, 0, []end{
			{0, false, restart(8 * time.Second)}, {time.Second, false, restart(8 * time.Second)}, {2 * time.Second, false, verdict{failed: true}},
		}},
		{"counts anew in the next interval", fail, model.JobTypeService, 0, []end{
			{0, false, restart(8 * time.Second)}, {time.Second, false, restart(8 * time.Second)}, {62 * time.Second, false, restart(8 * time.Second)},
		}},
		{"waits for the next interval", delay, model.JobTypeService, 0, []end{
			{0, false, restart(8 * time.Second)}, {0, false, restart(8 * time.Second)}, {20 * time.Second, false, restart(40 * time.Second)},
		}},
		{"a service is never done", fail, model.JobTypeService, 0, []end{{0, true, restart(8 * time.Second)}}},
		{"a batch task is done once it succeeds", fail, model.JobTypeBatch, 0, []end{{0, false, restart(8 * time.Second)}, {time.Second, true, verdict{}}}},
		{"none allowed", none, model.JobTypeBatch, 0, []end{{0, false, verdict{failed: true}}}},
		{"jitter adds up to a quarter", fail, model.JobTypeService, 0.5, []end{{0, false, restart(9 * time.Second)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r restarts
			for i, e := range c.ends {
				got := r.next(&c.policy, c.jobType, e.success, start.Add(e.after), c.jitter)
				if got.why == "" {
					t.Errorf("end %d: no reason given", i)
				}
				got.why = ""
				if got != e.want {
					t.Errorf("end %d: %+v, want %+v", i, got, e.want)
				}
			}
		})
	}
}
