package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
	"atoll/model"
)

// meta is what every command that asks an agent has in common.
type meta struct {
	address, region, namespace string
	verbose, json              bool
}

func (m *meta) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&m.address, "address", "", "address of an agent `URL` (ATOLL_ADDR, NOMAD_ADDR; http://127.0.0.1:4646)")
	f.StringVar(&m.region, "region", "", "region to ask `NAME` (ATOLL_REGION, NOMAD_REGION; the agent's own)")
	f.StringVar(&m.namespace, "namespace", "", "namespace `NAME` (ATOLL_NAMESPACE, NOMAD_NAMESPACE; default)")
	f.Bool("no-color", true, "accepted; the output has no colours")
	_ = f.MarkHidden("no-color")
}

func (m *meta) verboseFlag(c *cobra.Command) {
	c.Flags().BoolVar(&m.verbose, "verbose", false, "show whole ids")
}

func (m *meta) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&m.json, "json", false, "print JSON")
}

// env returns the first that is set of ATOLL_name and NOMAD_name.
func env(name string) string { return cmp.Or(os.Getenv("ATOLL_"+name), os.Getenv("NOMAD_"+name)) }

func (m *meta) addr() string { return cmp.Or(m.address, env("ADDR"), "http://127.0.0.1:4646") }

// client is the official one, pointed at the agent.
func (m *meta) client() (*api.Client, error) {
	cfg := api.DefaultConfig()
	cfg.Address = m.addr()
	cfg.Region = m.asked()
	cfg.Namespace = cmp.Or(m.namespace, env("NAMESPACE"))
	if !strings.HasPrefix(cfg.Address, "unix:") {
		base := http.DefaultTransport.(*http.Transport).Clone()
		if err := api.ConfigureTLS(&http.Client{Transport: base}, cfg.TLSConfig); err != nil {
			return nil, fmt.Errorf("cannot use the TLS configuration: %w", err)
		}
		cfg.HttpClient = &http.Client{Transport: &apiclient.Retry{Base: base}}
	}
	c, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot use the address %q: %w", cfg.Address, err)
	}
	return c, nil
}

// federation is the client of questions to all regions.
func (m *meta) federation() *apiclient.Client {
	return &apiclient.Client{Address: m.addr(), HTTP: &http.Client{Transport: &apiclient.Retry{}}}
}

// space is the namespace that is asked for.
func (m *meta) space() string {
	return cmp.Or(m.namespace, env("NAMESPACE"), model.DefaultNamespace)
}

// asked is the region that is asked for; "" is the agent's own.
func (m *meta) asked() string { return cmp.Or(m.region, env("REGION")) }

// all reports whether every region is asked.
func (m *meta) all() bool { return m.asked() == model.AllRegions }

// oneRegion refuses -region '*' where it means nothing.
func (m *meta) oneRegion() error {
	if m.all() {
		return fmt.Errorf("-region %q is for lists; name one region here", model.AllRegions)
	}
	return nil
}

// id is what is shown of an id.
func (m *meta) id(id string) string {
	if m.verbose || len(id) <= 8 {
		return id
	}
	return id[:8]
}

// inOneRegion is a command that asks one region.
func (m *meta) inOneRegion(do func(*cobra.Command, *api.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := m.oneRegion(); err != nil {
			return err
		}
		client, err := m.client()
		if err != nil {
			return err
		}
		return do(c, client, args)
	}
}

// unique returns the one id that begins with prefix.
func unique(what, prefix string, ids []string) (string, error) {
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("no %s begins with %q", what, prefix)
	case 1:
		return ids[0], nil
	}
	for _, id := range ids {
		if id == prefix {
			return id, nil
		}
	}
	return "", fmt.Errorf("%q is the beginning of %d %ss: %s", prefix, len(ids), what, strings.Join(ids[:min(len(ids), 5)], ", "))
}

// even is a prefix of a UUID as the server wants it.
func even(prefix string) string { return strings.ToLower(strings.TrimSpace(prefix)) }
