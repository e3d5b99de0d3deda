package agent

import (
	"testing"
	"time"
)

func TestAnIdleProcessCollectsNowAndThen(t *testing.T) {
	var i idleness
	now := time.Unix(1_700_000_000, 0)
	runs := uint32(7)
	// wait is how long nothing is collected, and whether it is due then.
	wait := func(d time.Duration, want bool) {
		t.Helper()
		now = now.Add(d)
		if got := i.due(runs, now); got != want {
			t.Errorf("after %s without a collection: %v, want %v", d, got, want)
		}
	}
	wait(0, false)
	wait(idleFor/2, false)
	wait(idleFor/2, true)
	i.collected(time.Millisecond)
	runs++
	wait(time.Second, false)
	wait(idleFor-1, false)
	runs++ // Go did it
	wait(idleFor, false)
	wait(idleFor, true)
	i.collected(time.Second)
	runs++
	wait(time.Second, false)
	wait(99*time.Second, false)
	wait(time.Second, true)
}
