package summary

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll/model"
)

func jobsTable(region string, rows map[model.RowKey]bool) *Table[*model.JobRow] {
	t := newTable[*model.JobRow]()
	for k := range rows {
		t.put(&model.JobRow{Region: region, Namespace: k.Namespace, ID: k.ID, Status: "running", Priority: len(k.ID)})
	}
	return t
}

// pages reads all pages of a selection from regions; before each page it calls
// change, which may change the tables.
func pages(t interface{ Fatal(...any) }, tables map[string]*Table[*model.JobRow], sel Selection[*model.JobRow], size int, change func(page int)) (out []*model.JobRow) {
	token := ""
	for n := 0; ; n++ {
		change(n)
		after, err := ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		s := sel
		s.After = after
		var parts []Part[*model.JobRow]
		for region, table := range tables {
			rows := table.Select(region, &s)
			if n%2 == 1 {
				// As a region that was asked has them.
				some, err := Take(rows, size+1)
				if err != nil {
					t.Fatal(err)
				}
				rows = Rows(some)
			}
			parts = append(parts, Part[*model.JobRow]{region, rows})
		}
		page, next, err := Merge(parts, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > size || next != "" && len(page) < size {
			t.Fatal("a page of", len(page), "of", size, "rows, the next is", next)
		}
		out = append(out, page...)
		if token = next; token == "" {
			return out
		}
	}
}

func TestPagesHaveEachRowOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"", "a", "b", "ab", "a b", "ba", "web", "web-1", "é", "a\x00"})
		tables, all := map[string]*Table[*model.JobRow]{}, map[string]map[model.RowKey]bool{}
		for _, region := range []string{"ap", "eu", "us"} {
			all[region] = map[model.RowKey]bool{}
			for range rapid.IntRange(0, 12).Draw(t, "rows") {
				all[region][model.RowKey{Namespace: name.Draw(t, "namespace"), ID: name.Draw(t, "id")}] = true
			}
			tables[region] = jobsTable(region, all[region])
		}
		sel := Selection[*model.JobRow]{Namespace: rapid.SampledFrom([]string{"*", "a", "b"}).Draw(t, "wanted"), Prefix: rapid.SampledFrom([]string{"", "a", "web"}).Draw(t, "prefix")}
		if rapid.Bool().Draw(t, "filtered") {
			sel.Keep = func(r *model.JobRow) (bool, error) { return r.Priority%2 == 0, nil }
		}
		var want []string
		for region, rows := range all {
			for k := range rows {
				if (sel.Namespace == "*" || sel.Namespace == k.Namespace) && len(k.ID) >= len(sel.Prefix) && k.ID[:len(sel.Prefix)] == sel.Prefix && (sel.Keep == nil || len(k.ID)%2 == 0) {
					want = append(want, k.Namespace+"\x01"+k.ID+"\x01"+region)
				}
			}
		}
		var got []string
		rows := pages(t, tables, sel, rapid.IntRange(1, 5).Draw(t, "size"), func(int) {})
		for i, r := range rows {
			got = append(got, r.Namespace+"\x01"+r.ID+"\x01"+r.Region)
			if i > 0 && !after(Position{r.Key(), r.Region}, Position{rows[i-1].Key(), rows[i-1].Region}) {
				t.Fatalf("%q comes after %q", got[i], got[i-1])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

func TestPagesStayInPlaceWhileRegionsGoAndCome(t *testing.T) {
	rows := map[model.RowKey]bool{}
	for i := range 100 {
		rows[model.RowKey{Namespace: "default", ID: fmt.Sprintf("job-%03d", i)}] = true
	}
	tables := map[string]*Table[*model.JobRow]{}
	for _, region := range []string{"ap", "eu", "us"} {
		tables[region] = jobsTable(region, rows)
	}
	eu := tables["eu"]
	got := map[string]int{}
	for _, r := range pages(t, tables, Selection[*model.JobRow]{Namespace: "default"}, 7, func(n int) {
		switch n {
		case 10:
			delete(tables, "eu")
		case 20:
			tables["eu"] = eu
		case 5, 25:
			// The row that a page ended with may be gone by the next.
			us := tables["us"].clone()
			us.drop(model.RowKey{Namespace: "default", ID: fmt.Sprintf("job-%03d", n*7/3)})
			tables["us"] = us
		}
	}) {
		got[r.Region+" "+r.ID]++
	}
	for key := range rows {
		for _, region := range []string{"ap", "eu", "us"} {
			n := got[region+" "+key.ID]
			if n > 1 || n == 0 && region == "ap" {
				t.Errorf("%s of %s is there %d times", key.ID, region, n)
			}
		}
	}
	// A region that was away misses what was told meanwhile, and nothing else.
	if n := len(got); n < 270-12 || n > 300 {
		t.Errorf("%d rows", n)
	}
}

func TestOneRowIsFoundByItsID(t *testing.T) {
	table := jobsTable("us", map[model.RowKey]bool{{Namespace: "a", ID: "web"}: true, {Namespace: "a", ID: "web-2"}: true, {Namespace: "b", ID: "web"}: true})
	for namespace, want := range map[string]int{"a": 1, "b": 1, "c": 0, "*": 2} {
		rows, err := Take(table.Select("us", &Selection[*model.JobRow]{Namespace: namespace, ID: "web"}), 10)
		if err != nil || len(rows) != want {
			t.Errorf("in %q: %d rows, %v, want %d", namespace, len(rows), err, want)
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for _, token := range []string{"x", "!!!", "bm9uZQ", Position{}.String()[1:]} {
		if p, err := ParseToken(token); model.KindOf(err) != model.KindInvalid {
			t.Errorf("%q: %v, %v", token, p, err)
		}
	}
}
