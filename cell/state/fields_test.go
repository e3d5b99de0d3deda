package state

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"atoll/internal/wire"
	"atoll/model"
)

// filler gives every exported field a value of its own that is not zero, so that
// a field which some road forgets is missed at its end.
type filler struct {
	t testing.TB
	n int
}

// depthOf bounds types that hold themselves.
const depthOf = 12

func (f *filler) fill(v reflect.Value, path string, depth int) {
	f.n++
	if depth > depthOf {
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Unix(1_700_000_000+int64(f.n), 0).UTC()
		return
	case *model.Opaque:
		*x = model.Opaque(fmt.Sprintf(`{"a":%d}`, f.n))
		return
	case *model.AllocState:
		*x = 1
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%s-%d", path[strings.LastIndexByte(path, '.')+1:], f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.n%100 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.n%100 + 1))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(f.n) + 0.5)
	case reflect.Interface:
		v.Set(reflect.ValueOf(fmt.Sprintf("any-%d", f.n)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			f.fill(v.Index(i), path, depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), path, depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(k, path+"Key", depth+1)
		f.fill(e, path, depth+1)
		v.SetMapIndex(k, e)
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				f.fill(v.Field(i), path+"."+field.Name, depth+1)
			}
		}
	default:
		f.t.Fatalf("%s: the test cannot fill a %s: teach it", path, v.Type())
	}
}

func (f *filler) row(t reflect.Type) any {
	v := reflect.New(t)
	f.fill(v.Elem(), t.Name(), 0)
	return v.Interface()
}

// withoutSecrets zeroes what JSON leaves out on purpose.
func withoutSecrets(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			withoutSecrets(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			withoutSecrets(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			switch {
			case !field.IsExported():
			case field.Tag.Get("json") == "-":
				v.Field(i).SetZero()
			default:
				withoutSecrets(v.Field(i))
			}
		}
	}
}

// missing names the first field in which two values of a type differ.
func missing(path string, a, b reflect.Value) string {
	if !a.IsValid() || !b.IsValid() {
		return path
	}
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !a.IsNil() && !b.IsNil() {
			return missing(path, a.Elem(), b.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range min(a.Len(), b.Len()) {
			if m := missing(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i)); m != "" {
				return m
			}
		}
	case reflect.Map:
		for _, k := range a.MapKeys() {
			if m := missing(fmt.Sprintf("%s[%v]", path, k), a.MapIndex(k), b.MapIndex(k)); m != "" {
				return m
			}
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() {
				if m := missing(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i)); m != "" {
					return m
				}
			}
		}
	}
	return fmt.Sprintf("%s: %v became %v", path, a, b)
}

func same(t *testing.T, road string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: %s", road, missing(reflect.TypeOf(want).Elem().Name(), reflect.ValueOf(want), reflect.ValueOf(got)))
	}
}

// rowTypes are what snapshots hold: the tables' rows, and what allocations are
// made of.
func rowTypes() []reflect.Type {
	out := []reflect.Type{reflect.TypeFor[model.AllocShared](), reflect.TypeFor[model.AllocExtra](), reflect.TypeFor[Kept](), reflect.TypeFor[model.Allocation]()}
	for _, t := range tables {
		if t.row.NumField() > 0 && t.row != reflect.TypeFor[memory]() {
			out = append(out, t.row)
		}
	}
	return out
}

func TestEveryFieldSurvivesTheEncodingsAndACopy(t *testing.T) {
	f := &filler{t: t}
	for _, typ := range rowTypes() {
		row := f.row(typ)
		b, err := wire.Encode(row)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(typ).Interface()
		if err := wire.Decode(b, back); err != nil {
			t.Fatal(err)
		}
		same(t, "msgpack", row, back)

		if m := reflect.ValueOf(row).MethodByName("Copy"); m.IsValid() && m.Type().NumIn() == 0 && m.Type().NumOut() == 1 {
			same(t, "Copy", row, m.Call(nil)[0].Interface())
		}

		withoutSecrets(reflect.ValueOf(row))
		if b, err = json.Marshal(row); err != nil {
			t.Fatal(err)
		}
		back = reflect.New(typ).Interface()
		if err := json.Unmarshal(b, back); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		withoutSecrets(reflect.ValueOf(back)) // decoding may note what was given
		same(t, "JSON", row, back)
	}
}

func TestEveryFieldOfEveryTableIsInTheSnapshot(t *testing.T) {
	f := &filler{t: t}
	s := newStore(t)
	tx := s.db.Txn(true)
	want := map[string]any{}
	for _, table := range tables {
		if table.name == tableRequests {
			continue // its row is of unexported parts; its test is once_test's
		}
		want[table.name] = f.row(table.row)
		if err := tx.Insert(table.name, want[table.name]); err != nil {
			t.Fatal(err)
		}
	}
	kept := &Kept{}
	f.fill(reflect.ValueOf(kept).Elem(), "Kept", 0)
	m := newMemory()
	m.horizon = 77
	m.add(kept)
	if err := tx.Insert(tableRequests, m); err != nil {
		t.Fatal(err)
	}
	// One allocation with everything that a row can have.
	row := *f.row(reflect.TypeFor[model.AllocRow]()).(*model.AllocRow)
	rows := newAllocTable().begin(0)
	j, n := rows.ownJob(row.Shared.Job.Key()), rows.ownNode(row.NodeID)
	j.modified, j.incarnation, n.name, n.modified = 5, 6, "n", 7
	if err := rows.restore(row); err != nil {
		t.Fatal(err)
	}
	table, _ := rows.publish()
	if err := tx.Insert(tableAllocs, &allocRoot{table: table}); err != nil {
		t.Fatal(err)
	}
	tx.Commit()

	other := reread(t, s)
	snap := other.Snapshot()
	for name, row := range want {
		found := 0
		for got := range each[any](snap.tx, nil, name, byID) {
			found++
			same(t, "table "+name, row, got)
		}
		if found != 1 {
			t.Errorf("table %s has %d rows, want 1", name, found)
		}
	}
	back := first[*memory](snap.tx, nil, tableRequests)
	if back.horizon != 77 || back.byID.Len() != 1 {
		t.Errorf("requests: horizon %d, %d kept", back.horizon, back.byID.Len())
	}
	back.byID.Ascend(func(k *Kept) bool { same(t, "requests", kept, k); return true })
	same(t, "allocation", &row, snap.Alloc(nil, row.ID))
	jb, nb := snap.allocs.job(row.Shared.Job.Key()), snap.allocs.node(row.NodeID)
	if jb.modified != 5 || jb.incarnation != 6 || nb.name != "n" || nb.modified != 7 {
		t.Errorf("the job's and the node's entries came back as %+v and %+v", jb, nb)
	}
}
