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

	"github.com/hashicorp/go-msgpack/v2/codec"
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
	// A lying length must not allocate more than the bytes behind it could
	// fill; the decoder grows from here as it reads.
	h.MaxInitLen = 1024
	return h
}

// Encode returns v as msgpack.
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	if err := EncodeTo(&buf, v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// EncodeTo writes v as msgpack.
func EncodeTo(w io.Writer, v any) error {
	if err := codec.NewEncoder(w, Handle).Encode(v); err != nil {
		return fmt.Errorf("cannot encode %T: %w", v, err)
	}
	return nil
}

// Decode reads one msgpack value that must fill b exactly; hostile bytes give
// an error, never a panic. Fields that v does not have are passed over.
func Decode(b []byte, v any) error { return decode(b, v, Handle) }

// DecodeAll is Decode for what may not be understood in part: a field that v does
// not have, of a newer version, is an error.
func DecodeAll(b []byte, v any) error { return decode(b, v, whole) }

func decode(b []byte, v any, h *codec.MsgpackHandle) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot decode %T: %v", v, p)
		}
	}()
	d := codec.NewDecoderBytes(b, h)
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("cannot decode %T: %w", v, err)
	}
	if n := d.NumBytesRead(); n != len(b) {
		return fmt.Errorf("cannot decode %T: %d bytes follow the value", v, len(b)-n)
	}
	return nil
}
