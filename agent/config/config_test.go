package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/model"
)

// parsed is the defaults with texts over them, in order.
func parsed(t *testing.T, files ...string) *Config {
	t.Helper()
	c := Default()
	for i, text := range files {
		if err := c.Parse(fmt.Sprintf("f%d.hcl", i), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestDefaultsAreNomads(t *testing.T) {
	c := Default()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"region", c.Region, "global"}, {"datacenter", c.Datacenter, "dc1"}, {"name", c.Name, host},
		{"http", c.HTTPAddr(), "127.0.0.1:4646"}, {"rpc", c.RPCAddr(), "127.0.0.1:4647"}, {"serf", c.SerfAddr(), "127.0.0.1:4648"},
		{"server", c.Server.Enabled, false}, {"client", c.Client.Enabled, false}, {"node pool", c.Client.NodePool, "default"},
		{"retry interval", c.Server.Join.RetryInterval, 30 * time.Second}, {"kill time-out", c.Client.MaxKillTimeout, 30 * time.Second},
		{"kept", c.Client.GCMaxAllocs, 50}, {"interval", c.Telemetry.CollectionInterval, time.Second}, {"raw_exec", c.Plugins["raw_exec"]["enabled"], nil},
	} {
		if f.got != f.want {
			t.Errorf("%s is %v, want %v", f.name, f.got, f.want)
		}
	}
	dev := Default()
	dev.MakeDev()
	if !dev.Dev || !dev.Server.Enabled || !dev.Client.Enabled || dev.Server.BootstrapExpect != 1 || dev.Plugin("raw_exec")["enabled"] != true {
		t.Errorf("-dev gives %+v", dev)
	}
	if err := dev.Validate(); err != nil {
		t.Errorf("-dev: %v", err)
	}
}

func TestFilesAreMergedInOrder(t *testing.T) {
	c := parsed(t,
		`region = "a"
		 datacenter = "one"
		 server { enabled = true  server_join { retry_join = ["x", "y"] } }
		 client { meta { rack = "1"  row = "2" } }
		 plugin "docker" { config { endpoint = "first"  gc { image = true } } }`,
		`region = "b"
		 server { bootstrap_expect = 3  retry_join = ["y", "z"] }
		 client { enabled = true  meta { rack = "9" } }
		 plugin "docker" { config { endpoint = "second" } }`)
	if c.Region != "b" || c.Datacenter != "one" || !c.Server.Enabled || c.Server.BootstrapExpect != 3 || !c.Client.Enabled {
		t.Errorf("merged into %+v", c)
	}
	if want := []string{"x", "y", "z"}; !slices.Equal(c.Server.Join.RetryJoin, want) {
		t.Errorf("joins %v, want %v", c.Server.Join.RetryJoin, want)
	}
	if want := map[string]string{"rack": "9", "row": "2"}; !maps.Equal(c.Client.Meta, want) {
		t.Errorf("meta %v, want %v", c.Client.Meta, want)
	}
	want := map[string]any{"endpoint": "second", "gc": map[string]any{"image": true}}
	if got := c.Plugin("docker"); !reflect.DeepEqual(got, want) {
		t.Errorf("plugin docker %v, want %v", got, want)
	}
}

func TestADirectoryIsReadByNameAndOnlyItsConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-base.hcl": `region = "base"
			datacenter = "base"`,
		"20-local.json": `{"region": "local", "server": {"enabled": true}}`,
		"README.md":     `region = "never read"`,
		"old.hcl.bak":   `nor this`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "30-dir.hcl"), 0o700); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(dir, "20-local.json")
	c := Default()
	if err := c.Load([]string{dir}); err != nil {
		t.Fatal(err)
	}
	if c.Region != "local" || c.Datacenter != "base" || !c.Server.Enabled {
		t.Errorf("read %+v", c)
	}
	// What is named later counts, whatever its name.
	c = Default()
	if err := c.Load([]string{last, filepath.Join(dir, "10-base.hcl")}); err != nil {
		t.Fatal(err)
	}
	if c.Region != "base" {
		t.Errorf("region %q, want that of the file named last", c.Region)
	}
	if err := Default().Load([]string{filepath.Join(dir, "absent.hcl")}); err == nil || !strings.Contains(err.Error(), "absent.hcl") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestJSONSaysTheSameAsHCL(t *testing.T) {
	hcl := parsed(t, `
		region = "eu"
		ports { http = 1  rpc = 2  serf = 3 }
		server { enabled = true  heartbeat_grace = "7s"  server_join { retry_join = ["a", "b"] } }
		client { enabled = true  servers = ["s:1"]  meta { rack = "r1"  n = 3  big = 12345678  f = 0.5  on = true }  options = { "a.b" = "c" } }
		plugin "docker" { config { endpoint = "e"  gc { image = false } } }
		plugin "raw_exec" { config { enabled = true } }
		telemetry { prometheus_metrics = true }`)
	for name, text := range map[string]string{
		"objects": `{"region": "eu", "ports": {"http": 1, "rpc": 2, "serf": 3},
			"server": {"enabled": true, "heartbeat_grace": "7s", "server_join": {"retry_join": ["a", "b"]}},
			"client": {"enabled": true, "servers": ["s:1"], "meta": {"rack": "r1", "n": 3, "big": 12345678, "f": 0.5, "on": true}, "options": {"a.b": "c"}},
			"plugin": {"docker": {"config": {"endpoint": "e", "gc": {"image": false}}}, "raw_exec": {"config": {"enabled": true}}},
			"telemetry": {"prometheus_metrics": true}}`,
		"lists of blocks": `{"region": "eu", "ports": [{"http": 1}, {"rpc": 2, "serf": 3}],
			"server": [{"enabled": true, "heartbeat_grace": "7s", "server_join": [{"retry_join": ["a", "b"]}]}],
			"client": [{"enabled": true, "servers": ["s:1"], "meta": [{"rack": "r1", "n": 3, "big": 12345678, "f": 0.5, "on": true}], "options": [{"a.b": "c"}]}],
			"plugin": [{"docker": [{"config": [{"endpoint": "e", "gc": [{"image": false}]}]}]}, {"raw_exec": [{"config": [{"enabled": true}]}]}],
			"telemetry": [{"prometheus_metrics": true}]}`,
	} {
		c := Default()
		// The beginning of the text tells JSON, whatever the file's name.
		if err := c.Parse("agent.conf", []byte(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(c, hcl) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, c, hcl)
		}
	}
	if want := map[string]string{"rack": "r1", "n": "3", "big": "12345678", "f": "0.5", "on": "true"}; !maps.Equal(hcl.Client.Meta, want) {
		t.Errorf("meta %v, want %v", hcl.Client.Meta, want)
	}
}

func TestWhatIsWrongIsNamedWithItsPlace(t *testing.T) {
	for name, f := range map[string]struct{ file, text, want string }{
		"an unknown key":                {"a.hcl", "region = \"x\"\n\nregoin = \"y\"", `a.hcl:3: unknown key "regoin"; did you mean "region"?`},
		"an unknown key of a block":     {"a.hcl", "server {\n  enabled = true\n  bootstrap_expct = 3\n}", `a.hcl:3: unknown key "server.bootstrap_expct"; did you mean "server.bootstrap_expect"?`},
		"an unknown block":              {"a.hcl", "region = \"x\"\nservr {\n}", `a.hcl:2: unknown key "servr"; did you mean "server"?`},
		"a block that should be a key":  {"a.hcl", "region {\n}", `a.hcl:1: region: `},
		"a key that should be a block":  {"a.hcl", "server = true", `a.hcl:1: server: `},
		"nothing like it":               {"a.hcl", "xylophone_of_doom = 1", `a.hcl:1: unknown key "xylophone_of_doom"`},
		"a wrong type":                  {"a.hcl", "ports {\n  http = \"x\"\n}", `a.hcl:2: ports.http: x is not a whole number of at least 0`},
		"half a port":                   {"a.hcl", "ports {\n  http = 1.5\n}", `a.hcl:2: ports.http: 1.5 is not a whole number`},
		"a number for a string":         {"a.hcl", "region = 1", `a.hcl:1: region: 1 is not a string`},
		"a string for a truth":          {"a.hcl", "server {\n enabled = \"yes\"\n}", `a.hcl:2: server.enabled: yes is neither true nor false`},
		"no duration":                   {"a.hcl", "server {\n heartbeat_grace = \"soon\"\n}", `a.hcl:2: server.heartbeat_grace: soon is not a duration`},
		"a negative duration":           {"a.hcl", "server {\n heartbeat_grace = \"-1s\"\n}", `a.hcl:2: server.heartbeat_grace: -1s is not a duration`},
		"one server instead of a list":  {"a.hcl", "client {\n servers = \"a\"\n}", `a.hcl:2: client.servers: a is not a list of strings`},
		"a list of numbers":             {"a.hcl", "client {\n servers = [1]\n}", `a.hcl:2: client.servers: 1 is not a string`},
		"a reference":                   {"a.hcl", "\nregion = var.x", `a.hcl:2: `},
		"broken HCL":                    {"a.hcl", "region = \"x\"\nserver {", `a.hcl:2: `},
		"a key twice":                   {"a.hcl", "region = \"x\"\nregion = \"y\"", `a.hcl:2: `},
		"an unknown key of a plugin":    {"a.hcl", "plugin \"docker\" {\n conf {\n }\n}", `plugin "docker" has the unknown key "conf"`},
		"an unknown key in JSON":        {"a.json", "{\"region\": \"x\",\n \"server\": {\n  \"enabld\": true}}", `a.json:3: unknown key "server.enabld"; did you mean "server.enabled"?`},
		"a wrong type in JSON":          {"a.json", "{\"region\": \"x\",\n \"ports\": {\n  \"http\": \"x\"}}", `a.json:3: ports.http: x is not a whole number`},
		"an unknown key, list of block": {"a.json", "{\"server\": [{\"enabled\": true},\n {\"enabld\": true}]}", `a.json:2: unknown key "server.enabld"`},
		"broken JSON":                   {"a.json", "{\n\"region\": \"x\",\n}", `a.json:3: `},
		"JSON that ends early":          {"a.json", "{\n\"region\": \"x\"", `a.json:2: `},
		"JSON and more":                 {"a.json", "{}\n{}", `a.json:2: `},
		"JSON that is no object":        {"a.json", "[1]", `a.json:1: `},
		"too deep":                      {"a.hcl", "region = " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000), `a.hcl:1: nested more than 100 deep`},
		"too deep JSON":                 {"a.json", "{\"region\":\n" + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}", `a.json:2: nested more than 100 deep`},
		"too large":                     {"a.hcl", strings.Repeat("#", maxFile+1), `a.hcl: a configuration of 1048577 bytes is over the limit of 1048576`},
	} {
		err := Default().Parse(f.file, []byte(f.text))
		if err == nil || !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, f.want)
			continue
		}
		if model.KindOf(err) != model.KindInvalid || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: kind %s, error %q: want an invalid one of one line", name, model.KindOf(err), err)
		}
	}
}

func TestEveryKeyOfNomadIsAccepted(t *testing.T) {
	src, err := os.ReadFile("testdata/nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	if err := c.Parse("nomad.hcl", src); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	want := Default()
	want.Region, want.Datacenter, want.Name, want.DataDir = "europe", "ams-1", "ams-1-r12-n3", "/var/lib/nomad"
	want.LogLevel, want.LogJSON, want.LeaveOnInterrupt, want.LeaveOnTerminate = "WARN", true, true, true
	want.Addresses = Endpoints{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	want.Ports = Ports{14646, 14647, 14648}
	want.Advertise = Endpoints{"10.1.2.3", "10.1.2.3:4647", "10.1.2.3:4648"}
	want.Server = Server{
		Enabled: true, BootstrapExpect: 3, NumSchedulers: 4, HeartbeatGrace: 15 * time.Second, MinHeartbeatTTL: 20 * time.Second, MaxHeartbeats: 250.5,
		RaftSnapshotThreshold: 16384, Join: Join{RetryJoin: []string{"10.1.0.1", "10.1.0.2:4648"}, RetryInterval: 15 * time.Second, RetryMax: 5},
		GC:            GC{EvalThreshold: time.Hour, BatchEvalThreshold: 24 * time.Hour, DeploymentThreshold: time.Hour, JobThreshold: 4 * time.Hour, NodeThreshold: 24 * time.Hour, Interval: 5 * time.Minute},
		PlanRejection: PlanRejection{Enabled: true, Threshold: 100, Window: 5 * time.Minute},
	}
	want.Client = Client{
		Enabled: true, StateDir: "/var/lib/nomad/client", AllocDir: "/var/lib/nomad/alloc", NodeClass: "compute", NodePool: "gpu",
		Servers: []string{"10.1.0.1:4647", "10.1.0.2:4647", "10.1.0.3:4647"}, NetworkInterface: "eth1", CPUTotalCompute: 8000, MemoryTotalMB: 16384,
		DiskTotalMB: 200000, MinDynamicPort: 21000, MaxDynamicPort: 22000, MaxKillTimeout: time.Minute, GCMaxAllocs: 25,
		Meta:     map[string]string{"rack": "r12", "serial": "10000000", "ssd": "true"},
		Options:  map[string]string{"driver.raw_exec.enable": "1", "docker.endpoint": "unix:///var/run/docker.sock"},
		Reserved: Reserved{CPU: 500, MemoryMB: 512, DiskMB: 1024, Ports: "22,80,8500-8600"},
	}
	want.Telemetry = Telemetry{PrometheusMetrics: true, DisableHostname: true, CollectionInterval: 10 * time.Second}
	want.Plugins = map[string]map[string]any{
		"raw_exec": {"enabled": true},
		"docker": {
			"endpoint": "unix:///run/docker.sock", "volumes": map[string]any{"enabled": true}, "gc": map[string]any{"image": true, "image_delay": "3m"},
			"allow_caps": []any{"chown", "net_raw"},
		},
	}
	want.Warnings = c.Warnings
	if !reflect.DeepEqual(c, want) {
		t.Errorf("read %+v\nwant %+v", c, want)
	}
	// A key without effect is warned of, by its place; one with effect is not.
	for _, key := range []string{
		"plugin_dir", "log_file", "enable_syslog", "server.encrypt", "server.raft_boltdb", "server.default_scheduler_config", "client.host_volume",
		"client.template", "client.reserved.cores", "plugin.docker.args", "acl", "tls", "consul", "vault", "keyring", "audit", "ui", "telemetry.statsd_address",
		"telemetry.publish_node_metrics",
	} {
		if !slices.ContainsFunc(c.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "nomad.hcl:") && strings.HasSuffix(w, ": "+key+" has no effect in this version of Atoll")
		}) {
			t.Errorf("nobody is warned that %s has no effect", key)
		}
	}
	for _, w := range c.Warnings {
		for key := range settings {
			if settings[key] != nil && strings.Contains(w, ": "+key+" has no effect") {
				t.Errorf("%s has an effect, and yet: %s", key, w)
			}
		}
	}
	// Disabling what is never done needs no warning.
	if quiet := parsed(t, "disable_update_check = true\ndisable_anonymous_signature = true"); len(quiet.Warnings) > 0 {
		t.Errorf("warned: %q", quiet.Warnings)
	}
}

// Each key of the table is accepted in a file of its own, in both syntaxes.
func TestEveryKeyOfTheTableIsAccepted(t *testing.T) {
	paths := slices.Collect(maps.Keys(settings))
	for block, keys := range noEffect {
		for _, key := range strings.Fields(keys) {
			paths = append(paths, block+strings.TrimSuffix(key, ".*"))
		}
	}
	for _, path := range paths {
		if path == "plugin" {
			continue
		}
		accepted := 0
		var last error
		for _, value := range []any{"1s", true, 1.0, []any{"x"}, map[string]any{"x": "y"}} {
			for i := len(strings.Split(path, ".")) - 1; i >= 0; i-- {
				value = map[string]any{strings.Split(path, ".")[i]: value}
			}
			src, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if last = Default().Parse("x.json", src); last == nil {
				accepted++
			} else if strings.Contains(last.Error(), "unknown key") {
				t.Fatalf("%s: %v", path, last)
			}
		}
		if accepted == 0 {
			t.Errorf("%s accepts no value: %v", path, last)
		}
	}
}

func TestWhatCannotBeRunIsRefused(t *testing.T) {
	sound := func() *Config {
		c := Default()
		c.Server.Enabled, c.DataDir = true, "/tmp/x"
		return c
	}
	if err := sound().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct {
		change func(*Config)
		want   string // "" is accepted
	}{
		"nothing to do":              {func(c *Config) { c.Server.Enabled = false }, "neither server.enabled nor client.enabled"},
		"no data directory":          {func(c *Config) { c.DataDir = "" }, "data_dir is not set"},
		"no data directory, dev":     {func(c *Config) { c.DataDir, c.Dev = "", true }, ""},
		"a region's name":            {func(c *Config) { c.Region = "a b" }, `region "a b" must be`},
		"all regions":                {func(c *Config) { c.Region = "*" }, `region "*" must be`},
		"an empty name":              {func(c *Config) { c.Name = "" }, `name "" must be`},
		"a path as datacenter":       {func(c *Config) { c.Datacenter = "../x" }, `datacenter "../x" must be`},
		"too many servers":           {func(c *Config) { c.Server.BootstrapExpect = 8 }, "server.bootstrap_expect 8 is not from 0 to 7"},
		"a port":                     {func(c *Config) { c.Ports.RPC = 65536 }, "ports.rpc 65536 is not from 0 to 65535"},
		"a client without servers":   {func(c *Config) { c.Server.Enabled, c.Client.Enabled = false, true }, "client.servers is empty"},
		"dynamic ports":              {func(c *Config) { c.Client.MinDynamicPort, c.Client.MaxDynamicPort = 9, 8 }, "client.min_dynamic_port 9"},
		"beyond loopback":            {func(c *Config) { c.BindAddr = "0.0.0.0" }, "is beyond loopback"},
		"beyond loopback, by gossip": {func(c *Config) { c.Addresses.Serf = "10.0.0.1" }, "the gossip listener at 10.0.0.1:4648 is beyond loopback"},
		"beyond loopback, by name":   {func(c *Config) { c.Addresses.HTTP = "example.com" }, "the HTTP listener at example.com:4646 is beyond loopback"},
		"regions of the federation":  {func(c *Config) { c.Federation.Regions = []string{"eu", "us-east.1"} }, ""},
		"a region of all":            {func(c *Config) { c.Federation.Regions = []string{"*"} }, `federation.regions: "*" is no name`},
		"beyond loopback, insecure":  {func(c *Config) { c.BindAddr, c.Insecure = "0.0.0.0", true }, ""},
		"IPv6 loopback":              {func(c *Config) { c.BindAddr = "::1" }, ""},
		"localhost":                  {func(c *Config) { c.BindAddr = "localhost" }, ""},
	} {
		c := sound()
		f.change(c)
		err := c.Validate()
		if (err == nil) != (f.want == "") || err != nil && !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, f.want)
		}
	}
	// All that is wrong is said at once.
	c := Default()
	c.Region = ""
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "region") || !strings.Contains(err.Error(), "data_dir") || !strings.Contains(err.Error(), "neither") {
		t.Errorf("several mistakes: %v", err)
	}
	even := sound()
	even.Server.BootstrapExpect = 2
	if err := even.Validate(); err != nil || len(even.Warnings) != 1 || !strings.Contains(even.Warnings[0], "2 is even") {
		t.Errorf("an even number of servers: %v, warnings %q", err, even.Warnings)
	}
}

func FuzzParse(f *testing.F) {
	src, err := os.ReadFile("testdata/nomad.hcl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, src)
	f.Add(true, []byte(`{"server": [{"enabled": true}], "plugin": {"docker": {"config": {"a": [1, {}]}}}, "client": {"meta": {"a": 1e9}}}`))
	f.Add(true, []byte("{\"ports\":\n{\"http\": null}}"))
	f.Add(false, []byte("plugin \"x\" \"y\" {}\nclient { options = { a = 1 } }"))
	f.Add(false, []byte("server { bootstrap_expect = 99999999999999999999 }\nname = \"${1/0}\"\ndata_dir = <<X\ny\nX\n"))
	f.Fuzz(func(t *testing.T, isJSON bool, src []byte) {
		name := "a.hcl"
		if isJSON {
			name = "a.json"
		}
		c := Default()
		err := c.Parse(name, src)
		if err != nil {
			if model.KindOf(err) != model.KindInvalid {
				t.Errorf("an error of kind %s: %v", model.KindOf(err), err)
			}
			return
		}
		// What was accepted can be judged, and read again to the same end.
		_ = c.Validate()
		again := Default()
		if err := again.Parse(name, src); err != nil {
			t.Errorf("accepted once, and then: %v", err)
		}
	})
}
