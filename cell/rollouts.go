package cell

import (
	"cmp"
	"slices"

	"atoll/cell/state"
	"atoll/internal/wire"
	"atoll/model"
)

// RolloutVote votes for a proposal. It answers with RolloutVoted, or a Conflict
// when the region does not vote for it.
type RolloutVote struct {
	Proposal *model.Proposal
	// Time is now; in entries of before it was noted, the proposal's.
	Time int64
}

// RolloutVoted is the vote that a proposal has: whoever proposes the same again is
// told of the first time's.
type RolloutVoted struct {
	Version uint64
	ID      string
}

// RolloutLearn takes up what the region has learned of a rollout. It answers
// with None.
type RolloutLearn struct {
	Key model.JobID
	// Own is the region.
	Own string
	// Won, unless nil, is a version that has won; Awaits is the id for the
	// deployment that waits for the region's turn then.
	Won    *model.Proposal
	Awaits string
	// Lost, unless "", is a proposal that has not.
	Lost string
	// Open is the lowest number that the region may vote for from now on, and From
	// the region that says so.
	Open uint64
	From string
	// Forgotten, unless "", is a region that an operator had this one forget.
	Forgotten string
	// Shares are of the version that the proposal ID made.
	ID     string
	Shares []model.Share
	Time   int64
}

// RolloutShare moves the region's own share of a version from one state to
// another, and does to the job and its deployment what goes with it. It answers
// with JobRegistered, or a Conflict when the share is in another state.
type RolloutShare struct {
	Key     model.JobID
	Version uint64
	ID      string
	From    model.ShareState
	Share   model.Share
	// Eval acts on what is registered or stopped.
	Eval *model.Evaluation
	// Deployment, unless nil, changes the region's deployment.
	Deployment *DeploymentStatus
}

// RolloutForget forgets a job of which nothing is left, unless anything was heard
// of it meanwhile. It answers with None.
type RolloutForget struct {
	Key model.JobID
	// Index is that of the record's newest change.
	Index uint64
	// Version stands for it in entries that have no Index.
	Version uint64
}

func applyRolloutVote(tx *state.Txn, snap *state.Snapshot, _ uint64, c *RolloutVote) (*RolloutVoted, error) {
	p := c.Proposal
	if err := whole(p); err != nil {
		return nil, err
	}
	if err := admitsJobs(snap); err != nil && !p.Job.Stop {
		return nil, err
	}
	r := rolloutOf(snap, p.Key())
	if why := r.Vote(p); why != "" {
		return nil, model.Errorf(model.KindConflict, "%s; submit it again to have it follow that one", why)
	}
	r.Time = max(r.Time, cmp.Or(c.Time, p.Time))
	return &RolloutVoted{p.Version, p.ID}, tx.PutRollout(r)
}

// whole refuses a proposal of which parts are missing that the state machine and
// the leader's loops go by. What else a proposal must be is for those to say who
// bring it: an entry of the log, wherever it came from, only must not end the
// server.
func whole(p *model.Proposal) error {
	ok := p != nil && p.Job.Multiregional() && p.Job.Multiregion.Strategy != nil && !slices.Contains(p.Job.Multiregion.Regions, nil) && !slices.Contains(p.Job.TaskGroups, nil)
	if ok {
		ok = !slices.ContainsFunc(p.Job.TaskGroups, func(g *model.TaskGroup) bool { return slices.Contains(g.Tasks, nil) })
	}
	if !ok {
		return model.Invalidf("Proposal", "cannot take up a proposal: it holds no multi-region job, or one of which parts are missing")
	}
	return nil
}

// rolloutOf returns a copy to change.
func rolloutOf(snap *state.Snapshot, key model.JobID) *model.Rollout {
	own := snap.Cell(nil)
	if own == nil {
		own = &state.Cell{}
	}
	if have := snap.Rollout(nil, key); have != nil {
		c := *have
		c.Reborn(own.Incarnation, own.Region)
		return &c
	}
	return &model.Rollout{Namespace: key.Namespace, JobID: key.ID, Incarnation: own.Incarnation}
}

func applyRolloutLearn(tx *state.Txn, snap *state.Snapshot, _ uint64, c *RolloutLearn) (*None, error) {
	if c.Won != nil {
		if err := whole(c.Won); err != nil {
			return nil, err
		}
	}
	r := rolloutOf(snap, c.Key)
	changed := r.Drop(c.Lost) || r.Open < c.Open
	changed = r.Heard(c.From, c.Open) || changed
	changed = c.Forgotten != "" && r.Forsake(c.Forgotten, c.Time) || changed
	r.Open = max(r.Open, c.Open)
	switch {
	case c.Won == nil:
	case !r.Adopt(c.Won, c.Own):
		changed = r.Drop(c.Won.ID) || changed // it has won, and is past
	default:
		changed = true
		if err := await(tx, snap, c, r); err != nil {
			return nil, err
		}
		if err := remember(tx, snap, c.Won); err != nil {
			return nil, err
		}
	}
	if changed = r.Hear(c.ID, c.Shares, c.Own) || changed; !changed {
		return &None{}, nil
	}
	r.Time = max(r.Time, c.Time)
	return &None{}, tx.PutRollout(r)
}

