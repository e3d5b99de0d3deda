package model

import (
	"strings"
	"testing"
)

// isles is a canonical job of two regions whose group says count = 0.
func isles(change func(*Job)) *Job {
	return job(func(j *Job) {
		j.TaskGroups[0].Count = 0
		j.Multiregion = &Multiregion{Regions: []*MultiregionRegion{{Name: "us", Count: 2}, {Name: "eu", Count: 3}}}
		change(j)
	})
}

// divide has the regions divide a count.
func divide(j *Job, count int) {
	j.Multiregion.Count = count
	for _, r := range j.Multiregion.Regions {
		r.Count, r.Weight = 0, 1
	}
}

// another adds a group.
func another(j *Job, name string, count int) {
	j.TaskGroups = append(j.TaskGroups, &TaskGroup{Name: name, Count: count, Tasks: []*Task{{Name: "t", Driver: "mock"}}})
}

func TestTheCountsOfAllRegionsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Job)
		field  string
	}{
		"small":                              {func(*Job) {}, ""},
		"a region at the limit":              {func(j *Job) { j.Multiregion.Regions[0].Count = maxCount }, ""},
		"a region":                           {func(j *Job) { j.Multiregion.Regions[0].Count = 2_000_000_000 }, `job.multiregion.region "us".count`},
		"a region whose groups are two":      {func(j *Job) { j.Multiregion.Regions[1].Count = maxCount/2 + 1; another(j, "h", 0) }, `job.multiregion.region "eu".count`},
		"a region beside a group of its own": {func(j *Job) { another(j, "h", maxCount-2) }, `job.multiregion.region "eu".count`},
		"no group says count = 0":            {func(j *Job) { j.TaskGroups[0].Count = maxCount }, ""},
		"a divided count at the limit":       {func(j *Job) { divide(j, maxCount) }, ""},
		"a divided count":                    {func(j *Job) { divide(j, 2_000_000_000) }, "job.multiregion.count"},
		"a divided count of two groups":      {func(j *Job) { divide(j, maxCount); another(j, "h", 0) }, `job.multiregion.region "us".max`},
		"a bounded part of it": {func(j *Job) {
			divide(j, maxCount)
			another(j, "h", 0)
			j.Multiregion.Regions[0].Max, j.Multiregion.Regions[1].Max = maxCount/2, maxCount/2
		}, ""},
		"a weight": {func(j *Job) { divide(j, 10); j.Multiregion.Regions[0].Weight = 1 << 62 }, `job.multiregion.region "us".weight`},
		"a max":    {func(j *Job) { divide(j, 10); j.Multiregion.Regions[0].Max = 1 << 62 }, `job.multiregion.region "us".max`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := isles(c.change).Validate()
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatalf("it is taken; want a fault of %s", c.field)
			}
			if e := AsError(err); e.Kind != KindInvalid || e.Field != c.field || !strings.Contains(e.Message, "lower") {
				t.Errorf("%+v; want a fault of %s, and a remedy", e, c.field)
			}
		})
	}
}

func TestScalingAGroupLeavesTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Job)
		count  int64
		want   string // the error; "" for none
		us, eu int    // the counts of group "g"
	}{
		"a region's count":             {func(*Job) {}, 5, "", 5, 3},
		"beside a count of its own":    {func(j *Job) { another(j, "h", 1) }, 5, "", 5, 3},
		"a count of its own":           {func(j *Job) { j.TaskGroups[0].Count = 1; another(j, "h", 0) }, 5, "", 5, 5},
		"a count of two":               {func(j *Job) { another(j, "h", 0) }, 5, `group "h" says count = 0 too`, 0, 0},
		"a count of two is divided":    {func(j *Job) { another(j, "h", 0); divide(j, 4) }, 5, `group "h" says count = 0 too`, 0, 0},
		"over the limit with others":   {func(j *Job) { another(j, "h", maxCount-5) }, 6, "over the limit", 0, 0},
		"what is over its policy":      {func(j *Job) { j.TaskGroups[0].Scaling = &ScalingPolicy{Max: 4} }, 5, "above the maximum", 0, 0},
		"its own count, over in total": {func(j *Job) { j.TaskGroups[0].Count = 1; another(j, "h", 0) }, maxCount, "over the limit", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := isles(c.change)
			if _, err := j.Validate(); err != nil {
				t.Fatal(err)
			}
			got, err := j.ScaledIn("us", "g", c.count)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v; want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for region, want := range map[string]int{"us": c.us, "eu": c.eu} {
				in := got.InRegion(region, -1)
				if n := in.Group("g").Count; n != want {
					t.Errorf("%s runs %d; want %d", region, n, want)
				}
				if h := j.Group("h"); h != nil && in.Group("h").Count != j.InRegion(region, -1).Group("h").Count {
					t.Errorf("the other group of %s is scaled to %d", region, in.Group("h").Count)
				}
			}
		})
	}
}
