package region

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// One submit, sent a hundred times at once through every server of two regions.
func TestASubmitThatComesAHundredTimesIsAppliedOnce(t *testing.T) {
	s1 := startServer(t, "s1", "us", t.TempDir(), 3)
	s2 := startServer(t, "s2", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	s3 := startServer(t, "s3", "us", t.TempDir(), 3, s1.cfg.AdvertiseSerf)
	eu := startServer(t, "e1", "eu", t.TempDir(), 1, s1.cfg.AdvertiseSerf)
	doors := []*testServer{s1, s2, s3, eu}
	for _, s := range doors {
		wait(t, "both regions can be reached", func() error {
			for _, region := range []string{"us", "eu"} {
				if _, err := rpc.Call(t.Context(), s.RPC(), method.JobList, rpc.To{Region: region}, &method.ListRequest{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	submit := func(door *testServer, id string, job *model.Job) (*method.JobRegisterResponse, error) {
		return rpc.Call(context.Background(), door.RPC(), method.JobRegister, rpc.To{Region: "us", RequestID: id}, &method.JobRegisterRequest{Job: job})
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	for i := range 100 {
		wg.Go(func() {
			r, err := submit(doors[i%len(doors)], "the-one", aJob("web", 1))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answers[err.Error()]++
				return
			}
			answers[fmt.Sprintf("%s %d %d", r.EvalID, r.JobModifyIndex, r.Index)]++
		})
	}
	wg.Wait()
	if len(answers) != 1 {
		t.Errorf("a hundred came to %d answers: %v", len(answers), answers)
	}
	versions := call(t, eu.RPC(), method.JobVersions, rpc.To{Region: "us"}, &method.JobRequest{JobID: "web"}).Versions
	evals := call(t, eu.RPC(), method.JobEvaluations, rpc.To{Region: "us"}, &method.JobRequest{JobID: "web"}).Evals
	registered := 0
	for _, e := range evals {
		if e.TriggeredBy == model.TriggerJobRegister {
			registered++
		}
	}
	if len(versions) != 1 || registered != 1 {
		t.Errorf("%d versions and %d evaluations of registers, want one of each", len(versions), registered)
	}
	// The same id for something else, and something else with an id of its own.
	if _, err := submit(eu, "the-one", aJob("web", 2)); model.KindOf(err) != model.KindConflict {
		t.Errorf("the id for another job: %v", err)
	}
	if _, err := submit(eu, "another", aJob("web", 2)); err != nil {
		t.Errorf("another id: %v", err)
	}
	// A stop likewise.
	stop := func(door *testServer) string {
		r, err := rpc.Call(context.Background(), door.RPC(), method.JobDeregister, rpc.To{Region: "us", RequestID: "stop"}, &method.JobDeregisterRequest{JobID: "web"})
		if err != nil {
			return err.Error()
		}
		return r.EvalID
	}
	first := stop(s2)
	for _, door := range doors {
		if again := stop(door); again != first {
			t.Errorf("the stop again: %s, first %s", again, first)
		}
	}
}