// remember has the region know the submits up to a version that it did not vote
// for, should they come by this region's door.
func remember(tx *state.Txn, snap *state.Snapshot, p *model.Proposal) error {
	for _, s := range p.Submits() {
		req := &state.Request{ID: s.Request, Namespace: p.Job.Namespace, Hash: s.Hash, Issued: min(model.RequestIssued(s.Request), s.Time)}
		if kept, err := snap.Recall(req); kept != nil || err != nil {
			continue
		}
		answer, err := wire.Encode(&RolloutVoted{s.Version, s.ID})
		if err != nil {
			return err
		}
		if err := tx.Remember(req, answer); err != nil {
			return err
		}
	}
	return nil
}

// await shows that a deployment waits for the region's turn.
func await(tx *state.Txn, snap *state.Snapshot, c *RolloutLearn, r *model.Rollout) error {
	p := c.Won
	if p.Job.Stop || p.Job.Multiregion.Region(c.Own) == nil || p.Job.Type != model.JobTypeService || c.Awaits == "" {
		return tx.CancelAwaited(c.Key, "cancelled because a newer version of the job stops it here", c.Time)
	}
	d := &model.Deployment{
		ID: c.Awaits, Namespace: c.Key.Namespace, JobID: c.Key.ID, JobVersion: p.Version, EvalPriority: p.EvalPriority,
		StatusDescription: "deployment waits for its region's turn", TaskGroups: make(map[string]*model.DeploymentState),
		CreateTime: c.Time, ModifyTime: c.Time,
	}
	if j := snap.Job(nil, c.Key); j != nil {
		d.JobCreateIndex = j.CreateIndex
	}
	for _, g := range p.Job.InRegion(c.Own, p.Count(c.Own)).TaskGroups {
		if u := g.Update; u.Rolls() {
			d.TaskGroups[g.Name] = &model.DeploymentState{
				AutoRevert: u.AutoRevert, AutoPromote: u.AutoPromote, ProgressDeadline: u.ProgressDeadline, DesiredTotal: g.Count,
			}
		}
	}
	r.Share(c.Own).DeploymentID = d.ID
	return tx.Await(d)
}

func applyRolloutShare(tx *state.Txn, snap *state.Snapshot, index uint64, c *RolloutShare) (*JobRegistered, error) {
	r := rolloutOf(snap, c.Key)
	mine := r.Share(c.Share.Region)
	if r.Won == nil || r.Won.Version != c.Version || r.Won.ID != c.ID || mine == nil || mine.State != c.From {
		return nil, model.Errorf(model.KindConflict, "the share of region %q of version %d of job %q is not %s any more", c.Share.Region, c.Version, c.Key.ID, c.From)
	}
	out := &JobRegistered{}
	share := c.Share
	var err error
	switch share.State {
	case model.ShareRunning:
		job := r.Won.Job.InRegion(share.Region, r.Won.Count(share.Region))
		job.SubmitTime = r.Won.Time
		if why := unfit(snap, job); why != nil {
			share.State, share.Why = model.ShareFailed, why.Error()
			break
		}
		if job, err = tx.UpsertShare(job, c.Version); err == nil {
			share.JobVersion = job.Version
			out, err = registered(tx, index, job, c.Eval)
		}
	case model.ShareStopped:
		// A job of one region that has the name meanwhile is not ours to stop.
		if job := snap.Job(nil, c.Key); job != nil && job.Multiregional() && (!job.Stop || r.Won.Purge) {
			out, err = applyJobDeregister(tx, snap, index, &JobDeregister{Key: c.Key, Purge: r.Won.Purge, Eval: c.Eval})
		}
	}
	if err == nil && c.Deployment != nil {
		_, err = applyDeploymentStatus(tx, snap, index, c.Deployment)
	}
	if err == nil {
		switch share.State {
		case model.ShareFailed:
			err = tx.FailAwaited(c.Key, share.Why, c.Share.Time)
		case model.ShareBlocked, model.ShareSuccessful, model.ShareStopped:
			err = tx.CancelAwaited(c.Key, "cancelled because nothing was left to deploy", c.Share.Time)
		}
	}
	if err != nil {
		return nil, err
	}
	share.EvalID = out.EvalID
	r.Set(share)
	r.Time = max(r.Time, c.Share.Time)
	return out, tx.PutRollout(r)
}

// unfit is why a region cannot take its share of a job, which its door could not
// know.
func unfit(snap *state.Snapshot, job *model.Job) error {
	if err := admitsJobs(snap); err != nil {
		return err
	}
	if err := inNamespace(snap, job); err != nil {
		return err
	}
	if old := snap.Job(nil, job.Key()); old != nil {
		return old.Transition(job)
	}
	return nil
}

func applyRolloutForget(tx *state.Txn, snap *state.Snapshot, _ uint64, c *RolloutForget) (*None, error) {
	r := snap.Rollout(nil, c.Key)
	if r == nil || r.Accepted != nil || c.Index != 0 && r.ModifyIndex != c.Index || c.Index == 0 && (r.Won == nil || r.Won.Version != c.Version) {
		return &None{}, nil
	}
	return &None{}, tx.ForgetRollout(c.Key)
}
