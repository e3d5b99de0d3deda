// Package backoff is the one way in which Atoll waits before it tries again:
// exponential, jittered, bounded by a context.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy describes a growing wait. The zero value waits 100 ms, doubling to
// 10 s.
type Policy struct {
	// Min is the first wait, Max the longest; zero means 100 ms and 10 s.
	Min, Max time.Duration
	// Rand returns a number in [0,1); nil means math/rand/v2.
	Rand func() float64
}

// Wait returns the wait before attempt n (from 0): full jitter over the upper
// half of Min·2ⁿ, so that waits neither synchronise nor vanish.
func (p Policy) Wait(n int) time.Duration {
	lo, hi := p.Min, p.Max
	if lo <= 0 {
		lo = 100 * time.Millisecond
	}
	if hi <= 0 {
		hi = 10 * time.Second
	}
	d := hi
	if n < 30 && lo<<n < hi && lo<<n > 0 {
		d = lo << n
	}
	r := p.Rand
	if r == nil {
		r = rand.Float64
	}
	return d/2 + time.Duration(r()*float64(d/2))
}

// Sleep waits for attempt n's time; false when the context ended first.
func (p Policy) Sleep(ctx context.Context, n int) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(p.Wait(n))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Retry calls try until it returns nil, or ctx ends, or permanent says that an
// error will not pass by waiting (nil: none is permanent). It returns nil or
// the last error of try.
func (p Policy) Retry(ctx context.Context, permanent func(error) bool, try func(context.Context) error) error {
	for n := 0; ; n++ {
		err := try(ctx)
		if err == nil || (permanent != nil && permanent(err)) {
			return err
		}
		if !p.Sleep(ctx, n) {
			return err
		}
	}
}
