// Package boottime tells moments that outlast a process but not the machine: on a
// clock that nobody sets and that runs on while the machine sleeps. Two moments
// of one boot can be compared whichever process took them.
package boottime

import "time"

// Moment is a point on a boot's clock. It can be written down.
type Moment struct {
	// Boot names the boot; "" in the zero value, which is no moment.
	Boot string
	// At is since that boot.
	At time.Duration
}

// Now is the present moment.
func Now() Moment { return now() }

// Add returns the moment later by d.
func (m Moment) Add(d time.Duration) Moment { return Moment{m.Boot, m.At + d} }

// Since is how long before m an earlier moment was; false when that cannot be
// told, for either is none or they are of different boots.
func (m Moment) Since(earlier Moment) (time.Duration, bool) {
	if m.Boot == "" || m.Boot != earlier.Boot || m.At < earlier.At {
		return 0, false
	}
	return m.At - earlier.At, true
}
