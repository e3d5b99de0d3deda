// Package method is the table of RPC methods: each is declared once, in the file
// of its noun, with its request and reply types, where it may be served and what
// it needs. Names are on the wire: append only. The
// forwarder, the authoriser, the metrics and the limits read this table, so an
// endpoint cannot forget one of them. Handlers are
// bound to it in the region and client packages.
package method

// Place says who may serve a method.
type Place uint8

const (
	// AtLeader methods are served by the region's leader: every write, and
	// reads that must see the latest committed state.
	AtLeader Place = iota
	// AtLeaderOrStale methods are reads: served by the leader, or by any
	// server of the region when the caller allows stale answers.
	AtLeaderOrStale
	// AtServer methods are served by whichever server of the region has the
	// call.
	AtServer
	// AtNode methods are served by a client node, over the session that the
	// node dialled.
	AtNode
)

// Spec is what the layers between caller and handler need to know of a
// method.
type Spec struct {
	// Name is the wire name, "Noun.Verb". Names are append-only.
	Name  string
	Place Place
	// Write methods change state: unless they are applied once, they are not
	// sent again when a server may have taken them.
	Write bool
	// Once marks writes that the target cell applies once for each request id,
	// so that they are sent again when it is not known whether they were
	// applied.
	Once bool
	// Blocks marks methods that may wait by design (blocking queries): their
	// deadline is the caller's wait, not the default for plain calls.
	Blocks bool
	// Stream methods answer with any number of replies.
	Stream bool
}

// Method is a typed entry of the table.
type Method[Req, Reply any] struct{ Spec }

func read[Req, Reply any](name string) Method[Req, Reply] {
	return Method[Req, Reply]{Spec{Name: name, Place: AtLeaderOrStale, Blocks: true}}
}

// write is a user's write.
func write[Req, Reply any](name string) Method[Req, Reply] {
	return Method[Req, Reply]{Spec{Name: name, Place: AtLeader, Write: true, Once: true}}
}

// report is a write that can be said again, such as a node's, which says how
// things are.
func report[Req, Reply any](name string) Method[Req, Reply] {
	return Method[Req, Reply]{Spec{Name: name, Place: AtLeader, Write: true}}
}

func server[Req, Reply any](name string) Method[Req, Reply] {
	return Method[Req, Reply]{Spec{Name: name, Place: AtServer}}
}
