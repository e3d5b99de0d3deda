package model

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kind classifies an error so that it can be acted on after any number of RPC
// hops. The numbers are on the wire: append only.
type Kind uint8

const (
	// KindInternal is a fault of Atoll or of its machine.
	KindInternal Kind = iota
	// KindInvalid is input that cannot be accepted; Field names it.
	KindInvalid
	KindNotFound
	// KindConflict is a check-and-set or a uniqueness rule that did not hold.
	KindConflict
	KindForbidden
	// KindUnreachable is a region or server that did not answer in time.
	// Nothing was applied there as far as this request is concerned.
	KindUnreachable
	// KindNoLeader is a cell that has no leader at the moment.
	KindNoLeader
	// KindUnsupported is something Nomad has and this version does not.
	KindUnsupported
	// KindDeadline is a call that ran out of the time its caller gave it.
	KindDeadline
	KindTooLarge
	// KindOutcomeUnknown is a write that may or may not have been applied;
	// Token is what to retry it by.
	KindOutcomeUnknown
	// KindLoop is a request that came back to a region already on its path.
	KindLoop
	// KindUnknownRegion is a region that the directory has never seen.
	KindUnknownRegion
	KindCanceled
	// KindBusy is a limit that was reached; the same call may pass later.
	KindBusy
	// KindGone is something that existed and can no longer be had, such as
	// a log file that was rotated away.
	KindGone
)

// kinds gives each kind its name in logs and its HTTP status: the one table
// from errors to statuses.
var kinds = [...]struct {
	name   string
	status int
}{
	KindInternal:       {"internal", http.StatusInternalServerError},
	KindInvalid:        {"invalid", http.StatusBadRequest},
	KindNotFound:       {"not found", http.StatusNotFound},
	KindConflict:       {"conflict", http.StatusConflict},
	KindForbidden:      {"forbidden", http.StatusForbidden},
	KindUnreachable:    {"unreachable", http.StatusBadGateway},
	KindNoLeader:       {"no leader", http.StatusInternalServerError},
	KindUnsupported:    {"unsupported", http.StatusNotImplemented},
	KindDeadline:       {"deadline", http.StatusGatewayTimeout},
	KindTooLarge:       {"too large", http.StatusRequestEntityTooLarge},
	KindOutcomeUnknown: {"outcome unknown", http.StatusInternalServerError},
	KindLoop:           {"forwarding loop", http.StatusInternalServerError},
	KindUnknownRegion:  {"unknown region", http.StatusInternalServerError},
	KindCanceled:       {"canceled", 499},
	KindBusy:           {"busy", http.StatusTooManyRequests},
	KindGone:           {"gone", http.StatusNotFound},
}

func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Code is the kind's name for programs, as in an HTTP header: "outcome_unknown".
func (k Kind) Code() string { return strings.ReplaceAll(k.String(), " ", "_") }

// Answers reports whether an error of the kind is what the request itself came to:
// an earlier attempt at it was not applied either, or this is its answer. Of the
// other kinds, some come from servers on the way, and none says what became of an
// earlier attempt.
func (k Kind) Answers() bool {
	switch k {
	case KindInvalid, KindNotFound, KindConflict:
		return true
	}
	return false
}

// KindNamed is the kind of a Code; KindInternal for one of a newer version.
func KindNamed(code string) Kind {
	for k := range kinds {
		if Kind(k).Code() == code {
			return Kind(k)
		}
	}
	return KindInternal
}

// HTTPStatus is the status that Nomad's clients expect for the kind; kinds
// from a newer version map to 500.
func (k Kind) HTTPStatus() int {
	if int(k) < len(kinds) {
		return kinds[k].status
	}
	return http.StatusInternalServerError
}

// Error is an error that keeps its kind and facts across RPC hops and maps to
// an HTTP status in one place. Message is a whole sentence for a user: what
// happened, to what, since when, what to do. The other fields are for
// programs.
type Error struct {
	Kind    Kind
	Message string
	// Field is the input that was refused, in the spelling of the surface
	// it came by ("group[web].count").
	Field string
	// Region is the region that the error is about.
	Region string
	// LastContact is how long ago that region last answered, by the clock
	// of the agent that made the error. Zero when it never did.
	LastContact time.Duration
	// Token is the request id by which a write of unknown outcome can be
	// retried.
	Token string
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is(err, &Error{Kind: k}) hold for every error of kind k.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Message == ""
}

// Errorf makes an error of kind k; err's text is included through %w or %v in
// the format as with fmt.Errorf, its identity is not kept.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Errorf(format, args...).Error()}
}

// Invalidf makes a KindInvalid error about field.
func Invalidf(field, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// NotFound says that no what is called name.
func NotFound(what, name string) *Error {
	return &Error{Kind: KindNotFound, Message: fmt.Sprintf("%s %q not found", what, name)}
}

// NoAnswer says that a region did not answer: why, and how long before now it
// last did; contact is zero when this agent never reached it.
func NoAnswer(region string, cause error, contact, now time.Time) *Error {
	e := &Error{Kind: KindUnreachable, Region: region}
	what := "no answer"
	if cause != nil && KindOf(cause) != KindDeadline {
		what = cause.Error()
	}
	if contact.IsZero() {
		e.Message = fmt.Sprintf("region %q is unreachable: %s; this agent never reached it", region, what)
		return e
	}
	e.LastContact = now.Sub(contact)
	e.Message = fmt.Sprintf("region %q is unreachable: %s; last contact %s ago, at %s",
		region, what, e.LastContact.Round(100*time.Millisecond), contact.UTC().Format(time.RFC3339))
	return e
}

// KindOf returns the kind of err: of the first *Error in its chain, else by
// the context errors, else KindInternal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	case errors.Is(err, context.Canceled):
		return KindCanceled
	}
	return KindInternal
}

// AsError returns err as an *Error that can travel: itself when it is one,
// else a new one with err's text and kind. The text of a wrapping error is
// kept, since it says what was being tried.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if err == error(e) || err.Error() == e.Message {
			return e
		}
		out := *e
		out.Message = err.Error()
		return &out
	}
	return &Error{Kind: KindOf(err), Message: err.Error()}
}
