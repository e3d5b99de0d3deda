package jobspec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hashicorp/nomad/api"

	"atoll/model"
)

func parse(t *testing.T, text string, opts Options) *model.Job {
	t.Helper()
	j, err := Parse("job.nomad", []byte(text), opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// around puts text into a task of a job.
func around(inTask string) string {
	return "job \"j\" {\n group \"g\" {\n  task \"t\" {\n   driver = \"mock_driver\"\n" + inTask + "\n  }\n }\n}\n"
}

func TestEveryExampleIsAValidJob(t *testing.T) {
	files, err := filepath.Glob("../examples/*.nomad*")
	if err != nil || len(files) < 5 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		j, err := Parse(file, src, Options{})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		j.Canonicalize()
		if _, err := j.Validate(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		// What the official client makes of it.
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		var theirs api.Job
		if err := json.Unmarshal(b, &theirs); err != nil {
			t.Errorf("%s: the official client cannot read it: %v", file, err)
		}
	}
}

func TestTheTalksJobFile(t *testing.T) {
	src, err := os.ReadFile("../examples/redis.nomad")
	if err != nil {
		t.Fatal(err)
	}
	j := parse(t, string(src), Options{})
	want := &model.Job{
		ID: "cache", Name: "cache", Priority: 50, Datacenters: []string{"dc1"},
		TaskGroups: []*model.TaskGroup{{Name: "cache", Count: 1, Tasks: []*model.Task{{
			Name: "redis", Driver: "docker", KillTimeout: 5 * time.Second,
			Config: map[string]any{"image": "redis:3.2", "port_map": []any{map[string]any{"db": 6379}}},
			Resources: &model.Resources{CPU: 500, MemoryMB: 256, Networks: []*model.NetworkResource{{
				DynamicPorts: []model.Port{{Label: "db"}},
			}}},
		}}}},
	}
	if !reflect.DeepEqual(j, want) {
		got, _ := json.MarshalIndent(j, "", " ")
		t.Errorf("parsed as %s", got)
	}
}

func TestWhatIsNotGivenIsAsInJSON(t *testing.T) {
	j := parse(t, `job "j" {
 group "g" {
  restart {}
  reschedule {}
  update {}
  ephemeral_disk {}
  task "t" {
   driver = "docker"
   resources {}
   logs {}
  }
 }
}`, Options{})
	var same model.Job
	err := json.Unmarshal([]byte(`{"ID":"j","Name":"j","TaskGroups":[{"Name":"g","RestartPolicy":{},"ReschedulePolicy":{},"Update":{},"EphemeralDisk":{},
		"Tasks":[{"Name":"t","Driver":"docker","Resources":{},"LogConfig":{}}]}]}`), &same)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(j, &same) {
		a, _ := json.Marshal(j)
		b, _ := json.Marshal(same)
		t.Errorf("from HCL  %s\nfrom JSON %s", a, b)
	}
}

func TestTheWholeOfAJob(t *testing.T) {
	j := parse(t, `
job "web" {
  region    = "eu"
  namespace = "default"
  type      = "service"
  priority  = 70
  datacenters = ["dc1", "east-*"]
  node_pool = "gpu"
  meta { owner = "ops" }
  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }
  constraint {
    attribute = "${attr.os.version}"
    version   = ">= 11"
  }
  constraint { distinct_hosts = true }
  update {
    max_parallel     = 2
    min_healthy_time = "5s"
  }
  group "front" {
    count          = 3
    shutdown_delay = "1s"
    meta = { tier = "edge" }
    network {
      mode = "host"
      port "http" { to = 8080 }
      port "admin" { static = 9000 }
    }
    restart {
      attempts = 5
      interval = "10m"
      delay    = "3s"
      mode     = "delay"
    }
    reschedule { unlimited = false }
    ephemeral_disk { size = 500 }
    service {
      name = "web"
      port = "http"
      tags = ["a", "b"]
      check {
        type     = "http"
        path     = "/health"
        interval = "10s"
        timeout  = "2s"
        header { Host = ["x"] }
        check_restart { grace = "90s" }
      }
    }
    task "server" {
      driver       = "raw_exec"
      user         = "nobody"
      leader       = true
      kill_timeout = "20s"
      kill_signal  = "SIGINT"
      config {
        command = "local/server"
        args    = ["-addr", "${NOMAD_ADDR_http}", "-n", 3, 0.5, true]
        mount {
          type = "bind"
        }
        mount {
          type = "tmpfs"
        }
      }
      env {
        A = "1"
        B = true
        C = 2.5
      }
      resources {
        cpu        = 250
        memory     = 128
        memory_max = 256
      }
      logs {
        max_files     = 3
        max_file_size = 5
      }
    }
  }
}`, Options{})
	g := j.TaskGroups[0]
	task := g.Tasks[0]
	for what, pair := range map[string][2]any{
		"region":      {j.Region, "eu"},
		"datacenters": {j.Datacenters, []string{"dc1", "east-*"}},
		"constraints": {j.Constraints, []*model.Constraint{{LTarget: "${attr.kernel.name}", RTarget: "linux", Operand: "="}, {LTarget: "${attr.os.version}", RTarget: ">= 11", Operand: "version"}, {Operand: "distinct_hosts"}}},
		"update":      {j.Update.MaxParallel, 2},
		"meta":        {j.Meta, map[string]string{"owner": "ops"}},
		"group meta":  {g.Meta, map[string]string{"tier": "edge"}},
		"network":     {*g.Networks[0], model.NetworkResource{Mode: "host", DynamicPorts: []model.Port{{Label: "http", To: 8080}}, ReservedPorts: []model.Port{{Label: "admin", Value: 9000}}}},
		"restart":     {*g.RestartPolicy, model.RestartPolicy{Attempts: 5, Interval: 10 * time.Minute, Delay: 3 * time.Second, Mode: "delay"}},
		"reschedule":  {g.ReschedulePolicy.UnlimitedGiven, true},
		"disk":        {g.EphemeralDisk.SizeMB, 500},
		"config": {task.Config, map[string]any{"command": "local/server", "args": []any{"-addr", "${NOMAD_ADDR_http}", "-n", 3, 0.5, true},
			"mount": []any{map[string]any{"type": "bind"}, map[string]any{"type": "tmpfs"}}}},
		"env":       {task.Env, map[string]string{"A": "1", "B": "true", "C": "2.5"}},
		"resources": {*task.Resources, model.Resources{CPU: 250, MemoryMB: 128, MemoryMaxMB: 256}},
		"logs":      {*task.LogConfig, model.LogConfig{MaxFiles: 3, MaxFileSizeMB: 5}},
		"kill":      {task.KillTimeout, 20 * time.Second},
		"service":   {g.Services[0].Tags, []string{"a", "b"}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %#v, want %#v", what, pair[0], pair[1])
		}
	}
	// Checks are kept in the API's names and units.
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	var theirs api.Job
	if err := json.Unmarshal(b, &theirs); err != nil {
		t.Fatal(err)
	}
	check := theirs.TaskGroups[0].Services[0].Checks[0]
	if check.Interval != 10*time.Second || check.Path != "/health" || *check.CheckRestart.Grace != 90*time.Second || check.Header["Host"][0] != "x" {
		t.Errorf("check %+v", check)
	}
}

func TestVariablesLocalsAndDynamicBlocks(t *testing.T) {
	text := `
variable "count" { type = number }
variable "image" {
  type    = string
  default = "redis:3.2"
}
variables { suffix = "x" }
locals {
  full = "${local.name}-${var.suffix}"
  name = upper("web")
}
job "j" {
  meta { full = local.full }
  group "g" {
    count = var.count
    dynamic "network" {
      for_each = [1]
      content {
        dynamic "port" {
          for_each = { http = 80, admin = 81 }
          labels   = [port.key]
          content { to = port.value }
        }
      }
    }
    task "t" {
      driver = "docker"
      config { image = var.image }
    }
  }
}`
	for _, c := range []struct {
		name  string
		opts  Options
		count int
		image string
	}{
		{"flags", Options{Variables: map[string]string{"count": "3", "image": "a"}}, 3, "a"},
		{"environment", Options{Env: []string{"NOMAD_VAR_count=1", "ATOLL_VAR_count=2", "NOMAD_VAR_other=9", "PATH=x"}}, 2, "redis:3.2"},
		{"text", Options{VarText: "count = 4\nimage = \"b\""}, 4, "b"},
		{"files over environment", Options{Env: []string{"NOMAD_VAR_count=1"}, VarFiles: []File{{"a", []byte("count = 5")}, {"b", []byte("count = 6")}}}, 6, "redis:3.2"},
		{"flags over files", Options{Variables: map[string]string{"count": "7"}, VarFiles: []File{{"a", []byte("count = 5")}}}, 7, "redis:3.2"},
		{"undeclared when loose", Options{Loose: true, Variables: map[string]string{"count": "7", "nope": "1"}}, 7, "redis:3.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := parse(t, text, c.opts)
			g := j.TaskGroups[0]
			if g.Count != c.count || g.Tasks[0].Config["image"] != c.image || j.Meta["full"] != "WEB-x" {
				t.Errorf("count %d, image %v, meta %v", g.Count, g.Tasks[0].Config["image"], j.Meta)
			}
			if ports := g.Networks[0].DynamicPorts; !reflect.DeepEqual(ports, []model.Port{{Label: "admin", To: 81}, {Label: "http", To: 80}}) {
				t.Errorf("ports %+v", ports)
			}
		})
	}
}

func TestNamesOfTheNodeStayInTheText(t *testing.T) {
	for expr, want := range map[string]any{
		`"${attr.kernel.name}"`:                         "${attr.kernel.name}",
		`"a-${var.x}-${node.unique.name}-b"`:            "a-X-${node.unique.name}-b",
		`attr.kernel.name`:                              "${attr.kernel.name}",
		`"${env["HOME"]}/x"`:                            `${env["HOME"]}/x`,
		`"${NOMAD_PORT_http}"`:                          "${NOMAD_PORT_http}",
		`"$${var.x}"`:                                   "${var.x}",
		`["${meta.a}", upper(var.x)]`:                   []any{"${meta.a}", "X"},
		`{ k = "${meta.a}", "${var.x}" = 1 }`:           map[string]any{"k": "${meta.a}", "X": 1},
		`[for s in ["a", "b"] : "${s}-${attr.z}"]`:      []any{"a-${attr.z}", "b-${attr.z}"},
		`"%{ if var.x == "X" }yes ${attr.q}%{ endif }"`: "yes ${attr.q}",
		`true ? "${meta.a}" : "no"`:                     "${meta.a}",
		`join(",", ["${attr.one}", "two"])`:             "${attr.one},two",
		`format("%s:%d", "${attr.ip}", 80)`:             "${attr.ip}:80",
	} {
		j := parse(t, "variable \"x\" { default = \"X\" }\n"+around("config { v = "+expr+" }"), Options{})
		if got := j.TaskGroups[0].Tasks[0].Config["v"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v", expr, got, want)
		}
	}
}

func TestFunctions(t *testing.T) {
	files := fstest.MapFS{"conf/app.txt": {Data: []byte("hello")}}
	for expr, want := range map[string]any{
		`file("conf/app.txt")`: "hello", `fileexists("nope")`: false, `basename("/a/b.c")`: "b.c",
		`max(1, 3, 2)`: 3, `length("abc") + length([1, 2])`: 5, `split(",", "a,b")`: []any{"a", "b"}, `merge({ a = 1 }, { b = 2 })`: map[string]any{"a": 1, "b": 2},
		`try(var.nope.x, "fallback")`: "fallback", `can(parseint("x", 10))`: false, `replace("a.b", ".", "-")`: "a-b",
		`sha256("")`: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", `base64decode(base64encode("x"))`: "x",
		`cidrhost("10.0.0.0/24", 5)`: "10.0.0.5", `jsondecode("{\"a\":[1]}").a[0]`: 1, `yamldecode("a: 1").a`: 1, `tostring(1)`: "1", `toset(["b", "a", "b"])`: []any{"a", "b"},
		`range(3)`: []any{0, 1, 2}, `startswith("abc", "ab")`: true, `regex_replace("abc", "b", "x")`: "axc", `formatdate("YYYY", "2026-01-02T00:00:00Z")`: "2026",
	} {
		j, err := Parse("f", []byte("variable \"nope\" { default = {} }\n"+around("config { v = "+expr+" }")), Options{Files: files})
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got := j.TaskGroups[0].Tasks[0].Config["v"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v", expr, got, want)
		}
	}
}

func TestFaultsAreOneLineWithPlaceFieldAndRemedy(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"syntax", "job \"j\" {\n group {{\n}", []string{"job.nomad:2: "}},
		{"unclosed", "job \"j\" {", []string{"job.nomad:1: "}},
		{"unknown attribute", "job \"j\" {\n group \"g\" {\n  cuont = 3\n }\n}", []string{`job.nomad:3: group "g": unknown attribute "cuont"; did you mean "count"?`}},
		{"unknown block", "job \"j\" {\n grup \"g\" {}\n}", []string{`job.nomad:2: job "j": unknown block "grup"; did you mean "group"?`}},
		{"deep", around("resources {\n cpus = 1\n}"), []string{`job.nomad:6: group "g" > task "t" > resources: unknown attribute "cpus"; did you mean "cpu"?`}},
		{"wrong type", "job \"j\" {\n group \"g\" {\n  count = \"many\"\n }\n}", []string{`job.nomad:3: group "g" > count: "many" is not a whole number`}},
		{"fraction", "job \"j\" {\n priority = 1.5\n}", []string{`job.nomad:2: priority: 1.5 is not a whole number`}},
		{"no unit", around("kill_timeout = 30"), []string{`kill_timeout: 30 has no unit; write a time such as "30s"`}},
		{"no time", around("kill_timeout = \"soon\""), []string{`kill_timeout: "soon" is not a time`}},
		{"no list", "job \"j\" {\n datacenters = \"dc1\"\n}", []string{`job.nomad:2: datacenters: "dc1" is not a list of texts`}},
		{"no label", "job \"j\" {\n group {}\n}", []string{`job.nomad:2: group: a group has one name; write group "name" { … }`}},
		{"no job", "group \"g\" {}", []string{`a job file has no block "group" here`}},
		{"empty", "", []string{"there is no job block"}},
		{"two jobs", "job \"a\" {}\njob \"b\" {}", []string{"job.nomad:2: job: there are 2 job blocks"}},
		{"variable without value", "variable \"x\" {}\njob \"j\" {}", []string{`job.nomad:1: variable x: it has no value and no default; give it by -var x=VALUE`}},
		{"unknown variable", around("config { v = var.nope }"), []string{"job.nomad:5: ", "nope"}},
		{"validation", "variable \"x\" {\n default = 1\n validation {\n  condition = var.x > 1\n  error_message = \"Must be more.\"\n }\n}\njob \"j\" {}", []string{"job.nomad:1: variable x: Must be more."}},
		{"cycle", "locals {\n a = local.b\n b = local.a\n}\njob \"j\" {}", []string{"job.nomad:2: local a: it needs itself, through a, b"}},
		{"function", around("config { v = nope(1) }"), []string{"job.nomad:5: ", "nope"}},
		{"files off", around("config { v = file(\"x\") }"), []string{"files cannot be read here"}},
		{"two faults", "job \"j\" {\n prio = 1\n regio = 2\n}", []string{"job.nomad:2: ", "; job.nomad:3: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("job.nomad", []byte(c.text), Options{})
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "\n") || model.KindOf(err) != model.KindInvalid {
				t.Errorf("%q of kind %v: want one line of kind invalid", err, model.KindOf(err))
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q, want %q in it", err, part)
				}
			}
		})
	}
}

