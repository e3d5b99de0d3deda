package region

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/rpc"
)

// submission is a submit of a multi-region job.
type submission struct {
	// job is canonical and valid. One that has Stop is to be stopped everywhere.
	job      *model.Job
	purge    bool
	priority int
	// asks is what was asked for, for the memory of requests.
	asks     any
	warnings []string
	// from, unless nil, is the version that the job was made from, and enforce the
	// JobModifyIndex of what the region runs that it was made from: a newer one
	// refuses it.
	from    *model.Proposal
	enforce *uint64
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
		if err := sub.enforced(snap); err != nil {
			return nil, err
		}
		if err := s.prepare(ctx, snap, known, p); err != nil {
			return nil, err
		}
		if err := s.current(sub, p); err != nil {
			return nil, err
		}
		if err := p.Check(); err != nil {
			return nil, err // no other region would take it
		}
	}
	index, value, err := s.once(ctx, c, key.Namespace, sub.asks, cell.CmdRolloutVote, &cell.RolloutVote{Proposal: p})
	if err != nil {
		return nil, err
	}
	if voted := value.(*cell.RolloutVoted); voted.ID != p.ID {
		// It came before: what counts is the proposal of that time.
		if past := s.past(key, p.Request); past != nil {
			past.Index, past.Warnings = index, strings.Join(sub.warnings, "\n")
			return past, nil
		}
		if p, err = s.again(ctx, p, voted); err != nil {
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
		if twin(p, rival) {
			return nil, s.underway(p)
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
		if step := rollout.Advance(rollout.Turn{Region: s.region, Now: s.clock.Now(), Gone: never}, snap, nil, r); step != nil {
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

// enforced refuses a submission that was made from another job than the region's.
func (sub *submission) enforced(snap *state.Snapshot) error {
	if sub.enforce == nil {
		return nil
	}
	return cell.EnforceIndex(snap.Job(nil, sub.job.Key()), sub.job.ID, *sub.enforce)
}

// current refuses a submission that was made from what is not the newest any more:
// while its proposal was prepared, another version may have won, and begun.
func (s *rollouts) current(sub *submission, p *model.Proposal) error {
	snap, key := s.snapshot(), p.Key()
	share := snap.Rollout(nil, key).Share(s.region)
	switch {
	case sub.from != nil && sub.from.Mark() != p.Follows:
	case sub.enforce != nil && share != nil && share.State == model.SharePending:
	default:
		return sub.enforced(snap)
	}
	return model.Errorf(model.KindConflict, "version %d of job %q was submitted meanwhile; look at it, and submit again", p.Follows.Version, key.ID)
}

// past is the answer to a submit whose version has won, and was followed by others
// since; nil when it did not, or nothing here tells any more. The newest version
// follows one that has won, and what a region has run has won: that is known by
// when its proposal was made.
func (s *rollouts) past(key model.JobID, request string) *method.JobRegisterResponse {
	snap := s.snapshot()
	r := snap.Rollout(nil, key)
	if r == nil || r.Won == nil || r.Won.Request == request {
		return nil
	}
	for _, before := range r.Won.Before {
		if before.Request != request {
			continue
		}
		out := &method.JobRegisterResponse{Version: &before.Version}
		for _, job := range snap.JobVersions(nil, key) {
			if job.SubmitTime == before.Time {
				out.JobModifyIndex = job.JobModifyIndex
			}
		}
		if out.JobModifyIndex != 0 || r.Won.Follows.ID == before.ID {
			return out
		}
	}
	return nil
}

// again finds the proposal of a submit that came before: its own, or what another
// door made of it.
func (s *rollouts) again(ctx context.Context, p *model.Proposal, voted *cell.RolloutVoted) (*model.Proposal, error) {
	key := p.Key()
	if made := madeBy(s.snapshot().Rollout(nil, key), p.Request); made != nil {
		return made, nil
	}
	// It lost its number, or this region has not heard yet what won it.
	snap := s.snapshot()
	answers, _ := s.hear(ctx, snap, key, concerned(p, snap.Rollout(nil, key)))
	switch _, err := s.catchUp(ctx, key, newestOf(answers)); {
	case model.KindOf(err) == model.KindConflict:
		return nil, s.underway(p) // what has won is on its way here
	case err != nil:
		return nil, err
	}
	if made := madeBy(s.snapshot().Rollout(nil, key), p.Request); made != nil {
		return made, nil
	}
	for _, n := range answers {
		if n != nil && len(n.Undecided) > 0 && n.Undecided[len(n.Undecided)-1].Request == p.Request {
			return nil, s.underway(p)
		}
	}
	return nil, model.Errorf(model.KindConflict, "this submit of job %q came before, as version %d, which is another submit's, or was followed by so many that it cannot be told any more; look at the job, and submit with a new token", key.ID, voted.Version)
}

// madeBy is what a submit made, if that is the newest of a job; else nil.
func madeBy(r *model.Rollout, request string) *model.Proposal {
	switch {
	case r == nil:
	case r.Won != nil && r.Won.Request == request:
		return r.Won
	case r.Accepted != nil && r.Accepted.Request == request:
		return r.Accepted
	}
	return nil
}

// underway says that what another door made of the same submit is not decided yet.
func (s *rollouts) underway(p *model.Proposal) error {
	return &model.Error{Kind: model.KindOutcomeUnknown, Region: s.region, Token: p.Request, Message: fmt.Sprintf(
		"this submit of job %q came to another region before, and is being decided; send it again with the same token", p.Job.ID)}
}

// twin reports whether a version was made of the same submit by another door, as
// its id tells.
func twin(p *model.Proposal, other model.Mark) bool {
	i := strings.LastIndexByte(other.ID, '@')
	return i >= 0 && other.ID[:i] == p.Request && other.ID != p.ID
}

// prepare asks the regions what they know, and gives a proposal its number, what
// it follows and the parts of a divided count.
func (s *rollouts) prepare(ctx context.Context, snap *state.Snapshot, known *model.Rollout, p *model.Proposal) error {
	asked := concerned(p, known)
	answers, errs := s.hear(ctx, snap, p.Key(), asked)
	for i, err := range errs {
		if err == nil {
			p.Version = max(p.Version, answers[i].Open, answers[i].Taken)
			continue
		}
		// One that was forgotten, or is lost, must not keep the job from leaving it.
		listed := i < len(p.Regions()) && !p.Job.Stop
		if listed && (model.KindOf(err) == model.KindUnknownRegion || p.Job.Multiregion.Strategy.OnUnreachable == model.OnUnreachableFail) {
			return fmt.Errorf("cannot submit job %q: %w", p.Job.ID, err)
		}
	}
	newest := newestOf(answers)
	if err := s.undecided(p, newest.Won, answers, asked); err != nil {
		return err
	}
	won, err := s.catchUp(ctx, p.Key(), newest)
	if err != nil {
		return err
	}
	follow(p, won)
	return s.divide(ctx, p, asked, answers)
}

// concerned are the regions that a proposal is for, and then those that have to do
// with the version before it.
func concerned(p *model.Proposal, known *model.Rollout) []string {
	out := p.Regions()
	if known != nil && known.Won != nil {
		for _, region := range known.Won.Participants() {
			if !slices.Contains(out, region) {
				out = append(out, region)
			}
		}
	}
	return out
}

// hear asks regions what they know of a job.
func (s *rollouts) hear(ctx context.Context, snap *state.Snapshot, key model.JobID, regions []string) ([]*method.RolloutNews, []error) {
	return each(regions, func(region string) (*method.RolloutNews, error) {
		if region == s.region {
			n := rollout.News(snap, key)
			n.Count = s.divided(key)
			return &n, nil
		}
		out, err := s.tell(ctx, region, &method.RolloutTellRequest{News: []method.RolloutNews{rollout.News(snap, key)}})
		if err != nil {
			return nil, err
		}
		if len(out.News) != 1 || out.News[0].Key != key || out.News[0].Error != "" {
			return nil, model.Errorf(model.KindInternal, "region %q gave no answer about job %q", region, key.ID)
		}
		return &out.News[0], out.News[0].Check()
	})
}

// newestOf is what the region says that knows the newest version to have won.
func newestOf(answers []*method.RolloutNews) *method.RolloutNews {
	newest := &method.RolloutNews{}
	for _, n := range answers {
		if n != nil && n.Won.After(newest.Won) {
			newest = n
		}
	}
	return newest
}

// catchUp takes up a version that has won, if this region has missed it, and returns
// what is known of the newest. What is over where it is known, and new here, is not
// begun, but followed.
func (s *rollouts) catchUp(ctx context.Context, key model.JobID, newest *method.RolloutNews) (*model.Rollout, error) {
	snap := s.snapshot()
	have := snap.Rollout(nil, key)
	switch missed := newest.Won.ID != "" && (have == nil || newest.Won.After(have.Won.Mark())); {
	case !missed:
		return have, nil
	case newest.Over && newest.Proposal != nil && (have == nil || have.Won == nil):
		return &model.Rollout{Won: newest.Proposal, Shares: newest.Shares, Open: newest.Open}, nil
	}
	body := rollout.Learn(snap, s.region, newest, s.clock.Now())
	if body == nil {
		return nil, model.Errorf(model.KindConflict, "job %q was submitted to another region just now, as version %d; submit it again", key.ID, newest.Won.Version)
	}
	if _, _, err := s.Apply(ctx, cell.CmdRolloutLearn, body); err != nil {
		return nil, err
	}
	return s.snapshot().Rollout(nil, key), nil
}

// follow has a proposal follow the newest version that has won, if there is one.
func follow(p *model.Proposal, known *model.Rollout) {
	p.Born = p.Time
	if known == nil || known.Won == nil {
		return
	}
	p.Base, p.Follows, p.Born = known.Won.Regions(), known.Won.Mark(), known.Won.Born
	p.Version = max(p.Version, known.Open)
	p.Succeeds(known.Won.Submits())
	for _, share := range known.Shares {
		if (share.State != model.ShareStopped || p.Purge) && !slices.Contains(p.Regions(), share.Region) {
			p.Removed = append(p.Removed, share.Region)
		}
	}
}

// settling is how long a submit keeps others from being taken: until then it should
// have been decided, unless regions are out of reach that have to.
const settling = 15 * time.Second

// undecided refuses a proposal while another is being decided: which of them the
// other follows could not be said. One that is not decided for long is overruled.
func (s *rollouts) undecided(p *model.Proposal, won model.Mark, answers []*method.RolloutNews, asked []string) error {
	var other error
	for i, n := range answers {
		if n == nil || len(n.Undecided) == 0 {
			continue
		}
		switch newest := n.Undecided[len(n.Undecided)-1]; {
		case newest.ID == won.ID:
			// That region has not heard yet what others know.
		case newest.Request == p.Request:
			return s.underway(p)
		case s.sights.since(newest.ID, s.clock.Now()) < settling:
			other = model.Errorf(model.KindConflict, "another submit of job %q is being decided, as region %q says; submit it again in a few seconds to have it follow that one", p.Job.ID, asked[i])
		default:
			p.Succeeds(n.Undecided)
		}
	}
	return other
}

// sights are when this server first saw proposals that are not decided. How long
// one has waited is told by the server's own clock alone: that of its door may be
// an hour ahead. Another leader begins to count anew.
type sights struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

// forgotten is when a sight is: a submit does not take so long.
const forgotten = time.Hour

// since is for how long a proposal has been seen.
func (s *sights) since(id string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.seen[id]; ok {
		return now.Sub(at)
	}
	maps.DeleteFunc(s.seen, func(_ string, at time.Time) bool { return now.Sub(at) >= forgotten })
	if s.seen == nil {
		s.seen = make(map[string]time.Time)
	}
	s.seen[id] = now
	return 0
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
