package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

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
)

// Limits bound what a peer can cost. The zero value means the defaults.
type Limits struct {
	// MaxBody is the largest body, MaxEnvelope the largest envelope or
	// error, in bytes: 32 MiB and 64 KiB.
	MaxBody, MaxEnvelope int
	// Silence is how long a call may hear nothing from its server: 1.8 s,
	// so that a user has the error within two.
	Silence time.Duration
	// Alive is between signs of life: 500 ms.
	Alive time.Duration
	// Handshake is within which a connection says what it is and a stream
	// sends its envelope and body's beginning: 5 s.
	Handshake time.Duration
	// MaxConns bounds connections, MaxConnsPerIP those of one address,
	// MaxCalls the calls being served: 16384, 16384 and 65536. Nodes behind
	// one address are many; that limit is for those who set it.
	MaxConns, MaxConnsPerIP, MaxCalls int
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
	setTime(&l.Silence, 1800*time.Millisecond)
	setTime(&l.Alive, 500*time.Millisecond)
	setTime(&l.Handshake, 5*time.Second)
	setTime(&l.Plain, 10*time.Second)
	return l
}

func (l *Limits) of(kind byte) int {
	switch kind {
	case frameBody:
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

// readFrame reads one frame. It allocates no more than what arrives, whatever
// the length claims.
func readFrame(r io.Reader, limits *Limits) (kind byte, payload []byte, err error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind = head[4]
	size := int(binary.BigEndian.Uint32(head[:]))
	if kind < frameEnvelope || kind > frameLeader {
		return 0, nil, fmt.Errorf("%w: type %d", errFrame, kind)
	}
	if limit := limits.of(kind); size > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes are over the limit of %d", errFrame, size, limit)
	}
	if size == 0 {
		return kind, nil, nil
	}
	const trust = 64 << 10
	if size <= trust {
		payload = make([]byte, size)
		_, err = io.ReadFull(r, payload)
		return kind, payload, err
	}
	var buf bytes.Buffer
	n, err := io.CopyN(&buf, r, int64(size))
	if err == nil && n != int64(size) {
		err = io.ErrUnexpectedEOF
	}
	return kind, buf.Bytes(), err
}

// frameBuffers are reused, since every call writes two.
var frameBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writeFrames writes frames in one piece.
func writeFrames(w io.Writer, frames ...frame) error {
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
	_, err := w.Write(buf.Bytes())
	return err
}

type frame struct {
	kind    byte
	payload []byte
}

func errorFrame(err error) frame {
	b, encErr := wire.Encode(model.AsError(err))
	if encErr != nil {
		return frame{kind: frameError}
	}
	return frame{frameError, b}
}

func decodeError(payload []byte) error {
	e := new(model.Error)
	if err := wire.Receive(payload, e); err != nil || e.Message == "" {
		return model.Errorf(model.KindInternal, "the far end sent an error that cannot be read")
	}
	return e
}
