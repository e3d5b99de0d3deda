package model

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Namespace is a set of names for jobs and what comes of them. All regions have
// the same; each holds a copy. A stored namespace is immutable.
type Namespace struct {
	Name         string
	Description  string
	Capabilities *NamespaceCapabilities
	Meta         map[string]string

	// Blocks of Nomad's that this version refuses unless they say nothing.
	Quota                 string
	NodePoolConfiguration *NamespaceRules
	VaultConfiguration    *NamespaceRules
	ConsulConfiguration   *NamespaceRules
	RequiredExtraClaims   map[string]string
	OptionalExtraClaims   map[string]string

	// Version goes up with each change of what is called so, deletions included,
	// and Writer is the region that made the change: by them regions tell which of
	// two copies is newer, whatever their Raft indexes are; see Compare.
	Version uint64
	Writer  string `json:",omitempty"`
	// Write is what asked for the change.
	Write NamespaceWrite `codec:"Write" json:"-"`
	// Deleted marks what is left of a deleted namespace: its name and version.
	Deleted     bool `json:",omitempty"`
	CreateIndex uint64
	ModifyIndex uint64
}

// NamespaceTag names a change of a namespace.
type NamespaceTag struct {
	Version uint64
	Writer  string
}

// NamespaceWrite is the request that changed a namespace. It travels with the
// change, so that a region which has that knows the request, too, should it come
// again by that region's door.
type NamespaceWrite struct {
	// ID, Hash and Issued are as in the memory of requests. ID is "" for a change
	// that nobody asked for.
	ID     string
	Hash   [16]byte
	Issued int64
	// Time is when the change was made, in Unix nanoseconds by its region's clock.
	Time int64
}

// Compare orders the changes of a namespace, the same way in all regions: by
// version, then by writer. Two that agree in both are of cells that did not know
// of each other: there a deletion loses, and the rest is by what was asked for.
func (n *Namespace) Compare(o *Namespace) int {
	order := cmp.Or(cmp.Compare(n.Version, o.Version), strings.Compare(n.Writer, o.Writer))
	if order == 0 && n.Deleted != o.Deleted {
		if n.Deleted {
			return -1
		}
		return 1
	}
	return cmp.Or(order, bytes.Compare(n.Write.Hash[:], o.Write.Hash[:]), strings.Compare(n.Write.ID, o.Write.ID))
}

// Clashes reports whether two regions have made these changes without knowing of
// each other's. The same request by two doors does not clash.
func (n *Namespace) Clashes(o *Namespace) bool {
	return n.Version == o.Version && (n.Deleted != o.Deleted || n.Write.Hash != o.Write.Hash)
}

// Bare is what is needed to compare: the namespace without what it says.
func (n *Namespace) Bare() *Namespace {
	return &Namespace{Name: n.Name, Version: n.Version, Writer: n.Writer, Write: n.Write, Deleted: n.Deleted}
}

// NamespaceCapabilities are what jobs of a namespace may use. An empty list of
// what is enabled enables all; what is disabled is so in any case.
type NamespaceCapabilities struct {
	EnabledTaskDrivers   []string
	DisabledTaskDrivers  []string
	EnabledNetworkModes  []string
	DisabledNetworkModes []string
}

// NamespaceRules say which of some kind of thing a namespace's jobs may use.
type NamespaceRules struct {
	Default string
	Allowed []string
	Denied  []string
}

// silent reports whether the rules say nothing but what holds anyway.
func (r *NamespaceRules) silent() bool {
	return r == nil || (r.Default == "" || r.Default == "default") && len(r.Allowed) == 0 && len(r.Denied) == 0
}

// TheDefaultNamespace is the default namespace as it is until somebody changes it.
func TheDefaultNamespace() *Namespace {
	return &Namespace{Name: DefaultNamespace, Description: "Default shared namespace", CreateIndex: 1, ModifyIndex: 1}
}

// Bounds of a namespace.
const (
	maxDescription  = 256
	maxCapabilities = 1000
)

