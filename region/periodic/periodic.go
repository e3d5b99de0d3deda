// Package periodic launches the children of periodic jobs at their times. It is
// one of the leader's loops, with one goroutine.
//
// When a job was last launched is in the state, and so is everything else that the
// loop goes by: what comes next is computed from it, here and not in the state
// machine, since servers may know time zones differently. The command that
// launches a child writes both in one step and refuses a time that is over, so
// that whatever leader asks, and however often, there is one child for a time.
// What came due while there was no leader is launched by the next one, as one
// child however many times were missed. That an earlier child prohibits a launch
// is the state machine's to find.
package periodic

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/aside"
	"atoll/internal/clock"
	"atoll/model"
)

// Launch asks for a child of a job for a time.
type Launch struct {
	Job model.JobID
	At  time.Time
}

// Config wires the loop.
type Config struct {
	Snapshot func() *state.Snapshot
	// Launch writes launches; those that failed are tried again.
	Launch func(ctx context.Context, launches []Launch) error
	Clock  clock.Clock
	Log    hclog.Logger
}

const (
	// lookAgain bounds a wait, since the clock on the wall may be set meanwhile.
	lookAgain = time.Minute
	// retry is the pause after a launch that failed.
	retry = time.Second
	// batch bounds the launches that are written together.
	batch = 256
)

// Run launches until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	l := &launcher{log: cfg.Log, aside: aside.Items{Clock: cfg.Clock, Log: cfg.Log}}
	for ctx.Err() == nil {
		ws := make(state.Watch)
		snap := cfg.Snapshot()
		snap.WatchStore(ws)
		now := cfg.Clock.Now()
		due, next := l.look(snap, ws, now)
		wait := lookAgain
		if !next.IsZero() {
			wait = min(wait, next.Sub(now))
		}
		if len(due) > 0 {
			err := cfg.Launch(ctx, due[:min(len(due), batch)])
			if err == nil || ctx.Err() != nil {
				continue
			}
			cfg.Log.Warn("cannot launch periodic jobs; trying again", "error", err)
			ws, wait = make(state.Watch), retry
		}
		waitCtx, cancel := context.WithTimeout(ctx, wait)
		_ = ws.WatchCtx(waitCtx)
		cancel()
	}
	return nil
}

// launcher remembers when each job comes next, for as long as job and last launch
// stay what they are: reading its expressions costs more than all else.
type launcher struct {
	log   hclog.Logger
	aside aside.Items
	known map[model.JobID]*tracked
}

type tracked struct {
	job      *model.Job
	schedule *model.Schedule
	launched int64
	// ahead says that launched is of a clock that was ahead.
	ahead bool
	next  time.Time
}

// look returns what is due now, and when the next launch is, zero for none.
func (l *launcher) look(snap *state.Snapshot, ws state.Watch, now time.Time) (due []Launch, next time.Time) {
	known := make(map[model.JobID]*tracked, len(l.known))
	for j := range snap.PeriodicJobs(ws) {
		key := j.Key()
		l.aside.Do("job", key.Namespace+"/"+key.ID, func() {
			t := l.follow(snap, j, now)
			switch known[key] = t; {
			case t.next.IsZero():
			case t.next.After(now):
				if next.IsZero() || t.next.Before(next) {
					next = t.next
				}
			default:
				due = append(due, Launch{Job: key, At: t.due(now)})
			}
		})
	}
	l.known = known
	return due, next
}

// follow works out when a job comes next. What was launched by a clock that was
// ahead counts as launched when that is seen, so that the job does not rest until
// that time has come.
func (l *launcher) follow(snap *state.Snapshot, j *model.Job, now time.Time) *tracked {
	key := j.Key()
	launched := j.SubmitTime
	if p := snap.Parent(nil, key); p != nil {
		launched = p.Launched
	}
	t := l.known[key]
	if t == nil || t.job != j {
		t = l.track(j)
	}
	ahead := state.LaunchedAhead(launched, now.UnixNano())
	if t.schedule != nil && (t.launched != launched || t.ahead != ahead) {
		since := time.Unix(0, launched)
		if ahead {
			since = now
		}
		t.launched, t.ahead, t.next = launched, ahead, t.schedule.Next(since)
	}
	return t
}

func (l *launcher) track(j *model.Job) *tracked {
	s, err := j.Periodic.Schedule()
	if err != nil {
		l.log.Error("a periodic job is not launched: this server cannot read its schedule", "job", j.ID, "error", err)
	}
	return &tracked{job: j, schedule: s, launched: -1}
}

// due is the time that a child is launched for: the one that came due or, when a
// later one did too, now, which stands for all of them.
func (t *tracked) due(now time.Time) time.Time {
	if later := t.schedule.Next(t.next); !later.IsZero() && !later.After(now) {
		return now.Truncate(time.Second)
	}
	return t.next
}
