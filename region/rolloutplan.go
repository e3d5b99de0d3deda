package region

import (
	"context"
	"slices"

	"atoll/federation/rollout"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/worker"
	"atoll/rpc"
	"atoll/scheduler"
)

// plan asks each region what a submit would do there. Each holds for the index
// that it names, and all for as long as nobody takes what they found free.
func (s *rollouts) plan(ctx context.Context, c *rpc.Inbound, req *method.RolloutPlanRequest) (*method.RolloutPlanResponse, error) {
	if req.Job == nil || !req.Job.Multiregional() {
		return nil, model.Invalidf("Job", "cannot plan: the request holds no multi-region job")
	}
	job := model.Clone(req.Job)
	job.Canonicalize()
	if _, err := job.Validate(); err != nil {
		return nil, err
	}
	p := &model.Proposal{Request: c.Envelope.RequestID, Job: job, Door: s.region, Time: s.clock.Now().UnixNano()}
	var lost *model.Job
	if req.Without != "" {
		if job.Multiregion.Region(req.Without) == nil || len(job.Multiregion.Regions) == 1 {
			return nil, model.Invalidf("without", "cannot plan job %q without region %q: it runs in %v", job.ID, req.Without, job.Multiregion.RegionNames())
		}
		lost = job.InRegion(req.Without, -1)
		job.Multiregion.Regions = slices.DeleteFunc(job.Multiregion.Regions, func(r *model.MultiregionRegion) bool { return r.Name == req.Without })
	}
	snap := s.snapshot()
	if err := s.prepare(ctx, snap, snap.Rollout(nil, p.Key()), p); err != nil {
		return nil, err
	}
	shares := make(map[string]*model.Job)
	for _, region := range p.Regions() {
		shares[region] = job.InRegion(region, p.Count(region))
	}
	if lost != nil {
		if err := s.inherit(ctx, p, lost, req.Without, shares); err != nil {
			return nil, err
		}
	}
	out := &method.RolloutPlanResponse{Version: p.Version}
	plans, errs := each(p.Regions(), func(region string) (*method.JobPlanResponse, error) {
		return rpc.Call(ctx, s.calls, method.JobPlan, rpc.To{Region: region, Timeout: rolloutTime}, &method.JobPlanRequest{
			Job: shares[region], Diff: req.Diff, Share: &method.PlanShare{Version: p.Version, Count: p.Count(region)},
		})
	})
	for i, region := range p.Regions() {
		plan := method.RegionPlan{Region: region, Plan: plans[i]}
		if errs[i] != nil {
			plan.Error = errs[i].Error()
		}
		out.Regions = append(out.Regions, plan)
	}
	return out, nil
}

// inherit adds to the others' shares what a lost region would have run of each
// group, divided by their room for it. What they divide anyway they have got whole.
func (s *rollouts) inherit(ctx context.Context, p *model.Proposal, lost *model.Job, region string, shares map[string]*model.Job) error {
	if lost.Type == model.JobTypeSystem || lost.Type == model.JobTypeSysBatch {
		return nil // it ran on the region's own nodes
	}
	try := make(map[string]int)
	for _, g := range lost.TaskGroups {
		try[g.Name] = g.Count
	}
	rooms, err := s.rooms(ctx, p, try)
	if err != nil {
		return err
	}
	for _, g := range lost.TaskGroups {
		parts, room := make([]rollout.Part, len(rooms)), make([]int, len(rooms))
		for i := range rooms {
			parts[i].Max, room[i] = g.Count, rooms[i][g.Name]
		}
		more, err := rollout.Capacity(g.Count, parts, room)
		if err != nil {
			return model.Invalidf("without", "job %q does not fit without region %q: for its group %q, beside their own shares, %v", p.Job.ID, region, g.Name, err)
		}
		for i, r := range p.Regions() {
			shares[r].Group(g.Name).Count += more[i]
		}
	}
	return nil
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
		if room, err = s.roomOfAll(ctx, p, m.Count); err != nil {
			return err
		}
	}
	if p.Counts, err = rollout.Counts(m, had, room); err != nil {
		return model.Invalidf("Multiregion.Count", "cannot divide the count of job %q among its regions: %v", p.Job.ID, err)
	}
	return nil
}

// roomOfAll is how many more each region has room for of all groups at once whose
// count the regions divide, up to count.
func (s *rollouts) roomOfAll(ctx context.Context, p *model.Proposal, count int) ([]int, error) {
	try := make(map[string]int)
	for _, g := range p.Job.TaskGroups {
		if g.Count == 0 {
			try[g.Name] = count
		}
	}
	rooms, err := s.rooms(ctx, p, try)
	out := make([]int, len(rooms))
	for i := range rooms {
		out[i] = count
		for group := range try {
			out[i] = min(out[i], rooms[i][group])
		}
	}
	return out, err
}

// rooms asks each region how many more of some groups would fit, up to those that
// are to be tried; one that is out of reach has no room.
func (s *rollouts) rooms(ctx context.Context, p *model.Proposal, try map[string]int) ([]map[string]int, error) {
	rooms := make([]map[string]int, len(p.Regions()))
	answers, errs := each(p.Regions(), func(region string) (*method.RolloutRoomResponse, error) {
		return rpc.Call(ctx, s.calls, method.RolloutRoom, rpc.To{Region: region, Timeout: rolloutTime}, &method.RolloutRoomRequest{Job: p.Job, Region: region, Try: try})
	})
	for i, a := range answers {
		if a != nil {
			rooms[i] = a.Fits
		} else if model.KindOf(errs[i]) == model.KindInvalid {
			return nil, errs[i]
		}
	}
	return rooms, nil
}

// room tries how many more allocations of some groups would fit beside what runs.
func (s *rollouts) room(_ context.Context, _ *rpc.Inbound, req *method.RolloutRoomRequest) (*method.RolloutRoomResponse, error) {
	if req.Job == nil || !req.Job.Multiregional() {
		return nil, model.Invalidf("Job", "cannot look for room: the request holds no multi-region job")
	}
	if _, err := req.Job.Validate(); err != nil {
		return nil, err
	}
	job := req.Job.InRegion(req.Region, 0)
	job.TaskGroups = slices.DeleteFunc(job.TaskGroups, func(g *model.TaskGroup) bool { return req.Try[g.Name] == 0 })
	out := &method.RolloutRoomResponse{Fits: make(map[string]int)}
	if len(job.TaskGroups) == 0 {
		return out, nil
	}
	// It is tried all at once, and as a job of its own.
	job.Stop, job.Update = false, nil
	for _, g := range job.TaskGroups {
		g.Count, g.Update, g.Scaling = req.Try[g.Name], nil, nil
	}
	if _, err := job.Validate(); err != nil {
		return nil, err // what is tried is bounded as what is run
	}
	job.ID += "\x00room"
	now := s.clock.Now()
	eval := newEval(job.Key(), job.Type, job.Priority, model.TriggerJobRegister, now.UnixNano())
	got, err := scheduler.Propose(planned{worker.View{Snapshot: s.snapshot()}, job}, eval, scheduler.Options{Now: now, Rand: worker.NewRand(uint64(now.UnixNano()))})
	if err != nil {
		return nil, err
	}
	for _, g := range job.TaskGroups {
		out.Fits[g.Name] = g.Count - got.Queued[g.Name]
	}
	return out, nil
}
