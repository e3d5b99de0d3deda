package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atoll/agent/config"
)

// configured is the configuration that "atoll agent" makes of arguments.
func configured(args ...string) (*config.Config, error) {
	var f agentFlags
	c := f.command()
	if err := c.ParseFlags(longFlags(args)); err != nil {
		return nil, err
	}
	return f.config(c)
}

func TestFlagsCountOverFilesAndFilesOverDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.hcl")
	text := `
region     = "file"
datacenter = "file"
log_level  = "WARN"
ports {
  http = 1111
  rpc  = 2222
}
server {
  enabled          = true
  bootstrap_expect = 3
  retry_join       = ["file"]
}
client {
  meta {
    a = "file"
    b = "file"
  }
}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// One dash or two, with a space or an equals sign.
	c, err := configured("-config", file, "-region=flag", "--http-port", "9999", "-retry-join", "flag", "-meta", "b=flag=x", "-bootstrap-expect=1", "-client")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"region", c.Region, "flag"}, {"datacenter", c.Datacenter, "file"}, {"log level", c.LogLevel, "WARN"}, {"http", c.Ports.HTTP, 9999},
		{"rpc", c.Ports.RPC, 2222}, {"serf", c.Ports.Serf, 4648}, {"server", c.Server.Enabled, true}, {"client", c.Client.Enabled, true},
		{"expect", c.Server.BootstrapExpect, 1}, {"meta a", c.Client.Meta["a"], "file"}, {"meta b", c.Client.Meta["b"], "flag=x"},
	} {
		if f.got != f.want {
			t.Errorf("%s is %v, want %v", f.name, f.got, f.want)
		}
	}
	if want := []string{"file", "flag"}; !slices.Equal(c.Server.Join.RetryJoin, want) {
		t.Errorf("joins %q, want %q", c.Server.Join.RetryJoin, want)
	}
	// A file counts over -dev, and a flag over both; one that is given as
	// false counts too.
	c, err = configured("-dev", "-config", file, "-server=false")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Dev || c.LogLevel != "WARN" || c.Server.Enabled || !c.Client.Enabled {
		t.Errorf("-dev with a file and a flag: %+v", c)
	}
}

func TestWrongFlagsSaySo(t *testing.T) {
	for name, f := range map[string]struct {
		args []string
		want string
	}{
		"an unknown flag": {[]string{"-regoin", "x"}, "regoin"},
		"no number":       {[]string{"-http-port", "x"}, `"x"`},
		"meta without =":  {[]string{"-meta", "x"}, `-meta "x" is not KEY=VALUE`},
		"no level":        {[]string{"-log-level", "LOUD"}, `log_level "LOUD" is none of`},
		"an absent file":  {[]string{"-config", "/absent.hcl"}, "/absent.hcl"},
		"an odd number":   {[]string{"-bootstrap-expect", "1.5"}, `"1.5"`},
	} {
		if _, err := configured(f.args...); err == nil || !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, f.want)
		}
	}
}
