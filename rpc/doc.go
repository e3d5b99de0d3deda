// Package rpc is the transport between agents: one TCP port, on which Raft and
// calls are told apart by a connection's first byte; yamux sessions; a stream for
// each call under way; msgpack frames; typed handlers. It knows no domain type but error
// kinds, and routes through an interface.
//
// # Frames
//
// A frame is a four-byte length, a type byte and a payload.
//
//	envelope  caller → server   who should serve what, until when (Envelope)
//	body      both ways         one request, then replies
//	end       server → caller   no more replies
//	error     server → caller   the call failed (model.Error)
//	alive     server → caller   nothing yet, but somebody works or waits on it
//	leader    server → caller   who leads the region that the call was for
//	answer    server → caller   body and end in one; the stream may have another call
//
// # The life of a call
//
// The caller takes a stream whose last call was answered, else opens one, and
// writes envelope and body. Whoever has the stream's other end reads the envelope,
// asks its Router where the call belongs, and either serves it or calls a server
// nearer to it and passes frames on, body undecoded. From half a second on it sends
// a sign of life every half second, or as the caller says it bears, so that silence
// means something: a call on which nothing was heard for [Limits.Silence] is given
// up, with an error that names the region. Long bodies go in pieces, each of which
// is heard, and whoever receives one gives signs of life too. Cancelling is closing
// the stream: each hop sees that at its next sign of life and closes its own.
//
// A connection that takes nothing for a second and a half is given up with all its
// calls; those that may be are sent again over another.
//
// Until a server may have taken a write, the write is tried elsewhere; after
// that, when no answer comes, its outcome is unknown, and the error says so with
// the request's id.
//
// # Concurrency
//
// Every session has one goroutine that accepts its streams, and every stream one
// that serves its calls; signs of life cost none between them. Their owner is the
// Server, whose Shutdown waits for them.
package rpc
