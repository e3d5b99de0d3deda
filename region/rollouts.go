package region

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	policy "atoll/federation/rollout"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/region/worker"
	"atoll/rpc"
	"atoll/scheduler"
)

// rollouts serves the Rollout methods, and is the door for submits of
// multi-region jobs.
type rollouts struct {
	*reader
	*writer
	region string
	calls  rpc.Caller
	links
}

// links are the ways to other regions that a submit and the leader's loop share.
type links struct {
	tell    func(ctx context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error)
	askVote func(ctx context.Context, region string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error)
}

// rolloutTime bounds a call to another region about a rollout.
const rolloutTime = 1800 * time.Millisecond

func linksBy(calls rpc.Caller) links {
	return links{
		func(ctx context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
			return rpc.Call(ctx, calls, method.RolloutTell, rpc.To{Region: region, Timeout: rolloutTime}, req)
		},
		func(ctx context.Context, region string, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
			return rpc.Call(ctx, calls, method.RolloutVote, rpc.To{Region: region, Timeout: rolloutTime}, req)
		},
	}
}

func (s *rollouts) bind(r *rpc.Server) {
	rpc.Handle(r, method.RolloutTell, s.told)
	rpc.Handle(r, method.RolloutVote, s.vote)
	rpc.Handle(r, method.RolloutRoom, s.room)
	rpc.Handle(r, method.RolloutPlan, s.plan)
	rpc.Handle(r, method.RolloutGet, s.get)
}

// maxNews bounds the jobs of one exchange.
const maxNews = 1024

func (s *rollouts) told(ctx context.Context, _ *rpc.Inbound, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
	if len(req.News) > maxNews {
		return nil, model.Invalidf("News", "cannot hear of %d rollouts at once: the limit is %d", len(req.News), maxNews)
	}
	out := &method.RolloutTellResponse{News: make([]method.RolloutNews, len(req.News))}
	var wg sync.WaitGroup
	for i := range req.News {
		n := &req.News[i]
		wg.Go(func() {
			if body := rollout.Learn(s.snapshot(), s.region, n, s.clock.Now()); body != nil {
				if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, body); err != nil {
					out.News[i] = method.RolloutNews{Key: n.Key, Region: s.region, Error: err.Error()}
					return
				}
			}
			out.News[i] = rollout.Answer(s.snapshot(), n)
			out.News[i].Count = s.divided(n.Key)
		})
	}
	wg.Wait()
	rollout.Bound(out.News)
	return out, nil
}

// divided is what the region's job has now of a count that the regions divide.
func (s *rollouts) divided(key model.JobID) (n int) {
	snap := s.snapshot()
	r, job := snap.Rollout(nil, key), snap.Job(nil, key)
	if !r.Live() || job.Stopped() {
		return 0
	}
	for _, g := range r.Won.Job.TaskGroups {
		if have := job.Group(g.Name); g.Count == 0 && have != nil {
			n = max(n, have.Count)
		}
	}
	return n
}

// vote votes under the submit's request id, so that the same submit, if it comes
// by this door, finds it.
func (s *rollouts) vote(ctx context.Context, _ *rpc.Inbound, req *method.RolloutVoteRequest) (*method.RolloutVoteResponse, error) {
	p := req.Proposal
	if p == nil || p.Job == nil || !p.Job.Multiregional() {
		return nil, model.Invalidf("Proposal", "cannot vote: the request holds no multi-region job")
	}
	asked := &state.Request{
		ID: p.Request, Namespace: p.Job.Namespace, Hash: p.Hash, Issued: min(model.RequestIssued(p.Request), s.clock.Now().UnixNano()),
	}
	_, _, err := s.ApplyOnce(ctx, cell.CmdRolloutVote, asked, &cell.RolloutVote{Proposal: p, Time: s.clock.Now().UnixNano()})
	out := &method.RolloutVoteResponse{}
	if err != nil {
		if model.KindOf(err) != model.KindConflict {
			return nil, err
		}
		out.Why = model.AsError(err).Message
	}
	snap := s.snapshot()
	r := snap.Rollout(nil, p.Key())
	if r != nil && (r.Voted(p.Version) == p.ID || r.Won.Mark() == p.Mark()) {
		out.Yes = true
		return out, nil
	}
	if kept, why := snap.Recall(asked); kept != nil || why != nil {
		// It is the memory of requests that says no, which is no vote: the number
		// is let go, so that whoever counts is not left waiting.
		out.Why = cmp.Or(out.Why, "the same submit came by another region, or is over")
		if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, &cell.RolloutLearn{Key: p.Key(), Own: s.region, Open: p.Version + 1, Time: s.clock.Now().UnixNano()}); err != nil {
			return nil, err
		}
		r = s.snapshot().Rollout(nil, p.Key())
	}
	if r != nil {
		out.Never = r.Refuses(p)
		if out.Rival = r.Won.Mark(); r.Accepted.Mark().After(out.Rival) {
			out.Rival = r.Accepted.Mark()
		}
	}
	return out, nil
}

