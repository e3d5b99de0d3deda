package jobspec

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Bounds of what evaluation may cost. A weight is one for each value within a
// value, and one more for each 16 bytes of text; a step is a turn of a loop or a
// weight that a function looked at.
const (
	maxWeight  = 200_000
	maxSteps   = 1_000_000
	maxText    = 1 << 20
	maxBlocks  = 10_000
	maxExpBits = 4096
)

// budget is what is left for one file.
type budget struct {
	steps  int
	blocks int
}

func newBudget() *budget { return &budget{steps: maxSteps, blocks: maxBlocks} }

var (
	errSteps  = fmt.Errorf("the file takes more than %d steps to read: use fewer or smaller loops and lists", maxSteps)
	errWeight = fmt.Errorf("a value would hold more than %d parts", maxWeight)
	errText   = fmt.Errorf("a text would be longer than %d bytes", maxText)
	errNumber = errors.New("a number would be too large")
)

func (b *budget) spend(n int) error {
	if b.steps -= n; b.steps < 0 {
		return errSteps
	}
	return nil
}

// weigh returns a value's weight, or an error as soon as it is over the limit.
// Values share their parts, so that a small file can make a value that is
// immense when written out.
func weigh(v cty.Value) (int, error) {
	weight := 0
	var walk func(v cty.Value) error
	walk = func(v cty.Value) error {
		if weight++; weight > maxWeight {
			return errWeight
		}
		if v.IsNull() || !v.IsKnown() {
			return nil
		}
		switch t := v.Type(); {
		case t == cty.String:
			size := len(v.AsString())
			if weight += size / 16; size > maxText {
				return errText
			}
		case t == cty.Number:
			if e := v.AsBigFloat().MantExp(nil); e > maxExpBits || e < -maxExpBits {
				return errNumber
			}
		case v.CanIterateElements():
			for it := v.ElementIterator(); it.Next(); {
				_, el := it.Element()
				if err := walk(el); err != nil {
					return err
				}
			}
		}
		return nil
	}
	v, _ = v.UnmarkDeep()
	return weight, walk(v)
}

func refuse(err error, at hcl.Range) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error(), Subject: &at}}
}

// boundedFor is a for expression that pays for each of its turns.
type boundedFor struct {
	*hclsyntax.ForExpr
	budget *budget
}

func (e *boundedFor) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	coll, diags := e.CollExpr.Value(ctx)
	if !diags.HasErrors() && coll.IsKnown() && !coll.IsNull() && coll.CanIterateElements() {
		if err := e.budget.spend(coll.LengthInt() + 1); err != nil {
			return cty.DynamicVal, refuse(err, e.SrcRange)
		}
	}
	v, diags := e.ForExpr.Value(ctx)
	if !diags.HasErrors() {
		n, err := weigh(v)
		if err == nil {
			err = e.budget.spend(n)
		}
		if err != nil {
			return cty.DynamicVal, refuse(err, e.SrcRange)
		}
	}
	return v, diags
}

// boundedTemplate is a text whose length is bounded, so that texts made of each
// other do not double for ever.
type boundedTemplate struct {
	*hclsyntax.TemplateExpr
	budget *budget
}

func (e *boundedTemplate) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := e.TemplateExpr.Value(ctx)
	if !diags.HasErrors() {
		n, err := weigh(v)
		if err == nil {
			err = e.budget.spend(n)
		}
		if err != nil {
			return cty.DynamicVal, refuse(err, e.SrcRange)
		}
	}
	return v, diags
}

// boundedOp is an operation whose number is bounded.
type boundedOp struct{ *hclsyntax.BinaryOpExpr }

func (e *boundedOp) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := e.BinaryOpExpr.Value(ctx)
	if !diags.HasErrors() {
		if _, err := weigh(v); err != nil {
			return cty.DynamicVal, refuse(err, e.SrcRange)
		}
	}
	return v, diags
}

// bounded is a function whose arguments and result are weighed. growth refuses
// arguments of which the result would be too large to make; nil allows all.
func bounded(f function.Function, b *budget, growth func([]cty.Value) error) function.Function {
	weighAll := func(vals ...cty.Value) error {
		for _, v := range vals {
			n, err := weigh(v)
			if err == nil {
				err = b.spend(n)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	spec := &function.Spec{Params: f.Params(), VarParam: f.VarParam()}
	check := func(args []cty.Value) error {
		if err := weighAll(args...); err != nil || growth == nil {
			return err
		}
		for _, a := range args {
			if !a.IsWhollyKnown() {
				return nil
			}
		}
		return growth(args)
	}
	spec.Type = func(args []cty.Value) (cty.Type, error) {
		// Some functions compute their result to find its type.
		if err := check(args); err != nil {
			return cty.DynamicPseudoType, err
		}
		return f.ReturnTypeForValues(args)
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v, err := f.Call(args)
		if err != nil {
			return v, err
		}
		return v, weighAll(v)
	}
	return function.New(spec)
}
