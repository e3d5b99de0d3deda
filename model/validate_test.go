package model

import (
	"strings"
	"testing"
)

func job(change func(*Job)) *Job {
	j := &Job{ID: "j", TaskGroups: []*TaskGroup{{Name: "g", Count: 1, Tasks: []*Task{{Name: "t", Driver: "mock"}}}}}
	change(j)
	j.Canonicalize()
	return j
}

func TestWhatIsSaidAboutAJobIsShortHoweverLargeTheJob(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	for name, change := range map[string]func(*Job){
		"id":          func(j *Job) { j.ID = long },
		"group":       func(j *Job) { j.TaskGroups[0].Name = long },
		"task":        func(j *Job) { j.TaskGroups[0].Tasks[0].Name = long },
		"datacenter":  func(j *Job) { j.Datacenters = []string{"[" + long} },
		"unsupported": func(j *Job) { j.TaskGroups[0].Name = long; j.TaskGroups[0].Consul = Opaque("{}") },
		"many faults": func(j *Job) {
			for range 150 {
				j.TaskGroups = append(j.TaskGroups, &TaskGroup{Name: long[:1000], Count: -1})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := job(change).Validate()
			e := AsError(err)
			if err == nil || e.Kind != KindInvalid || len(e.Message) > 16<<10 || len(e.Field) > 1<<10 {
				t.Errorf("kind %v, a message of %d bytes about a field of %d", e.Kind, len(e.Message), len(e.Field))
			}
		})
	}
}

func TestFaultsOfTasksNameTheirPlace(t *testing.T) {
	j := job(func(j *Job) {
		j.TaskGroups[0].Tasks = append(j.TaskGroups[0].Tasks, &Task{Name: "u", Driver: "mock"})
	})
	err := j.CheckTasks(func(t *Task) error {
		if t.Name == "u" {
			return Invalidf("config.image", "config.image: it is missing")
		}
		return nil
	})
	const want = `cannot accept job "j": group "g" > task "u": config.image: it is missing`
	if e := AsError(err); err == nil || e.Message != want || e.Field != `group "g" > task "u".config.image` || e.Kind != KindInvalid {
		t.Errorf("%+v; want %s", e, want)
	}
	if err := j.CheckTasks(func(*Task) error { return nil }); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
}

// What is free for drivers and autoscalers is kept in the log, which has to be read
// again.
func TestWhatIsFreeIsNotNestedWithoutBound(t *testing.T) {
	nest := func(depth int) map[string]any {
		var v any = 1
		for range depth - 1 {
			v = []any{"b", v}
		}
		return map[string]any{"a": v}
	}
	for depth, ok := range map[int]bool{1: true, maxNesting: true, maxNesting + 1: false, 90: false, 5000: false} {
		config := job(func(j *Job) { j.TaskGroups[0].Tasks[0].Config = nest(depth) })
		policy := job(func(j *Job) {
			j.TaskGroups[0].Scaling = NewScalingPolicy()
			j.TaskGroups[0].Scaling.Max, j.TaskGroups[0].Scaling.Policy = 10, nest(depth)
			j.TaskGroups[0].Scaling.canonicalize(j.TaskGroups[0].Count)
		})
		for field, j := range map[string]*Job{".config": config, ".scaling.policy": policy} {
			_, err := j.Validate()
			if named := err != nil && strings.Contains(err.Error(), field+": its lists and maps are nested more than 32 deep"); named == ok || ok && err != nil {
				t.Errorf("%s nested %d deep: %v", field, depth, err)
			}
		}
	}
}
