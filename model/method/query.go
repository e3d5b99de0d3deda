package method

import (
	"sync"
	"time"
)

// Query is what every read carries. What is empty does not travel.
type Query struct {
	Namespace string `codec:",omitempty"`
	// MinIndex makes the read wait until the result's index is higher, or
	// MaxWait is over; 0 does not wait.
	MinIndex uint64        `codec:",omitempty"`
	MaxWait  time.Duration `codec:",omitempty"`
	// Prefix selects by the beginning of the id.
	Prefix string `codec:",omitempty"`
	// Filter is a go-bexpr expression over the stored objects.
	Filter    string `codec:",omitempty"`
	PerPage   int    `codec:",omitempty"`
	NextToken string `codec:",omitempty"`
	Reverse   bool   `codec:",omitempty"`
	// Consistent makes the leader ask its cell whether it leads still before
	// it answers: the answer then holds every write acknowledged before.
	Consistent bool `codec:",omitempty"`
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
	// JSON, unless "", is the answer's body as HTTP has it, in place of the reply's
	// other fields: see Answer.
	JSON string `codec:",omitempty" json:"-"`
	// Encoding, when not nil, is shared with others in this process who are
	// answered the same. It does not travel.
	Encoding *Encoding `codec:"-" json:"-"`
}

// Encoding is an answer's, made once for all who are answered the same. The
// zero value is not made yet.
type Encoding struct {
	plain, zipped sync.Once
	body          [2][]byte
}

// Plain returns the encoding, which encode makes, and Zipped its compressed
// form.
func (e *Encoding) Plain(encode func() []byte) []byte {
	e.plain.Do(func() { e.body[0] = encode() })
	return e.body[0]
}

// Zipped is as Plain.
func (e *Encoding) Zipped(encode func() []byte) []byte {
	e.zipped.Do(func() { e.body[1] = encode() })
	return e.body[1]
}

// Empty is the request or reply with nothing in it.
type Empty struct{}
