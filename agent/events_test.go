package agent

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// An agent that is no server streams events, and goes on doing so over many
// times what a silent server is borne.
func TestEventsComeThroughAnyAgent(t *testing.T) {
	client := throughANode(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	var events <-chan *api.Events
	await(t, "a stream", func() (err error) {
		events, err = client.EventStream().Stream(ctx, map[api.Topic][]string{api.TopicNode: nil}, 0, &api.QueryOptions{})
		return err
	})
	defer func() {
		cancel()
		for range events { // until it is closed
		}
	}()
	// The node's own registration, and a change much later.
	for changed := false; ; {
		got, ok := <-events
		if !ok || got.Err != nil {
			t.Fatalf("the stream ended: %+v", got)
		}
		for _, e := range got.Events {
			node, err := e.Node()
			if err != nil || node.Name != "n1" {
				t.Fatalf("%+v, %v", node, err)
			}
			if e.Type == "NodeEligibility" && node.SchedulingEligibility == api.NodeSchedulingIneligible {
				return
			}
			if node.Status == api.NodeStatusReady && !changed {
				changed = true
				later := time.AfterFunc(4*time.Second, func() {
					if _, err := client.Nodes().ToggleEligibility(node.ID, false, nil); err != nil {
						t.Error(err)
					}
				})
				defer later.Stop()
			}
		}
	}
}
