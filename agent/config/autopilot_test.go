package config

import (
	"strings"
	"testing"
	"time"

	"atoll/model"
)

func TestTheAutopilotBlockIsWhatANewCellBeginsWith(t *testing.T) {
	c := Default()
	if err := c.Parse("a.hcl", []byte(`
autopilot {
  cleanup_dead_servers      = false
  last_contact_threshold    = "300ms"
  max_trailing_logs         = 500
  min_quorum                = 3
  server_stabilization_time = "20s"
  enable_custom_upgrades    = true
}
server {
  server_join {
    retry_max = 4
  }
}
`)); err != nil {
		t.Fatal(err)
	}
	want := model.AutopilotConfig{LastContactThreshold: 300 * time.Millisecond, MaxTrailingLogs: 500, MinQuorum: 3, ServerStabilizationTime: 20 * time.Second}
	if c.Autopilot != want || c.Server.Join.RetryMax != 4 {
		t.Errorf("autopilot is %+v, retry_max %d", c.Autopilot, c.Server.Join.RetryMax)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "autopilot.enable_custom_upgrades has no effect") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if Default().Autopilot != model.DefaultAutopilot() {
		t.Error("the default is another than the cell's")
	}
	for text, want := range map[string]string{
		`autopilot { min_quorum = -1 }`:                      "autopilot.min_quorum",
		`autopilot { min_quorums = 1 }`:                      `did you mean "autopilot.min_quorum"`,
		`autopilot { server_stabilization_time = "a while"}`: "autopilot.server_stabilization_time",
	} {
		if err := Default().Parse("b.hcl", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	c = Default()
	if err := c.Parse("c.hcl", []byte(`autopilot { last_contact_threshold = "0s" }`)); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "LastContactThreshold") {
		t.Errorf("a threshold of 0 is accepted: %v", err)
	}
}
