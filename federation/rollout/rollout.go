// Package rollout decides how a version of a multi-region job moves through its
// regions. It is pure: each region asks it what to do about its own share, given
// what it knows of all, and nobody coordinates.
//
//	pending → running     fewer than max_parallel of the regions before this one
//	                      are unfinished
//	running → blocked     the region's own deployment is done
//	blocked → successful  all other regions are blocked or successful
//	        → failed      by its own deployment, or by another region's failure,
//	                      as on_failure says
//
// Since each region's state only moves forward, what was decided on older
// knowledge is never wrong, only late.
package rollout

import (
	"fmt"
	"slices"

	"atoll/model"
)

// Local is what a region sees of its own share's work.
type Local struct {
	// Done says that the region has nothing left to do for it.
	Done bool
	// Failed is why it failed, "" when it did not.
	Failed string
	// Released says that an operator does not want it to wait for the others.
	Released bool
}

// Next returns the state that a region's share should move to, and why; "" for
// none. gone reports regions that have been out of reach for so long that the
// job's on_unreachable is to be applied to them.
func Next(r *model.Rollout, own string, gone func(region string) bool, local Local) (to model.ShareState, why string) {
	mine := r.Share(own)
	if mine == nil || r.Won == nil || mine.State.Over() {
		return "", ""
	}
	p := r.Won
	if p.Job.Stop {
		return model.ShareStopped, "the job was stopped in all regions"
	}
	order := p.Regions()
	me := slices.Index(order, own)
	if me < 0 {
		return model.ShareStopped, fmt.Sprintf("version %d of the job does not run in this region", p.Version)
	}
	if local.Failed != "" {
		return model.ShareFailed, local.Failed
	}
	v := view{r, p.Job.Multiregion.Strategy, order, gone}
	if failed, why := v.failure(me); failed != "" {
		return model.ShareFailed, fmt.Sprintf("failed because region %s", why)
	}
	switch mine.State {
	case model.SharePending:
		if v.turn(me) {
			return model.ShareRunning, ""
		}
	case model.ShareRunning:
		if local.Done {
			return model.ShareBlocked, ""
		}
	case model.ShareBlocked:
		if local.Released {
			return model.ShareSuccessful, "unblocked by an operator"
		}
		for i, region := range order {
			if i != me && !v.finished(i) {
				return "", ""
			}
			if r.Share(region).State == model.ShareFailed || v.strategy.OnUnreachable == model.OnUnreachableFail && v.passed(i) {
				return "", "" // an operator unblocks it, or submits anew
			}
		}
		return model.ShareSuccessful, ""
	}
	return "", ""
}

// view is what one region knows of the others.
type view struct {
	r        *model.Rollout
	strategy *model.MultiregionStrategy
	order    []string
	gone     func(string) bool
}

func (v view) state(i int) model.ShareState { return v.r.Share(v.order[i]).State }

// finished reports whether a region is not waited for any more.
func (v view) finished(i int) bool {
	s := v.state(i)
	return s == model.ShareBlocked || s.Over() || v.passed(i)
}

// passed reports whether a region is out of reach and the job goes on without
// it.
func (v view) passed(i int) bool {
	s := v.state(i)
	return s != model.ShareBlocked && !s.Over() && v.strategy.OnUnreachable != model.OnUnreachableWait && v.gone(v.order[i])
}

// turn reports whether a region may begin.
func (v view) turn(me int) bool {
	unfinished := 0
	for i := range me {
		if !v.finished(i) {
			unfinished++
		}
	}
	return v.strategy.MaxParallel == 0 || unfinished < v.strategy.MaxParallel
}

// failure returns the region whose failure means that this one fails too.
func (v view) failure(me int) (region, why string) {
	// A region that the others failed for does not begin when it comes back.
	late := v.state(me) == model.SharePending && v.strategy.OnUnreachable == model.OnUnreachableFail
	for i, name := range v.order {
		later := v.strategy.OnFailure == model.OnFailureRest && i > me
		if i == me || v.strategy.OnFailure == model.OnFailureLocal || later && !late {
			continue
		}
		switch s := v.state(i); {
		case s == model.ShareFailed:
			return name, fmt.Sprintf("%q failed", name)
		case later || s == model.ShareBlocked || s.Over():
		case v.strategy.OnUnreachable == model.OnUnreachableFail && v.gone(name) && v.turn(i):
			return name, fmt.Sprintf("%q is unreachable", name)
		}
	}
	return "", ""
}
