package model

import (
	"encoding/json"
	"strings"
	"testing"
)

func scalable(min, max int64) *Job {
	return job(func(j *Job) {
		j.TaskGroups[0].Count = 3
		j.TaskGroups[0].Scaling = &ScalingPolicy{Min: min, Max: max, Enabled: true}
		j.TaskGroups = append(j.TaskGroups, &TaskGroup{Name: "other", Count: 1, Tasks: j.TaskGroups[0].Tasks})
	})
}

func TestACountIsWithinItsPolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		group string
		count int64
		want  string
	}{
		"within":           {"g", 5, ""},
		"the least":        {"g", 2, ""},
		"the most":         {"g", 9, ""},
		"below":            {"g", 1, `group "g" of job "j": 1 is below the minimum of its scaling policy, 2`},
		"above":            {"g", 10, `group "g" of job "j": 10 is above the maximum of its scaling policy, 9`},
		"negative":         {"other", -1, "-1 is negative"},
		"without a policy": {"other", 400, ""},
		"too many":         {"other", maxCount, "over the limit"},
		"no group":         {"absent", 1, `job "j": it has no group "absent"`},
	} {
		before := scalable(2, 9)
		after, err := before.WithCount(tc.group, tc.count)
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || KindOf(err) != KindInvalid {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
			continue
		}
		if err != nil || after.Group(tc.group).Count != int(tc.count) {
			t.Errorf("%s: %v", name, err)
		}
		if before.Group("g").Count != 3 || before.Group("other").Count != 1 {
			t.Errorf("%s: the job itself was changed", name)
		}
	}
	system := job(func(j *Job) { j.Type, j.TaskGroups[0].Count = JobTypeSystem, 1 })
	if _, err := system.WithCount("g", 2); err == nil {
		t.Error("a system job was scaled to 2")
	}
}

func TestAPolicyIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		min, max int64
		want     string
	}{
		"in order":     {1, 5, ""},
		"no max":       {1, Unset, "scaling.max: it is missing"},
		"negative":     {-1, 5, "scaling.min: -1 is negative"},
		"upside down":  {5, 4, "scaling.max: 4 is below min, 5"},
		"count below":  {4, 9, "count is 3, and not from min, 4, to max, 9"},
		"count above":  {0, 2, "count is 3, and not from min, 0, to max, 2"},
		"min is count": {Unset, 3, ""},
	} {
		_, err := scalable(tc.min, tc.max).Validate()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestACountThatIsNotGivenIsTheLeast(t *testing.T) {
	for text, want := range map[string]int{
		`{}`:                                 1,
		`{"Scaling":{"Min":4,"Max":9}}`:      4,
		`{"Scaling":{"Max":9}}`:              1,
		`{"Count":0,"Scaling":{"Min":4}}`:    0,
		`{"Count":null,"Scaling":{"Min":4}}`: 4,
	} {
		var g TaskGroup
		if err := json.Unmarshal([]byte(text), &g); err != nil || g.Count != want {
			t.Errorf("%s: count %d, %v; want %d", text, g.Count, err, want)
		}
	}
}

func TestAPolicyKeepsItsIDAndItsIndexUntilItChanges(t *testing.T) {
	first := scalable(1, 9)
	first.StampScaling(nil, 10)
	p := first.Group("g").Scaling
	if p.ID == "" || p.CreateIndex != 10 || p.ModifyIndex != 10 || p.Target[ScalingTargetGroup] != "g" {
		t.Fatalf("%+v", p)
	}
	again := scalable(1, 9)
	again.StampScaling(first, 20)
	if got := again.Group("g").Scaling; got.ID != p.ID || got.ModifyIndex != 10 {
		t.Errorf("the same again: %+v", got)
	}
	if !SameSpec(first, again) {
		t.Error("the same job again is not the same")
	}
	changed := scalable(1, 8)
	changed.StampScaling(again, 30)
	if got := changed.Group("g").Scaling; got.ID != p.ID || got.CreateIndex != 10 || got.ModifyIndex != 30 {
		t.Errorf("changed: %+v", got)
	}
	shared := *changed
	shared.StampScaling(nil, 40)
	if got := changed.Group("g").Scaling; got.ModifyIndex != 30 {
		t.Errorf("what is shared was changed: %+v", got)
	}
}

func TestOnlyTheNewestEventsAreKept(t *testing.T) {
	var s *JobScaling
	for i := range ScalingEventsKept + 5 {
		before := s
		s = s.With(JobID{"default", "j"}, "g", &ScalingEvent{CreateIndex: uint64(i + 1)})
		if before != nil && before.Events["g"][0].CreateIndex != uint64(i) {
			t.Fatal("what was there was changed")
		}
	}
	s = s.With(JobID{"default", "j"}, "other", &ScalingEvent{CreateIndex: 99})
	got := s.Events["g"]
	if len(got) != ScalingEventsKept || got[0].CreateIndex != ScalingEventsKept+5 || got[len(got)-1].CreateIndex != 6 || s.ModifyIndex != 99 {
		t.Errorf("%d events, from %d to %d", len(got), got[0].CreateIndex, got[len(got)-1].CreateIndex)
	}
}

func TestCountsAreKept(t *testing.T) {
	old := scalable(0, 100)
	old.TaskGroups[0].Count, old.TaskGroups[1].Count = 50, 7
	now := scalable(0, 20)
	now.TaskGroups = append(now.TaskGroups, &TaskGroup{Name: "new", Count: 2})
	now.KeepCounts(old)
	if a, b, c := now.Group("g").Count, now.Group("other").Count, now.Group("new").Count; a != 20 || b != 7 || c != 2 {
		t.Errorf("counts %d, %d, %d", a, b, c)
	}
}