func (s *rollouts) get(ctx context.Context, _ *rpc.Inbound, req *method.JobRequest) (*method.RolloutResponse, error) {
	out := &method.RolloutResponse{}
	return out, s.read(ctx, &req.Query, &out.Meta, func(ws state.Watch, snap *state.Snapshot) (uint64, error) {
		if out.Rollout = snap.Rollout(ws, jobKey(&req.Query, req.JobID)); out.Rollout == nil {
			return snap.RolloutsIndex(), nil
		}
		return out.Rollout.ModifyIndex, nil
	})
}

// room tries how many more allocations of each group that divides a count would
// fit beside what runs.
func (s *rollouts) room(_ context.Context, _ *rpc.Inbound, req *method.RolloutRoomRequest) (*method.RolloutRoomResponse, error) {
	if req.Job == nil || !req.Job.Multiregional() || req.Count < 0 {
		return nil, model.Invalidf("Job", "cannot look for room: the request holds no multi-region job")
	}
	job := req.Job.InRegion(req.Region, req.Count)
	job.ID, job.Stop = job.ID+"\x00room", false
	job.Update = nil
	groups := job.TaskGroups[:0]
	for i, g := range req.Job.TaskGroups {
		if g.Count == 0 {
			job.TaskGroups[i].Update = nil
			groups = append(groups, job.TaskGroups[i])
		}
	}
	job.TaskGroups = groups
	now := s.clock.Now()
	eval := newEval(job.Key(), job.Type, job.Priority, model.TriggerJobRegister, now.UnixNano())
	got, err := scheduler.Propose(planned{worker.View{Snapshot: s.snapshot()}, job}, eval, scheduler.Options{Now: now, Rand: worker.NewRand(uint64(now.UnixNano()))})
	if err != nil {
		return nil, err
	}
	room := req.Count
	for _, g := range groups {
		room = min(room, req.Count-got.Queued[g.Name])
	}
	return &method.RolloutRoomResponse{Room: room}, nil
}

// submission is a submit of a multi-region job.
type submission struct {
	// job is canonical and valid. One that has Stop is to be stopped everywhere.
	job      *model.Job
	purge    bool
	priority int
	// asks is what was asked for, for the memory of requests.
	asks     any
	warnings []string
	// from, unless nil, is the version that the job was made from, and exact says
	// that it was made for no other than what the region runs: a newer one refuses
	// it.
	from  *model.Proposal
	exact bool
}

