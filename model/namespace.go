package model

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
)

// Namespace is a set of names for jobs and what comes of them. A stored namespace
// is immutable.
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

	// Version goes up by one with each change of what is called so, deletions
	// included: of two regions' copies, the one of the higher version is newer,
	// whatever their Raft indexes are.
	Version uint64
	// Deleted marks what is left of a deleted namespace: its name and version.
	Deleted     bool `json:",omitempty"`
	CreateIndex uint64
	ModifyIndex uint64
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
	n.Version, n.Deleted, n.CreateIndex, n.ModifyIndex = 0, false, 0, 0
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

// NoNamespace says that a job is in a namespace that does not exist.
func NoNamespace(j *Job) error {
	return Invalidf("Namespace", "cannot register job %q: namespace %q does not exist; make it with namespace apply", j.ID, j.Namespace)
}
