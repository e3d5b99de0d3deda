package region

import (
	"fmt"
	"testing"

	"github.com/hashicorp/go-bexpr"
	"pgregory.net/rapid"

	"atoll/model"
)

// Whatever is asked, and of whatever, a filter answers as bexpr does.
func TestAFilterSaysWhatItsLibraryDoes(t *testing.T) {
	words := rapid.SampledFrom([]string{"web", "we", "", "running", "dc1", "true", "7", "0x7", "-7", "3", "^w.b$", "(", "a b"})
	fields := rapid.SampledFrom([]string{
		"ID", "Name", "Status", "Priority", "Stop", "Version", "SubmitTime", "Datacenters", "Groups", "Children", "Children.Running", "Region", "Key", "id", "Nonsense", `"/ID"`, `"/Groups/0/Name"`,
	})
	comparison := rapid.Custom(func(t *rapid.T) string {
		field, word := fields.Draw(t, "field"), fmt.Sprintf("%q", words.Draw(t, "word"))
		switch op := rapid.SampledFrom([]string{"==", "!=", "contains", "not contains", "matches", "not matches", "in", "not in", "is empty", "is not nil"}).Draw(t, "op"); op {
		case "in", "not in":
			return word + " " + op + " " + field
		case "is empty", "is not nil":
			return field + " " + op
		default:
			return field + " " + op + " " + word
		}
	})
	var expression func(depth int) *rapid.Generator[string]
	expression = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			kind := rapid.IntRange(0, 5).Draw(t, "kind")
			switch {
			case depth == 0 || kind < 3:
				return comparison.Draw(t, "comparison")
			case kind == 3:
				return "not (" + expression(depth-1).Draw(t, "of") + ")"
			}
			op := []string{"and", "or"}[kind-4]
			return "(" + expression(depth-1).Draw(t, "left") + ") " + op + " (" + expression(depth-1).Draw(t, "right") + ")"
		})
	}
	fast := 0
	rapid.Check(t, func(t *rapid.T) {
		text := expression(3).Draw(t, "filter")
		f, err := newFilter(text)
		eval, want := bexpr.CreateEvaluator(text)
		if (err == nil) != (want == nil) {
			t.Fatalf("%s: %v, and the library says %v", text, err, want)
		}
		if err != nil {
			return
		}
		for range 10 {
			row := &model.JobRow{
				ID: words.Draw(t, "id"), Name: words.Draw(t, "name"), Status: words.Draw(t, "status"), Priority: rapid.IntRange(-7, 7).Draw(t, "priority"), Stop: rapid.Bool().Draw(t, "stop"),
				Version: rapid.Uint64Range(0, 7).Draw(t, "version"), Datacenters: rapid.SliceOfN(words, 0, 2).Draw(t, "datacenters"),
			}
			if rapid.Bool().Draw(t, "a parent") {
				row.Children = &model.JobChildrenSummary{Running: 3}
			}
			got, err := f.passes(row)
			pass, want := func() (ok bool, err error) {
				defer func() {
					if p := recover(); p != nil {
						err = fmt.Errorf("%v", p)
					}
				}()
				return eval.Evaluate(row)
			}()
			if (err == nil) != (want == nil) || err == nil && got != pass {
				t.Fatalf("%s: %v, %v of %+v, and the library says %v, %v", text, got, err, row, pass, want)
			}
			if f.test != nil {
				fast++
			}
			if err != nil && model.KindOf(err) != model.KindInvalid {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
	if fast == 0 {
		t.Error("no filter was made a test")
	}
}

// Objects of several types in one list are each seen as what they are.
func TestAFilterOfSeveralTypes(t *testing.T) {
	f, err := newFilter(`Name == "web" or "dc1" in Datacenters`)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range []any{&model.JobRow{Name: "web"}, &struct{ Datacenters, Name string }{"dc1", "x"}, &model.JobRow{Name: "web"}, map[string]string{"Name": "web"}} {
		if ok, err := f.passes(object); !ok || err != nil {
			t.Errorf("%+v: %v, %v", object, ok, err)
		}
	}
	if _, err := f.passes(&model.NodeRow{}); model.KindOf(err) != model.KindInvalid {
		t.Errorf("nodes have no datacenters: %v", err)
	}
}
