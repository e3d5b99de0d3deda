package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"atoll/internal/backoff"
	"atoll/model"
)

// Headers that tell programs what an answer is.
const (
	// HeaderError is the kind of an error, such as "outcome_unknown".
	HeaderError = "X-Atoll-Error"
	// HeaderRequestID is, of an answer, the token by which a write of unknown
	// outcome can be sent again; of a request, its token where the query
	// parameter idempotency_token means something else.
	HeaderRequestID = "X-Atoll-Request-Id"
)

// Retry is a transport that sends each write with a token of its own, and sends it
// again, with the same token, when it cannot know whether it was applied: the
// reply was lost, or the agent says so itself. The region that the write is for
// applies it once, and answers as it did at first.
//
// A write is not sent again when its body cannot be read again, nor when there was
// no agent in the first place, nor, unless it surely was not applied, when it is one
// that no token makes apply once.
type Retry struct {
	// Base sends what is sent; nil means http.DefaultTransport.
	Base http.RoundTripper
	// Within is for how long after the first attempt others begin; 0 means 20
	// seconds, which is longer than an election or the restart of an agent.
	Within time.Duration
}

// attempts are at first as far apart as an election takes.
var attempts = backoff.Policy{Min: 200 * time.Millisecond, Max: 2 * time.Second}

// maxReply bounds what is read of a write's reply, in bytes.
const maxReply = 64 << 20

// RoundTrip implements http.RoundTripper.
func (t *Retry) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	switch req.Method {
	case http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		return base.RoundTrip(req)
	}
	req = withToken(req)
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return base.RoundTrip(req)
	}
	within := t.Within
	if within == 0 {
		within = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(req.Context(), within)
	defer cancel()
	var unknown error // of an attempt that may have been applied
	for n := 0; ; n++ {
		resp, err := t.attempt(base, req, n)
		if err == nil && resp.Header.Get(HeaderError) == "" {
			return resp, nil
		}
		again := false
		switch {
		case err != nil && nobody(err):
			again = n > 0
		case err != nil && appliedTwice(req):
			return nil, fmt.Errorf("the write may or may not have been applied: look before you repeat it: %w", err)
		case err != nil:
			unknown, again = err, true
		default:
			switch kind := model.KindNamed(resp.Header.Get(HeaderError)); {
			case kind.Answers():
				return resp, nil
			case kind == model.KindOutcomeUnknown:
				if appliedTwice(req) || resp.Header.Get(HeaderRequestID) == "" {
					return resp, nil
				}
				unknown, again = errors.New(text(resp)), true
			default:
				// This attempt was not applied, or so it says: of one before it
				// that tells nothing.
				again = unknown != nil || kind == model.KindNoLeader
			}
		}
		switch {
		case req.Context().Err() != nil:
			return resp, err
		case again && attempts.Sleep(ctx, n):
			continue
		case !again || unknown == nil:
			return resp, err
		}
		return nil, fmt.Errorf("the write may or may not have been applied, and could not be sent again within %s: look before you repeat it: %w", within, unknown)
	}
}

// attempt sends the request and reads its whole reply, since one that breaks off
// is lost too.
func (t *Retry) attempt(base http.RoundTripper, req *http.Request, n int) (*http.Response, error) {
	if n > 0 && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = body
	}
	resp, err := base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("the reply broke off: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

// nobody reports whether there was no agent to send to.
func nobody(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// withToken returns the request with a token, unless it has one. A dispatch tells
// its own token to its jobs: there ours goes beside it.
func withToken(req *http.Request) *http.Request {
	query := req.URL.Query()
	if query.Get("idempotency_token") != "" || req.Header.Get(HeaderRequestID) != "" {
		return req
	}
	out := req.Clone(req.Context())
	token := model.NewRequestID(time.Now(), nil)
	if strings.HasSuffix(req.URL.Path, "/dispatch") {
		out.Header.Set(HeaderRequestID, token)
		return out
	}
	query.Set("idempotency_token", token)
	out.URL.RawQuery = query.Encode()
	return out
}

// appliedTwice reports whether a write is applied each time that it comes, token or
// not: changes of a cell's own members are no entries of its log.
func appliedTwice(req *http.Request) bool {
	return strings.HasPrefix(req.URL.Path, "/v1/operator/raft/")
}

// text is what an answer says; its body can be read again.
func text(resp *http.Response) string {
	b, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return strings.TrimSpace(string(b))
}
