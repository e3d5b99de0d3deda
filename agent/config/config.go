// Package config is an agent's configuration: Nomad's keys, in HCL or JSON files
// that are merged in order, over defaults and under the command line's flags.
//
// Every key that Nomad's agent knows is accepted; one that has no effect in
// this version is warned of, and any other is an error that names file, line
// and the nearest key. The package reads files and nothing else: it opens no
// socket and starts nothing.
package config

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"atoll/model"
)

// Config is all that an agent is told.
type Config struct {
	Region     string
	Datacenter string
	Name       string
	DataDir    string
	// Dev runs server and client in one process with data that goes when it
	// stops, tasks included.
	Dev      bool
	LogLevel string
	LogJSON  bool
	BindAddr string
	// Insecure lets the agent listen beyond loopback without TLS and ACLs.
	Insecure  bool
	Addresses Endpoints
	Ports     Ports
	Advertise Endpoints
	Server    Server
	// Federation is Atoll's own block.
	Federation Federation
	Client     Client
	Plugins    map[string]map[string]any
	Telemetry  Telemetry
	// Autopilot is what a new cell begins with; afterwards its configuration is
	// changed through the API.
	Autopilot model.AutopilotConfig

	LeaveOnInterrupt bool
	LeaveOnTerminate bool
	// Warnings are about keys without effect, as sentences.
	Warnings []string
}

// Endpoints are addresses of the three listeners; "" means BindAddr.
type Endpoints struct{ HTTP, RPC, Serf string }

// Ports are those of the listeners; 0 asks for a free one.
type Ports struct{ HTTP, RPC, Serf int }

// Server configures a server of the region's cell.
type Server struct {
	Enabled         bool
	BootstrapExpect int
	Join            Join
	NumSchedulers   int
	HeartbeatGrace  time.Duration
	MinHeartbeatTTL time.Duration
	MaxHeartbeats   float64
	// RaftSnapshotThreshold is how many log entries cause a snapshot.
	RaftSnapshotThreshold int
	GC                    GC
	PlanRejection         PlanRejection
}

// GC says how long what is over stays in the state, and how often that is looked
// at; zeros mean the defaults.
type GC struct {
	EvalThreshold, BatchEvalThreshold, DeploymentThreshold, JobThreshold, NodeThreshold time.Duration
	Interval                                                                            time.Duration
}

// PlanRejection says when a node that keeps refusing plans for no known reason
// becomes ineligible; zeros mean the defaults.
type PlanRejection struct {
	Enabled   bool
	Threshold int
	Window    time.Duration
}

// Federation says with whom this agent's server speaks.
type Federation struct {
	// Regions are those that may join and be spoken with, beside the agent's own;
	// none means all.
	Regions []string
}

// Join says which servers to join, of this region or any other.
type Join struct {
	RetryJoin     []string
	RetryInterval time.Duration
	RetryMax      int
}

// Client configures a node.
type Client struct {
	Enabled          bool
	Servers          []string
	NodeClass        string
	NodePool         string
	StateDir         string
	AllocDir         string
	Meta             map[string]string
	Options          map[string]string
	NetworkInterface string
	CPUTotalCompute  int
	MemoryTotalMB    int
	DiskTotalMB      int
	MinDynamicPort   int
	MaxDynamicPort   int
	MaxKillTimeout   time.Duration
	GCMaxAllocs      int
	Reserved         Reserved
}

// Reserved is kept from tasks: MHz, MiB, MiB and ports such as "22,80,8000-8010".
type Reserved struct {
	CPU, MemoryMB, DiskMB int
	Ports                 string
}

// Telemetry configures metrics.
type Telemetry struct {
	PrometheusMetrics  bool
	DisableHostname    bool
	CollectionInterval time.Duration
}

// Default is the configuration before anything was read.
func Default() *Config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return &Config{
		Region: model.GlobalRegion, Datacenter: "dc1", Name: host, LogLevel: "INFO", BindAddr: "127.0.0.1",
		Ports:     Ports{HTTP: 4646, RPC: 4647, Serf: 4648},
		Server:    Server{Join: Join{RetryInterval: 30 * time.Second}, PlanRejection: PlanRejection{Enabled: true}},
		Client:    Client{NodePool: model.NodePoolDefault, Meta: map[string]string{}, Options: map[string]string{}, GCMaxAllocs: 50, MaxKillTimeout: 30 * time.Second},
		Plugins:   map[string]map[string]any{},
		Telemetry: Telemetry{CollectionInterval: time.Second},
		Autopilot: model.DefaultAutopilot(),
	}
}

