package jobspec

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"atoll/internal/nearest"
	"atoll/model"
)

// decoder gathers what is wrong with a file.
type decoder struct {
	name   string
	faults []string
	count  int
	field  string
	places *Places
}

// block is a block of the file with the scope that it is read in.
type block struct {
	kind   string
	labels []string
	body   *hclsyntax.Body
	scope  *scope
	at     hcl.Range
	// path names it to people.
	path string
}

// attrs and blocks are the tables of a block: what each name within sets.
type (
	attrs  map[string]func(*value)
	blocks map[string]func(*block)
)

// value is an attribute's value on its way to where it belongs.
type value struct {
	d    *decoder
	v    cty.Value
	at   hcl.Range
	path string
}

// hint names the word that was likely meant.
func hint(word string, known []string) string {
	if n := nearest.Word(word, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// read decodes a block by its tables.
func (d *decoder) read(b *block, as attrs, bs blocks) {
	for _, a := range sortedAttributes(b.body) {
		if set, ok := as[a.Name]; ok {
			if v := d.value(b, a); v != nil {
				set(v)
			}
			continue
		}
		if set, ok := bs[a.Name]; ok {
			// A map may be written where a block may.
			if inner := asBlock(b, a); inner != nil {
				set(inner)
				continue
			}
		}
		d.fault(a.SrcRange, b.path, "unknown attribute %q%s", a.Name, hint(a.Name, slices.Concat(names(as), names(bs))))
	}
	for _, inner := range d.children(b) {
		set, ok := bs[inner.kind]
		if !ok {
			d.fault(inner.at, b.path, "unknown block %q%s", inner.kind, hint(inner.kind, slices.Concat(names(as), names(bs))))
			continue
		}
		set(inner)
	}
}

// asBlock makes a block of "name = { … }".
func asBlock(b *block, a *hclsyntax.Attribute) *block {
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil
	}
	body := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, SrcRange: a.SrcRange}
	for _, it := range obj.Items {
		key, diags := b.scope.eval(it.KeyExpr)
		if diags.HasErrors() || key.Type() != cty.String || key.IsNull() {
			return nil
		}
		body.Attributes[key.AsString()] = &hclsyntax.Attribute{Name: key.AsString(), Expr: it.ValueExpr, SrcRange: a.SrcRange}
	}
	return &block{kind: a.Name, body: body, scope: b.scope, at: a.SrcRange, path: join(b.path, a.Name)}
}

func join(path, part string) string {
	if path == "" {
		return part
	}
	return path + " > " + part
}

// children are a block's blocks, with dynamic ones written out.
func (d *decoder) children(b *block) []*block {
	var out []*block
	for _, hb := range b.body.Blocks {
		inner := &block{kind: hb.Type, labels: hb.Labels, body: hb.Body, scope: b.scope, at: hb.DefRange()}
		if hb.Type == "dynamic" {
			out = append(out, d.dynamic(b, inner)...)
			continue
		}
		out = append(out, inner)
	}
	for _, inner := range out {
		label := inner.kind
		for _, l := range inner.labels {
			label += fmt.Sprintf(" %q", l)
		}
		// The job is in the file's name, as far as a reader goes.
		if b.path == "" || b.kind == "job" {
			inner.path = label
		} else {
			inner.path = join(b.path, label)
		}
		d.places.note(inner.path, inner.at)
	}
	return out
}

