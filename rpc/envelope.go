package rpc

import (
	"slices"
	"time"

	"atoll/model"
)

// Envelope is what routing reads of a call; the body is the handler's alone. What
// is empty does not travel: most of a read's is.
type Envelope struct {
	Method string
	// Region is the target; "" means the region the call came to.
	Region string
	// Cell, unless "", is the cell that the target region is known as: a server
	// of another one under the same name refuses the call.
	Cell string `codec:",omitempty"`
	// Timeout is what remains of the call's time; clocks are never sent. 0
	// has no end.
	Timeout time.Duration
	// RequestID is the same over retries and hops.
	RequestID string `codec:",omitempty"`
	// Path are the regions that the call has passed through, in order.
	Path []string `codec:",omitempty"`
	// Hops counts forwards of any kind.
	Hops int `codec:",omitempty"`
	// AllowStale lets any server of the region answer a read.
	AllowStale bool `codec:",omitempty"`
	// Forwarded says that a server of the target region passed the call on
	// within the region: it is not passed on there again.
	Forwarded bool `codec:",omitempty"`
	// NodeID is the node that serves an AtNode method.
	NodeID string `codec:",omitempty"`
	// Quiet is for how long the caller bears silence after the first sign of
	// life; 0 means Limits.Silence.
	Quiet time.Duration `codec:",omitempty"`
	// JSON says that the caller passes the answer on over HTTP: where it is a
	// method.Answer, and the server knows how, its body comes rendered.
	JSON bool `codec:",omitempty"`
	// Reuse says that the caller, who may be but the last hop, would send another
	// call on the same stream.
	Reuse bool `codec:",omitempty"`
}

// maxQuiet bounds what a caller may ask for.
const maxQuiet = time.Minute

// signs is between signs of life after the first: three for each time that the
// caller bears silence.
func (e *Envelope) signs(alive time.Duration) time.Duration {
	return max(alive, min(e.Quiet, maxQuiet)/3)
}

// maxHops is more than any honest road has: an agent, its server, a server of
// the other region, the leader there, the server with the node's session, the
// node.
const maxHops = 8

// forward returns the envelope as it goes on from region to the region
// target, or a Loop error.
func (e *Envelope) forward(from, target string, timeout time.Duration) (*Envelope, error) {
	out := *e
	out.Timeout = timeout
	out.Hops++
	if out.Hops > maxHops {
		return nil, &model.Error{Kind: model.KindLoop, Region: target, Message: "the request was forwarded too often, over the regions " + quoteList(e.Path) + "; servers there disagree about where a region is"}
	}
	if target == from {
		out.Forwarded = true
		return &out, nil
	}
	if slices.Contains(e.Path, target) || slices.Contains(e.Path, from) {
		return nil, &model.Error{Kind: model.KindLoop, Region: target, Message: "the request came to region \"" + from + "\" over " + quoteList(e.Path) + " and would go on to \"" + target + "\"; servers disagree about where that region is, see atoll region list"}
	}
	out.Path = append(slices.Clip(slices.Clone(e.Path)), from)
	out.Forwarded = false
	return &out, nil
}

func quoteList(names []string) string {
	s := ""
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += "\"" + n + "\""
	}
	return s
}