// submit has a version of a multi-region job voted for by its regions, and tells
// them when it has won. It ends once every region that can be reached holds it.
func (s *rollouts) submit(ctx context.Context, c *rpc.Inbound, sub *submission) (*method.JobRegisterResponse, error) {
	key := sub.job.Key()
	p := &model.Proposal{
		ID: c.Envelope.RequestID + "@" + s.region + "/" + model.NewUUID(nil).String()[:8], Request: c.Envelope.RequestID, Job: sub.job, Purge: sub.purge, Door: s.region,
		Time: s.clock.Now().UnixNano(), EvalPriority: sub.priority,
	}
	asked, err := request(c.Envelope.Method, p.Request, key.Namespace, sub.asks)
	if err != nil {
		return nil, err
	}
	p.Hash = asked.Hash
	snap := s.snapshot()
	kept, err := snap.Recall(asked)
	if err != nil {
		return nil, err
	}
	if kept == nil {
		known := snap.Rollout(nil, key)
		if !slices.Contains(p.Regions(), s.region) && (known == nil || known.Won == nil || !slices.Contains(known.Won.Regions(), s.region)) {
			return nil, model.Invalidf("Region", "cannot submit job %q here: region %q is not one of its regions; submit it to %s", key.ID, s.region, strings.Join(p.Regions(), ", "))
		}
		if err := s.prepare(ctx, snap, known, p); err != nil {
			return nil, err
		}
		if err := s.current(sub, key, p); err != nil {
			return nil, err
		}
	}
	index, value, err := s.once(ctx, c, key.Namespace, sub.asks, cell.CmdRolloutVote, &cell.RolloutVote{Proposal: p})
	if err != nil {
		return nil, err
	}
	if voted := value.(*cell.RolloutVoted); voted.ID != p.ID {
		// It came before: what counts is the proposal of that time.
		if p, err = s.again(key, p.Request, voted); err != nil {
			return nil, err
		}
	}
	holders, rival, verdict := s.poll(ctx, p)
	if r := s.snapshot().Rollout(nil, key); r != nil && r.Won.Mark() == p.Mark() {
		verdict = model.VerdictWon // whoever is out of reach now
	}
	out := &method.JobRegisterResponse{Index: index, Warnings: strings.Join(sub.warnings, "\n"), Version: &p.Version, Regions: holders}
	switch verdict {
	case model.VerdictLost:
		_, _, err := s.Apply(ctx, cell.CmdRolloutLearn, &cell.RolloutLearn{Key: key, Own: s.region, Lost: p.ID, Time: p.Time})
		if err != nil {
			return nil, err
		}
		return nil, model.Errorf(model.KindConflict, "version %d of job %q is another submit's: %s; submit it again to have it follow that one", p.Version, key.ID, explain(holders))
	case model.VerdictOpen:
		return nil, &model.Error{Kind: model.KindOutcomeUnknown, Region: s.region, Token: p.Request, Message: fmt.Sprintf(
			"version %d of job %q waits for a majority of its regions: %s; it begins by itself once they can be reached", p.Version, key.ID, explain(holders))}
	}
	if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, rollout.Won(p, s.region, s.clock.Now())); err != nil {
		return nil, err
	}
	if p.Follows.ID == "" && rival.After(p.Mark()) {
		// Nothing that both follow keeps the two apart.
		return nil, &model.Error{Kind: model.KindOutcomeUnknown, Region: s.region, Token: p.Request, Message: fmt.Sprintf(
			"job %q was submitted for other regions at the same moment: %s; the younger of the two is to stay; send this again with the same token to hear which", key.ID, explain(holders))}
	}
	s.begin(ctx, p, out)
	return out, nil
}

// came reports whether a call came before: what it asks for was checked then.
func (s *rollouts) came(c *rpc.Inbound, namespace string, asks any) bool {
	asked, err := request(c.Envelope.Method, c.Envelope.RequestID, namespace, asks)
	if err != nil {
		return false
	}
	kept, err := s.snapshot().Recall(asked)
	return kept != nil && err == nil
}

// begin takes the door's first step at once, so that the answer can name its
// evaluation.
func (s *rollouts) begin(ctx context.Context, p *model.Proposal, out *method.JobRegisterResponse) {
	key := p.Key()
	snap := s.snapshot()
	r := snap.Rollout(nil, key)
	// Only the first step: the others are the loop's, which can fail deployments.
	if mine := r.Share(s.region); mine != nil && mine.State == model.SharePending && r.Won.Mark() == p.Mark() {
		never := func(string) bool { return false }
		if step := rollout.Advance(&rollout.Config{Region: s.region, Clock: s.clock}, snap, nil, r, never); step != nil {
			i, value, err := s.Apply(ctx, cell.CmdRolloutShare, step)
			if err == nil {
				done := value.(*cell.JobRegistered)
				out.Index, out.JobModifyIndex, out.EvalID, out.EvalCreateIndex = i, done.JobModifyIndex, done.EvalID, i
			}
		}
	}
	if share := s.snapshot().Rollout(nil, key).Share(s.region); out.EvalID == "" && share != nil && share.EvalID != "" {
		out.EvalID = share.EvalID
	}
	if job := s.snapshot().Job(nil, key); job != nil && out.JobModifyIndex == 0 {
		out.JobModifyIndex = job.JobModifyIndex
	}
}

// current refuses a submission that was made from a version which is not the
// newest any more.
func (s *rollouts) current(sub *submission, key model.JobID, p *model.Proposal) error {
	share := s.snapshot().Rollout(nil, key).Share(s.region)
	switch {
	case sub.from != nil && sub.from.Mark() != p.Follows:
	case sub.exact && share != nil && share.State == model.SharePending:
	default:
		return nil
	}
	return model.Errorf(model.KindConflict, "version %d of job %q was submitted meanwhile; look at it, and submit again", p.Follows.Version, key.ID)
}

