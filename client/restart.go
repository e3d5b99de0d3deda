package client

import (
	"fmt"
	"time"

	"atoll/model"
)

// restarts counts a task's restarts in its policy's interval. It is kept on
// disk, so that restarting the agent grants no attempts.
type restarts struct {
	// Since is when the interval began.
	Since time.Time
	Count int
}

// verdict is what a policy says of a task that ended.
type verdict struct {
	restart bool
	delay   time.Duration
	// failed marks an end that is the allocation's too.
	failed bool
	why    string
}

// next decides what follows on the end of a task. success is its having done
// what it should; a service is never done. jitter is a number in [0,1), by which
// up to a quarter is added to the delay, so that what failed together does not
// come back together.
func (r *restarts) next(p *model.RestartPolicy, jobType string, success bool, now time.Time, jitter float64) verdict {
	batch := jobType == model.JobTypeBatch || jobType == model.JobTypeSysBatch
	if success && batch {
		return verdict{why: "the task has completed"}
	}
	if r.Since.IsZero() || now.Sub(r.Since) > p.Interval {
		r.Since, r.Count = now, 0
	}
	r.Count++
	if r.Count <= p.Attempts {
		return verdict{restart: true, delay: p.Delay + time.Duration(jitter*float64(p.Delay)/4), why: "restart within policy"}
	}
	why := fmt.Sprintf("%d attempts in %s are used up, and the mode is %q", p.Attempts, p.Interval, p.Mode)
	if p.Attempts == 0 {
		why = "the restart policy allows no attempts"
	}
	if p.Mode == model.RestartModeDelay && p.Attempts > 0 {
		wait := r.Since.Add(p.Interval).Sub(now)
		return verdict{restart: true, delay: max(wait, p.Delay), why: why}
	}
	return verdict{failed: true, why: why}
}
