// Package clock is the one source of time for code whose tests must hold it.
// Real reads the machine's clock; tests use testing/synctest's bubble, in
// which the machine's clock is itself fake, or a Func.
package clock

import "time"

// Clock tells the time. The returned times carry a monotonic reading where the
// implementation has one.
type Clock interface{ Now() time.Time }

// Real is the machine's clock.
var Real Clock = Func(time.Now)

// Func adapts a function.
type Func func() time.Time

// Now calls f.
func (f Func) Now() time.Time { return f() }
