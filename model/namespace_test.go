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

func TestChangesOfANamespaceAreInOneOrder(t *testing.T) {
	one, two := [16]byte{1}, [16]byte{2}
	// Each is newer than all before it.
	order := []*Namespace{
		{Version: 1},
		{Version: 1, Writer: "eu", Write: NamespaceWrite{Hash: two}, Deleted: true},
		{Version: 1, Writer: "eu", Write: NamespaceWrite{Hash: one}},
		{Version: 1, Writer: "eu", Write: NamespaceWrite{Hash: two, ID: "a"}},
		{Version: 1, Writer: "eu", Write: NamespaceWrite{Hash: two, ID: "b"}},
		{Version: 1, Writer: "us", Deleted: true},
		{Version: 2},
		{Version: 10, Writer: "ap"},
	}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%+v against %+v: %d", a, b, got)
			}
		}
		if a.Compare(a.Bare()) != 0 || a.Bare().Description != "" {
			t.Errorf("%+v is not as its bare self", a)
		}
	}
	for _, c := range []struct {
		a, b *Namespace
		want bool
	}{
		{order[2], order[3], true}, {order[1], order[3], true}, {order[3], order[4], false}, {order[0], order[6], false},
		// One request by two doors.
		{order[3], &Namespace{Version: 1, Writer: "us", Write: NamespaceWrite{Hash: two}}, false},
	} {
		if c.a.Clashes(c.b) != c.want || c.b.Clashes(c.a) != c.want {
			t.Errorf("%+v and %+v clash: %t, want %t", c.a, c.b, !c.want, c.want)
		}
	}
}
