package model

import (
	"encoding/binary"
	"io"
	"time"
)

// NewRequestID returns an id for a write that is to be applied once: a UUID of
// version 7 (RFC 9562, section 5.7), which tells when it was made. r nil means
// crypto/rand.
func NewRequestID(now time.Time, r io.Reader) string {
	u := NewUUID(r)
	ms := uint64(now.UnixMilli())
	random := binary.BigEndian.Uint16(u[6:])
	binary.BigEndian.PutUint64(u[:], ms<<16)
	binary.BigEndian.PutUint16(u[6:], random)
	u[6] = u[6]&0x0f | 0x70
	return u.String()
}

// RequestIssued returns when a request id was made, in Unix nanoseconds by its
// maker's clock; 0 for an id that does not tell.
func RequestIssued(id string) int64 {
	u, ok := ParseUUID(id)
	if !ok || u[6]>>4 != 7 {
		return 0
	}
	ms := binary.BigEndian.Uint64(u[:]) >> 16
	return int64(ms) * int64(time.Millisecond)
}
