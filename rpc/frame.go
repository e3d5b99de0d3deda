package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"atoll/internal/wire"
	"atoll/model"
)

// Frame types. On the wire: append only.
const (
	frameEnvelope byte = iota + 1
	frameBody
	frameEnd
	frameError
	frameAlive
	// frameLeader tells a caller of another region which server leads, so that
	// its next call goes there.
	frameLeader
	// frameAnswer is a body and the end in one, and says that another call may
	// follow on the stream. Only callers whose envelope says Reuse are sent it.
	frameAnswer
)

// Limits bound what a peer can cost. The zero value means the defaults.
type Limits struct {
	// MaxBody is the largest body, MaxEnvelope the largest envelope or
	// error, in bytes: 32 MiB and 64 KiB.
	MaxBody, MaxEnvelope int
	// Silence is how long a call may hear nothing from its server: 1.8 s,
	// so that a user has the error within two. An answer that is on its way is
	// heard.
	Silence time.Duration
	// Alive is between signs of life: 500 ms.
	Alive time.Duration
	// Handshake is within which a connection says what it is, and a stream
	// sends its envelope and body's beginning, and each further piece: 5 s.
	Handshake time.Duration
	// MaxConns bounds connections, MaxConnsPerIP those of one address,
	// MaxCalls the calls being served: 16384, 16384 and 65536. Nodes behind
	// one address are many; that limit is for those who set it.
	MaxConns, MaxConnsPerIP, MaxCalls int
	// MaxBodies bounds the bodies of the calls being served, those above 64 KiB
	// all together, in bytes: 256 MiB.
	MaxBodies int
	// Plain is the deadline of a call whose caller gave none: 10 s.
	Plain time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	setTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.MaxBody, 32<<20)
	set(&l.MaxEnvelope, 64<<10)
	set(&l.MaxConns, 16384)
	set(&l.MaxConnsPerIP, 16384)
	set(&l.MaxCalls, 65536)
	set(&l.MaxBodies, 256<<20)
	setTime(&l.Silence, 1800*time.Millisecond)
	setTime(&l.Alive, 500*time.Millisecond)
	setTime(&l.Handshake, 5*time.Second)
	setTime(&l.Plain, 10*time.Second)
	return l
}

func (l *Limits) of(kind byte) int {
	switch kind {
	case frameBody, frameAnswer:
		return l.MaxBody
	case frameEnvelope, frameError:
		return l.MaxEnvelope
	case frameLeader:
		return maxAddr
	}
	return 0
}

// errFrame marks bytes that are no frames: the stream is of no more use.
var errFrame = errors.New("malformed frame")

const headLen = 5

// maxAddr bounds an address, in bytes.
const maxAddr = 512

// piece is how much of a long payload is written, and read, at a time, in bytes.
// Each has time of its own, so that what counts as silence is how slow a link is
// and not how long the payload: with the defaults 9 KB/s are enough. Other calls'
// frames come between the pieces.
const piece = 16 << 10

// trusted is the longest payload that is read at once, into memory that its length
// is believed for.
const trusted = 64 << 10

// readFrame reads one frame. Before each piece of a payload that is not read at
// once it asks for more, with how much is left to come, and ends with its error. It
// allocates no more than twice of what arrives, whatever the length claims.
func readFrame(r io.Reader, limits *Limits, more func(left int) error) (kind byte, payload []byte, err error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind = head[4]
	size := int(binary.BigEndian.Uint32(head[:]))
	if kind < frameEnvelope || kind > frameAnswer {
		return 0, nil, fmt.Errorf("%w: type %d", errFrame, kind)
	}
	if limit := limits.of(kind); size > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes are over the limit of %d", errFrame, size, limit)
	}
	if size == 0 {
		return kind, nil, nil
	}
	if size <= trusted {
		payload = make([]byte, size)
		_, err = io.ReadFull(r, payload)
		return kind, payload, err
	}
	payload = make([]byte, 0, trusted)
	for n := 0; err == nil && n < size; n = len(payload) {
		if err = more(size - n); err != nil {
			break
		}
		if n == cap(payload) {
			payload = append(make([]byte, 0, min(2*n, size)), payload...)
		}
		payload = payload[:min(n+piece, cap(payload))]
		_, err = io.ReadFull(r, payload[n:])
	}
	return kind, payload, err
}

// frameBuffers are reused, since every call writes two.
var frameBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writeFrames writes frames, in one piece if they are short. Before each piece it
// asks for more, with the error by which the last one failed, if it did, and ends
// with its error. Only yamux.ErrTimeout may be answered with nil: of anything else
// it is not known how much was sent. The error is notTaken when something was
// surely not sent: nobody acts on a part.
func writeFrames(w io.Writer, more func(failed error) error, frames ...frame) error {
	buf := frameBuffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= 1<<20 {
			buf.Reset()
			frameBuffers.Put(buf)
		}
	}()
	for _, f := range frames {
		var head [headLen]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(f.payload)))
		head[4] = f.kind
		buf.Write(head[:])
		buf.Write(f.payload)
	}
	var failed error
	for b := buf.Bytes(); len(b) > 0; {
		if err := more(failed); err != nil {
			if failed == nil || errors.Is(failed, yamux.ErrTimeout) || len(b) > piece {
				return notTaken{err}
			}
			return err
		}
		var n int
		n, failed = w.Write(b[:min(len(b), piece)])
		b = b[n:]
	}
	return nil
}

type frame struct {
	kind    byte
	payload []byte
}

// maxMessage bounds what an error tells on the wire, in bytes: a frame that is over
// its limit cannot be read, and then nobody knows that the call was refused.
const maxMessage = 16 << 10

func errorFrame(err error) frame {
	e := *model.AsError(err)
	e.Message, e.Field = cut(e.Message), cut(e.Field)
	b, encErr := wire.Encode(&e)
	if encErr != nil {
		return frame{kind: frameError}
	}
	return frame{frameError, b}
}

// cut is the beginning of a text that is too long.
func cut(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " …"
}

func decodeError(payload []byte) error {
	e := new(model.Error)
	if err := wire.Receive(payload, e); err != nil || e.Message == "" {
		return model.Errorf(model.KindInternal, "the far end sent an error that cannot be read")
	}
	return e
}
