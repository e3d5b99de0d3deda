package diff

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/internal/wire"
	"atoll/model"
)

// web is a canonical job.
func web(change func(*model.Job)) *model.Job {
	j := &model.Job{
		ID: "web", Datacenters: []string{"dc1", "dc2"}, Meta: map[string]string{"team": "blue"},
		Constraints: []*model.Constraint{{LTarget: "${attr.kernel.name}", Operand: "=", RTarget: "linux"}},
		TaskGroups: []*model.TaskGroup{{
			Name: "front", Count: 2,
			Networks: []*model.NetworkResource{{DynamicPorts: []model.Port{{Label: "http"}}}},
			Services: []*model.Service{{Name: "front", PortLabel: "http", Tags: []string{"a", "b"}}},
			Tasks: []*model.Task{{
				Name: "nginx", Driver: "docker", Env: map[string]string{"MODE": "fast"},
				Config: map[string]any{"image": "nginx:1", "port_map": []any{map[string]any{"http": 80}}},
			}},
		}},
	}
	if change != nil {
		change(j)
	}
	j.Canonicalize()
	return j
}

// lines are a diff as text, one line for each thing that differs.
func lines(d *Job) (out []string) {
	var body func(at string, fields []*Field, objects []*Object)
	body = func(at string, fields []*Field, objects []*Object) {
		for _, f := range fields {
			if f.Type != None {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s%s %s %q %q %s", at, f.Type, f.Name, f.Old, f.New, strings.Join(f.Annotations, ","))))
			}
		}
		for _, o := range objects {
			out = append(out, fmt.Sprintf("%s%s %s", at, o.Type, o.Name))
			body(at+o.Name+" > ", o.Fields, o.Objects)
		}
	}
	body("", d.Fields, d.Objects)
	for _, g := range d.TaskGroups {
		body(g.Name+": ", g.Fields, g.Objects)
		for _, t := range g.Tasks {
			if t.Type != None && g.Type == Edited {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s.%s %s %s", g.Name, t.Name, t.Type, strings.Join(t.Annotations, ","))))
			}
			if t.Type == Edited {
				body(g.Name+"."+t.Name+": ", t.Fields, t.Objects)
			}
		}
	}
	return out
}