// MakeDev turns c into the configuration of "agent -dev".
func (c *Config) MakeDev() {
	c.Dev = true
	c.Server.Enabled, c.Server.BootstrapExpect = true, 1
	c.Client.Enabled = true
	c.LogLevel = "DEBUG"
	c.Telemetry.PrometheusMetrics = true
	c.Plugin("raw_exec")["enabled"] = true
}

// Plugin returns the configuration of a plugin, for reading and changing.
func (c *Config) Plugin(name string) map[string]any {
	if c.Plugins[name] == nil {
		c.Plugins[name] = map[string]any{}
	}
	return c.Plugins[name]
}

// HTTPAddr, RPCAddr and SerfAddr are where the agent listens.
func (c *Config) HTTPAddr() string { return c.listen(c.Addresses.HTTP, c.Ports.HTTP) }
func (c *Config) RPCAddr() string  { return c.listen(c.Addresses.RPC, c.Ports.RPC) }
func (c *Config) SerfAddr() string { return c.listen(c.Addresses.Serf, c.Ports.Serf) }

func (c *Config) listen(addr string, port int) string {
	if addr == "" {
		addr = c.BindAddr
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

// Validate says what is wrong with the whole, naming each key as a file spells
// it.
func (c *Config) Validate() error {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, id := range []struct{ key, value string }{{"region", c.Region}, {"datacenter", c.Datacenter}, {"name", c.Name}} {
		if !plainName(id.value) {
			say("%s %q must be 1 to 128 letters, digits, dashes, underscores or dots", id.key, id.value)
		}
	}
	for _, name := range c.Federation.Regions {
		if !plainName(name) {
			say("federation.regions: %q is no name of a region", name)
		}
	}
	if c.Region == model.AllRegions {
		say("region must not be %q", c.Region)
	}
	if !c.Server.Enabled && !c.Client.Enabled {
		say("neither server.enabled nor client.enabled is true: the agent would do nothing; set one, or run with -dev")
	}
	if c.DataDir == "" && !c.Dev {
		say("data_dir is not set; name a directory that only this agent uses")
	}
	switch n := c.Server.BootstrapExpect; {
	case n < 0 || n > 7:
		say("server.bootstrap_expect %d is not from 0 to 7", n)
	case n > 1 && n%2 == 0:
		c.Warnings = append(c.Warnings, fmt.Sprintf("server.bootstrap_expect %d is even: a cell of %d tolerates no more failures than one of %d", n, n, n-1))
	}
	for _, p := range []struct {
		key  string
		port int
	}{{"ports.http", c.Ports.HTTP}, {"ports.rpc", c.Ports.RPC}, {"ports.serf", c.Ports.Serf}} {
		if p.port < 0 || p.port > 65535 {
			say("%s %d is not from 0 to 65535", p.key, p.port)
		}
	}
	if err := c.Autopilot.Validate(); err != nil {
		say("autopilot: %v", err)
	}
	if lo, hi := c.Client.MinDynamicPort, c.Client.MaxDynamicPort; lo < 0 || hi > 65535 || (hi != 0 && lo > hi) {
		say("client.min_dynamic_port %d to client.max_dynamic_port %d is no range of ports", lo, hi)
	}
	if c.Client.Enabled && !c.Server.Enabled && len(c.Client.Servers) == 0 {
		say("client.servers is empty: name at least one server, such as \"10.0.0.1:4647\"")
	}
	if !c.Insecure {
		for key, addr := range map[string]string{"HTTP": c.HTTPAddr(), "RPC": c.RPCAddr(), "gossip": c.SerfAddr()} {
			if !loopback(addr) {
				say("the %s listener at %s is beyond loopback, and this version has neither TLS nor ACLs: set insecure = true to accept that anyone who reaches it controls this agent, or bind to 127.0.0.1", key, addr)
				break
			}
		}
	}
	if len(wrong) > 0 {
		return &model.Error{Kind: model.KindInvalid, Message: "cannot use the configuration: " + strings.Join(wrong, "; ")}
	}
	return nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func plainName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}) < 0
}