// dynamic writes out a dynamic block: one block of its content for each element
// of for_each.
func (d *decoder) dynamic(parent, b *block) []*block {
	if len(b.labels) != 1 {
		d.fault(b.at, parent.path, "a dynamic block has one label, the kind of block that it makes")
		return nil
	}
	kind := b.labels[0]
	iterator := kind
	var each, labels *hclsyntax.Attribute
	for _, a := range sortedAttributes(b.body) {
		switch a.Name {
		case "for_each":
			each = a
		case "labels":
			labels = a
		case "iterator":
			if iterator = hcl.ExprAsKeyword(a.Expr); iterator == "" {
				d.fault(a.SrcRange, parent.path, "iterator is no plain name")
				return nil
			}
		default:
			d.fault(a.SrcRange, parent.path, "unknown attribute %q of a dynamic block%s", a.Name, hint(a.Name, []string{"for_each", "labels", "iterator"}))
		}
	}
	var content *hclsyntax.Body
	for _, c := range b.body.Blocks {
		if c.Type == "content" {
			content = c.Body
		}
	}
	if each == nil || content == nil {
		d.fault(b.at, parent.path, "dynamic %q needs for_each and a content block", kind)
		return nil
	}
	list, diags := parent.scope.eval(each.Expr)
	if diags.HasErrors() {
		d.diagnose(diags, parent.path)
		return nil
	}
	if list.IsNull() || !list.IsKnown() || !list.CanIterateElements() {
		d.fault(each.SrcRange, parent.path, "for_each of dynamic %q is no list, set or map", kind)
		return nil
	}
	var out []*block
	for it := list.ElementIterator(); it.Next(); {
		if parent.scope.budget.blocks--; parent.scope.budget.blocks < 0 {
			d.fault(b.at, parent.path, "dynamic blocks make more than %d blocks", maxBlocks)
			return nil
		}
		key, val := it.Element()
		if list.Type().IsSetType() {
			key = val
		}
		inner := &block{kind: kind, body: content, at: b.at, scope: parent.scope.with(iterator, cty.ObjectVal(map[string]cty.Value{"key": key, "value": val}))}
		if labels != nil {
			names, diags := inner.scope.eval(labels.Expr)
			if diags.HasErrors() {
				d.diagnose(diags, parent.path)
				return nil
			}
			v := &value{d: d, v: names, at: labels.SrcRange, path: parent.path}
			v.strings(&inner.labels)
		}
		out = append(out, inner)
	}
	return out
}

// value evaluates an attribute; nil when it cannot be, or is null, which is as
// if it were not there.
func (d *decoder) value(b *block, a *hclsyntax.Attribute) *value {
	path := join(b.path, a.Name)
	if b.kind == "job" {
		path = a.Name
	}
	d.places.note(path, a.SrcRange)
	v, diags := b.scope.eval(a.Expr)
	if diags.HasErrors() {
		d.diagnose(diags, path)
		return nil
	}
	if v.IsNull() || !v.IsKnown() {
		return nil
	}
	return &value{d: d, v: v, at: a.SrcRange, path: path}
}

func (v *value) wrong(want string) {
	v.d.fault(v.at, v.path, "%s is not %s", v.show(), want)
}

// show is the value as it was written, roughly.
func (v *value) show() string {
	switch t := v.v.Type(); {
	case t == cty.String:
		return fmt.Sprintf("%.40q", v.v.AsString())
	case t == cty.Number:
		return v.v.AsBigFloat().Text('g', 10)
	case t == cty.Bool:
		return fmt.Sprint(v.v.True())
	case t.IsObjectType() || t.IsMapType():
		return "a map"
	}
	return "a list"
}

func (v *value) string(to *string) {
	s, err := convert.Convert(v.v, cty.String)
	if err != nil || s.IsNull() || !s.IsKnown() {
		v.wrong("text")
		return
	}
	*to = s.AsString()
}

func (v *value) int(to *int) {
	n, err := convert.Convert(v.v, cty.Number)
	if err == nil && !n.IsNull() && n.IsKnown() {
		if i, exact := n.AsBigFloat().Int64(); exact == big.Exact && i >= -1<<31 && i < 1<<31 {
			*to = int(i)
			return
		}
	}
	v.wrong("a whole number")
}

func (v *value) bool(to *bool) {
	b, err := convert.Convert(v.v, cty.Bool)
	if err != nil || b.IsNull() || !b.IsKnown() {
		v.wrong("true or false")
		return
	}
	*to = b.True()
}

func (v *value) duration(to *time.Duration) {
	if v.v.Type() == cty.Number {
		v.d.fault(v.at, v.path, "%s has no unit; write a time such as \"30s\"", v.show())
		return
	}
	var s string
	if v.string(&s); s == "" {
		return
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		v.wrong("a time; write one such as \"30s\" or \"1h\"")
		return
	}
	*to = t
}

