package aside

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/clock"
)

func TestWhatPanicsIsLeftAloneForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	i := Items{Clock: clock.Func(func() time.Time { return now }), Log: hclog.NewNullLogger()}
	done := map[string]int{}
	do := func(id string) time.Time {
		return i.Do("node", id, func() {
			done[id]++
			if id == "bad" {
				panic("no")
			}
		})
	}
	for range 3 {
		if until := do("good"); !until.IsZero() {
			t.Errorf("what goes well is set aside until %s", until)
		}
		if until := do("bad"); !until.Equal(now.Add(Pause)) {
			t.Errorf("set aside until %s", until)
		}
	}
	now = now.Add(Pause)
	do("bad")
	if done["good"] != 3 || done["bad"] != 2 {
		t.Errorf("done: %v", done)
	}
}
