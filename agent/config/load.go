package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"atoll/internal/nearest"
	"atoll/model"
)

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Load reads files, and the .hcl and .json files of directories by name, over
// c, in order.
func (c *Config) Load(paths []string) error {
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("cannot read configuration: %w", err)
		}
		files := []string{p}
		if info.IsDir() {
			files = nil
			entries, err := os.ReadDir(p)
			if err != nil {
				return fmt.Errorf("cannot read configuration: %w", err)
			}
			for _, e := range entries {
				if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".hcl" || ext == ".json") {
					files = append(files, filepath.Join(p, e.Name()))
				}
			}
		}
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("cannot read configuration: %w", err)
			}
			if err := c.Parse(f, src); err != nil {
				return err
			}
		}
	}
	return nil
}

// Parse reads one file's text over c. The first line of the error names file
// and line.
func (c *Config) Parse(name string, src []byte) error {
	if len(src) > maxFile {
		return model.Invalidf(name, "%s: a configuration of %d bytes is over the limit of %d", name, len(src), maxFile)
	}
	var tree []entry
	var err error
	if strings.HasSuffix(name, ".json") || strings.HasPrefix(strings.TrimSpace(string(src)), "{") {
		tree, err = parseJSON(name, src)
	} else {
		tree, err = parseHCL(name, src)
	}
	if err != nil {
		return err
	}
	return c.apply("", tree)
}

// entry is a key with what it was given, of either syntax: a value, or the
// entries of a block or object.
type entry struct {
	key   string
	where string
	value any // string, bool, float64, []any, map[string]any; nil for a block
	block []entry
}

func (c *Config) apply(prefix string, tree []entry) error {
	for _, e := range tree {
		path := prefix + e.key
		if set, ok := settings[path]; ok {
			if set == nil {
				c.warn(path, e)
				continue
			}
			if err := set(c, e); err != nil {
				return model.Invalidf(path, "%s: %s: %v", e.where, path, err)
			}
			continue
		}
		if isBlock(path) && (e.block != nil || e.value == nil) {
			if err := c.apply(path+".", e.block); err != nil {
				return err
			}
			continue
		}
		if without(path) {
			c.warn(path, e)
			continue
		}
		return model.Invalidf(path, "%s: unknown key %q%s", e.where, path, suggest(path))
	}
	return nil
}

func (c *Config) warn(path string, e entry) {
	c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s has no effect in this version of Atoll", e.where, path))
}

func suggest(path string) string {
	if best := nearest.Word(path, slices.Collect(maps.Keys(settings))); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

func parseHCL(name string, src []byte) ([]entry, error) {
	if err := shallow(name, src); err != nil {
		return nil, err
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diagError(name, diags)
	}
	return body(name, f.Body.(*hclsyntax.Body))
}

// shallow refuses nesting that would overflow the parser's stack, which Go
// cannot recover from.
func shallow(name string, src []byte) error {
	depth, line := 0, 1
	for _, b := range src {
		switch b {
		case '\n':
			line++
		case '(', '[', '{':
			if depth++; depth > 100 {
				return model.Invalidf(name, "%s:%d: nested more than 100 deep", name, line)
			}
		case ')', ']', '}':
			depth--
		}
	}
	return nil
}

func diagError(name string, diags hcl.Diagnostics) error {
	d := diags[0]
	where := name
	if d.Subject != nil {
		where = fmt.Sprintf("%s:%d", name, d.Subject.Start.Line)
	}
	return model.Invalidf(name, "%s: %s: %s", where, d.Summary, strings.Join(strings.Fields(d.Detail), " "))
}

func body(name string, b *hclsyntax.Body) ([]entry, error) {
	var out []entry
	for _, key := range slices.Sorted(maps.Keys(b.Attributes)) {
		attr := b.Attributes[key]
		where := fmt.Sprintf("%s:%d", name, attr.SrcRange.Start.Line)
		v, diags := attr.Expr.Value(nil)
		if diags.HasErrors() {
			return nil, diagError(name, diags)
		}
		value, err := plain(v)
		if err != nil {
			return nil, model.Invalidf(key, "%s: %s: %v", where, key, err)
		}
		e := entry{key: key, where: where, value: value}
		if m, ok := value.(map[string]any); ok {
			e.block = objectEntries(where, m)
		}
		out = append(out, e)
	}
	for _, block := range b.Blocks {
		where := fmt.Sprintf("%s:%d", name, block.DefRange().Start.Line)
		inner, err := body(name, block.Body)
		if err != nil {
			return nil, err
		}
		for i := len(block.Labels) - 1; i >= 0; i-- {
			inner = []entry{{key: block.Labels[i], where: where, block: inner}}
		}
		if inner == nil {
			inner = []entry{}
		}
		out = append(out, entry{key: block.Type, where: where, block: inner})
	}
	return out, nil
}

func plain(v cty.Value) (any, error) {
	switch t := v.Type(); {
	case v.IsNull():
		return nil, nil
	case t == cty.String:
		return v.AsString(), nil
	case t == cty.Bool:
		return v.True(), nil
	case t == cty.Number:
		f, _ := v.AsBigFloat().Float64()
		return f, nil
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		out := []any{}
		for _, el := range v.AsValueSlice() {
			p, err := plain(el)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	case t.IsObjectType() || t.IsMapType():
		out := map[string]any{}
		for k, el := range v.AsValueMap() {
			p, err := plain(el)
			if err != nil {
				return nil, err
			}
			out[k] = p
		}
		return out, nil
	}
	return nil, errors.New("a value of this sort cannot be used")
}

func parseJSON(name string, src []byte) ([]entry, error) {
	if err := shallow(name, src); err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(src, &m); err != nil {
		line := 1
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			line += strings.Count(string(src[:min(int(syntax.Offset), len(src))]), "\n")
		}
		return nil, model.Invalidf(name, "%s:%d: %v", name, line, err)
	}
	return objectEntries(name, m), nil
}

// objectEntries gives a JSON object, or an HCL map, the form of a block. JSON
// writes repeated blocks as lists of objects.
func objectEntries(where string, m map[string]any) []entry {
	out := []entry{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e := entry{key: k, where: where, value: m[k]}
		switch v := m[k].(type) {
		case map[string]any:
			e.block = objectEntries(where, v)
		case []any:
			objects := 0
			for _, el := range v {
				if o, ok := el.(map[string]any); ok {
					out = append(out, entry{key: k, where: where, value: o, block: objectEntries(where, o)})
					objects++
				}
			}
			if objects > 0 && objects == len(v) {
				continue
			}
		}
		out = append(out, e)
	}
	return out
}
