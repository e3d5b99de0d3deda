package jobspec

import (
	"strings"
	"testing"

	"atoll/model"
)

func TestWhatIsFoundWrongWithAJobIsToldWithItsLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an attribute of a group", "job \"j\" {\n group \"g\" {\n  count = -1\n task \"t\" {\n driver = \"x\"\n }\n }\n}", `job.nomad:3: group "g".count: -1 is negative`},
		{"one of the job", "job \"j\" {\n priority = 500\n group \"g\" {\n task \"t\" {\n driver = \"x\"\n }\n }\n}", "job.nomad:2: job.priority: 500 is not"},
		{"one that is deep", around("resources {\n\n cpu = 0\n}"), `job.nomad:7: group "g" > task "t".resources.cpu: 0 is below 1`},
		{"one of a block with a name", around("resources {\n network {\n port \"a\" {\n static = 70000\n }\n }\n}"), `job.nomad:7: group "g" > task "t".resources.network.port "a": static 70000`},
		{"a block that is numbered", "job \"j\" {\n group \"g\" {\n  constraint {\n attribute = \"x\"\n operator = \"nope\"\n }\n task \"t\" {\n driver = \"x\"\n }\n }\n}", `job.nomad:3: group "g".constraint[0]: "nope" is no operator`},
		{"what is not written", "job \"j\" {\n group \"g\" {\n  task \"t\" {\n }\n }\n}", `job.nomad:3: group "g" > task "t".driver: it is empty`},
		{"what the job lacks", "\njob \"j\" {\n}", "job.nomad:2: job.group: there is none"},
		{"a dynamic block", "job \"j\" {\n group \"g\" {\n  dynamic \"task\" {\n for_each = [1]\n labels = [\"t\"]\n content {\n driver = \"x\"\n kill_timeout = \"-1s\"\n }\n }\n }\n}", `job.nomad:8: group "g" > task "t".kill_timeout: -1s is negative`},
		{"two faults", "job \"j\" {\n group \"g\" {\n  count = -1\n  shutdown_delay = \"-1s\"\n task \"t\" {\n driver = \"x\"\n }\n }\n}", "; job.nomad:4: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, places, err := ParsePlaces("job.nomad", []byte(c.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			j.Canonicalize()
			faults, _ := j.Faults()
			err = places.Refuse(faults)
			if err == nil || !strings.Contains(err.Error(), c.want) || model.KindOf(err) != model.KindInvalid {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}

func TestAnUnclosedQuoteIsToldOnce(t *testing.T) {
	_, err := Parse("job.nomad", []byte("job \"j\" {\n type = \"batch\n\n\n\n}"), Options{})
	if err == nil || !strings.HasPrefix(err.Error(), "job.nomad:2: ") || strings.Count(err.Error(), "may not be split") != 1 {
		t.Error(err)
	}
}
