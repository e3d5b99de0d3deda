package model

import (
	"fmt"
	"math"
)

// Check refuses a proposal that no door makes. What another region sends is
// committed before anything looks into it, and the state machines, the policy and
// the schedulers rely on what is checked here: a fault in it would end each server
// of the region in turn, and again after its restart. What a job asks for and this
// version does not support is no such fault. The error is Invalid.
func (p *Proposal) Check() error {
	refuse := func(what string, args ...any) error {
		return Invalidf("Proposal", "cannot take a proposal: %s", fmt.Sprintf(what, args...))
	}
	switch {
	case p == nil:
		return refuse("there is none")
	case p.Job == nil:
		return refuse("it holds no job")
	case p.Job.ID == "" || p.Job.Namespace == "":
		return refuse("its job has no id, or no namespace")
	case p.ID == "":
		return refuse("that of job %q has no id", p.Job.ID)
	case len(p.Job.ID) > maxIDLen, len(p.Job.Namespace) > maxIDLen, len(p.Request) > maxIDLen, len(p.ID) > 4*maxIDLen:
		return refuse("its ids are over the limit of %d bytes", maxIDLen) // its own has the request's and a region's in it
	case p.Version == math.MaxUint64:
		return refuse("no version of job %q could follow version %d", p.Job.ID, p.Version)
	case !p.Job.Multiregional():
		return refuse("job %q is no multi-region job", p.Job.ID)
	case p.Job.Multiregion.Strategy == nil:
		return refuse("the multiregion block of job %q has no strategy", p.Job.ID)
	}
	for i, r := range p.Job.Multiregion.Regions {
		if r == nil || r.Name == "" {
			return refuse("region %d of job %q has no name", i, p.Job.ID)
		}
	}
	if p.Job.Stop {
		return nil // nothing of it is run
	}
	for _, g := range p.Job.TaskGroups {
		if gap := g.gap(p.Job); gap != "" {
			return refuse("job %q is not canonical: %s", p.Job.ID, gap)
		}
	}
	list, _ := p.Job.Faults()
	for _, f := range list {
		if f.Kind == KindInvalid {
			return p.Job.refuse([]*Error{f})
		}
	}
	for _, n := range p.Counts {
		if n < 0 || n > maxCount || p.Job.total(n) > maxCount {
			return refuse("%d cannot be a region's part of the count of job %q", n, p.Job.ID)
		}
	}
	return nil
}

// gap is what Canonicalize would have filled in, "" for nothing.
func (g *TaskGroup) gap(j *Job) string {
	switch {
	case g == nil:
		return "a group is null"
	case g.RestartPolicy == nil, g.EphemeralDisk == nil, g.ReschedulePolicy == nil && !j.everywhere(),
		j.Type == JobTypeService && (g.Update == nil || g.Migrate == nil):
		return fmt.Sprintf("group %.*q lacks a block", maxIDLen, g.Name)
	}
	for _, t := range g.Tasks {
		if t == nil || t.RestartPolicy == nil || t.LogConfig == nil || t.Resources == nil {
			return fmt.Sprintf("a task of group %.*q lacks a block", maxIDLen, g.Name)
		}
	}
	return ""
}
