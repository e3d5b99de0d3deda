package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"

	"atoll/agent/config"
	"atoll/client"
	"atoll/drivers"
	"atoll/drivers/docker"
	"atoll/drivers/mock"
	"atoll/drivers/rawexec"
	"atoll/model"
)

// kinds are the drivers of this version, on whatever machine: to add a driver,
// add it here and in newDrivers.
var kinds = []drivers.Kind{rawexec.Kind, docker.Kind, mock.Kind}

// CheckTask refuses a task that its driver could not start. A driver that is not
// known may be some node's: that a task of it finds no place says so.
func CheckTask(t *model.Task) error {
	for _, k := range kinds {
		if k.Name == t.Driver {
			return k.Check(t)
		}
	}
	return nil
}

// newDrivers makes the node's drivers.
func newDrivers(cfg *config.Config, log hclog.Logger, shim []string) ([]client.Installed, error) {
	raw, err := enabled(cfg, rawexec.Name, "driver.raw_exec.enable")
	if err != nil {
		return nil, err
	}
	out := []client.Installed{{Kind: rawexec.Kind, Driver: rawexec.New(rawexec.Config{Enabled: raw, Shim: shim, Environ: environ(cfg)})}}
	endpoint, _ := cfg.Plugin(docker.Name)["endpoint"].(string)
	if endpoint == "" {
		endpoint = cfg.Client.Options["docker.endpoint"]
	}
	engine, err := docker.New(docker.Config{Endpoint: endpoint, Log: log.Named("docker")})
	if err != nil {
		return nil, err
	}
	out = append(out, client.Installed{Kind: docker.Kind, Driver: engine})
	if on, err := enabled(cfg, mock.Name, ""); err != nil {
		return nil, err
	} else if on {
		out = append(out, client.Installed{Kind: mock.Kind, Driver: mock.New()})
	}
	return out, nil
}

// enabled reads a driver's switch from its plugin block, or from the older
// client option.
func enabled(cfg *config.Config, plugin, option string) (bool, error) {
	v := cfg.Plugin(plugin)["enabled"]
	if v == nil && option != "" && cfg.Client.Options[option] != "" {
		v = cfg.Client.Options[option]
	}
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case string:
		on, err := strconv.ParseBool(v)
		if err == nil {
			return on, nil
		}
	}
	return false, fmt.Errorf("cannot use the configuration: plugin %q: enabled = %v is neither true nor false", plugin, v)
}

// secretVariables are not passed on to tasks, unless the option env.denylist
// says otherwise.
const secretVariables = "CONSUL_TOKEN,CONSUL_HTTP_TOKEN,VAULT_TOKEN,NOMAD_TOKEN,ATOLL_TOKEN,NOMAD_LICENSE,AWS_ACCESS_KEY_ID," +
	"AWS_SECRET_ACCESS_KEY,AWS_SESSION_TOKEN,GOOGLE_APPLICATION_CREDENTIALS"

// environ is what plain processes inherit of the agent's environment.
func environ(cfg *config.Config) []string {
	deny := secretVariables
	for _, option := range []string{"env.blacklist", "env.denylist"} {
		if v, ok := cfg.Client.Options[option]; ok {
			deny = v
		}
	}
	denied := make(map[string]bool)
	for _, name := range strings.Split(deny, ",") {
		denied[strings.TrimSpace(name)] = true
	}
	var out []string
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !denied[name] {
			out = append(out, kv)
		}
	}
	return out
}

func reserved(cfg *config.Config) *model.NodeReservedResources {
	r := &model.NodeReservedResources{}
	r.Cpu.CpuShares = uint64(max(cfg.Client.Reserved.CPU, 0))
	r.Memory.MemoryMB = uint64(max(cfg.Client.Reserved.MemoryMB, 0))
	r.Disk.DiskMB = uint64(max(cfg.Client.Reserved.DiskMB, 0))
	r.Networks.ReservedHostPorts = cfg.Client.Reserved.Ports
	return r
}

// shown is the configuration as agent/self shows it, in the names that clients
// look for. Web hints are off: this version has no web pages.
func shown(cfg *config.Config) map[string]any {
	return map[string]any{
		"Region": cfg.Region, "Datacenter": cfg.Datacenter, "NodeName": cfg.Name, "DataDir": cfg.DataDir, "LogLevel": cfg.LogLevel, "BindAddr": cfg.BindAddr,
		"Server":  map[string]any{"Enabled": cfg.Server.Enabled, "BootstrapExpect": cfg.Server.BootstrapExpect},
		"Client":  map[string]any{"Enabled": cfg.Client.Enabled, "NodeClass": cfg.Client.NodeClass, "Meta": cfg.Client.Meta},
		"ACL":     map[string]any{"Enabled": false},
		"UI":      map[string]any{"Enabled": false, "ShowCLIHints": false},
		"Version": map[string]any{"Version": client.NomadVersion, "Build": Build},
		"DevMode": cfg.Dev,
	}
}
