package jobspec

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"math"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/go-cty-funcs/cidr"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"atoll/model"
)

// functions are those that a file may call, under a budget.
func functions(b *budget, files fs.FS) map[string]function.Function {
	out := make(map[string]function.Function)
	for name, f := range plainFunctions {
		out[name] = bounded(f, b, growth[name])
	}
	// These two see unevaluated expressions: they cannot be wrapped, and
	// make nothing themselves.
	out["try"], out["can"] = tryfunc.TryFunc, tryfunc.CanFunc
	for name, f := range fileFunctions(files) {
		out[name] = bounded(f, b, nil)
	}
	return out
}

var plainFunctions = map[string]function.Function{
	"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc, "log": stdlib.LogFunc, "max": stdlib.MaxFunc,
	"min": stdlib.MinFunc, "parseint": stdlib.ParseIntFunc, "pow": stdlib.PowFunc, "signum": stdlib.SignumFunc,

	"chomp": stdlib.ChompFunc, "format": stdlib.FormatFunc, "formatlist": stdlib.FormatListFunc, "indent": stdlib.IndentFunc,
	"join": stdlib.JoinFunc, "lower": stdlib.LowerFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
	"regex_replace": stdlib.RegexReplaceFunc, "replace": stdlib.ReplaceFunc, "split": stdlib.SplitFunc, "strlen": stdlib.StrlenFunc,
	"strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc, "title": stdlib.TitleFunc, "trim": stdlib.TrimFunc,
	"trimprefix": stdlib.TrimPrefixFunc, "trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc, "upper": stdlib.UpperFunc,
	"startswith": textPredicate(strings.HasPrefix), "endswith": textPredicate(strings.HasSuffix), "strcontains": textPredicate(strings.Contains),

	"chunklist": stdlib.ChunklistFunc, "coalesce": stdlib.CoalesceFunc, "coalescelist": stdlib.CoalesceListFunc, "compact": stdlib.CompactFunc,
	"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc,
	"flatten": stdlib.FlattenFunc, "index": stdlib.IndexFunc, "keys": stdlib.KeysFunc, "length": lengthFunc, "lookup": stdlib.LookupFunc,
	"merge": stdlib.MergeFunc, "range": stdlib.RangeFunc, "reverse": stdlib.ReverseListFunc, "setintersection": stdlib.SetIntersectionFunc,
	"setproduct": stdlib.SetProductFunc, "setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc,
	"sort": stdlib.SortFunc, "values": stdlib.ValuesFunc, "zipmap": stdlib.ZipmapFunc,

	"csvdecode": stdlib.CSVDecodeFunc, "jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc,
	"yamldecode": yaml.YAMLDecodeFunc, "yamlencode": yaml.YAMLEncodeFunc,
	"base64encode": textFunc(func(s string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil }),
	"base64decode": textFunc(decodeBase64), "urlencode": textFunc(func(s string) (string, error) { return url.QueryEscape(s), nil }),

	"formatdate": stdlib.FormatDateFunc, "timeadd": stdlib.TimeAddFunc,

	"cidrhost": cidr.HostFunc, "cidrnetmask": cidr.NetmaskFunc, "cidrsubnet": cidr.SubnetFunc, "cidrsubnets": cidr.SubnetsFunc,

	"md5": hashFunc(md5.New), "sha1": hashFunc(sha1.New), "sha256": hashFunc(sha256.New), "sha512": hashFunc(sha512.New),
	"uuidv4": function.New(&function.Spec{Type: function.StaticReturnType(cty.String), Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
		return cty.StringVal(model.NewUUID(nil).String()), nil
	}}),

	"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number), "tobool": stdlib.MakeToFunc(cty.Bool),
	"tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
	"tomap": stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)),
}

