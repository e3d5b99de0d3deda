package model

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Multiregion says that a job runs in several regions, and how a new version
// reaches them. A job without it runs in one.
type Multiregion struct {
	Strategy *MultiregionStrategy
	Regions  []*MultiregionRegion
	// Count, unless 0, is divided among the regions by Placement, for groups
	// that say count = 0.
	Count     int    `json:",omitempty"`
	Placement string `json:",omitempty"`
}

// MultiregionStrategy says how many regions change at a time, and what the
// failure or the silence of one means for the others.
type MultiregionStrategy struct {
	// MaxParallel is the number of regions that may be unfinished before the
	// next one starts; 0 is all.
	MaxParallel int
	OnFailure   string
	// OnUnreachable is about a region that cannot be reached when its turn
	// has come.
	OnUnreachable string `json:",omitempty"`
}

// MultiregionRegion is one region's share of the job.
type MultiregionRegion struct {
	Name string
	// Count is for groups that say count = 0, unless the block has a count to
	// divide.
	Count int
	// Datacenters and NodePool replace the job's, when given; Meta is merged
	// over the job's.
	Datacenters []string
	NodePool    string
	Meta        map[string]string
	// Weight is what a weighted placement goes by, 1 when not given; Min and
	// Max bound the region's part of what is divided, a Max of 0 does not.
	Weight int `json:",omitempty"`
	Min    int `json:",omitempty"`
	Max    int `json:",omitempty"`
}

// What a multiregion block may say.
const (
	// OnFailureRest fails the failed region and all later ones.
	OnFailureRest = ""
	// OnFailureAll fails all that are not successful yet.
	OnFailureAll = "fail_all"
	// OnFailureLocal fails the failed region alone.
	OnFailureLocal = "fail_local"

	OnUnreachableWait = "wait"
	OnUnreachableSkip = "skip"
	OnUnreachableFail = "fail"

	PlacementStatic   = "static"
	PlacementWeighted = "weighted"
	PlacementCapacity = "capacity"
)

// maxRegions bounds the regions of a job.
const maxRegions = 64

// Multiregional reports whether the job runs in the regions that it lists.
func (j *Job) Multiregional() bool {
	return j != nil && j.Multiregion != nil && len(j.Multiregion.Regions) > 0
}

// RegionNames are the job's regions, in the order in which they change.
func (m *Multiregion) RegionNames() (names []string) {
	for _, r := range m.Regions {
		names = append(names, r.Name)
	}
	return names
}

