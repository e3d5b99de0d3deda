package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Keeps reports an error for what Encode wrote and Decode might not read: what is
// written down must be nested less deep than what is read, so that it can be read also
// as a part of something else.
func Keeps(b []byte) error {
	_, err := scan(b, maxDepth*9/10)
	return err
}

// errShort is of a value whose end is not there, whatever its lengths claim.
var errShort = errors.New("its end is missing")

// scan walks over the one value that b must hold, before anything is made of it: it
// finds that all of it is there, and how many parts it has that may cost much more
// memory than they have bytes. Those are maps, of which structs are made, and within
// lists also lists and nil: an empty one takes a byte, and makes a whole struct.
//
// Values within values, deeper than most, are an error; most is at most maxDepth.
func scan(b []byte, most int) (parts int, err error) {
	var open [maxDepth]struct {
		left int
		list bool
	}
	depth := 0
	for at := 0; ; {
		if at >= len(b) {
			return 0, errShort
		}
		c := b[at]
		at++
		inList := depth > 0 && open[depth-1].list
		skip, within, list := 0, 0, false
		switch {
		case c <= 0x7f || c >= 0xe0 || c == 0xc2 || c == 0xc3: // small numbers, false, true
		case c <= 0x8f || c == 0xde || c == 0xdf: // maps
			n, size, ok := length(b[at:], c, 0x8f, 0xde)
			if !ok {
				return 0, errShort
			}
			at += size
			within = 2 * n
			parts++
		case c <= 0x9f || c == 0xdc || c == 0xdd: // lists
			n, size, ok := length(b[at:], c, 0x9f, 0xdc)
			if !ok {
				return 0, errShort
			}
			at += size
			within, list = n, true
			if inList {
				parts++
			}
		case c <= 0xbf: // short strings
			skip = int(c & 0x1f)
		case c == 0xc0:
			if inList {
				parts++
			}
		case c == 0xc1:
			return 0, fmt.Errorf("byte %d begins nothing", at-1)
		case c >= 0xca && c <= 0xd3: // numbers
			skip = [...]int{4, 8, 1, 2, 4, 8, 1, 2, 4, 8}[c-0xca]
		case c >= 0xd4 && c <= 0xd8: // extensions of 1, 2, 4, 8 and 16 bytes
			skip = 1 + 1<<(c-0xd4)
		default: // bytes, extensions and strings, with a length of 1, 2 or 4 bytes
			wide := [...]byte{0, 1, 2, 0, 1, 2}
			kind := c - 0xc4
			if c >= 0xd9 {
				kind = c - 0xd9
			}
			n, size, ok := number(b[at:], 1<<wide[kind])
			if !ok {
				return 0, errShort
			}
			skip = size + n
			if c >= 0xc7 && c <= 0xc9 {
				skip++ // the extension's type
			}
		}
		// Each part within takes a byte at the least.
		if skip > len(b)-at || within > len(b)-at {
			return 0, errShort
		}
		at += skip
		if depth > 0 {
			open[depth-1].left--
		}
		if within > 0 {
			if depth == most {
				return 0, fmt.Errorf("it is nested more than %d deep", most)
			}
			open[depth].left, open[depth].list = within, list
			depth++
		}
		for depth > 0 && open[depth-1].left == 0 {
			depth--
		}
		if depth == 0 {
			if at != len(b) {
				return 0, fmt.Errorf("%d bytes follow the value", len(b)-at)
			}
			return parts, nil
		}
	}
}

// length is the number of elements of a container that begins with c: c itself has
// it up to small; wide is followed by one of 2 bytes, and wide+1 by one of 4.
func length(b []byte, c, small, wide byte) (n, size int, ok bool) {
	if c <= small {
		return int(c & 0x0f), 0, true
	}
	return number(b, 2<<(c-wide))
}

// number reads a length of so many bytes.
func number(b []byte, size int) (n, took int, ok bool) {
	if len(b) < size {
		return 0, 0, false
	}
	switch size {
	case 1:
		return int(b[0]), 1, true
	case 2:
		return int(binary.BigEndian.Uint16(b)), 2, true
	}
	return int(binary.BigEndian.Uint32(b)), 4, true
}
