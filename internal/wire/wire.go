// Package wire is the one msgpack encoding of RPC bodies, Raft commands and
// snapshots: struct fields by name, so that versions with more or fewer fields
// understand each other, strings apart from bytes, maps in key order so that
// the same value always has the same bytes.
package wire

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Parts that a body may have: any body some, and a long one more by its length. An
// honest one names the fields of each: lists of rows and jobs have one in 90 bytes
// and more; only the keys of rows in summaries, in frames of a thousand, have one in
// 18.
const (
	freeParts = 16 << 10
	partSize  = 24
)

// maxDepth bounds nesting of decoded values; the deepest honest one, a job
// with nested driver configuration, stays below 40.
const maxDepth = 100

// Handle is the shared codec configuration; treat it as read-only.
var Handle = newHandle()

var whole = func() *codec.MsgpackHandle {
	h := newHandle()
	h.ErrorIfNoField = true
	return h
}()

func newHandle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{}
	h.RawToString = true
	h.WriteExt = true
	h.Canonical = true
	h.MaxDepth = maxDepth
	h.MapType = reflect.TypeOf(map[string]any(nil))
	// The decoder makes room for so many elements before it sees the first, and
	// for as many again as it reads on, which for bytes means that all are copied
	// each time: not so few that this costs much, and not so many that a list of
	// numbers read as one of structs does.
	h.MaxInitLen = 64 << 10
	return h
}

// Codecs are used again: to make one costs more than most of what they are for.
// One that failed is in no state to be.
var (
	encoders = sync.Pool{New: func() any { return &encoder{codec: codec.NewEncoderBytes(new([]byte), Handle)} }}
	decoders = sync.Pool{New: func() any { return codec.NewDecoderBytes(nothing, Handle) }}
	// wholeDecoders refuse what they do not know.
	wholeDecoders = sync.Pool{New: func() any { return codec.NewDecoderBytes(nothing, whole) }}
)

// encoder is a codec with the buffer that it writes to.
type encoder struct {
	codec *codec.Encoder
	buf   []byte
}

// keptBuffer is the largest buffer that is kept for the next value.
const keptBuffer = 64 << 10

// nothing is what a codec at rest holds on to.
var nothing = []byte{}

// Encode returns v as msgpack.
func Encode(v any) ([]byte, error) {
	e := encoders.Get().(*encoder)
	e.codec.ResetBytes(&e.buf)
	if err := e.codec.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot encode %T: %w", v, err)
	}
	out := e.buf
	if cap(out) > keptBuffer {
		e.buf = nil
		e.codec.ResetBytes(&e.buf)
	} else {
		out = bytes.Clone(out)
	}
	encoders.Put(e)
	return out, nil
}

// EncodeTo writes v as msgpack.
func EncodeTo(w io.Writer, v any) error {
	if err := codec.NewEncoder(w, Handle).Encode(v); err != nil {
		return fmt.Errorf("cannot encode %T: %w", v, err)
	}
	return nil
}

// Decode reads one msgpack value that must fill b exactly; damaged bytes give
// an error, never a panic. What it reads holds no part of b. Fields that v does not
// have are passed over.
func Decode(b []byte, v any) error { return decode(b, v, &decoders) }

// DecodeAll is Decode for what may not be understood in part: a field that v does
// not have, of a newer version, is an error.
func DecodeAll(b []byte, v any) error { return decode(b, v, &wholeDecoders) }

func decode(b []byte, v any, from *sync.Pool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot decode %T: %v", v, p)
		}
	}()
	if b == nil {
		b = nothing
	}
	d := from.Get().(*codec.Decoder)
	d.ResetBytes(b)
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("cannot decode %T: %w", v, err)
	}
	n := d.NumBytesRead()
	d.ResetBytes(nothing)
	from.Put(d)
	if n != len(b) {
		return fmt.Errorf("cannot decode %T: %d bytes follow the value", v, len(b)-n)
	}
	return nil
}

// Receive is Decode, of what another agent sent: what is made of it is in
// proportion to what came, and a length that lies makes nothing.
func Receive(b []byte, v any) error {
	parts, err := scan(b, maxDepth)
	if most := freeParts + len(b)/partSize; err == nil && parts > most {
		err = fmt.Errorf("its %d bytes have more than %d parts", len(b), most)
	}
	if err != nil {
		return fmt.Errorf("cannot decode %T: %w", v, err)
	}
	return Decode(b, v)
}