func TestUndeclaredVariablesAreRefused(t *testing.T) {
	_, err := Parse("j", []byte("variable \"count\" { default = 1 }\njob \"j\" {}"), Options{Variables: map[string]string{"cuont": "3"}})
	if err == nil || !strings.Contains(err.Error(), `-var cuont: variable cuont: the job file declares no such variable; did you mean "count"?`) {
		t.Errorf("error %v", err)
	}
}

// bombs are small texts that would cost much to read.
func bombs() map[string]string {
	doubling := func(first, step string) string {
		b := "locals {\n a0 = " + first + "\n"
		for i := range 60 {
			b += strings.NewReplacer("N", itoa(i+1), "P", itoa(i)).Replace(" aN = " + step + "\n")
		}
		return b + "}\n" + around("config { v = local.a60 }")
	}
	return map[string]string{
		"parentheses":    strings.Repeat("(", 1<<20),
		"braces":         strings.Repeat("{", 1<<20),
		"brackets":       "job \"j\" { x = " + strings.Repeat("[", 1<<19),
		"templates":      "job \"j\" { x = " + strings.Repeat("\"${", 1<<18),
		"blocks":         strings.Repeat("a {\n", 1<<18),
		"negations":      "job \"j\" { priority = " + strings.Repeat("!", 1<<19) + "true }",
		"minus":          "job \"j\" { priority = " + strings.Repeat("-", 1<<19) + "1 }",
		"sum":            "job \"j\" { priority = " + strings.Repeat("1+", 1<<18) + "1 }",
		"conditionals":   "job \"j\" { priority = " + strings.Repeat("true?1:", 1<<17) + "1 }",
		"huge number":    around("config { v = 1e999999999 }"),
		"long number":    around("config { v = " + strings.Repeat("9", 1<<19) + " }"),
		"squares":        doubling("9999999999", "local.aP * local.aP"),
		"power":          around("config { v = pow(10, 100000000) }"),
		"texts":          doubling("\"xx\"", "\"${local.aP}${local.aP}\""),
		"lists":          doubling("[1, 1]", "[local.aP, local.aP]"),
		"concat":         doubling("[1, 1]", "concat(local.aP, local.aP)"),
		"join":           doubling("\"xx\"", "join(local.aP, [local.aP, local.aP, local.aP])"),
		"replace":        doubling("\"xx\"", "replace(local.aP, \"x\", local.aP)"),
		"loops":          around("config { v = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : c]]] }"),
		"quiet loops":    around("config { v = length([for a in range(1000) : length([for b in range(1000) : length([for c in range(1000) : c])])]) }"),
		"product":        around("config { v = setproduct(range(1000), range(1000), range(1000)) }"),
		"range":          around("config { v = range(1000000000) }"),
		"width":          around("config { v = format(\"%999999999d\", 1) }"),
		"indent":         around("config { v = indent(999999999, \"a\\nb\") }"),
		"dynamic":        "job \"j\" {\n dynamic \"group\" {\n for_each = range(1000)\n labels = [\"g\"]\n content {\n dynamic \"task\" {\n for_each = range(1000)\n labels = [\"t\"]\n content {}\n}\n}\n}\n}",
		"yaml":           around("config { v = yamldecode(\"a: &a [x,x]\\nb: &b [*a,*a]\") }"),
		"too long":       strings.Repeat("# comment\n", 1<<17),
		"nested dynamic": "job \"j\" {" + strings.Repeat("dynamic \"group\" {\n for_each = range(100)\n content {\n", 60) + strings.Repeat("}}", 60) + "}",
		"zero bytes":     "job \"j\" { x = \"\x00\xff\" }",
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestBombsAreRefusedInASecond(t *testing.T) {
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("bomb", []byte(text), Options{})
			took := time.Since(start)
			if err == nil {
				t.Error("accepted")
			} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 5000 {
				t.Errorf("an error of %d bytes: %.200q", len(err.Error()), err)
			}
			// Far above what it takes here, far below what a bomb takes.
			if took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			t.Logf("%s: %.160v", took.Round(time.Millisecond), err)
		})
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("../examples/*.nomad*")
	for _, file := range files {
		if src, err := os.ReadFile(file); err == nil {
			f.Add(src)
		}
	}
	for _, text := range bombs() {
		if len(text) < 1<<12 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if j, err := Parse("fuzz", src, Options{}); err == nil {
			j.Canonicalize()
			_, _ = j.Validate()
			if _, err := json.Marshal(j); err != nil {
				t.Errorf("the job cannot be sent: %v", err)
			}
		}
	})
}

