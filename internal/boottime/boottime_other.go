//go:build !linux

package boottime

import (
	"crypto/rand"
	"time"
)

// There is no clock here that outlasts the process and that nobody sets: each
// process counts as a boot of its own.
var (
	started = time.Now()
	boot    = rand.Text()
)

func now() Moment { return Moment{boot, time.Since(started)} }