// again finds the proposal that a submit made when it came first.
func (s *rollouts) again(key model.JobID, request string, voted *cell.RolloutVoted) (*model.Proposal, error) {
	r := s.snapshot().Rollout(nil, key)
	switch {
	case r == nil:
	case r.Won != nil && r.Won.Request == request:
		return r.Won, nil
	case r.Accepted != nil && r.Accepted.Request == request:
		return r.Accepted, nil
	}
	return nil, model.Errorf(model.KindConflict, "this submit of job %q came before, for version %d, and a later one has been submitted since; look at the job, and submit with a new token", key.ID, voted.Version)
}

// prepare asks the regions what they know, and gives a proposal its number, what
// it follows and the parts of a divided count.
func (s *rollouts) prepare(ctx context.Context, snap *state.Snapshot, known *model.Rollout, p *model.Proposal) error {
	key := p.Key()
	asked := p.Regions()
	if known != nil && known.Won != nil {
		for _, region := range known.Won.Participants() {
			if !slices.Contains(asked, region) {
				asked = append(asked, region)
			}
		}
	}
	answers, errs := each(asked, func(region string) (*method.RolloutNews, error) {
		if region == s.region {
			n := rollout.News(snap, key)
			n.Count = s.divided(key)
			return &n, nil
		}
		out, err := s.tell(ctx, region, &method.RolloutTellRequest{News: []method.RolloutNews{rollout.News(snap, key)}})
		if err != nil {
			return nil, err
		}
		if len(out.News) != 1 || out.News[0].Error != "" {
			return nil, model.Errorf(model.KindInternal, "region %q gave no answer about job %q", region, key.ID)
		}
		return &out.News[0], nil
	})
	strategy := p.Job.Multiregion.Strategy
	newest := &method.RolloutNews{}
	for i, n := range answers {
		if n == nil {
			// One that was forgotten, or is lost, must not keep the job from leaving
			// it.
			kind, listed := model.KindOf(errs[i]), i < len(p.Regions()) && !p.Job.Stop
			if listed && (kind == model.KindUnknownRegion || strategy.OnUnreachable == model.OnUnreachableFail) {
				return fmt.Errorf("cannot submit job %q: %w", key.ID, errs[i])
			}
			continue
		}
		p.Version = max(p.Version, n.Open, n.Taken)
		if n.Won.After(newest.Won) {
			newest = n
		}
	}
	if err := s.undecided(p, newest.Won, answers, asked); err != nil {
		return err
	}
	have := snap.Rollout(nil, key)
	missed := newest.Won.ID != "" && (have == nil || newest.Won.After(have.Won.Mark()))
	// What is over where it is known is not begun here, but followed.
	ended := missed && newest.Over && newest.Proposal != nil && (have == nil || have.Won == nil)
	if missed && !ended {
		// We have missed it: it comes first.
		body := rollout.Learn(snap, s.region, newest, s.clock.Now())
		if body == nil {
			return model.Errorf(model.KindConflict, "job %q was submitted to another region just now, as version %d; submit it again", key.ID, newest.Won.Version)
		}
		if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, body); err != nil {
			return err
		}
	}
	if known = s.snapshot().Rollout(nil, key); ended && (known == nil || known.Won == nil) {
		known = &model.Rollout{Won: newest.Proposal, Shares: newest.Shares, Open: newest.Open}
	}
	p.Born = p.Time
	if known != nil && known.Won != nil {
		p.Base, p.Follows, p.Born = known.Won.Regions(), known.Won.Mark(), known.Won.Born
		p.Version = max(p.Version, known.Open)
		p.Succeeds(known.Won.Submits())
		for _, share := range known.Shares {
			if (share.State != model.ShareStopped || p.Purge) && !slices.Contains(p.Regions(), share.Region) {
				p.Removed = append(p.Removed, share.Region)
			}
		}
	}
	return s.divide(ctx, p, asked, answers)
}

// settling is how long a submit keeps others from being taken: until then it should
// have been decided, unless regions are out of reach that have to.
const settling = 15 * time.Second

