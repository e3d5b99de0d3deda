package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"atoll/agent/config"
	"atoll/internal/freeport"
)

// runAgent runs an agent in this process until the test ends.
func runAgent(t *testing.T, c *config.Config) *Agent {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), c, Options{Shim: []string{self, "shim"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, func() bool { return false }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

// throughANode starts a server, as change has it, and a node, and returns a client
// of the node's agent.
func throughANode(t *testing.T, change func(*config.Config)) *api.Client {
	t.Helper()
	c := config.Default()
	c.Name, c.Region, c.DataDir, c.Ports = "s1", "us", t.TempDir(), config.Ports{Serf: freeport.Port(t), RPC: freeport.Port(t)}
	c.Server.Enabled, c.Server.BootstrapExpect = true, 1
	if change != nil {
		change(c)
	}
	runAgent(t, c)
	rpcAddr := c.RPCAddr()
	c = config.Default()
	c.Name, c.Region, c.DataDir, c.Ports = "n1", "us", t.TempDir(), config.Ports{}
	c.Client.Enabled, c.Client.Servers = true, []string{rpcAddr}
	client, err := api.NewClient(&api.Config{
		Address: "http://" + runAgent(t, c).HTTPAddr(), HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// status is the HTTP status of a client's error, 0 for none.
func status(err error) int {
	var answer api.UnexpectedResponseError
	if errors.As(err, &answer) {
		return answer.StatusCode()
	}
	return 0
}

// A node's agent takes what operators ask of the servers.
func TestOperatorsAskThroughAnyAgent(t *testing.T) {
	client := throughANode(t, func(c *config.Config) {
		c.Autopilot.MinQuorum, c.Autopilot.LastContactThreshold = 1, 5*time.Second
	})
	op := client.Operator()
	var health *api.OperatorHealthReply
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var err error
		if health, _, err = op.AutopilotServerHealth(nil); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if !health.Healthy || len(health.Servers) != 1 || !health.Servers[0].Leader || health.Servers[0].Name != "s1.us" || health.Servers[0].LastIndex == 0 {
		t.Errorf("health is %+v", health)
	}
	conf, err := op.RaftGetConfiguration(nil)
	if err != nil || len(conf.Servers) != 1 || conf.Servers[0].Node != "s1.us" || !conf.Servers[0].Leader || !conf.Servers[0].Voter {
		t.Fatalf("%v: %+v", err, conf)
	}
	if err := op.RaftTransferLeadershipByID(conf.Servers[0].ID, nil); err != nil {
		t.Errorf("a transfer to the leader: %v", err)
	}
	ap, _, err := op.AutopilotGetConfiguration(nil)
	if err != nil || ap.MinQuorum != 1 || ap.LastContactThreshold != 5*time.Second || !ap.CleanupDeadServers {
		t.Fatalf("%v: autopilot begins with %+v", err, ap)
	}
	ap.MaxTrailingLogs = 9
	if set, _, err := op.AutopilotCASConfiguration(ap, nil); err != nil || !set {
		t.Errorf("set: %v, %v", set, err)
	}
	if set, _, err := op.AutopilotCASConfiguration(ap, nil); err != nil || set {
		t.Errorf("set by an old index: %v, %v", set, err)
	}
	if got, _, err := op.AutopilotGetConfiguration(nil); err != nil || got.MaxTrailingLogs != 9 || got.ModifyIndex <= ap.ModifyIndex {
		t.Errorf("%v: %+v", err, got)
	}
	bad := *ap
	bad.EnableCustomUpgrades = true
	if _, err := op.AutopilotSetConfiguration(&bad, nil); status(err) != http.StatusNotImplemented {
		t.Errorf("what Atoll does not have: %v", err)
	}
	bad = *ap
	bad.LastContactThreshold = 0
	if _, err := op.AutopilotSetConfiguration(&bad, nil); status(err) != http.StatusBadRequest {
		t.Errorf("a threshold of 0: %v", err)
	}
	for what, err := range map[string]error{
		"a stranger's removal":     op.RaftRemovePeerByID("who", nil),
		"a transfer to a stranger": op.RaftTransferLeadershipByAddress("10.1.2.3:4647", nil),
		"a stranger declared gone": client.Agent().ForceLeave("who"),
	} {
		if status(err) != http.StatusNotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := op.RaftRemovePeerByID("", nil); status(err) != http.StatusBadRequest {
		t.Errorf("nobody's removal: %v", err)
	}
	if err := op.RaftRemovePeerByID(conf.Servers[0].ID, nil); err == nil {
		t.Error("the only server was removed")
	}
	if err := client.Agent().ForceLeave("s1"); status(err) != http.StatusConflict {
		t.Errorf("a live server declared gone: %v", err)
	}
	if _, err := client.Agent().Join("127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "failed joining") {
		t.Errorf("a join of nobody: %v", err)
	}
	if _, err := op.RaftGetConfiguration(&api.QueryOptions{Region: "mars"}); status(err) != http.StatusInternalServerError {
		t.Errorf("an unknown region: %v", err)
	}
}
