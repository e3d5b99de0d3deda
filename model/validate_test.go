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
