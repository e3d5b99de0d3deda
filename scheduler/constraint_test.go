package scheduler

import (
	"testing"

	"atoll/model"
)

func TestConstraintsHold(t *testing.T) {
	n := &model.Node{
		ID: "9e8a6d1c-0000-4000-8000-000000000001", Name: "n1", Datacenter: "dc1", NodeClass: "big", NodePool: "gpu",
		Attributes: map[string]string{
			"cores": "8", "load": "2.5", "os": "linux", "version": "1.9.3", "beta": "2.0.0-beta.2", "odd": "not-a-version", "sets": "a, b,c", "empty": "",
		},
		Meta: map[string]string{"rack": "r7"},
	}
	for _, c := range []struct {
		name, l, op, r string
		want           bool
	}{
		{"equal", "${attr.os}", "=", "linux", true},
		{"equal, spelled ==", "${attr.os}", "==", "linux", true},
		{"equal, spelled is", "${attr.os}", "is", "linux", true},
		{"equal, unspelled", "${attr.os}", "", "linux", true},
		{"not equal to another", "${attr.os}", "=", "windows", false},
		{"unequal", "${attr.os}", "!=", "windows", true},
		{"unequal, spelled not", "${attr.os}", "not", "linux", false},
		{"what is absent is unequal", "${attr.none}", "!=", "linux", true},
		{"what is absent equals nothing", "${attr.none}", "=", "", false},
		{"either side may be looked up", "linux", "=", "${attr.os}", true},
		{"whole numbers by value", "${attr.cores}", ">", "16", false},
		{"whole numbers by value, at the bound", "${attr.cores}", ">=", "8", true},
		{"fractions by value", "${attr.load}", "<", "10", true},
		{"fractions by value, at the bound", "${attr.load}", "<=", "2.5", true},
		{"text by order", "${attr.os}", ">", "bsd", true},
		{"what is absent is not ordered", "${attr.none}", "<", "1", false},
		{"version in range", "${attr.version}", model.ConstraintVersion, ">= 1.2, < 2.0", true},
		{"version out of range", "${attr.version}", model.ConstraintVersion, "< 1.9.3", false},
		{"version, pessimistic", "${attr.version}", model.ConstraintVersion, "~> 1.9.0", true},
		{"a prerelease meets only versions that name one", "${attr.beta}", model.ConstraintVersion, ">= 1.0", false},
		{"what is no version meets none", "${attr.odd}", model.ConstraintVersion, ">= 0.1", false},
		{"a malformed range is met by none", "${attr.version}", model.ConstraintVersion, "newer", false},
		{"semver: a prerelease is above the release before", "${attr.beta}", model.ConstraintSemver, "> 1.9.9", true},
		{"semver: a prerelease is below its release", "${attr.beta}", model.ConstraintSemver, ">= 2.0.0", false},
		{"semver: prereleases are ordered", "${attr.beta}", model.ConstraintSemver, ">= 2.0.0-beta.1, < 2.0.0-rc.1", true},
		{"semver: equal", "${attr.version}", model.ConstraintSemver, "1.9.3", true},
		{"semver: unequal", "${attr.version}", model.ConstraintSemver, "!= 1.9.3", false},
		{"semver: at most", "${attr.version}", model.ConstraintSemver, "<= 1.9.3", true},
		{"semver: below", "${attr.version}", model.ConstraintSemver, "< 1.9.3", false},
		{"semver: pessimistic", "${attr.version}", model.ConstraintSemver, "~> 1.9.1", true},
		{"semver: pessimistic, next minor", "${attr.version}", model.ConstraintSemver, "~> 1.8.1", false},
		{"semver: pessimistic, of two numbers", "${attr.version}", model.ConstraintSemver, "~> 1.8", true},
		{"semver: a malformed range is met by none", "${attr.version}", model.ConstraintSemver, ">> 1", false},
		{"semver: what is no version meets none", "${attr.odd}", model.ConstraintSemver, ">= 0.1.0", false},
		{"regexp", "${attr.os}", model.ConstraintRegexp, "^lin", true},
		{"regexp, not", "${attr.os}", model.ConstraintRegexp, "^win", false},
		{"a malformed regexp is met by none", "${attr.os}", model.ConstraintRegexp, "(", false},
		{"set_contains all", "${attr.sets}", model.ConstraintSetContains, "c,a", true},
		{"set_contains not all", "${attr.sets}", model.ConstraintSetContains, "a,d", false},
		{"set_contains_all", "${attr.sets}", model.ConstraintSetContainsAll, "a, b", true},
		{"set_contains_any", "${attr.sets}", model.ConstraintSetContainsAny, "x,b", true},
		{"set_contains_any, none", "${attr.sets}", model.ConstraintSetContainsAny, "x,y", false},
		{"is_set", "${attr.os}", model.ConstraintIsSet, "", true},
		{"is_set, though empty", "${attr.empty}", model.ConstraintIsSet, "", true},
		{"is_set, not", "${attr.none}", model.ConstraintIsSet, "", false},
		{"is_not_set", "${meta.none}", model.ConstraintIsNotSet, "", true},
		{"is_not_set, but is", "${meta.rack}", model.ConstraintIsNotSet, "", false},
		{"an operator that nobody knows", "${attr.os}", "like", "linux", false},
		{"the node's id", "${node.unique.id}", "=", n.ID, true},
		{"the node's name", "${node.unique.name}", "=", "n1", true},
		{"the node's datacenter", "${node.datacenter}", "=", "dc1", true},
		{"the node's class", "${node.class}", "=", "big", true},
		{"the node's pool", "${node.pool}", "=", "gpu", true},
		{"the node's meta", "${meta.rack}", "=", "r7", true},
		{"a name that nodes do not have", "${node.region}", "=", "eu", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newChecker()
			for range 2 { // compiled, and remembered
				if got := k.meets(n, &model.Constraint{LTarget: c.l, Operand: c.op, RTarget: c.r}); got != c.want {
					t.Fatalf("%s %s %s: %v", c.l, c.op, c.r, got)
				}
			}
		})
	}
}

func TestNodesOfAClassAreAlikeToConstraints(t *testing.T) {
	w := newWorld()
	w.node("n1")
	w.node("n2")
	if w.nodes[0].ComputedClass != w.nodes[1].ComputedClass {
		t.Error("nodes that differ in name alone are of two classes")
	}
	for what, change := range map[string]func(*model.Node){
		"datacenter": inDC("dc2"), "class": class("big"),
		"attribute": func(n *model.Node) { n.Attributes["kernel.name"] = "darwin" },
		"meta":      func(n *model.Node) { n.Meta["rack"] = "r1" },
		"pool":      func(n *model.Node) { n.NodePool = "gpu" },
		"driver":    func(n *model.Node) { n.Drivers["mock"].Healthy = false },
	} {
		n := model.Clone(w.nodes[0])
		change(n)
		if ComputedClass(n) == w.nodes[0].ComputedClass {
			t.Errorf("a node of another %s is of the same class", what)
		}
	}
	unique := model.Clone(w.nodes[0])
	unique.Attributes["unique.hostname"], unique.Meta["unique.slot"] = "h1", "7"
	if ComputedClass(unique) != w.nodes[0].ComputedClass {
		t.Error("what is marked unique splits a class")
	}
}
