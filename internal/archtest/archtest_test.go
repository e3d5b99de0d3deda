// Package archtest holds the house to its plan: a package imports only from
// floors below its own. ARCHITECTURE.md shows the floors.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// floors are the trees of the house, ground floor first. The longest prefix
// that matches a package is its floor.
var floors = []struct {
	floor int
	trees []string
}{
	{1, []string{"model", "internal"}},
	{2, []string{"cell/state", "scheduler", "drivers", "rpc", "jobspec"}},
	{3, []string{"client", "federation", "cell"}},
	{4, []string{"api", "region"}},
	{5, []string{"agent"}},
	{6, []string{"cmd"}},
}

// place returns the floor of a package, and the tree there that it belongs to.
func place(pkg string) (floor int, tree string) {
	for _, f := range floors {
		for _, t := range f.trees {
			if (pkg == t || strings.HasPrefix(pkg, t+"/")) && len(t) > len(tree) {
				floor, tree = f.floor, t
			}
		}
	}
	return floor, tree
}

// mayImport returns "" or the rule that from breaks by importing to.
func mayImport(from, to string) string {
	fromFloor, fromTree := place(from)
	toFloor, toTree := place(to)
	switch {
	case fromFloor == 0 && !strings.HasPrefix(from, "e2e"):
		return "it has no floor; give it one in internal/archtest"
	case toFloor == 0:
		return "it imports a package without a floor"
	case fromFloor == 0 || toFloor < fromFloor:
		return ""
	case toFloor > fromFloor:
		return "it imports upwards"
	case fromTree != toTree:
		return "it imports another tree of its own floor"
	case fromTree == "internal" || fromTree == "model":
		return "" // the ground floor's own order is the compiler's
	case strings.HasPrefix(to, from+"/"), strings.HasPrefix(from, to+"/"):
		return "" // parent and child
	}
	return "siblings never meet"
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Doc        string
	Name       string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Doc,Name", "atoll/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: it looked in the wrong place", len(pkgs))
	}
	return pkgs
}

func TestPackagesImportOnlyFromFloorsBelow(t *testing.T) {
	for _, p := range listPackages(t) {
		from := strings.TrimPrefix(p.ImportPath, "atoll/")
		for _, imp := range p.Imports {
			to, own := strings.CutPrefix(imp, "atoll/")
			if !own {
				continue
			}
			if broken := mayImport(from, to); broken != "" {
				t.Errorf("%s imports %s: %s", from, to, broken)
			}
		}
	}
}

func TestEveryPackageTellsItsPurpose(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" && p.Name != "archtest" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestTheRulesBite(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"region", "cell", true},
		{"region", "region/broker", true},
		{"region/worker", "region/broker", false},
		{"drivers/docker", "drivers", true},
		{"drivers/docker", "drivers/rawexec", false},
		{"cell", "cell/state", true},
		{"cell/state", "cell", false},
		{"cell/state", "rpc", false},
		{"model", "rpc", false},
		{"cell", "federation", false},
		{"cmd/atoll", "agent", true},
		{"agent", "cmd/atoll", false},
		{"attic", "model", false},
	} {
		if got := mayImport(c.from, c.to) == ""; got != c.allowed {
			t.Errorf("%s → %s allowed: %v, want %v", c.from, c.to, got, c.allowed)
		}
	}
}
