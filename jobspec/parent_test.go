package jobspec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"atoll/model"
)

func TestTheBlocksOfParents(t *testing.T) {
	j := parse(t, `
job "p" {
  type = "batch"
  periodic {
    crons            = ["0 2 * * *", "@weekly"]
    time_zone        = "Europe/Berlin"
    prohibit_overlap = true
    enabled          = false
  }
  parameterized {
    payload       = "required"
    meta_required = ["a"]
    meta_optional = ["b", "c"]
  }
  group "g" {
    task "t" {
      driver = "docker"
      dispatch_payload { file = "in/config.json" }
    }
  }
}`, Options{})
	if want := (&model.PeriodicConfig{Specs: []string{"0 2 * * *", "@weekly"}, TimeZone: "Europe/Berlin", ProhibitOverlap: true}); !reflect.DeepEqual(j.Periodic, want) {
		t.Errorf("%+v", j.Periodic)
	}
	if want := (&model.ParameterizedJobConfig{Payload: "required", MetaRequired: []string{"a"}, MetaOptional: []string{"b", "c"}}); !reflect.DeepEqual(j.ParameterizedJob, want) {
		t.Errorf("%+v", j.ParameterizedJob)
	}
	if p := j.TaskGroups[0].Tasks[0].DispatchPayload; p == nil || p.File != "in/config.json" {
		t.Errorf("%+v", p)
	}
	// What is not given is as in JSON.
	j = parse(t, "job \"p\" {\n type = \"batch\"\n periodic { cron = \"@daily\" }\n parameterized {}\n group \"g\" {\n task \"t\" { driver = \"docker\" }\n }\n}", Options{})
	var same struct {
		Periodic         *model.PeriodicConfig
		ParameterizedJob *model.ParameterizedJobConfig
	}
	if err := json.Unmarshal([]byte(`{"Periodic":{"Spec":"@daily"},"ParameterizedJob":{}}`), &same); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(j.Periodic, same.Periodic) || !reflect.DeepEqual(j.ParameterizedJob, same.ParameterizedJob) {
		t.Errorf("%+v, %+v", j.Periodic, j.ParameterizedJob)
	}
}

func TestParentsThatAreWrongAreToldByTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"periodic {\n cron = \"x\"\n cronn = \"y\"\n}":   `job.nomad:4: periodic: unknown attribute "cronn"; did you mean "cron"?`,
		"periodic {\n crons = \"x\"\n}":                  `job.nomad:3: periodic > crons: "x" is not a list of texts`,
		"parameterized {\n meta_required = [1, null]\n}": "it holds null",
	} {
		_, err := Parse("job.nomad", []byte("job \"j\" {\n"+text+"\n}"), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n %v, want\n %s", text, err, want)
		}
	}
}
