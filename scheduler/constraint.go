package scheduler

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-version"

	"atoll/model"
)

// ComputedClass is a hash of all that constraints can see of a node and that
// others can share, so that nodes of one class are examined once.
func ComputedClass(n *model.Node) string {
	h := sha256.New()
	put := func(parts ...string) {
		for _, p := range parts {
			fmt.Fprintf(h, "%d:%s", len(p), p)
		}
	}
	put(n.Datacenter, n.NodePool, n.NodeClass)
	for _, m := range []map[string]string{n.Attributes, n.Meta} {
		put("map")
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !strings.HasPrefix(k, "unique.") {
				put(k, m[k])
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(n.Drivers)) {
		put(k, strconv.FormatBool(n.Drivers[k].Detected && n.Drivers[k].Healthy))
	}
	return "v1:" + hex.EncodeToString(h.Sum(nil)[:12])
}

// escapesClass reports whether a constraint sees what nodes of a class differ
// in.
func escapesClass(c *model.Constraint) bool {
	return strings.Contains(c.LTarget, "unique.") || strings.Contains(c.RTarget, "unique.")
}

// checker evaluates constraints, and remembers what it compiled.
type checker struct {
	regexps  map[string]*regexp.Regexp
	versions map[string]version.Constraints
}

func newChecker() *checker {
	return &checker{regexps: make(map[string]*regexp.Regexp), versions: make(map[string]version.Constraints)}
}

// meets reports whether a node meets a constraint. distinct_hosts is not for a
// node alone to meet; it holds here.
func (k *checker) meets(n *model.Node, c *model.Constraint) bool {
	if c.Operand == model.ConstraintDistinctHosts {
		return true
	}
	l, lok := resolve(n, c.LTarget)
	r, rok := resolve(n, c.RTarget)
	switch c.Operand {
	case model.ConstraintIsSet:
		return lok
	case model.ConstraintIsNotSet:
		return !lok
	case "!=", "not":
		return l != r || lok != rok
	}
	if !lok || !rok {
		return false
	}
	switch c.Operand {
	case "=", "==", "is", "":
		return l == r
	case "<", "<=", ">", ">=":
		return ordered(l, c.Operand, r)
	case model.ConstraintVersion:
		return k.version(l, r)
	case model.ConstraintSemver:
		return semver(l, r)
	case model.ConstraintRegexp:
		return k.matches(l, r)
	case model.ConstraintSetContains, model.ConstraintSetContainsAll:
		return setContains(l, r, true)
	case model.ConstraintSetContainsAny:
		return setContains(l, r, false)
	}
	return false
}

// resolve is what a target stands for on a node: a whole "${…}" is looked up,
// anything else is itself.
func resolve(n *model.Node, target string) (string, bool) {
	name, ok := strings.CutPrefix(target, "${")
	if !ok {
		return target, true
	}
	name = strings.TrimSuffix(name, "}")
	switch name {
	case "node.unique.id":
		return n.ID, true
	case "node.unique.name":
		return n.Name, true
	case "node.datacenter":
		return n.Datacenter, true
	case "node.class":
		return n.NodeClass, true
	case "node.pool":
		return n.NodePool, true
	}
	if key, ok := strings.CutPrefix(name, "attr."); ok {
		v, ok := n.Attributes[key]
		return v, ok
	}
	if key, ok := strings.CutPrefix(name, "meta."); ok {
		v, ok := n.Meta[key]
		return v, ok
	}
	return "", false
}

// ordered compares as integers, else as floats, else as text.
func ordered(l, op, r string) bool {
	c := 0
	li, e1 := strconv.ParseInt(l, 10, 64)
	ri, e2 := strconv.ParseInt(r, 10, 64)
	if e1 == nil && e2 == nil {
		c = cmp.Compare(li, ri)
	} else {
		lf, e1 := strconv.ParseFloat(l, 64)
		rf, e2 := strconv.ParseFloat(r, 64)
		if e1 == nil && e2 == nil {
			c = cmp.Compare(lf, rf)
		} else {
			c = cmp.Compare(l, r)
		}
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// version compares as go-version does, where a prerelease meets only what names
// one.
func (k *checker) version(have, want string) bool {
	v, err := version.NewVersion(have)
	if err != nil {
		return false
	}
	cs, seen := k.versions[want]
	if !seen {
		cs, _ = version.NewConstraint(want)
		k.versions[want] = cs
	}
	return cs != nil && cs.Check(v)
}

// semver compares by the order of semver.org, §11, in which a prerelease comes
// just before its release. want is a list such as ">= 1.2, < 2.0".
func semver(have, want string) bool {
	v, err := version.NewSemver(have)
	if err != nil {
		return false
	}
	for _, part := range strings.Split(want, ",") {
		part = strings.TrimSpace(part)
		limit := strings.TrimLeft(part, "=!<>~")
		op := part[:len(part)-len(limit)]
		w, err := version.NewSemver(strings.TrimSpace(limit))
		if err != nil || !semverHolds(v, op, w, limit) {
			return false
		}
	}
	return true
}

func semverHolds(v *version.Version, op string, w *version.Version, text string) bool {
	c := v.Compare(w)
	switch op {
	case "", "=":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "~>":
		// All that was written of w but the last number must be the same.
		release := text
		if at := strings.IndexAny(text, "-+"); at >= 0 {
			release = text[:at]
		}
		have, want := v.Segments(), w.Segments()
		same := min(strings.Count(release, "."), len(have), len(want))
		return c >= 0 && slices.Equal(have[:same], want[:same])
	}
	return false
}

func (k *checker) matches(have, pattern string) bool {
	re, seen := k.regexps[pattern]
	if !seen {
		re, _ = regexp.Compile(pattern)
		k.regexps[pattern] = re
	}
	return re != nil && re.MatchString(have)
}

func setContains(have, want string, all bool) bool {
	set := make(map[string]bool)
	for _, s := range strings.Split(have, ",") {
		set[strings.TrimSpace(s)] = true
	}
	for _, s := range strings.Split(want, ",") {
		if set[strings.TrimSpace(s)] != all {
			return !all
		}
	}
	return all
}

// distinctHosts reports whether constraints ask for a host of its own for each
// allocation.
func distinctHosts(constraints []*model.Constraint) bool {
	return slices.ContainsFunc(constraints, func(c *model.Constraint) bool {
		return c.Operand == model.ConstraintDistinctHosts && c.RTarget != "false"
	})
}
