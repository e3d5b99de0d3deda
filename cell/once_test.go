package cell

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"atoll/cell/state"
	"atoll/model"
)

func request(id string, hash byte) *state.Request {
	return &state.Request{ID: id, Namespace: "default", Hash: [16]byte{hash}}
}

func TestARequestIsAppliedOnceAndKeepsItsAnswer(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir)
	register := func(c *Cell, req *state.Request, eval string) (uint64, *JobRegistered, error) {
		index, v, err := c.ApplyOnce(context.Background(), CmdJobRegister, req, &JobRegister{
			Job: testJob("a", 1), Eval: &model.Evaluation{ID: eval, Namespace: "default", JobID: "a", Status: model.EvalPending},
		})
		if err != nil {
			return 0, nil, err
		}
		return index, v.(*JobRegistered), nil
	}
	first := model.NewUUID(nil).String()
	index, answer, err := register(c, request("r1", 1), first)
	if err != nil {
		t.Fatal(err)
	}
	again := func(when string, c *Cell) {
		t.Helper()
		at, got, err := register(c, request("r1", 1), model.NewUUID(nil).String())
		if err != nil || at != index || got.EvalID != first || got.JobModifyIndex != answer.JobModifyIndex {
			t.Errorf("%s: index %d, %+v, %v; want the first answer, %d, %+v", when, at, got, err, index, answer)
		}
		if _, _, err := register(c, request("r1", 2), "e"); model.KindOf(err) != model.KindConflict {
			t.Errorf("%s: the id for another request: %v", when, err)
		}
		evals := 0
		for range c.Snapshot().Evals(nil, "") {
			evals++
		}
		if evals != 1 {
			t.Errorf("%s: %d evaluations", when, evals)
		}
	}
	again("at once", c)
	if at, _, err := register(c, &state.Request{ID: "r1", Namespace: "other", Hash: [16]byte{1}}, model.NewUUID(nil).String()); err != nil || at == index {
		t.Errorf("the same id in another namespace: index %d, %v", at, err)
	}
	// Undone by hand, so that what follows counts one again.
	must(t, c, CmdJobDeregister, &JobDeregister{Key: model.JobID{Namespace: "default", ID: "a"}, Purge: true})

	var wg sync.WaitGroup
	answers := make(chan string, 100)
	for range 100 {
		wg.Go(func() {
			_, v, err := c.ApplyOnce(context.Background(), CmdJobRegister, request("r2", 3), &JobRegister{
				Job: testJob("b", 1), Eval: &model.Evaluation{ID: model.NewUUID(nil).String(), Namespace: "default", JobID: "b", Status: model.EvalPending},
			})
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- v.(*JobRegistered).EvalID
		})
	}
	wg.Wait()
	close(answers)
	seen := map[string]int{}
	for a := range answers {
		seen[a]++
	}
	if len(seen) != 1 {
		t.Errorf("a hundred at once gave %d answers: %v", len(seen), seen)
	}

	// After a snapshot and a restart the memory is the same.
	if err := c.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openAlone(t, dir)
	if at, got, err := register(c, request("r1", 1), "e"); err != nil || at != index || got.EvalID != first {
		t.Errorf("after a restart: index %d, %+v, %v", at, got, err)
	}
}

func TestARefusedRequestIsNotRemembered(t *testing.T) {
	c := openAlone(t, t.TempDir())
	stop := func() error {
		_, _, err := c.ApplyOnce(context.Background(), CmdJobDeregister, request("s", 1), &JobDeregister{Key: model.JobID{Namespace: "default", ID: "a"}})
		return err
	}
	if err := stop(); model.KindOf(err) != model.KindNotFound {
		t.Fatal(err)
	}
	must(t, c, CmdJobRegister, &JobRegister{Job: testJob("a", 1)})
	if err := stop(); err != nil {
		t.Errorf("the same request once it can be done: %v", err)
	}
}

func TestEntriesCutShortAreRefused(t *testing.T) {
	whole, err := encode(CmdEvals, request("id", 1), &Evals{})
	if err != nil {
		t.Fatal(err)
	}
	cmd, req, body, err := split(whole)
	if err != nil || cmd != CmdEvals || req.ID != "id" || len(body) == 0 {
		t.Fatalf("%v %+v %d bytes, %v", cmd, req, len(body), err)
	}
	for cut := range len(whole) - len(body) {
		if _, _, _, err := split(whole[:cut]); err == nil {
			t.Errorf("cut at %d of %d: read", cut, len(whole))
		}
	}
}

func BenchmarkOnce(b *testing.B) {
	c := openAlone(b, b.TempDir())
	const writers, each = 64, 200
	for b.Loop() {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					id := fmt.Sprintf("%d-%d-%d", b.N, w, i)
					if _, _, err := c.ApplyOnce(context.Background(), CmdJobRegister, request(id, 1), &JobRegister{Job: testJob(id, 1)}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N*writers*each)/b.Elapsed().Seconds(), "writes/s")
}
