package jobspec

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// variable is what a file declares.
type variable struct {
	name  string
	at    hcl.Range
	typ   cty.Type
	value cty.Value // cty.NilVal: none given yet
	rules []*hclsyntax.Body
}

// variables reads the variable, variables and locals blocks, and makes root the
// scope of the rest. A value counts, from weak to strong: the default, the
// environment, files in order, the command line.
func (d *decoder) variables(body *hclsyntax.Body, opts Options, root *scope) {
	root.ctx = &hcl.EvalContext{Functions: functions(root.budget, opts.Files), Variables: map[string]cty.Value{}}
	root.known = map[string]bool{}
	declared := d.declarations(body, root)
	d.given(declared, opts, root)
	vals := make(map[string]cty.Value)
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		v := declared[name]
		if v.value == cty.NilVal {
			d.fault(v.at, "variable "+name, "it has no value and no default; give it by -var %s=VALUE, a variables file, or the environment as ATOLL_VAR_%s", name, name)
			v.value = cty.DynamicVal
		}
		vals[name] = v.value
	}
	root.known["var"], root.known["local"] = true, true
	root.ctx.Variables["var"] = cty.ObjectVal(vals)
	root.ctx.Variables["local"] = cty.EmptyObjectVal
	if d.count > 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		d.validate(declared[name], root)
	}
	d.locals(body, root)
}

// declarations reads what the file declares, with its defaults.
func (d *decoder) declarations(body *hclsyntax.Body, root *scope) map[string]*variable {
	declared := make(map[string]*variable)
	declare := func(v *variable) {
		if declared[v.name] != nil {
			d.fault(v.at, "variable "+v.name, "it is declared twice")
		}
		declared[v.name] = v
	}
	for _, b := range body.Blocks {
		switch b.Type {
		case "variables":
			for _, a := range sortedAttributes(b.Body) {
				value, diags := root.eval(a.Expr)
				d.diagnose(diags, "variable "+a.Name)
				declare(&variable{name: a.Name, at: a.SrcRange, typ: cty.DynamicPseudoType, value: value})
			}
		case "variable":
			if len(b.Labels) != 1 {
				d.fault(b.DefRange(), "variable", "it has %d names; write variable \"name\" { … }", len(b.Labels))
				continue
			}
			v := &variable{name: b.Labels[0], at: b.DefRange(), typ: cty.DynamicPseudoType, value: cty.NilVal}
			for _, a := range sortedAttributes(b.Body) {
				switch a.Name {
				case "type":
					typ, diags := typeexpr.TypeConstraint(a.Expr)
					d.diagnose(diags, "variable "+v.name)
					v.typ = typ
				case "default", "description", "sensitive", "nullable":
				default:
					d.fault(a.SrcRange, "variable "+v.name, "unknown attribute %q%s", a.Name, hint(a.Name, []string{"type", "default", "description", "sensitive"}))
				}
			}
			if a := b.Body.Attributes["default"]; a != nil {
				value, diags := root.eval(a.Expr)
				d.diagnose(diags, "variable "+v.name)
				d.assign(v, value, a.SrcRange)
			}
			for _, inner := range b.Body.Blocks {
				if inner.Type == "validation" {
					v.rules = append(v.rules, inner.Body)
				} else {
					d.fault(inner.DefRange(), "variable "+v.name, "unknown block %q", inner.Type)
				}
			}
			declare(v)
		}
	}
	return declared
}

func sortedAttributes(b *hclsyntax.Body) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(b.Attributes), func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
}

// assign gives a variable a value, converted to its type.
func (d *decoder) assign(v *variable, value cty.Value, at hcl.Range) {
	if _, err := weigh(value); err != nil {
		d.fault(at, "variable "+v.name, "%v", err)
		return
	}
	converted, err := convert.Convert(value, v.typ)
	if err != nil {
		d.fault(at, "variable "+v.name, "the value does not fit its type: %v", err)
		return
	}
	v.value = converted
}

// given takes the values from outside.
func (d *decoder) given(declared map[string]*variable, opts Options, root *scope) {
	for _, prefix := range []string{"NOMAD_VAR_", "ATOLL_VAR_"} {
		for _, kv := range opts.Env {
			key, value, _ := strings.Cut(kv, "=")
			if name, ok := strings.CutPrefix(key, prefix); ok && declared[name] != nil {
				d.assignText(declared[name], key, value)
			}
		}
	}
	files := opts.VarFiles
	if opts.VarText != "" {
		files = append(slices.Clone(files), File{"variables", []byte(opts.VarText)})
	}
	for _, f := range files {
		body, err := parseBody(f.Name, f.Content)
		if err != nil {
			d.count++
			d.faults = append(d.faults, err.Error())
			continue
		}
		for _, b := range body.Blocks {
			d.fault(b.DefRange(), "", "a variables file has lines of name = value, and no block %q", b.Type)
		}
		of := &scope{src: f.Content, budget: root.budget, ctx: root.ctx, known: map[string]bool{}}
		for _, a := range sortedAttributes(body) {
			v := declared[a.Name]
			if v == nil {
				d.undeclared(opts, a.Name, a.SrcRange, declared)
				continue
			}
			value, diags := of.eval(a.Expr)
			d.diagnose(diags, "variable "+a.Name)
			d.assign(v, value, a.SrcRange)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Variables)) {
		if v := declared[name]; v != nil {
			d.assignText(v, "-var "+name, opts.Variables[name])
		} else {
			d.undeclared(opts, name, hcl.Range{Filename: "-var " + name}, declared)
		}
	}
}

