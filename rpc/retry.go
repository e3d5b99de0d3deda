package rpc

import (
	"context"
	"errors"
	"time"

	"atoll/internal/backoff"
	"atoll/model"
	"atoll/model/method"
)

// attempts is the road of one call through the loss of servers. The first server
// of the call's own region that has it holds it through changes of leader and
// sends it again, until its time ends. A door of another region sends it again
// only when the server that had taken it is lost: what the others there can do is
// theirs to do. The zero value has made none.
type attempts struct {
	n int
	// moved says that it was sent to yet another server once.
	moved bool
	// unknown is the error of an attempt that may have been applied: whatever
	// follows, the call's outcome is not known until one succeeds or is answered
	// with a refusal.
	unknown error
	// by is when the caller must have heard something.
	by time.Time
}

// resend is the wait between attempts: an election takes a few hundred
// milliseconds.
var resend = backoff.Policy{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}

// again reports whether a call that failed should be tried anew, once it has
// waited a little. holds says that this server, of the region own, is to hold it.
func (a *attempts) again(ctx context.Context, holds bool, own string, env *Envelope, spec method.Spec, err error) bool {
	var gone *lost
	switch model.KindOf(err) {
	case model.KindNoLeader, model.KindUnreachable:
		// That another region is silent, which the call needed, no leader of ours
		// changes.
		if region := model.AsError(err).Region; holds && region != "" && region != own {
			return false
		}
	case model.KindOutcomeUnknown:
		if a.unknown = err; !spec.Once {
			return false
		}
	case model.KindDeadline, model.KindCanceled:
		return false // which says nothing of an earlier attempt
	default:
		if model.KindOf(err).Answers() {
			a.unknown = nil
		}
		return false
	}
	switch {
	case env.Forwarded:
		return false
	case !holds:
		if !errors.As(err, &gone) || a.moved || !gone.by.IsZero() && time.Until(gone.by) <= 0 {
			return false
		}
		a.moved, a.by = true, gone.by
		return ctx.Err() == nil
	}
	if _, bounded := ctx.Deadline(); !bounded && a.n >= unboundedAttempts {
		return false
	}
	a.n++
	return resend.Sleep(ctx, a.n-1)
}

// onto tells a decision what came before.
func (a *attempts) onto(dec *Decision) { dec.by, dec.again = a.by, a.moved || a.n > 0 }

// holds reports whether a server of the region own holds a call that it decided
// on so.
func holds(own string, spec method.Spec, dec Decision) bool {
	return (spec.Place == method.AtLeader || spec.Place == method.AtLeaderOrStale) && (dec.Local || dec.Region == own)
}

// unboundedAttempts is for calls that wait by design and so have no deadline.
const unboundedAttempts = 40

// last is the error that a call ends with.
func (a *attempts) last(err error) error {
	if err != nil && a.unknown != nil {
		err = a.unknown
	}
	var gone *lost
	if errors.As(err, &gone) {
		return gone.err
	}
	return err
}
