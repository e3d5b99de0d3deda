package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/token"

	"atoll/model"
)

// entry is a key with what it was given, of either syntax: a value, or the
// entries of a block or object, or neither for JSON's null.
type entry struct {
	key   string
	where string
	value any // string, bool, float64, []any
	block []entry
	// list is a list's elements as they were read; expand makes a value or
	// blocks of them.
	list []entry
}

// String is what was given, for errors.
func (e entry) String() string {
	switch {
	case e.block != nil:
		return "a block"
	case e.value == nil:
		return "null"
	}
	return fmt.Sprint(e.value)
}

// plain is what was given as JSON would decode it.
func (e entry) plain() any {
	switch {
	case e.list != nil:
		values := make([]any, len(e.list))
		for i, el := range e.list {
			values[i] = el.plain()
		}
		return values
	case e.block != nil:
		object := map[string]any{}
		for _, inner := range e.block {
			object[inner.key] = inner.plain()
		}
		return object
	}
	return e.value
}

// expand returns what a key was given: an entry for each block of a list of
// blocks, which is how JSON writes a block that comes again, else one.
func (e entry) expand(key, where string) []entry {
	e.key, e.where = key, where
	if e.list == nil {
		return []entry{e}
	}
	if len(e.list) == 0 || slices.ContainsFunc(e.list, func(el entry) bool { return el.block == nil }) {
		return []entry{{key: key, where: where, value: e.plain()}}
	}
	for i := range e.list {
		e.list[i].key, e.list[i].where = key, where
	}
	return e.list
}

// maxDepth is below what would overflow the parser's stack, which Go cannot
// recover from.
const maxDepth = 100

// parseHCL reads HCL as Nomad's agents do, which is its first version: keys may
// be quoted, and blocks stand on one line.
func parseHCL(name string, src []byte) ([]entry, error) {
	if err := scan(name, src); err != nil {
		return nil, err
	}
	f, err := parser.ParseDontErrorOnDuplicateKeys(src)
	var at *parser.PosError
	if errors.As(err, &at) {
		return nil, model.Invalidf(name, "%s:%d: %s", name, at.Pos.Line, at.Err)
	}
	if err != nil {
		return nil, model.Invalidf(name, "%s: %s", name, err)
	}
	return (&hclReader{name}).list(f.Node.(*ast.ObjectList))
}

// scan refuses what the parser would not survive, or would take no notice of.
func scan(name string, src []byte) error {
	s := scanner.New(src)
	s.Error = func(token.Pos, string) {} // the parser tells
	depth := 0
	var last token.Token
	for t := s.Scan(); t.Type != token.EOF && t.Type != token.ILLEGAL; t = s.Scan() {
		switch t.Type {
		case token.LBRACE, token.LBRACK:
			if depth++; depth > maxDepth {
				return model.Invalidf(name, "%s:%d: nested more than %d deep", name, t.Pos.Line, maxDepth)
			}
		case token.RBRACE, token.RBRACK:
			depth--
		}
		if t.Type != token.COMMENT {
			last = t
		}
	}
	if last.Type == token.ASSIGN {
		return model.Invalidf(name, "%s:%d: the file ends where a value should be", name, last.Pos.Line)
	}
	return nil
}

type hclReader struct{ name string }

func (r *hclReader) at(n ast.Node) string { return fmt.Sprintf("%s:%d", r.name, n.Pos().Line) }

func (r *hclReader) list(l *ast.ObjectList) ([]entry, error) {
	out := []entry{}
	assigned := make(map[string]bool)
	for _, item := range l.Items {
		where := r.at(item)
		var keys []string
		for _, k := range item.Keys {
			v, err := literal(k.Token)
			if err != nil {
				return nil, model.Invalidf(r.name, "%s: %v", where, err)
			}
			keys = append(keys, v.(string))
		}
		if item.Assign.IsValid() {
			if assigned[keys[0]] {
				return nil, model.Invalidf(keys[0], "%s: %q is set twice", where, keys[0])
			}
			assigned[keys[0]] = true
		}
		v, err := r.value(item.Val)
		if err != nil {
			return nil, err
		}
		// A block's labels are blocks round it.
		for i := len(keys) - 1; i > 0; i-- {
			v = entry{block: v.expand(keys[i], where)}
		}
		out = append(out, v.expand(keys[0], where)...)
	}
	return out, nil
}