// undecided refuses a proposal while another is being decided: which of them the
// other follows could not be said. One that is not decided for long is overruled.
func (s *rollouts) undecided(p *model.Proposal, won model.Mark, answers []*method.RolloutNews, asked []string) error {
	var other error
	for i, n := range answers {
		switch {
		case n == nil || len(n.Undecided) == 0:
		case n.Undecided[len(n.Undecided)-1].ID == won.ID:
			// That region has not heard yet what others know.
		case n.Undecided[len(n.Undecided)-1].Request == p.Request:
			return &model.Error{Kind: model.KindOutcomeUnknown, Region: s.region, Token: p.Request, Message: fmt.Sprintf(
				"this submit of job %q came to another region before, and is being decided; send it again with the same token", p.Job.ID)}
		case s.clock.Now().Sub(time.Unix(0, n.Undecided[len(n.Undecided)-1].Time)) < settling:
			other = model.Errorf(model.KindConflict, "another submit of job %q is being decided, as region %q says; submit it again in a few seconds to have it follow that one", p.Job.ID, asked[i])
		default:
			p.Succeeds(n.Undecided)
		}
	}
	return other
}

// divide fixes the parts of a count that the regions divide.
func (s *rollouts) divide(ctx context.Context, p *model.Proposal, asked []string, answers []*method.RolloutNews) (err error) {
	m := p.Job.Multiregion
	if !m.Divides() || p.Job.Stop {
		return nil
	}
	had, room := make([]int, len(m.Regions)), []int(nil)
	known := s.snapshot().Rollout(nil, p.Key())
	for i, region := range p.Regions() {
		// A region that is out of reach keeps what it was given.
		if known.Live() {
			had[i] = max(0, known.Won.Count(region))
		}
		if n := answers[slices.Index(asked, region)]; n != nil {
			had[i] = n.Count
		}
	}
	if m.Placement == model.PlacementCapacity {
		if room, err = s.rooms(ctx, p, m.Count); err != nil {
			return err
		}
	}
	if p.Counts, err = policy.Counts(m, had, room); err != nil {
		return model.Invalidf("Multiregion.Count", "cannot divide the count of job %q among its regions: %v", p.Job.ID, err)
	}
	return nil
}

// rooms asks each region how many more of a job would fit, up to count; one that
// is out of reach has no room.
func (s *rollouts) rooms(ctx context.Context, p *model.Proposal, count int) ([]int, error) {
	room := make([]int, len(p.Regions()))
	answers, errs := each(p.Regions(), func(region string) (*method.RolloutRoomResponse, error) {
		return rpc.Call(ctx, s.calls, method.RolloutRoom, rpc.To{Region: region, Timeout: rolloutTime}, &method.RolloutRoomRequest{Job: p.Job, Region: region, Count: count})
	})
	for i, a := range answers {
		if a != nil {
			room[i] = a.Room
		} else if model.KindOf(errs[i]) == model.KindInvalid {
			return nil, errs[i]
		}
	}
	return room, nil
}

// poll asks all voters for their votes. rival is the newest of what those have
// voted for who have not for this, or know to have won.
func (s *rollouts) poll(ctx context.Context, p *model.Proposal) (holders []method.RolloutHolder, rival model.Mark, verdict model.Verdict) {
	voters := p.Voters()
	answers, errs := each(voters, func(region string) (*method.RolloutVoteResponse, error) {
		if region == s.region {
			return &method.RolloutVoteResponse{Yes: true}, nil
		}
		return s.askVote(ctx, region, &method.RolloutVoteRequest{Proposal: p})
	})
	var yes, no []string
	for i, region := range voters {
		h := method.RolloutHolder{Region: region}
		switch a := answers[i]; {
		case a == nil:
			h.Error = errs[i].Error()
		case a.Yes:
			h.Holds = true
			yes = append(yes, region)
		default:
			h.Error = a.Why
			if a.Rival.After(rival) {
				rival = a.Rival
			}
			if a.Never {
				no = append(no, region)
			}
		}
		holders = append(holders, h)
	}
	return holders, rival, p.Judge(yes, no)
}

func explain(holders []method.RolloutHolder) string {
	var parts []string
	for _, h := range holders {
		if h.Holds {
			parts = append(parts, h.Region+" has voted for it")
		} else {
			parts = append(parts, h.Region+" has not ("+h.Error+")")
		}
	}
	return strings.Join(parts, ", ")
}

// each asks all regions at once.
func each[T any](regions []string, ask func(region string) (*T, error)) ([]*T, []error) {
	out, errs := make([]*T, len(regions)), make([]error, len(regions))
	var wg sync.WaitGroup
	for i, region := range regions {
		wg.Go(func() {
			if out[i], errs[i] = ask(region); errs[i] != nil {
				out[i] = nil
			}
		})
	}
	wg.Wait()
	return out, errs
}
