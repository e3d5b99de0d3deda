package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

func namespaceApplyCommand() *cobra.Command {
	var m meta
	var description, quota string
	c := &cobra.Command{
		Use: "apply NAME|FILE|-", Short: "Make or change a namespace", Args: cobra.ExactArgs(1),
		Long: "Make or change a namespace.\n\n" +
			"A file of HCL, or of JSON with -json, says all about it; \"-\" is standard input. What names no file is the name of a namespace, " +
			"of which the flags change what they say.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			n, err := readNamespace(c, args[0], m.json)
			if err != nil {
				return err
			}
			if n == nil {
				if n, err = namespaceOrNew(client, args[0]); err != nil {
					return err
				}
			}
			if c.Flags().Changed("description") {
				n.Description = description
			}
			if c.Flags().Changed("quota") {
				n.Quota = quota
			}
			if _, err := client.Namespaces().Register(n, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Successfully applied namespace %q!\n", n.Name)
			return nil
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.StringVar(&description, "description", "", "what the namespace is for `TEXT`")
	f.StringVar(&quota, "quota", "", "not supported")
	f.BoolVar(&m.json, "json", false, "the file is JSON")
	return c
}

// namespaceOrNew is a namespace as it is, or a new one.
func namespaceOrNew(client *api.Client, name string) (*api.Namespace, error) {
	all, _, err := client.Namespaces().PrefixList(name, nil)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if n.Name == name {
			return n, nil
		}
	}
	return &api.Namespace{Name: name}, nil
}

// readNamespace reads what a file says of a namespace, nil when there is no such
// file.
func readNamespace(c *cobra.Command, name string, isJSON bool) (*api.Namespace, error) {
	var src []byte
	var err error
	if name == "-" {
		src, err = io.ReadAll(io.LimitReader(c.InOrStdin(), maxInput))
	} else if info, missing := os.Stat(name); errors.Is(missing, fs.ErrNotExist) || missing == nil && info.IsDir() {
		return nil, nil
	} else {
		src, err = readBounded(name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the namespace: %w", err)
	}
	if !isJSON {
		return parseNamespace(name, src)
	}
	n := new(api.Namespace)
	if err := json.Unmarshal(src, n); err != nil {
		return nil, jsonFault(name, src, err)
	}
	return n, nil
}

// namespaceFile is a namespace in HCL.
type namespaceFile struct {
	Name         string `hcl:"name"`
	Description  string `hcl:"description,optional"`
	Quota        string `hcl:"quota,optional"`
	Capabilities *struct {
		EnabledTaskDrivers   []string `hcl:"enabled_task_drivers,optional"`
		DisabledTaskDrivers  []string `hcl:"disabled_task_drivers,optional"`
		EnabledNetworkModes  []string `hcl:"enabled_network_modes,optional"`
		DisabledNetworkModes []string `hcl:"disabled_network_modes,optional"`
	} `hcl:"capabilities,block"`
	NodePools *namespaceRules `hcl:"node_pool_config,block"`
	Vault     *namespaceRules `hcl:"vault,block"`
	Consul    *namespaceRules `hcl:"consul,block"`
	Meta      *struct {
		Entries hcl.Attributes `hcl:",remain"`
	} `hcl:"meta,block"`
}

type namespaceRules struct {
	Default string   `hcl:"default,optional"`
	Allowed []string `hcl:"allowed,optional"`
	Denied  []string `hcl:"denied,optional"`
}

func parseNamespace(name string, src []byte) (*api.Namespace, error) {
	if name == "-" {
		name = "standard input"
	}
	// The name of the file decides on its syntax for the parser.
	var in namespaceFile
	if err := hclsimple.Decode(name+".hcl", src, nil, &in); err != nil {
		return nil, fmt.Errorf("cannot read the namespace: %w", err)
	}
	n := &api.Namespace{Name: in.Name, Description: in.Description, Quota: in.Quota}
	if c := in.Capabilities; c != nil {
		n.Capabilities = &api.NamespaceCapabilities{
			EnabledTaskDrivers: c.EnabledTaskDrivers, DisabledTaskDrivers: c.DisabledTaskDrivers,
			EnabledNetworkModes: c.EnabledNetworkModes, DisabledNetworkModes: c.DisabledNetworkModes,
		}
	}
	if r := in.NodePools; r != nil {
		n.NodePoolConfiguration = &api.NamespaceNodePoolConfiguration{Default: r.Default, Allowed: r.Allowed, Denied: r.Denied}
	}
	if r := in.Vault; r != nil {
		n.VaultConfiguration = &api.NamespaceVaultConfiguration{Default: r.Default, Allowed: r.Allowed, Denied: r.Denied}
	}
	if r := in.Consul; r != nil {
		n.ConsulConfiguration = &api.NamespaceConsulConfiguration{Default: r.Default, Allowed: r.Allowed, Denied: r.Denied}
	}
	if in.Meta != nil {
		n.Meta = make(map[string]string)
		for key, attr := range in.Meta.Entries {
			v, diags := attr.Expr.Value(nil)
			if diags.HasErrors() {
				return nil, fmt.Errorf("cannot read the namespace: %w", diags)
			}
			text, err := convert.Convert(v, cty.String)
			if err != nil || text.IsNull() {
				return nil, fmt.Errorf("cannot read the namespace: %s: meta.%s is no text", attr.Range, key)
			}
			n.Meta[key] = text.AsString()
		}
	}
	return n, nil
}
