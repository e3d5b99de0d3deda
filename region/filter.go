package region

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr"
	"github.com/hashicorp/go-bexpr/grammar"

	"atoll/model"
)

// filter is a go-bexpr expression over objects, which it sees as they are stored. It is
// for one goroutine.
//
// Package bexpr looks each field up by its name, among all of its object's, for each
// object: two microseconds, where most objects are of one type and most expressions
// compare fields with words. Those are made into a test of such objects, once.
type filter struct {
	text string
	tree grammar.Expression
	// eval is nil until an object needs it.
	eval *bexpr.Evaluator
	// typ is that of the last object, and test what tells whether one of it passes;
	// nil when that is bexpr's to say.
	typ  reflect.Type
	test test
}

// test tells whether an object passes, by its fields.
type test func(reflect.Value) bool

// maxFilterSteps bounds the parsing of a filter, whose cost doubles and doubles
// with each pair of brackets within brackets. One comparison takes 700 steps, 200
// of them 60,000; a million take 50 ms.
const maxFilterSteps = 1_000_000

// newFilter reads a filter, nil for "".
func newFilter(text string) (*filter, error) {
	if text == "" {
		return nil, nil
	}
	f := &filter{text: text}
	tree, err := grammar.Parse("", []byte(text), grammar.MaxExpressions(maxFilterSteps))
	if err != nil {
		return nil, f.invalid(err)
	}
	f.tree = tree.(grammar.Expression)
	return f, nil
}

func (f *filter) invalid(err error) error {
	return model.Invalidf("filter", "cannot list: filter %q: %v", f.text, err)
}

// passes reports whether an object, which is a pointer, passes. Errors are Invalid: the
// filter asks for what such objects do not have.
func (f *filter) passes(object any) (bool, error) {
	v := reflect.ValueOf(object)
	if f.typ != v.Type() {
		f.typ, f.test = v.Type(), nil
		if f.typ.Kind() == reflect.Pointer && f.typ.Elem().Kind() == reflect.Struct {
			f.test = testOf(f.tree, f.typ.Elem())
		}
	}
	if f.test != nil && !v.IsNil() {
		return f.test(v.Elem()), nil
	}
	return f.evaluate(object)
}

// evaluate asks bexpr, which panics when a pointer that it is to match is nil.
func (f *filter) evaluate(object any) (ok bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, f.invalid(fmt.Errorf("it cannot be asked of an object: %v", p))
		}
	}()
	if f.eval == nil {
		if f.eval, err = bexpr.CreateEvaluator(f.text, bexpr.WithMaxExpressions(maxFilterSteps)); err != nil {
			return false, f.invalid(err)
		}
	}
	if ok, err = f.eval.Evaluate(object); err != nil {
		return false, f.invalid(err)
	}
	return ok, nil
}

// testOf makes an expression a test of structs of a type, nil when it has something
// that is not as simple. It says what bexpr would: a test holds it to that.
func testOf(e grammar.Expression, typ reflect.Type) test {
	switch e := e.(type) {
	case *grammar.UnaryExpression:
		if of := testOf(e.Operand, typ); of != nil && e.Operator == grammar.UnaryOpNot {
			return func(v reflect.Value) bool { return !of(v) }
		}
	case *grammar.BinaryExpression:
		left, right := testOf(e.Left, typ), testOf(e.Right, typ)
		switch {
		case left == nil || right == nil:
		case e.Operator == grammar.BinaryOpAnd:
			return func(v reflect.Value) bool { return left(v) && right(v) }
		case e.Operator == grammar.BinaryOpOr:
			return func(v reflect.Value) bool { return left(v) || right(v) }
		}
	case *grammar.MatchExpression:
		if i := fieldOf(e.Selector, typ); i >= 0 && e.Value != nil {
			return matchOf(e, i, typ.Field(i).Type)
		}
	}
	return nil
}

// fieldOf is the number of the field that is selected, −1 unless it is one of the
// struct's own.
func fieldOf(s grammar.Selector, typ reflect.Type) int {
	if len(s.Path) != 1 {
		return -1
	}
	for i := range typ.NumField() {
		if f := typ.Field(i); f.IsExported() && f.Name == s.Path[0] && f.Tag.Get("bexpr") == "" {
			return i
		}
	}
	return -1
}

// matchOf is the test of a field.
func matchOf(e *grammar.MatchExpression, field int, typ reflect.Type) test {
	raw := e.Value.Raw
	var is test
	switch op := e.Operator; {
	case op == grammar.MatchEqual || op == grammar.MatchNotEqual:
		is = equalOf(raw, field, typ.Kind())
	case op == grammar.MatchMatches || op == grammar.MatchNotMatches:
		if re, err := regexp.Compile(raw); err == nil && typ.Kind() == reflect.String {
			is = func(v reflect.Value) bool { return re.MatchString(v.Field(field).String()) }
		}
	case op == grammar.MatchIn || op == grammar.MatchNotIn || op == grammar.MatchContains || op == grammar.MatchNotContains:
		switch {
		case typ.Kind() == reflect.String:
			is = func(v reflect.Value) bool { return strings.Contains(v.Field(field).String(), raw) }
		case typ == reflect.TypeFor[[]string]():
			is = func(v reflect.Value) bool { return slices.Contains(v.Field(field).Interface().([]string), raw) }
		}
	}
	switch e.Operator {
	case grammar.MatchNotEqual, grammar.MatchNotMatches, grammar.MatchNotIn, grammar.MatchNotContains:
		if is != nil {
			return func(v reflect.Value) bool { return !is(v) }
		}
	}
	return is
}

// equalOf is the test whether a field is what is written, nil when that cannot be
// written so.
func equalOf(raw string, field int, kind reflect.Kind) test {
	switch kind {
	case reflect.String:
		return func(v reflect.Value) bool { return v.Field(field).String() == raw }
	case reflect.Bool:
		if want, err := strconv.ParseBool(raw); err == nil {
			return func(v reflect.Value) bool { return v.Field(field).Bool() == want }
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if want, err := strconv.ParseInt(raw, 0, 64); err == nil {
			return func(v reflect.Value) bool { return v.Field(field).Int() == want }
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if want, err := strconv.ParseUint(raw, 0, 64); err == nil {
			return func(v reflect.Value) bool { return v.Field(field).Uint() == want }
		}
	}
	return nil
}