// growth refuses arguments whose result would be far larger than they are.
var growth = map[string]func([]cty.Value) error{
	"setproduct": func(args []cty.Value) error {
		product := 1.0
		for _, a := range args {
			if a.CanIterateElements() {
				product *= float64(a.LengthInt())
			}
		}
		if product*float64(len(args)) > maxWeight {
			return errWeight
		}
		return nil
	},
	"format":     checkWidths,
	"formatlist": checkWidths,
	"indent": func(args []cty.Value) error {
		if n, _ := args[0].AsBigFloat().Float64(); n*float64(1+strings.Count(args[1].AsString(), "\n")) > maxText {
			return errText
		}
		return nil
	},
	"join": func(args []cty.Value) error {
		total := 0
		for _, a := range args[1:] {
			total += a.LengthInt()
		}
		if float64(total)*float64(len(args[0].AsString())) > maxText {
			return errText
		}
		return nil
	},
	"replace": func(args []cty.Value) error {
		return checkReplace(args, func(s, old string) int {
			if len(old) > 1 && strings.HasPrefix(old, "/") && strings.HasSuffix(old, "/") {
				return len(s) + 1
			}
			return strings.Count(s, old)
		})
	},
	"regex_replace": func(args []cty.Value) error { return checkReplace(args, func(s, _ string) int { return len(s) + 1 }) },
	"yamldecode": func(args []cty.Value) error {
		if yamlAnchor.MatchString(args[0].AsString()) {
			return errors.New("yaml with anchors is not read")
		}
		return nil
	},
	"cidrsubnets": func(args []cty.Value) error {
		if len(args) > 1000 {
			return errWeight
		}
		return nil
	},
	"pow": func(args []cty.Value) error {
		base, _ := args[0].AsBigFloat().Float64()
		exp, _ := args[1].AsBigFloat().Float64()
		if exp*math.Log2(math.Abs(base)+1) > maxExpBits/4 {
			return errNumber
		}
		return nil
	},
}

var (
	formatWidth = regexp.MustCompile(`\d{5,}`)
	yamlAnchor  = regexp.MustCompile(`(^|[\s,\[{:-])[&*][^\s]`)
)

func checkWidths(args []cty.Value) error {
	if len(args) > 0 && args[0].Type() == cty.String && formatWidth.MatchString(args[0].AsString()) {
		return errText
	}
	// Of lists, each element is formatted with the rest.
	size, longest := 0, 1
	for _, a := range args {
		n, err := weigh(a)
		if err != nil {
			return err
		}
		size += n
		if a.CanIterateElements() {
			longest = max(longest, a.LengthInt())
		}
	}
	if float64(size)*float64(longest) > maxSteps {
		return errText
	}
	return nil
}

func checkReplace(args []cty.Value, count func(s, old string) int) error {
	s, old, new := args[0].AsString(), args[1].AsString(), args[2].AsString()
	if float64(count(s, old))*float64(len(new)) > maxText {
		return errText
	}
	return nil
}

func decodeBase64(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", errors.New("it is not base64")
	}
	if !utf8.Valid(b) {
		return "", errors.New("what it decodes to is not text")
	}
	return string(b), nil
}

// textFunc is a function from text to text.
func textFunc(f func(string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}}, Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, err := f(args[0].AsString())
			return cty.StringVal(s), err
		},
	})
}

func textPredicate(f func(s, part string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}, {Name: "part", Type: cty.String}}, Type: function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

func hashFunc(make func() hash.Hash) function.Function {
	return textFunc(func(s string) (string, error) {
		h := make()
		h.Write([]byte(s))
		return hex.EncodeToString(h.Sum(nil)), nil
	})
}

// lengthFunc counts the parts of a collection, or the characters of a text.
var lengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType}}, Type: function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v := args[0]
		switch t := v.Type(); {
		case t == cty.String:
			return stdlib.Strlen(v)
		case v.CanIterateElements():
			return cty.NumberIntVal(int64(v.LengthInt())), nil
		}
		return cty.DynamicVal, errors.New("it has no length: give a list, a map or a text")
	},
})

// fileFunctions read files; without files they say that they are off.
func fileFunctions(files fs.FS) map[string]function.Function {
	open := func(f func(name string) (string, error)) func(string) (string, error) {
		return func(name string) (string, error) {
			if files == nil {
				return "", errors.New("files cannot be read here: the job was sent to an agent as text; run it from a file")
			}
			return f(path.Clean(name))
		}
	}
	read := func(name string) (string, error) {
		info, err := fs.Stat(files, name)
		if err != nil {
			return "", err
		}
		if info.Size() > maxText {
			return "", fmt.Errorf("%s is longer than %d bytes", name, maxText)
		}
		b, err := fs.ReadFile(files, name)
		return string(b), err
	}
	return map[string]function.Function{
		"file": textFunc(open(func(name string) (string, error) {
			s, err := read(name)
			if err == nil && !utf8.ValidString(s) {
				err = fmt.Errorf("%s is not text; use filebase64", name)
			}
			return s, err
		})),
		"filebase64": textFunc(open(func(name string) (string, error) {
			s, err := read(name)
			return base64.StdEncoding.EncodeToString([]byte(s)), err
		})),
		"fileexists": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}}, Type: function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				found, err := open(func(name string) (string, error) {
					_, err := fs.Stat(files, name)
					return strconv.FormatBool(err == nil), nil
				})(args[0].AsString())
				return cty.BoolVal(found == "true"), err
			},
		}),
		"basename": textFunc(func(s string) (string, error) { return path.Base(s), nil }),
		"dirname":  textFunc(func(s string) (string, error) { return path.Dir(s), nil }),
	}
}
