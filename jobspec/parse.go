package jobspec

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"atoll/model"
)

// Options are what a file depends on beside its text.
type Options struct {
	// Variables are values by name, as typed on a command line.
	Variables map[string]string
	// VarFiles are texts of "name = value" lines, in order, VarText one more.
	VarFiles []File
	VarText  string
	// Env are "NAME=value" pairs, of which ATOLL_VAR_x and NOMAD_VAR_x count.
	Env []string
	// Loose ignores values for variables that the file does not declare;
	// otherwise they are errors. Those of Env never are.
	Loose bool
	// Files are what file functions read; nil turns them off.
	Files fs.FS
}

// File is a named text.
type File struct {
	Name    string
	Content []byte
}

// Bounds of a file; each is far above what people write.
const (
	maxSource    = 1 << 20
	maxNesting   = 200
	maxOperators = 10_000
	maxFaults    = 10
)

// Parse reads a job file. Its errors are of one line and begin with file and
// line; several faults are told together.
func Parse(name string, src []byte, opts Options) (*model.Job, error) {
	job, _, err := ParsePlaces(name, src, opts)
	return job, err
}

// ParsePlaces is Parse for those who go on to check the job: it returns where
// the job's parts are written, too.
func ParsePlaces(name string, src []byte, opts Options) (job *model.Job, places *Places, err error) {
	// A fault of a library on an odd input must not end the agent.
	defer func() {
		if p := recover(); p != nil {
			job, err = nil, model.Invalidf(name, "%s: cannot be read: %v", name, p)
		}
	}()
	body, err := parseBody(name, src)
	if err != nil {
		return nil, nil, err
	}
	d := &decoder{name: name, places: newPlaces()}
	root := &scope{src: src, budget: newBudget()}
	d.variables(body, opts, root)
	if err := d.err(); err != nil {
		return nil, nil, err
	}
	var found []*block
	for _, b := range d.children(&block{body: body, scope: root}) {
		switch b.kind {
		case "job":
			found = append(found, b)
		case "variable", "variables", "locals":
		default:
			d.fault(b.at, "", "a job file has no block %q here; it has job, variable, variables and locals%s", b.kind, hint(b.kind, []string{"job", "variable", "variables", "locals"}))
		}
	}
	for _, a := range body.Attributes {
		d.fault(a.SrcRange, "", "%q is no block; a job file begins with job \"name\" { … }", a.Name)
	}
	switch {
	case len(found) == 0:
		d.fault(body.SrcRange, "job", "there is no job block; write job \"name\" { … }")
	case len(found) > 1:
		d.fault(found[1].at, "job", "there are %d job blocks; a file has one", len(found))
	default:
		d.places.note("job", found[0].at)
		job = d.job(found[0])
	}
	if err := d.err(); err != nil {
		return nil, nil, err
	}
	return job, d.places, nil
}

func parseBody(name string, src []byte) (*hclsyntax.Body, error) {
	if err := guard(name, src); err != nil {
		return nil, err
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		d := &decoder{name: name, places: newPlaces()}
		d.diagnose(diags, "")
		return nil, d.err()
	}
	return f.Body.(*hclsyntax.Body), nil
}

// guard refuses text on which a recursive parser would overflow its stack, which
// Go cannot recover from.
func guard(name string, src []byte) error {
	if len(src) > maxSource {
		return model.Errorf(model.KindTooLarge, "%s: %d bytes are over the limit of %d for a job file", name, len(src), maxSource)
	}
	// The scanner does not recurse, but its tokens take memory: what is
	// hopelessly deep, even if some of it is text, does not come to it.
	depth := 0
	for _, b := range src {
		switch b {
		case '(', '[', '{':
			if depth++; depth > 10*maxNesting {
				return tooDeep(name, src)
			}
		case ')', ']', '}':
			depth = max(depth-1, 0)
		}
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, operators := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if depth++; depth > maxNesting {
				return model.Invalidf(name, "%s:%d: nested more than %d deep", name, t.Range.Start.Line, maxNesting)
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenBang,
			hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenQuestion:
			if operators++; operators > maxOperators {
				return model.Invalidf(name, "%s:%d: more than %d operators", name, t.Range.Start.Line, maxOperators)
			}
		case hclsyntax.TokenNumberLit:
			if len(t.Bytes) > 40 || strings.ContainsAny(string(t.Bytes), "eE") {
				return model.Invalidf(name, "%s:%d: the number %.20s… is longer than 40 digits or has an exponent", name, t.Range.Start.Line, t.Bytes)
			}
		}
	}
	return nil
}

func tooDeep(name string, src []byte) error {
	depth, line := 0, 1
	for _, b := range src {
		switch b {
		case '\n':
			line++
		case '(', '[', '{':
			if depth++; depth > maxNesting {
				return model.Invalidf(name, "%s:%d: nested more than %d deep", name, line, maxNesting)
			}
		case ')', ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return nil
}

// fault notes what is wrong at a place. path is what it is wrong with.
func (d *decoder) fault(at hcl.Range, path, format string, args ...any) {
	d.count++
	if len(d.faults) == maxFaults {
		return
	}
	if d.field == "" {
		d.field = path
	}
	where := d.name
	if at.Filename != "" {
		where = at.Filename
	}
	if at.Start.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, at.Start.Line)
	}
	if path != "" {
		path += ": "
	}
	d.faults = append(d.faults, where+": "+path+fmt.Sprintf(format, args...))
}

// diagnose notes what the HCL library says. It says the same of each line that
// an unclosed quote runs through: once is enough.
func (d *decoder) diagnose(diags hcl.Diagnostics, path string) {
	last := ""
	for _, diag := range diags {
		said := diag.Summary + diag.Detail
		if diag.Severity != hcl.DiagError || said == last {
			continue
		}
		last = said
		var at hcl.Range
		if diag.Subject != nil {
			at = *diag.Subject
		}
		text := diag.Summary
		if diag.Detail != "" {
			text += ": " + strings.Join(strings.Fields(diag.Detail), " ")
		}
		d.fault(at, path, "%s", strings.TrimSuffix(text, "."))
	}
}

func (d *decoder) err() error {
	if d.count == 0 {
		return nil
	}
	text := strings.Join(d.faults, "; ")
	if d.count > len(d.faults) {
		text += fmt.Sprintf("; and %d more", d.count-len(d.faults))
	}
	return &model.Error{Kind: model.KindInvalid, Field: d.field, Message: text}
}
