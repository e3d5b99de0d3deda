package model

import (
	"strings"
	"testing"
)

func TestANamespaceIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Namespace)
		want   string
		kind   Kind
	}{
		"a name":                {func(n *Namespace) { n.Name = "team-1" }, "", 0},
		"no name":               {func(n *Namespace) { n.Name = "" }, "is no name of a namespace", KindInvalid},
		"all":                   {func(n *Namespace) { n.Name = "*" }, "is no name of a namespace", KindInvalid},
		"a long name":           {func(n *Namespace) { n.Name = strings.Repeat("x", 129) }, "is no name of a namespace", KindInvalid},
		"a long description":    {func(n *Namespace) { n.Description = strings.Repeat("x", 257) }, "257 bytes are over the limit of 256", KindInvalid},
		"a quota":               {func(n *Namespace) { n.Quota = "q" }, "a quota is not supported", KindUnsupported},
		"pools that are silent": {func(n *Namespace) { n.NodePoolConfiguration = &NamespaceRules{Default: "default"} }, "", 0},
		"pools":                 {func(n *Namespace) { n.NodePoolConfiguration = &NamespaceRules{Denied: []string{"gpu"}} }, "the node_pool_config block is not supported", KindUnsupported},
		"an empty driver": {func(n *Namespace) {
			n.Capabilities = &NamespaceCapabilities{EnabledTaskDrivers: []string{""}}
		}, "capabilities.enabled_task_drivers", KindInvalid},
	} {
		n := &Namespace{Name: "n"}
		tc.change(n)
		n.Canonicalize()
		err := n.Validate()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || KindOf(err) != tc.kind) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestANamespaceAdmitsWhatItsJobsMayUse(t *testing.T) {
	for name, tc := range map[string]struct {
		may  *NamespaceCapabilities
		want string
	}{
		"anything":            {nil, ""},
		"nothing said":        {&NamespaceCapabilities{}, ""},
		"the driver":          {&NamespaceCapabilities{EnabledTaskDrivers: []string{"docker", "mock"}}, ""},
		"another driver":      {&NamespaceCapabilities{EnabledTaskDrivers: []string{"docker"}}, `does not let its jobs use the driver "mock"`},
		"a driver disabled":   {&NamespaceCapabilities{EnabledTaskDrivers: []string{"mock"}, DisabledTaskDrivers: []string{"mock"}}, `does not let its jobs use the driver "mock"`},
		"the network mode":    {&NamespaceCapabilities{EnabledNetworkModes: []string{"host"}}, ""},
		"a mode disabled":     {&NamespaceCapabilities{DisabledNetworkModes: []string{"host"}}, `does not let its jobs use the network mode "host"`},
		"another mode is off": {&NamespaceCapabilities{DisabledNetworkModes: []string{"bridge"}}, ""},
	} {
		j := job(func(j *Job) { j.TaskGroups[0].Networks = []*NetworkResource{{}} })
		err := (&Namespace{Name: "n", Capabilities: tc.may}).Admits(j)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
