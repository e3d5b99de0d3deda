package rollout

import (
	"slices"
	"time"

	"atoll/cell/state"
	"atoll/model"
)

// A region that has nothing of a job may have forgotten it, or may have been
// rebuilt and be meant to run it: those who know the job cannot tell. So what is
// over in a region is not brought to one that has nothing of it, and a region
// forgets only what is over everywhere: as long as the job runs in any of its
// regions, the others remember that they have ended it.

// over reports whether nothing of a job is left to do or to hear of in the region,
// nor runs there.
func over(snap *state.Snapshot, key model.JobID, r *model.Rollout) bool {
	return (r == nil || r.Settled()) && !runs(snap.Job(nil, key))
}

// runs reports whether a job is a multi-region one that the region is to run. What
// has come to its end by itself is not.
func runs(job *model.Job) bool {
	if job == nil || !job.Multiregional() || job.Stop {
		return false
	}
	ends := job.Type == model.JobTypeBatch || job.Type == model.JobTypeSysBatch
	return !ends || job.Status != model.JobStatusDead
}

// forgets reports whether a rollout is to be forgotten: nothing of the job is here,
// nor was anything heard of it for long, and it is over in all its regions. Of one
// that was stopped in all, that is known; of others the regions have to say it.
func (l *loop) forgets(snap *state.Snapshot, r *model.Rollout) bool {
	last := r.Time
	if mine := r.Share(l.Region); mine != nil {
		last = max(last, mine.Time)
	}
	keep := kept
	if slices.ContainsFunc(r.Shares, func(s model.Share) bool { return s.Forsaken }) {
		keep = keptForsaken
	}
	if !r.Settled() || l.Clock.Now().Sub(time.Unix(0, last)) < keep {
		return false
	}
	if job := snap.Job(nil, r.Key()); job != nil && job.Multiregional() {
		return false
	}
	stopped := r.Won == nil || r.Won.Job.Stop
	return !slices.ContainsFunc(concerned(r), func(region string) bool {
		return region != l.Region && (unheard(snap, r, region) || !stopped && !l.over(region, r.Key()))
	})
}

// over reports whether a region has said that a job is over there, or has not been
// known for long.
func (l *loop) over(region string, key model.JobID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[region]
	return p != nil && (p.holds[key].over || p.unknown && l.Clock.Now().Sub(p.failing) >= kept)
}
