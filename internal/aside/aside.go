// Package aside keeps a loop over many things from ending at one of them: when what
// is done about one panics, that is logged, and the thing is left alone for a while.
package aside

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/clock"
)

// Pause is for how long a thing is left alone: what is wrong with it is in the code
// or the state, and seldom passes by itself.
const Pause = time.Minute

// Items are a loop's. They are for one goroutine; the zero value has none set aside.
type Items struct {
	Clock clock.Clock
	Log   hclog.Logger
	until map[string]time.Time
}

// Do does f about a thing, such as a "node" of some id, unless it is set aside. It
// returns until when the thing is left alone, zero when f was done.
func (i *Items) Do(kind, id string, f func()) (until time.Time) {
	key := kind + " " + id
	if until, aside := i.until[key]; aside {
		if i.Clock.Now().Before(until) {
			return until
		}
		delete(i.until, key)
	}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if i.until == nil {
			i.until = make(map[string]time.Time)
		}
		until = i.Clock.Now().Add(Pause)
		i.until[key] = until
		i.Log.Error("a panic about one thing; the others go on without it", kind, id, "panic", fmt.Sprint(p), "again_in", Pause, "stack", hclog.Stacktrace())
	}()
	f()
	return time.Time{}
}
