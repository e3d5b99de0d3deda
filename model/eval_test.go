package model

import (
	"fmt"
	"testing"
	"time"
)

func TestAFailedEvaluationIsFollowedAFewTimes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	e := &Evaluation{
		ID: "first", Namespace: "ns", JobID: "j", Type: JobTypeBatch, Priority: 70, JobModifyIndex: 9,
		TriggeredBy: TriggerJobRegister, CreateIndex: 5, CreateTime: now.UnixNano(),
	}
	var delays []time.Duration
	for i := 0; i < 20; i++ {
		next := e.FollowFailed(fmt.Sprint("next-", i), now)
		if next == nil {
			break
		}
		if next.PreviousEval != e.ID || next.JobKey() != e.JobKey() || next.Type != e.Type || next.Priority != 70 || next.Status != EvalPending || next.CreateIndex != 0 {
			t.Errorf("%+v follows %+v", next, e)
		}
		delays = append(delays, next.WaitUntil.Sub(now))
		// It fails a while after its time.
		now = next.WaitUntil.Add(3 * time.Second)
		e = next
	}
	if got := fmt.Sprint(delays); got != "[1m0s 2m0s 4m0s 8m0s 16m0s]" {
		t.Errorf("delays %s", got)
	}
}
