package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"atoll/model"
)

// tree is a part of a job in the form in which it is compared: values as texts,
// and the parts within. A nil tree is of what is not there.
type tree struct {
	fields []leaf
	parts  []part
	// sum is what digest returned.
	sum string
}

// leaf is a value. Those of one key are the same value on both sides.
type leaf struct{ name, key, value string }

// part is a block. Blocks of one name that may come again have a key when they
// have a name of their own.
type part struct {
	name, key string
	tree      *tree
}

// identity is what a part is found by on the other side.
func (p part) identity() string {
	if p.key != "" {
		return "key " + p.key
	}
	return "as " + p.tree.digest()
}

// digest is the same for trees that say the same; values that say nothing do not
// count.
func (t *tree) digest() string {
	if t == nil {
		return ""
	}
	if t.sum == "" {
		b := []byte{'{'}
		for _, l := range t.fields {
			if l.value != "" {
				b = strconv.AppendQuote(append(strconv.AppendQuote(b, l.key), '='), l.value)
			}
		}
		for _, p := range t.parts {
			b = append(strconv.AppendQuote(append(strconv.AppendQuote(b, p.name), ' '), p.key), p.tree.digest()...)
		}
		t.sum = string(append(b, '}'))
	}
	return t.sum
}

// sort puts the tree in order, whatever that of lists and maps was.
func (t *tree) sort() *tree {
	slices.SortStableFunc(t.fields, func(a, b leaf) int { return strings.Compare(a.key, b.key) })
	slices.SortStableFunc(t.parts, func(a, b part) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.identity(), b.identity())
	})
	return t
}

func (t *tree) byKey() map[string]leaf {
	out := make(map[string]leaf)
	if t != nil {
		for _, l := range t.fields {
			out[l.key] = l
		}
	}
	return out
}

func (t *tree) byName() map[string][]part {
	out := make(map[string][]part)
	if t != nil {
		for _, p := range t.parts {
			out[p.name] = append(out[p.name], p)
		}
	}
	return out
}

// serverSet are the fields of blocks that the server sets.
var serverSet = map[reflect.Type]map[string]bool{
	reflect.TypeFor[model.ScalingPolicy](): {"ID": true, "Namespace": true, "Target": true, "CreateIndex": true, "ModifyIndex": true},
}

// treeOf is the tree of a struct, without the fields that are compared elsewhere.
func treeOf[T any](v *T, without map[string]bool) *tree {
	if v == nil {
		return nil
	}
	return structTree(reflect.ValueOf(v).Elem(), without)
}

func structTree(v reflect.Value, without map[string]bool) *tree {
	t := &tree{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		// What JSON does not show notes how a value came about.
		if f.IsExported() && !without[f.Name] && f.Tag.Get("json") != "-" {
			t.add(f.Name, v.Field(i))
		}
	}
	return t.sort()
}

// add adds a value under a name.
func (t *tree) add(name string, v reflect.Value) {
	if !v.IsValid() {
		t.leaf(name, "")
		return
	}
	switch x := v.Interface().(type) {
	case model.Opaque:
		t.addOpaque(name, x)
		return
	case time.Time:
		value := ""
		if !x.IsZero() {
			value = x.Format(time.RFC3339Nano)
		}
		t.leaf(name, value)
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		switch {
		case !v.IsNil():
			t.add(name, v.Elem())
		case v.Kind() != reflect.Pointer || v.Type().Elem().Kind() != reflect.Struct:
			t.leaf(name, "")
		}
	case reflect.Struct:
		t.parts = append(t.parts, part{name, "", structTree(v, serverSet[v.Type()])})
	case reflect.Map:
		t.addMap(name, v)
	case reflect.Slice, reflect.Array:
		t.addList(name, v)
	default:
		t.leaf(name, text(v))
	}
}

func (t *tree) leaf(name, value string) { t.fields = append(t.fields, leaf{name, name, value}) }

// addMap adds names with texts as fields, and anything freer as a block.
func (t *tree) addMap(name string, v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.String {
		for key, el := range sorted(v) {
			t.leaf(name+"["+key+"]", el.String())
		}
		return
	}
	if v.Len() > 0 {
		t.parts = append(t.parts, part{name, "", freeTree(v)})
	}
}