func (r *hclReader) value(n ast.Node) (e entry, err error) {
	switch n := n.(type) {
	case *ast.LiteralType:
		if e.value, err = literal(n.Token); err != nil {
			err = model.Invalidf(r.name, "%s: %v", r.at(n), err)
		}
	case *ast.ObjectType:
		e.block, err = r.list(n.List)
	case *ast.ListType:
		e.list = make([]entry, len(n.List))
		for i, el := range n.List {
			if e.list[i], err = r.value(el); err != nil {
				return e, err
			}
		}
	}
	return e, err
}

// literal is a token's value.
func literal(t token.Token) (v any, err error) {
	defer func() {
		// Value panics at what it cannot hold, such as a number of 30 digits.
		if p := recover(); p != nil {
			err = fmt.Errorf("%s cannot be read", t.Text)
		}
	}()
	v = t.Value()
	if i, whole := v.(int64); whole {
		return float64(i), nil
	}
	return v, nil
}

// parseJSON reads JSON, and keeps the line of each key.
func parseJSON(name string, src []byte) ([]entry, error) {
	r := &jsonReader{name: name, src: src, tokens: json.NewDecoder(bytes.NewReader(src))}
	t, err := r.next()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('{') {
		return nil, r.wrong(errors.New("a configuration in JSON is an object"))
	}
	out, err := r.object(1)
	if err != nil {
		return nil, err
	}
	if _, err := r.tokens.Token(); !errors.Is(err, io.EOF) {
		return nil, r.wrong(errors.New("more follows the object"))
	}
	return out, nil
}

type jsonReader struct {
	name   string
	src    []byte
	tokens *json.Decoder
}

// where is the line that was read to.
func (r *jsonReader) where() string {
	return fmt.Sprintf("%s:%d", r.name, 1+bytes.Count(r.src[:min(int(r.tokens.InputOffset()), len(r.src))], []byte("\n")))
}

func (r *jsonReader) wrong(err error) error {
	where := r.where()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		where = fmt.Sprintf("%s:%d", r.name, 1+bytes.Count(r.src[:min(int(syntax.Offset), len(r.src))], []byte("\n")))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		where, err = fmt.Sprintf("%s:%d", r.name, 1+bytes.Count(r.src, []byte("\n"))), errors.New("the file ends too early")
	}
	return model.Invalidf(r.name, "%s: %s", where, strings.TrimPrefix(err.Error(), "json: "))
}

func (r *jsonReader) next() (json.Token, error) {
	t, err := r.tokens.Token()
	if err != nil {
		return nil, r.wrong(err)
	}
	return t, nil
}

// object reads what follows an opening brace.
func (r *jsonReader) object(depth int) ([]entry, error) {
	out := []entry{}
	for r.tokens.More() {
		key, err := r.next()
		if err != nil {
			return nil, err
		}
		where := r.where()
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v.expand(key.(string), where)...)
	}
	_, err := r.next()
	return out, err
}

func (r *jsonReader) value(depth int) (e entry, err error) {
	if depth > maxDepth {
		return e, model.Invalidf(r.name, "%s: nested more than %d deep", r.where(), maxDepth)
	}
	t, err := r.next()
	if err != nil {
		return e, err
	}
	switch t {
	case json.Delim('{'):
		e.block, err = r.object(depth)
	case json.Delim('['):
		e.list = []entry{}
		for r.tokens.More() {
			v, err := r.value(depth + 1)
			if err != nil {
				return e, err
			}
			e.list = append(e.list, v)
		}
		_, err = r.next()
	default:
		e.value = t
	}
	return e, err
}