func TestAScalingBlockIsReadAsAutoscalersKnowIt(t *testing.T) {
	group := func(count, scaling string) *model.TaskGroup {
		j := parse(t, "job \"j\" {\n group \"g\" {\n"+count+"\n scaling {\n"+scaling+"\n }\n  task \"t\" {\n   driver = \"mock_driver\"\n  }\n }\n}\n", Options{})
		j.Canonicalize()
		return j.TaskGroups[0]
	}
	g := group("", `
  min     = 2
  max     = 10
  enabled = false
  policy {
    cooldown = "1m"
    check "load" {
      query = "avg"
      strategy "target-value" {
        target = 80
      }
    }
  }`)
	want := &model.ScalingPolicy{Type: "horizontal", Min: 2, Max: 10, Policy: map[string]any{
		"cooldown": "1m",
		"check": []any{map[string]any{"load": []any{map[string]any{
			"query": "avg", "strategy": []any{map[string]any{"target-value": []any{map[string]any{"target": 80}}}},
		}}}},
	}}
	if g.Count != 2 || !reflect.DeepEqual(g.Scaling, want) {
		t.Errorf("count %d, %+v", g.Count, g.Scaling)
	}
	if g := group("count = 4", "max = 9"); g.Count != 4 || g.Scaling.Min != 4 || !g.Scaling.Enabled {
		t.Errorf("count %d, %+v", g.Count, g.Scaling)
	}
}