func TestWhatDiffersIsTold(t *testing.T) {
	group := func(j *model.Job) *model.TaskGroup { return j.TaskGroups[0] }
	task := func(j *model.Job) *model.Task { return j.TaskGroups[0].Tasks[0] }
	for name, tc := range map[string]struct {
		change func(*model.Job)
		want   []string
	}{
		"nothing": {nil, nil},
		"another order of a set": {func(j *model.Job) {
			j.Datacenters = []string{"dc2", "dc1"}
			group(j).Services[0].Tags = []string{"b", "a"}
		}, nil},
		"a value": {func(j *model.Job) { j.Priority = 70 }, []string{`Edited Priority "50" "70"`}},
		"a set": {func(j *model.Job) { j.Datacenters = []string{"dc1", "dc3"} }, []string{
			"Edited Datacenters", `Datacenters > Added Datacenters "" "dc3"`, `Datacenters > Deleted Datacenters "dc2" ""`,
		}},
		"texts under names": {func(j *model.Job) { j.Meta = map[string]string{"team": "red", "tier": "1"} }, []string{
			`Edited Meta[team] "blue" "red"`, `Added Meta[tier] "" "1"`,
		}},
		"the only constraint": {func(j *model.Job) { j.Constraints[0].RTarget = "darwin" }, []string{
			"Edited Constraint", `Constraint > Edited RTarget "linux" "darwin"`,
		}},
		"one constraint more": {func(j *model.Job) {
			j.Constraints = append([]*model.Constraint{{LTarget: "${attr.cpu.arch}", Operand: "=", RTarget: "arm64"}}, j.Constraints...)
		}, []string{
			"Added Constraint", `Constraint > Added LTarget "" "${attr.cpu.arch}"`, `Constraint > Added Operand "" "="`, `Constraint > Added RTarget "" "arm64"`,
		}},
		"a higher count": {func(j *model.Job) { group(j).Count = 3 }, []string{`front: Edited Count "2" "3" forces create`}},
		"a lower count":  {func(j *model.Job) { group(j).Count = 1 }, []string{`front: Edited Count "2" "1" forces destroy`}},
		"a port": {func(j *model.Job) { group(j).Networks[0].DynamicPorts[0].To = 8080 }, []string{
			"front: Edited Network", "front: Network > Edited Dynamic Port", `front: Network > Dynamic Port > Edited To "0" "8080"`,
		}},
		"a named block": {func(j *model.Job) { group(j).Services[0].Name = "back" }, []string{
			"front: Deleted Service", `front: Service > Deleted EnableTagOverride "false" ""`, `front: Service > Deleted Name "front" ""`,
			`front: Service > Deleted PortLabel "http" ""`, "front: Service > Deleted Tags",
			`front: Service > Tags > Deleted Tags "a" ""`, `front: Service > Tags > Deleted Tags "b" ""`,
			"front: Added Service", `front: Service > Added EnableTagOverride "" "false"`, `front: Service > Added Name "" "back"`,
			`front: Service > Added PortLabel "" "http"`, "front: Service > Added Tags",
			`front: Service > Tags > Added Tags "" "a"`, `front: Service > Tags > Added Tags "" "b"`,
		}},
		"a task's configuration": {func(j *model.Job) {
			task(j).Config = map[string]any{"image": "nginx:2", "port_map": []any{map[string]any{"http": 80}}}
		}, []string{
			"front.nginx Edited forces create/destroy update", "front.nginx: Edited Config", `front.nginx: Config > Edited image "nginx:1" "nginx:2"`,
		}},
		"a task's restarts": {func(j *model.Job) {
			task(j).RestartPolicy = model.NewRestartPolicy()
			task(j).RestartPolicy.Delay = time.Minute
		}, []string{
			"front.nginx Edited forces in-place update", "front.nginx: Edited RestartPolicy", `front.nginx: RestartPolicy > Edited Delay "15000000000" "60000000000"`,
		}},
		"a task more": {func(j *model.Job) {
			group(j).Tasks = append(group(j).Tasks, &model.Task{Name: "log", Driver: "docker"})
		}, []string{"front.log Added forces create/destroy update"}},
		"what the server sets": {func(j *model.Job) {
			j.Version, j.ModifyIndex, j.Stable, j.Status, j.SubmitTime = 7, 8, true, "dead", 9
		}, nil},
		"a job that was stopped": {func(j *model.Job) { j.Stop = true }, []string{`Edited Stop "false" "true"`}},
		"a scaling policy": {func(j *model.Job) {
			group(j).Scaling = &model.ScalingPolicy{Min: 1, Max: 9, ID: "x", Target: map[string]string{"Job": "web"}, ModifyIndex: 3}
		}, []string{
			"front: Added Scaling", `front: Scaling > Added Enabled "" "false"`, `front: Scaling > Added Max "" "9"`, `front: Scaling > Added Min "" "1"`, `front: Scaling > Added Type "" "horizontal"`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := web(nil), web(tc.change)
			inPlace := func(group, task string) bool {
				a, b := before.Group(group).Task(task), after.Group(group).Task(task)
				return reflect.DeepEqual(a.Config, b.Config)
			}
			for _, contextual := range []bool{true, false} {
				d := Jobs(before, after, contextual)
				Annotate(d, nil, inPlace)
				if got := lines(d); !slices.Equal(got, tc.want) {
					t.Errorf("contextual %t:\n%s\nwant\n%s", contextual, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
				}
				if want := (len(tc.want) > 0); (d.Type != None) != want {
					t.Errorf("the type is %s", d.Type)
				}
			}
		})
	}
}

func TestContextIsWhatIsBesideADifference(t *testing.T) {
	before := web(nil)
	after := web(func(j *model.Job) { j.TaskGroups[0].Tasks[0].Config["image"] = "nginx:2" })
	task := Jobs(before, after, true).TaskGroups[0].Tasks[0]
	if len(task.Fields) != 0 || len(task.Objects) != 1 {
		t.Fatalf("the task has %d fields and %d blocks", len(task.Fields), len(task.Objects))
	}
	want := []*Field{{Edited, "image", "nginx:1", "nginx:2", nil}, {None, "port_map[0][http]", "80", "80", nil}}
	if got := task.Objects[0].Fields; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v", got[0], got[len(got)-1])
	}
	if got := Jobs(before, after, false).TaskGroups[0].Tasks[0].Objects[0].Fields; len(got) != 1 {
		t.Errorf("without context there are %d fields", len(got))
	}
	same := Jobs(before, before, true)
	if same.Type != None || len(same.TaskGroups) != 1 || same.TaskGroups[0].Type != None || len(same.TaskGroups[0].Tasks) != 1 {
		t.Errorf("a job with itself: %+v", same)
	}
	if same := Jobs(before, before, false); len(same.TaskGroups) != 0 {
		t.Errorf("a job with itself, without context: %+v", same)
	}
}

func TestAJobThatComesOrGoesIsToldWhole(t *testing.T) {
	j := web(nil)
	for _, tc := range []struct {
		before, after *model.Job
		want          Type
		forces        string
	}{{nil, j, Added, "forces create"}, {j, nil, Deleted, "forces destroy"}, {nil, nil, None, ""}} {
		d := Jobs(tc.before, tc.after, true)
		Annotate(d, map[string]*model.DesiredUpdates{"front": {Place: 2, Ignore: 1}}, nil)
		if d.Type != tc.want {
			t.Errorf("%s, want %s", d.Type, tc.want)
		}
		if tc.want == None {
			continue
		}
		g := d.TaskGroups[0]
		if g.Type != tc.want || g.Tasks[0].Type != tc.want || !slices.Equal(g.Tasks[0].Annotations, []string{tc.forces}) {
			t.Errorf("the group is %s, its task %s %v", g.Type, g.Tasks[0].Type, g.Tasks[0].Annotations)
		}
		if !reflect.DeepEqual(g.Updates, map[string]uint64{"create": 2, "ignore": 1}) {
			t.Errorf("the updates are %v", g.Updates)
		}
	}
}

