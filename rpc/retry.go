package rpc

import (
	"context"
	"time"

	"atoll/internal/backoff"
	"atoll/model"
	"atoll/model/method"
)

// attempts is the road of one call through changes of its region's leader: the
// server of that region which has the call first holds it and sends it again,
// until its time ends. The zero value has made none.
type attempts struct {
	n int
	// unknown is the error of an attempt that may have been applied: whatever
	// follows, the call's outcome is not known until one succeeds or is refused.
	unknown error
}

// resend is the wait between attempts: an election takes a few hundred
// milliseconds.
var resend = backoff.Policy{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}

// again reports whether a call that failed should be tried anew, once it has
// waited a little. Calls for other regions are held there, and one that a server
// of this region passed on is held by that.
func (a *attempts) again(ctx context.Context, own string, env *Envelope, spec method.Spec, dec Decision, err error) bool {
	if env.Forwarded || spec.Place == method.AtServer || spec.Place == method.AtNode || !dec.Local && dec.Region != own {
		return false
	}
	switch model.KindOf(err) {
	case model.KindNoLeader, model.KindUnreachable:
		// That another region is silent, which the call needed, no leader of ours
		// changes.
		if region := model.AsError(err).Region; region != "" && region != own {
			a.unknown = nil
			return false
		}
	case model.KindOutcomeUnknown:
		if a.unknown = err; !spec.Once {
			return false
		}
	case model.KindDeadline, model.KindCanceled:
		return false // which says nothing of an earlier attempt
	default:
		// It was refused: then an earlier attempt was not applied either, or
		// this one is its answer.
		a.unknown = nil
		return false
	}
	if _, bounded := ctx.Deadline(); !bounded && a.n >= unboundedAttempts {
		return false
	}
	a.n++
	return resend.Sleep(ctx, a.n-1)
}

// unboundedAttempts is for calls that wait by design and so have no deadline.
const unboundedAttempts = 40

// last is the error that a call ends with.
func (a *attempts) last(err error) error {
	if err != nil && a.unknown != nil {
		return a.unknown
	}
	return err
}
