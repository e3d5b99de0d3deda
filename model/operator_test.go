package model

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

func TestNomadsClientReadsAndWritesAutopilotsConfiguration(t *testing.T) {
	want := DefaultAutopilot()
	want.MinQuorum, want.CreateIndex, want.ModifyIndex = 3, 7, 9
	b, err := json.Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	var theirs nomad.AutopilotConfiguration
	if err := json.Unmarshal(b, &theirs); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if theirs.LastContactThreshold != 200*time.Millisecond || theirs.MinQuorum != 3 || theirs.ModifyIndex != 9 {
		t.Errorf("they read %+v", theirs)
	}
	back, err := json.Marshal(&theirs)
	if err != nil {
		t.Fatal(err)
	}
	var got AutopilotConfig
	if err := json.Unmarshal(back, &got); err != nil {
		t.Fatalf("%s: %v", back, err)
	}
	if got != want {
		t.Errorf("%+v came back as %+v", want, got)
	}
}

func TestAutopilotRefusesWhatItDoesNotHave(t *testing.T) {
	for text, want := range map[string]Kind{
		`{"EnableRedundancyZones": true}`:       KindUnsupported,
		`{"LastContactThreshold": "soon"}`:      KindInvalid,
		`{"ServerStabilizationTime": "-1s"}`:    KindInvalid,
		`{"LastContactThreshold": "0s"}`:        KindInvalid,
		`{"EnableCustomUpgrades": true, "x":1}`: KindUnsupported,
	} {
		c := DefaultAutopilot()
		err := json.Unmarshal([]byte(text), &c)
		if err == nil {
			err = c.Validate()
		}
		if KindOf(err) != want || err == nil {
			t.Errorf("%s: %v, want kind %s", text, err, want)
		}
	}
}

func TestNomadsClientReadsServerHealth(t *testing.T) {
	h := &CellHealth{Healthy: true, Leader: "a", Voters: []string{"a"}, Servers: []*ServerHealth{{
		ID: "a", LastContact: 30 * time.Millisecond, LastIndex: 4, StableSince: time.Unix(9, 0).UTC(), Healthy: true,
	}}}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var theirs nomad.OperatorHealthReply
	if err := json.Unmarshal(b, &theirs); err != nil {
		t.Fatal(err)
	}
	if s := theirs.Servers[0]; s.LastContact != 30*time.Millisecond || !s.StableSince.Equal(time.Unix(9, 0)) || s.LastIndex != 4 {
		t.Errorf("they read %+v", s)
	}
	var ours CellHealth
	if err := json.Unmarshal(b, &ours); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, &ours) {
		t.Errorf("%+v came back as %+v", h.Servers[0], ours.Servers[0])
	}
}