// A job that went through the encodings differs in nothing from what it was.
func TestEncodingsMakeNoDifference(t *testing.T) {
	j := web(nil)
	var viaJSON, viaWire model.Job
	b, err := json.Marshal(j)
	if err == nil {
		err = json.Unmarshal(b, &viaJSON)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err = wire.Encode(j); err == nil {
		err = wire.Decode(b, &viaWire)
	}
	if err != nil {
		t.Fatal(err)
	}
	for road, back := range map[string]*model.Job{"JSON": &viaJSON, "msgpack": &viaWire} {
		if d := Jobs(j, back, true); d.Type != None {
			t.Errorf("%s: %s", road, strings.Join(lines(d), "\n"))
		}
	}
}

// walk fills every field that a user writes, when try is nil; else it changes each
// value in turn, calls try with its path, and changes it back.
type walk struct {
	t   *testing.T
	n   int
	try func(path string)
}

func (w *walk) turn(v reflect.Value, path string, was, now any) {
	if w.try == nil {
		v.Set(reflect.ValueOf(was).Convert(v.Type()))
		return
	}
	v.Set(reflect.ValueOf(now).Convert(v.Type()))
	w.try(path)
	v.Set(reflect.ValueOf(was).Convert(v.Type()))
}

func (w *walk) value(v reflect.Value, path string) {
	w.n++
	switch v.Addr().Interface().(type) {
	case *model.Opaque:
		w.turn(v, path, fmt.Sprintf(`[{"a":%d,"b":{"c":[1,2]}}]`, w.n), fmt.Sprintf(`[{"a":%d,"b":{"c":[1,3]}}]`, w.n))
		return
	case *time.Time:
		w.turn(v, path, time.Unix(int64(w.n), 0).UTC(), time.Unix(int64(w.n)+1, 0).UTC())
		return
	}
	fill := w.try == nil
	switch v.Kind() {
	case reflect.String:
		w.turn(v, path, fmt.Sprintf("s%d", w.n), fmt.Sprintf("t%d", w.n))
	case reflect.Bool:
		w.turn(v, path, false, true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		w.turn(v, path, w.n%100+1, w.n%100+2)
	case reflect.Pointer:
		if fill {
			v.Set(reflect.New(v.Type().Elem()))
		}
		w.value(v.Elem(), path)
	case reflect.Slice:
		if fill {
			// One block of a kind; two would make the test slow.
			n := 1
			if k := v.Type().Elem().Kind(); k != reflect.Pointer && k != reflect.Struct {
				n = 2
			}
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			w.value(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		entry := func(value any) {
			m := reflect.MakeMap(v.Type())
			m.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), reflect.ValueOf(value))
			v.Set(m)
		}
		var was, now any = "value", "other"
		if v.Type().Elem().Kind() == reflect.Interface {
			was, now = []any{map[string]any{"deep": 1}}, []any{map[string]any{"deep": 2}}
		}
		if !fill {
			entry(now)
			w.try(path)
		}
		entry(was)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.IsExported() && f.Tag.Get("json") != "-" && !serverSet[v.Type()][f.Name] {
				w.value(v.Field(i), path+"."+f.Name)
			}
		}
	default:
		w.t.Fatalf("%s: the test cannot fill a %s: teach it", path, v.Type())
	}
}

// Each field of a job is compared, those that are added later too.
func TestAnyOneChangedValueIsFound(t *testing.T) {
	before, after := &model.Job{}, &model.Job{}
	for _, j := range []*model.Job{before, after} {
		(&walk{t: t}).value(reflect.ValueOf(j).Elem(), "")
	}
	if d := Jobs(before, after, true); d.Type != None {
		t.Fatalf("a job with its like:\n%s", strings.Join(lines(d), "\n"))
	}
	found := 0
	w := &walk{t: t, try: func(path string) {
		field := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' })[0]
		d := Jobs(before, after, false)
		switch {
		case aside[field] && field != "TaskGroups":
			if d.Type != None {
				t.Errorf("%s is found, and should be left aside", path)
			}
		case d.Type != Edited:
			t.Errorf("%s changed, and the diff is %s", path, d.Type)
		default:
			found++
		}
	}}
	w.value(reflect.ValueOf(after).Elem(), "")
	if found < 100 {
		t.Errorf("only %d values were changed", found)
	}
	if d := Jobs(before, after, true); d.Type != None {
		t.Fatalf("a job with its like, at last:\n%s", strings.Join(lines(d), "\n"))
	}
}
