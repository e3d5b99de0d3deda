package model

import (
	"encoding/json"
	"fmt"
	"time"
)

// AutopilotConfig says how a cell's leader tends the cell's servers. In JSON
// its durations are texts such as "200ms", as Nomad's clients write them.
type AutopilotConfig struct {
	// CleanupDeadServers takes dead servers out of the cell.
	CleanupDeadServers bool
	// LastContactThreshold is how long a healthy server may be without its
	// leader.
	LastContactThreshold time.Duration
	// MaxTrailingLogs is how many entries a healthy server may be behind.
	MaxTrailingLogs uint64
	// MinQuorum is how many voting servers no clean-up goes below.
	MinQuorum uint
	// ServerStabilizationTime is how long a new server must be healthy before
	// it has a vote.
	ServerStabilizationTime time.Duration
	CreateIndex             uint64
	ModifyIndex             uint64
}

// DefaultAutopilot is what a new cell begins with.
func DefaultAutopilot() AutopilotConfig {
	return AutopilotConfig{
		CleanupDeadServers: true, LastContactThreshold: 200 * time.Millisecond, MaxTrailingLogs: 250, ServerStabilizationTime: 10 * time.Second,
	}
}

// Validate says what is wrong, by field.
func (c *AutopilotConfig) Validate() error {
	switch {
	case c.LastContactThreshold <= 0:
		return Invalidf("LastContactThreshold", "LastContactThreshold %s is not above 0: no server could be healthy", c.LastContactThreshold)
	case c.ServerStabilizationTime < 0:
		return Invalidf("ServerStabilizationTime", "ServerStabilizationTime %s is below 0", c.ServerStabilizationTime)
	}
	return nil
}

// bareAutopilot is AutopilotConfig without its methods.
type bareAutopilot AutopilotConfig

// MarshalJSON implements json.Marshaler.
func (c *AutopilotConfig) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		*bareAutopilot
		LastContactThreshold    string
		ServerStabilizationTime string
	}{(*bareAutopilot)(c), c.LastContactThreshold.String(), c.ServerStabilizationTime.String()})
}

// UnmarshalJSON implements json.Unmarshaler. Fields that are absent stay as they
// are. What Nomad Enterprise has beyond them is refused when it asks for
// something.
func (c *AutopilotConfig) UnmarshalJSON(b []byte) error {
	in := struct {
		*bareAutopilot
		LastContactThreshold    string
		ServerStabilizationTime string
		EnableRedundancyZones   bool
		DisableUpgradeMigration bool
		EnableCustomUpgrades    bool
	}{bareAutopilot: (*bareAutopilot)(c)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	for name, on := range map[string]bool{
		"EnableRedundancyZones": in.EnableRedundancyZones, "DisableUpgradeMigration": in.DisableUpgradeMigration, "EnableCustomUpgrades": in.EnableCustomUpgrades,
	} {
		if on {
			return &Error{Kind: KindUnsupported, Field: name, Message: "this version of Atoll does not have autopilot's " + name}
		}
	}
	for _, d := range []struct {
		field, text string
		to          *time.Duration
	}{{"LastContactThreshold", in.LastContactThreshold, &c.LastContactThreshold}, {"ServerStabilizationTime", in.ServerStabilizationTime, &c.ServerStabilizationTime}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return Invalidf(d.field, "%s %q is not a duration such as \"10s\"", d.field, d.text)
		}
		*d.to = v
	}
	return nil
}

// CellHealth is a leader's view of its cell.
type CellHealth struct {
	// Healthy says that every server is.
	Healthy bool
	// FailureTolerance is how many voting servers may be lost before the cell
	// stops.
	FailureTolerance int
	Servers          []*ServerHealth
	// Leader and Voters are servers' ids.
	Leader string
	Voters []string
}

// ServerHealth is a leader's view of one server.
type ServerHealth struct {
	ID, Name, Address string
	// SerfStatus is gossip's: alive, failed, left or unknown.
	SerfStatus string
	Version    string
	Leader     bool
	// LastContact is how long ago the server heard its leader, negative when it
	// never did. In JSON it is a text.
	LastContact         time.Duration
	LastTerm, LastIndex uint64
	Healthy             bool
	Voter               bool
	// StableSince is when Healthy last changed, by the leader's clock.
	StableSince time.Time
}

// bareHealth is ServerHealth without its methods.
type bareHealth ServerHealth

// MarshalJSON implements json.Marshaler.
func (h *ServerHealth) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		*bareHealth
		LastContact string
	}{(*bareHealth)(h), h.LastContact.String()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *ServerHealth) UnmarshalJSON(b []byte) error {
	in := struct {
		*bareHealth
		LastContact string
	}{bareHealth: (*bareHealth)(h)}
	err := json.Unmarshal(b, &in)
	if err != nil || in.LastContact == "" {
		return err
	}
	if h.LastContact, err = time.ParseDuration(in.LastContact); err != nil {
		return fmt.Errorf("cannot read LastContact: %w", err)
	}
	return nil
}

// RaftServer is a member of a cell, as Raft's configuration has it.
type RaftServer struct {
	ID string
	// Node is the server's name, "(unknown)" to those who have never heard it.
	Node    string
	Address string
	Leader  bool
	Voter   bool
	// RaftProtocol is always "3"; Nomad's clients show it.
	RaftProtocol string
}

// RaftConfiguration is the members of a cell, as of a Raft index.
type RaftConfiguration struct {
	Servers []*RaftServer
	Index   uint64
}
