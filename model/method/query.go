package method

import "time"

// Query is what every read carries.
type Query struct {
	Namespace string
	// MinIndex makes the read wait until the result's index is higher, or
	// MaxWait is over; 0 does not wait.
	MinIndex uint64
	MaxWait  time.Duration
	// Prefix selects by the beginning of the id.
	Prefix string
	// Filter is a go-bexpr expression over the stored objects.
	Filter    string
	PerPage   int
	NextToken string
	Reverse   bool
	// Consistent makes the leader ask its cell whether it leads still before
	// it answers: the answer then holds every write acknowledged before.
	Consistent bool
}

// Meta is what every read answers with.
type Meta struct {
	// Index is of the state that the result was read from, as far as the
	// result goes: it can be waited on.
	Index uint64
	// LastContact is how long ago the answering server heard its leader.
	LastContact time.Duration
	KnownLeader bool
	NextToken   string
}

// Empty is the request or reply with nothing in it.
type Empty struct{}
