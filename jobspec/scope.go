package jobspec

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// scope is what names mean at a place in the file.
type scope struct {
	src    []byte
	budget *budget
	ctx    *hcl.EvalContext
	// known are the first parts of names that mean something here.
	known map[string]bool
}

// with returns the scope within, in which name means value.
func (s *scope) with(name string, value cty.Value) *scope {
	inner := &scope{src: s.src, budget: s.budget, ctx: s.ctx.NewChild(), known: map[string]bool{name: true}}
	inner.ctx.Variables = map[string]cty.Value{name: value}
	for k := range s.known {
		inner.known[k] = true
	}
	return inner
}

// eval returns an expression's value. Names that mean nothing here are left in
// the text.
func (s *scope) eval(e hclsyntax.Expression) (cty.Value, hcl.Diagnostics) {
	return s.rewrite(e, s.known).Value(s.ctx)
}

// text is a range of the source.
func (s *scope) text(r hcl.Range) string {
	if r.CanSliceBytes(s.src) {
		return string(r.SliceBytes(s.src))
	}
	return ""
}

func (s *scope) literal(r hcl.Range) hclsyntax.Expression {
	return &hclsyntax.LiteralValueExpr{Val: cty.StringVal("${" + s.text(r) + "}"), SrcRange: r}
}

// understands reports whether every name in an expression means something.
func understands(e hclsyntax.Expression, known map[string]bool) bool {
	for _, v := range e.Variables() {
		if !known[v.RootName()] {
			return false
		}
	}
	return true
}

// rewrite returns the expression with what means nothing here made literal text,
// and with what may grow put under the budget. The given one is not changed: it
// may be evaluated again in another scope.
func (s *scope) rewrite(e hclsyntax.Expression, known map[string]bool) hclsyntax.Expression {
	all := func(list []hclsyntax.Expression) []hclsyntax.Expression {
		out := make([]hclsyntax.Expression, len(list))
		for i, el := range list {
			out[i] = s.rewrite(el, known)
		}
		return out
	}
	part := func(p hclsyntax.Expression) hclsyntax.Expression {
		switch p.(type) {
		case *hclsyntax.LiteralValueExpr, *hclsyntax.TemplateJoinExpr, *hclsyntax.ConditionalExpr:
			return s.rewrite(p, known)
		}
		if !understands(p, known) {
			return s.literal(p.Range())
		}
		return s.rewrite(p, known)
	}
	switch e := e.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		if !known[e.Traversal.RootName()] {
			return s.literal(e.SrcRange)
		}
		return e
	case *hclsyntax.TemplateExpr:
		c := *e
		c.Parts = make([]hclsyntax.Expression, len(e.Parts))
		for i, p := range e.Parts {
			c.Parts[i] = part(p)
		}
		return &boundedTemplate{&c, s.budget}
	case *hclsyntax.TemplateWrapExpr:
		c := *e
		if c.Wrapped = part(e.Wrapped); !understands(e.Wrapped, known) {
			return c.Wrapped
		}
		return &c
	case *hclsyntax.TemplateJoinExpr:
		c := *e
		c.Tuple = s.rewrite(e.Tuple, known)
		return &c
	case *hclsyntax.TupleConsExpr:
		c := *e
		c.Exprs = all(e.Exprs)
		return &c
	case *hclsyntax.ObjectConsExpr:
		c := *e
		c.Items = make([]hclsyntax.ObjectConsItem, len(e.Items))
		for i, it := range e.Items {
			c.Items[i] = hclsyntax.ObjectConsItem{KeyExpr: s.rewrite(it.KeyExpr, known), ValueExpr: s.rewrite(it.ValueExpr, known)}
		}
		return &c
	case *hclsyntax.ObjectConsKeyExpr:
		if hcl.ExprAsKeyword(e.Wrapped) != "" && !e.ForceNonLiteral {
			return e // a plain word is a key, not a name
		}
		c := *e
		c.Wrapped = s.rewrite(e.Wrapped, known)
		return &c
	case *hclsyntax.FunctionCallExpr:
		c := *e
		c.Args = all(e.Args)
		return &c
	case *hclsyntax.ConditionalExpr:
		c := *e
		c.Condition, c.TrueResult, c.FalseResult = s.rewrite(e.Condition, known), s.rewrite(e.TrueResult, known), s.rewrite(e.FalseResult, known)
		return &c
	case *hclsyntax.BinaryOpExpr:
		c := *e
		c.LHS, c.RHS = s.rewrite(e.LHS, known), s.rewrite(e.RHS, known)
		return &boundedOp{&c}
	case *hclsyntax.UnaryOpExpr:
		c := *e
		c.Val = s.rewrite(e.Val, known)
		return &c
	case *hclsyntax.ParenthesesExpr:
		c := *e
		c.Expression = s.rewrite(e.Expression, known)
		return &c
	case *hclsyntax.IndexExpr:
		c := *e
		c.Collection, c.Key = s.rewrite(e.Collection, known), s.rewrite(e.Key, known)
		return &c
	case *hclsyntax.RelativeTraversalExpr:
		c := *e
		c.Source = s.rewrite(e.Source, known)
		return &c
	case *hclsyntax.SplatExpr:
		// Each refers to the item by identity: it must stay as it is.
		c := *e
		c.Source = s.rewrite(e.Source, known)
		return &c
	case *hclsyntax.ForExpr:
		c := *e
		inner := map[string]bool{e.ValVar: true}
		if e.KeyVar != "" {
			inner[e.KeyVar] = true
		}
		for k := range known {
			inner[k] = true
		}
		c.CollExpr = s.rewrite(e.CollExpr, known)
		if e.KeyExpr != nil {
			c.KeyExpr = s.rewrite(e.KeyExpr, inner)
		}
		c.ValExpr = s.rewrite(e.ValExpr, inner)
		if e.CondExpr != nil {
			c.CondExpr = s.rewrite(e.CondExpr, inner)
		}
		return &boundedFor{&c, s.budget}
	}
	return e
}