// Region returns the part of a region, nil when it is not listed.
func (m *Multiregion) Region(name string) *MultiregionRegion {
	for _, r := range m.Regions {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Divides reports whether the block has a count to divide among the regions.
func (m *Multiregion) Divides() bool { return m.Count > 0 }

// NewMultiregionRegion returns one that says nothing yet.
func NewMultiregionRegion() *MultiregionRegion {
	return &MultiregionRegion{Count: Unset, Weight: Unset}
}

func (r *MultiregionRegion) UnmarshalJSON(b []byte) error {
	type plain MultiregionRegion
	*r = *NewMultiregionRegion()
	return json.Unmarshal(b, (*plain)(r))
}

func (m *Multiregion) canonicalize() {
	if m.Strategy == nil {
		m.Strategy = &MultiregionStrategy{}
	}
	m.Strategy.OnUnreachable = cmp.Or(m.Strategy.OnUnreachable, OnUnreachableWait)
	if m.Divides() {
		m.Placement = cmp.Or(m.Placement, PlacementWeighted)
	} else {
		m.Placement = cmp.Or(m.Placement, PlacementStatic)
	}
	for _, r := range m.Regions {
		if r == nil {
			continue
		}
		if r.Weight == Unset {
			r.Weight = 0
			if m.Placement == PlacementWeighted {
				r.Weight = 1
			}
		}
		if r.Count == Unset {
			r.Count = 0
			if !m.Divides() {
				r.Count = 1
			}
		}
	}
}

func (m *Multiregion) check(f *faults, j *Job) {
	const at = "job.multiregion"
	switch {
	case len(m.Regions) == 0:
		f.add(at, "there is no region in it; list the job's regions, or remove the block")
	case len(m.Regions) > maxRegions:
		f.add(at, "%d regions are over the limit of %d", len(m.Regions), maxRegions)
	}
	s := m.Strategy
	if s.MaxParallel < 0 {
		f.add(at+".strategy.max_parallel", "%d is negative", s.MaxParallel)
	}
	switch s.OnFailure {
	case OnFailureRest, OnFailureAll, OnFailureLocal:
	default:
		f.add(at+".strategy.on_failure", "%q is none of \"\", fail_all, fail_local", s.OnFailure)
	}
	switch s.OnUnreachable {
	case OnUnreachableWait, OnUnreachableSkip, OnUnreachableFail:
	default:
		f.add(at+".strategy.on_unreachable", "%q is none of wait, skip, fail", s.OnUnreachable)
	}
	switch {
	case m.Count < 0:
		f.add(at+".count", "%d is negative", m.Count)
	case m.Count > maxCount:
		f.add(at+".count", "%d is over the limit of %d; lower it", m.Count, maxCount)
	case m.Placement != PlacementStatic && m.Placement != PlacementWeighted && m.Placement != PlacementCapacity:
		f.add(at+".placement", "%q is none of static, weighted, capacity", m.Placement)
	case m.Divides() && m.Placement == PlacementStatic:
		f.add(at+".placement", "static takes each region's own count; remove the block's count of %d, or say weighted or capacity", m.Count)
	case !m.Divides() && m.Placement != PlacementStatic:
		f.add(at+".count", "placement %q divides a count, and there is none", m.Placement)
	}
	least, most, bounded := 0, 0, true
	seen := make(map[string]bool)
	for i, r := range m.Regions {
		if r == nil {
			f.add(fmt.Sprintf("%s.region[%d]", at, i), "it is null")
			continue
		}
		at := fmt.Sprintf("%s.region %.*q", at, maxIDLen, r.Name)
		checkName(f, at, r.Name)
		if r.Name == GlobalRegion && len(m.Regions) > 1 || r.Name == AllRegions {
			f.add(at, "it names no region; list each by its name")
		}
		if seen[r.Name] {
			f.add(at, "it is listed twice")
		}
		seen[r.Name] = true
		for _, n := range []struct {
			name  string
			value int
		}{{"count", r.Count}, {"weight", r.Weight}, {"min", r.Min}, {"max", r.Max}} {
			switch {
			case n.value < 0:
				f.add(at+"."+n.name, "%d is negative", n.value)
			case n.value > maxCount:
				f.add(at+"."+n.name, "%d is over the limit of %d; lower it", n.value, maxCount)
			}
		}
		switch {
		case !m.Divides() && (r.Min > 0 || r.Max > 0 || r.Weight > 0):
			f.add(at, "weight, min and max are about the count of the multiregion block, and there is none")
		case r.Max > 0 && r.Max < r.Min:
			f.add(at+".max", "%d is below min, %d", r.Max, r.Min)
		case m.Divides() && r.Count > 0:
			f.add(at+".count", "%d: the block's count of %d is divided; give min and max, or remove the block's count", r.Count, m.Count)
		}
		m.checkTotal(f, at, j, r)
		least += max(r.Min, 0)
		most += r.Max
		bounded = bounded && r.Max > 0
		checkMeta(f, at+".meta", r.Meta)
	}
	if m.Divides() && least > m.Count {
		f.add(at+".count", "%d is below the sum of the regions' min, %d", m.Count, least)
	}
	if m.Divides() && bounded && most < m.Count {
		f.add(at+".count", "%d is above the sum of the regions' max, %d", m.Count, most)
	}
	if j.Region != "" && j.Region != GlobalRegion && m.Region(j.Region) == nil {
		f.add("job.region", "%q is not among the regions of the multiregion block; leave it out", j.Region)
	}
}

// checkTotal bounds what a region may have to run of all groups; each count alone
// is bounded by others.
func (m *Multiregion) checkTotal(f *faults, at string, j *Job, r *MultiregionRegion) {
	field, count, remedy := at+".count", r.Count, "lower it"
	if m.Divides() {
		field, count, remedy = at+".max", cmp.Or(r.Max, m.Count), "give the region a lower max, or lower the block's count"
	}
	if own, all := j.total(0), j.total(count); own <= maxCount && count <= maxCount && all > maxCount {
		f.add(field, "%d for each group that says count = 0 make, with the others, %d allocations, which is over the limit of %d for a job; %s", count, all, maxCount, remedy)
	}
}

// total is how many allocations a region has of the job, whose groups that say
// count = 0 have count there. No sum of what is bounded overflows; what is not
// counts as one more than the bound.
func (j *Job) total(count int) (n int) {
	for _, g := range j.TaskGroups {
		if g != nil {
			n += min(max(cmp.Or(g.Count, count), 0), maxCount+1)
		}
	}
	return n
}

// ScaledIn is a multi-region job with another count of a group: a count of the
// group's own is that of each region, and one of 0 stands for the count which the
// regions divide or, when they divide none, for that of the region which was
// asked. That count is refused when other groups go by it too: they would be scaled
// as well, whatever their policies say.
func (j *Job) ScaledIn(region, group string, count int64) (*Job, error) {
	if _, err := j.WithCount(group, count); err != nil {
		return nil, err
	}
	own := j.Group(group).Count != 0
	out := Clone(j)
	r := out.Multiregion.Region(region)
	if !own {
		for _, g := range j.TaskGroups {
			if g.Count == 0 && g.Name != group {
				return nil, Invalidf("Target", "cannot scale group %q of job %q alone: group %q says count = 0 too, and goes by the same count; give one of them a count of its own, or submit the job with another count", group, j.ID, g.Name)
			}
		}
	}
	switch {
	case !own && !j.Multiregion.Divides() && r == nil:
		return nil, Invalidf("Target", "cannot scale job %q here: region %q is not one of its regions", j.ID, region)
	case !own && !j.Multiregion.Divides():
		r.Count = int(count)
	case count == 0:
		return nil, Invalidf("Count", "cannot scale group %q of job %q to 0 in all regions; stop the job with -global, or scale a region", group, j.ID)
	case !own:
		out.Multiregion.Count = int(count)
	default:
		out.Group(group).Count = int(count)
	}
	_, err := out.Validate()
	return out, err
}

// InRegion is a multi-region job as one of its regions runs it; count, unless
// negative, is the region's part of a count that was divided. The job stays as it
// was.
func (j *Job) InRegion(name string, count int) *Job {
	out := Clone(j)
	out.Region = GlobalRegion
	r := out.Multiregion.Region(name)
	if r == nil {
		out.Stop = true
		return out
	}
	if count < 0 {
		count = r.Count
	}
	for _, g := range out.TaskGroups {
		if g.Count == 0 {
			g.Count = count
		}
	}
	if len(r.Datacenters) > 0 {
		out.Datacenters = slices.Clone(r.Datacenters)
	}
	out.NodePool = cmp.Or(r.NodePool, out.NodePool)
	if len(r.Meta) > 0 {
		meta := maps.Clone(out.Meta)
		if meta == nil {
			meta = make(map[string]string)
		}
		maps.Copy(meta, r.Meta)
		out.Meta = meta
	}
	return out
}