func (v *value) strings(to *[]string) {
	if !v.v.CanIterateElements() || v.v.Type().IsObjectType() || v.v.Type().IsMapType() {
		v.wrong("a list of texts")
		return
	}
	var out []string
	for it := v.v.ElementIterator(); it.Next(); {
		_, el := it.Element()
		if el.IsNull() {
			v.wrong("a list of texts: it holds null")
			return
		}
		var s string
		(&value{v.d, el, v.at, v.path}).string(&s)
		out = append(out, s)
	}
	*to = out
}

// any is the value in the forms that JSON has: text, bool, int for whole numbers
// and float64 for others, lists and maps.
func (v *value) any() any {
	if _, err := weigh(v.v); err != nil {
		v.d.fault(v.at, v.path, "%v", err)
		return nil
	}
	return plain(v.v)
}

func plain(v cty.Value) any {
	if v.IsNull() || !v.IsKnown() {
		return nil
	}
	switch t := v.Type(); {
	case t == cty.String:
		return v.AsString()
	case t == cty.Bool:
		return v.True()
	case t == cty.Number:
		if i, exact := v.AsBigFloat().Int64(); exact == big.Exact {
			return int(i)
		}
		f, _ := v.AsBigFloat().Float64()
		return f
	case t.IsObjectType() || t.IsMapType():
		out := make(map[string]any)
		for it := v.ElementIterator(); it.Next(); {
			key, el := it.Element()
			out[key.AsString()] = plain(el)
		}
		return out
	}
	out := []any{}
	for it := v.ElementIterator(); it.Next(); {
		_, el := it.Element()
		out = append(out, plain(el))
	}
	return out
}

// texts reads a block or map of names with texts.
func (d *decoder) texts(to *map[string]string) func(*block) {
	return func(b *block) {
		if *to == nil {
			*to = make(map[string]string)
		}
		for _, a := range sortedAttributes(b.body) {
			if v := d.value(b, a); v != nil {
				var s string
				v.string(&s)
				(*to)[a.Name] = s
			}
		}
		for _, inner := range d.children(b) {
			d.fault(inner.at, b.path, "unknown block %q; there are names with texts here", inner.kind)
		}
	}
}

// free reads a block whose names are somebody else's. Blocks within become lists
// of maps, since a name may come again.
func (d *decoder) free(b *block) map[string]any { return d.freely(b, false) }

// freely is free, with what stands under a label in a list too when listed is set.
func (d *decoder) freely(b *block, listed bool) map[string]any {
	out := make(map[string]any)
	for _, a := range sortedAttributes(b.body) {
		if v := d.value(b, a); v != nil {
			out[a.Name] = v.any()
		}
	}
	for _, inner := range d.children(b) {
		var v any = d.freely(inner, listed)
		for _, l := range slices.Backward(inner.labels) {
			if listed {
				v = []any{v}
			}
			v = map[string]any{l: v}
		}
		list, _ := out[inner.kind].([]any)
		out[inner.kind] = append(list, v)
	}
	return out
}

// opaque keeps a block that this version does not act on, in JSON, so that it can
// be refused by name. Repeated ones are kept as a list.
func (d *decoder) opaque(to *model.Opaque) func(*block) {
	var all []any
	return func(b *block) {
		m := d.free(b)
		if len(b.labels) > 0 {
			m["labels"] = b.labels
		}
		all = append(all, m)
		text, err := json.Marshal(all)
		if err != nil {
			d.fault(b.at, b.path, "it cannot be kept: %v", err)
			return
		}
		*to = text
	}
}

// opaqueValue keeps an attribute that this version does not act on.
func opaqueValue(to *model.Opaque) func(*value) {
	return func(v *value) {
		if text, err := json.Marshal(v.any()); err == nil {
			_ = to.UnmarshalJSON(text)
		}
	}
}

// label is a block's one label.
func (d *decoder) label(b *block) string {
	if len(b.labels) != 1 || strings.TrimSpace(b.labels[0]) == "" {
		d.fault(b.at, b.path, "a %s has one name; write %s \"name\" { … }", b.kind, b.kind)
		return ""
	}
	return b.labels[0]
}