var namespaceName = regexp.MustCompile(`^[a-zA-Z0-9-]{1,128}$`)

// Canonicalize takes out what says nothing, and what is the server's to set.
func (n *Namespace) Canonicalize() {
	for _, r := range []**NamespaceRules{&n.NodePoolConfiguration, &n.VaultConfiguration, &n.ConsulConfiguration} {
		if (*r).silent() {
			*r = nil
		}
	}
	n.Version, n.Writer, n.Write, n.Deleted, n.CreateIndex, n.ModifyIndex = 0, "", NamespaceWrite{}, false, 0, 0
}

// Validate says what is wrong with a canonical namespace, in one error.
func (n *Namespace) Validate() error {
	f := &faults{}
	if !namespaceName.MatchString(n.Name) {
		f.add("name", "%.*q is no name of a namespace; use 1 to 128 letters, digits and dashes", maxIDLen, n.Name)
	}
	if len(n.Description) > maxDescription {
		f.add("description", "%d bytes are over the limit of %d", len(n.Description), maxDescription)
	}
	if n.Quota != "" {
		f.without("quota", "a quota")
	}
	for _, r := range []struct {
		name  string
		rules *NamespaceRules
	}{{"node_pool_config", n.NodePoolConfiguration}, {"vault", n.VaultConfiguration}, {"consul", n.ConsulConfiguration}} {
		if r.rules != nil {
			f.without(r.name, "the "+r.name+" block")
		}
	}
	if len(n.RequiredExtraClaims)+len(n.OptionalExtraClaims) > 0 {
		f.without("extra_claims", "extra claims")
	}
	checkMeta(f, "meta", n.Meta)
	if c := n.Capabilities; c != nil {
		for _, l := range []struct {
			name string
			list []string
		}{
			{"enabled_task_drivers", c.EnabledTaskDrivers}, {"disabled_task_drivers", c.DisabledTaskDrivers},
			{"enabled_network_modes", c.EnabledNetworkModes}, {"disabled_network_modes", c.DisabledNetworkModes},
		} {
			if len(l.list) > maxCapabilities {
				f.add("capabilities."+l.name, "%d entries are over the limit of %d", len(l.list), maxCapabilities)
			}
			for _, entry := range l.list {
				checkID(f, "capabilities."+l.name, entry)
			}
		}
	}
	return JoinFaults(fmt.Sprintf("cannot accept namespace %.*q: ", maxIDLen, n.Name), f.list)
}

// Admits says what a canonical job uses that the namespace does not let it, in one
// error.
func (n *Namespace) Admits(j *Job) error {
	c := n.Capabilities
	if c == nil {
		return nil
	}
	f := &faults{}
	check := func(at, what, name string, enabled, disabled []string) {
		if slices.Contains(disabled, name) || len(enabled) > 0 && !slices.Contains(enabled, name) {
			f.add(at, "the namespace %q does not let its jobs use the %s %q", n.Name, what, name)
		}
	}
	for _, g := range j.TaskGroups {
		at := fmt.Sprintf("group %q", g.Name)
		for _, network := range g.Networks {
			check(at+".network.mode", "network mode", cmp.Or(network.Mode, "host"), c.EnabledNetworkModes, c.DisabledNetworkModes)
		}
		for _, t := range g.Tasks {
			check(fmt.Sprintf("%s > task %q.driver", at, t.Name), "driver", t.Driver, c.EnabledTaskDrivers, c.DisabledTaskDrivers)
		}
	}
	return j.refuse(f.list)
}

// NoNamespace says that a job is in a namespace that its region does not know.
func NoNamespace(j *Job) error {
	where := "here"
	if j.Region != "" && j.Region != GlobalRegion {
		where = fmt.Sprintf("in region %q", j.Region)
	}
	return Invalidf("Namespace", "cannot register job %q: namespace %q does not exist %s; make it with namespace apply or, if another region has it, "+
		"try again when this one has heard so: namespace list says how old its copy is", j.ID, j.Namespace, where)
}
