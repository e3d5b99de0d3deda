package model

import (
	"crypto/rand"
	"encoding/hex"
	"io"
)

// UUID is a 16-byte identifier in the form that tables and plans hold; its
// text form, as users and JSON see it, is the usual 36 characters.
type UUID [16]byte

// NewUUID returns a random UUID read from r; nil means crypto/rand.
func NewUUID(r io.Reader) UUID {
	if r == nil {
		r = rand.Reader
	}
	var u UUID
	if _, err := io.ReadFull(r, u[:]); err != nil {
		// crypto/rand does not fail; a test's source that runs dry should be
		// seen at once.
		panic("model: random source failed: " + err.Error())
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ParseUUID reads the 36-character form.
func ParseUUID(s string) (UUID, bool) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	var hexed [32]byte
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '-' {
			if n == len(hexed) {
				return u, false
			}
			hexed[n] = s[i]
			n++
		}
	}
	if _, err := hex.Decode(u[:], hexed[:]); err != nil || n != len(hexed) {
		return UUID{}, false
	}
	return u, true
}

// String returns the 36-character form, "" for the zero UUID.
func (u UUID) String() string {
	if u == (UUID{}) {
		return ""
	}
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// IsZero reports whether u is the zero UUID, which stands for none.
func (u UUID) IsZero() bool { return u == UUID{} }
