package region

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// eventsUntil are the events of a server from an index on, a line each, up to
// and with the first that contains last.
func eventsUntil(t *testing.T, s *testServer, from uint64, last string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	topics, err := model.ParseTopics(nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := rpc.Open(ctx, s.RPC(), method.EventStream, rpc.To{}, &method.EventStreamRequest{EventFilter: model.EventFilter{Topics: topics}, Index: from})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var lines []string
	for {
		f, err := stream.Recv()
		if err != nil {
			t.Fatalf("%v after\n%s", err, strings.Join(lines, "\n"))
		}
		if f.Gap != nil {
			t.Errorf("from %d: %+v", from, f.Gap)
		}
		for _, e := range f.Events {
			lines = append(lines, fmt.Sprintf("%d %s %s %s", e.Index, e.Topic, e.Type, e.Key))
			if strings.Contains(lines[len(lines)-1], last) {
				return strings.Join(lines, "\n")
			}
		}
	}
}

// Every server tells the same, through a change of leader too.
func TestEveryServerHasTheEvents(t *testing.T) {
	c := newCluster(t, "us")
	c.trio()
	leader := c.leader()
	var registered *method.JobRegisterResponse
	wait(t, "a job's evaluation", func() (err error) {
		registered, err = rpc.Call(t.Context(), leader.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("web", 2, "dc1")})
		return err
	})
	if err := leader.cell.HandOver(); err != nil {
		t.Fatal(err)
	}
	wait(t, "another leader", func() error {
		_, err := rpc.Call(t.Context(), leader.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: aJob("last", 1, "nowhere")})
		return err
	})
	var first string
	for name, s := range c.servers {
		got := eventsUntil(t, s, 0, "JobRegistered last")
		if first == "" {
			first = got
		}
		if got != first || !strings.Contains(got, "Evaluation JobRegistered "+registered.EvalID) {
			t.Errorf("%s tells\n%s\nand another\n%s", name, got, first)
		}
	}
}
