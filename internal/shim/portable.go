package shim

import "time"

func now() time.Time { return time.Now() }

// alive reports whether the process still is.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	is, running, err := processOf(p.PID)
	return err == nil && running && is == p
}