func (d *decoder) undeclared(opts Options, name string, at hcl.Range, declared map[string]*variable) {
	if !opts.Loose {
		d.fault(at, "variable "+name, "the job file declares no such variable%s", hint(name, names(declared)))
	}
}

// assignText gives a variable a value that was typed: text as it is, anything
// else in HCL.
func (d *decoder) assignText(v *variable, where, text string) {
	at := hcl.Range{Filename: where}
	if v.typ == cty.String || v.typ == cty.DynamicPseudoType {
		d.assign(v, cty.StringVal(text), at)
		return
	}
	if err := guard(where, []byte(text)); err != nil {
		d.fault(at, "variable "+v.name, "%v", err)
		return
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), where, hcl.InitialPos)
	if diags.HasErrors() {
		d.diagnose(diags, "variable "+v.name)
		return
	}
	value, diags := expr.Value(nil)
	if diags.HasErrors() {
		d.diagnose(diags, "variable "+v.name)
		return
	}
	d.assign(v, value, at)
}

// validate checks a variable by its validation blocks.
func (d *decoder) validate(v *variable, root *scope) {
	for _, rule := range v.rules {
		condition, message := rule.Attributes["condition"], rule.Attributes["error_message"]
		if condition == nil {
			d.fault(rule.SrcRange, "variable "+v.name, "its validation has no condition")
			continue
		}
		ok, diags := root.eval(condition.Expr)
		d.diagnose(diags, "variable "+v.name)
		if diags.HasErrors() {
			continue
		}
		held, err := convert.Convert(ok, cty.Bool)
		if err != nil || held.IsNull() || !held.IsKnown() {
			d.fault(condition.SrcRange, "variable "+v.name, "the condition of its validation is neither true nor false")
			continue
		}
		if held.True() {
			continue
		}
		text := "its value is refused by its validation"
		if message != nil {
			if m, diags := root.eval(message.Expr); !diags.HasErrors() && m.Type() == cty.String && !m.IsNull() && m.IsKnown() {
				text = strings.Join(strings.Fields(m.AsString()), " ")
			}
		}
		d.fault(v.at, "variable "+v.name, "%s", text)
	}
}

// locals reads the locals blocks, each value after those that it needs.
func (d *decoder) locals(body *hclsyntax.Body, root *scope) {
	left := make(map[string]*hclsyntax.Attribute)
	for _, b := range body.Blocks {
		if b.Type != "locals" {
			continue
		}
		for _, a := range sortedAttributes(b.Body) {
			if left[a.Name] != nil {
				d.fault(a.SrcRange, "local "+a.Name, "it is given twice")
			}
			left[a.Name] = a
		}
	}
	values := make(map[string]cty.Value)
	for len(left) > 0 {
		progress := false
		for _, name := range slices.Sorted(maps.Keys(left)) {
			a := left[name]
			if needs(a.Expr, left) {
				continue
			}
			delete(left, name)
			progress = true
			v, diags := root.eval(a.Expr)
			// What needs this one would only repeat its fault.
			if d.diagnose(diags, "local "+name); diags.HasErrors() {
				return
			}
			if _, err := weigh(v); err != nil {
				d.fault(a.SrcRange, "local "+name, "%v", err)
				return
			}
			values[name] = v
			root.ctx.Variables["local"] = cty.ObjectVal(values)
		}
		if !progress {
			for _, name := range slices.Sorted(maps.Keys(left)) {
				d.fault(left[name].SrcRange, "local "+name, "it needs itself, through %s", strings.Join(slices.Sorted(maps.Keys(left)), ", "))
			}
			return
		}
	}
}

// needs reports whether an expression refers to a local that has no value yet.
func needs(e hclsyntax.Expression, left map[string]*hclsyntax.Attribute) bool {
	for _, t := range e.Variables() {
		if t.RootName() != "local" {
			continue
		}
		if len(t) < 2 {
			return len(left) > 1 // all of them at once
		}
		if step, ok := t[1].(hcl.TraverseAttr); !ok || left[step.Name] != nil {
			return true
		}
	}
	return false
}