// addList adds each block of a list under the name of one, and plain values as
// the set that lists of them are.
func (t *tree) addList(name string, v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		t.leaf(name, string(v.Bytes()))
		return
	}
	set := &tree{}
	times := make(map[string]int)
	for _, el := range elements(v) {
		switch el.Kind() {
		case reflect.Struct:
			t.parts = append(t.parts, part{singular(name), keyOf(el), structTree(el, serverSet[el.Type()])})
		case reflect.Map:
			t.parts = append(t.parts, part{singular(name), keyIn(el), freeTree(el)})
		default:
			value := text(el)
			set.fields = append(set.fields, leaf{name, fmt.Sprintf("%s %q %d", name, value, times[value]), value})
			times[value]++
		}
	}
	if len(set.fields) > 0 {
		t.parts = append(t.parts, part{name, "", set.sort()})
	}
}

// addOpaque adds a part that this version keeps as it came.
func (t *tree) addOpaque(name string, o model.Opaque) {
	if o == nil {
		return
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(o))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.leaf(name, string(o))
		return
	}
	t.add(name, reflect.ValueOf(v))
}

// freeTree is the tree of a map whose names are somebody else's: one level, whose
// names say where in the map a value is.
func freeTree(v reflect.Value) *tree {
	t := &tree{}
	t.flatten("", v)
	return t.sort()
}

func (t *tree) flatten(at string, v reflect.Value) {
	for v.IsValid() && (v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer) {
		v = v.Elem()
	}
	within := func(key string) string {
		if at == "" {
			return key
		}
		return at + "[" + key + "]"
	}
	switch {
	case !v.IsValid():
		t.leaf(at, "")
	case v.Kind() == reflect.Map:
		if v.Len() == 0 && at != "" {
			t.leaf(at, "{}")
		}
		for key, el := range sorted(v) {
			t.flatten(within(key), el)
		}
	case v.Kind() == reflect.Slice:
		if v.Len() == 0 {
			t.leaf(at, "[]")
		}
		for i := range v.Len() {
			t.flatten(within(strconv.Itoa(i)), v.Index(i))
		}
	default:
		t.leaf(at, text(v))
	}
}

// sorted yields a map by its keys' texts.
func sorted(v reflect.Value) func(func(string, reflect.Value) bool) {
	all := make(map[string]reflect.Value, v.Len())
	for it := v.MapRange(); it.Next(); {
		all[fmt.Sprint(it.Key().Interface())] = it.Value()
	}
	return func(yield func(string, reflect.Value) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !yield(key, all[key]) {
				return
			}
		}
	}
}

// elements are a list's, without pointers and interfaces around them, and without
// those that are nil.
func elements(v reflect.Value) (out []reflect.Value) {
	for i := range v.Len() {
		el := v.Index(i)
		for el.IsValid() && (el.Kind() == reflect.Interface || el.Kind() == reflect.Pointer) {
			el = el.Elem()
		}
		if el.IsValid() {
			out = append(out, el)
		}
	}
	return out
}

// keyOf is the name that a block has, "" for none.
func keyOf(v reflect.Value) string {
	for _, name := range []string{"Name", "Label"} {
		if f := v.FieldByName(name); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
	}
	return ""
}

// keyIn is keyOf of a block that is kept as it came.
func keyIn(v reflect.Value) string {
	for key, el := range sorted(v) {
		if key == "Name" || key == "Label" {
			return fmt.Sprint(el.Interface())
		}
	}
	return ""
}

// one is how a single block of a list is called where that is not the list's name
// without its plural.
var one = map[string]string{"ReservedPorts": "Static Port", "DynamicPorts": "Dynamic Port"}

func singular(name string) string {
	switch {
	case one[name] != "":
		return one[name]
	case strings.HasSuffix(name, "ies"):
		return strings.TrimSuffix(name, "ies") + "y"
	}
	return strings.TrimSuffix(name, "s")
}

// text is a plain value; times are in nanoseconds, as everywhere in JSON.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	}
	return fmt.Sprint(v.Interface())
}
