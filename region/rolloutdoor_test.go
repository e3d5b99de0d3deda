package region

import (
	"math"
	"strings"
	"testing"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// What is asked of a region's room and plans comes from outside, and is bounded
// before anything of its size is made.
func TestACountWithoutBoundIsNotTried(t *testing.T) {
	s := startServer(t, "s1", "us", t.TempDir(), 1)
	lead(t, s)
	job := seasJob("web", "us", "eu")
	second := model.Clone(job.TaskGroups[0])
	second.Name = "h"
	job.TaskGroups = append(job.TaskGroups, second)
	for _, count := range []int{2_000_000_000, math.MaxInt} {
		_, err := rpc.Call(t.Context(), s.RPC(), method.RolloutRoom, rpc.To{}, &method.RolloutRoomRequest{Job: job, Region: "us", Count: count})
		if model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("room for %d: %v", count, err)
		}
		_, err = rpc.Call(t.Context(), s.RPC(), method.JobPlan, rpc.To{}, &method.JobPlanRequest{Job: job, Share: &method.PlanShare{Count: count}})
		if model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("a plan of %d: %v", count, err)
		}
		big := seasJob("web", "us", "eu")
		big.Multiregion.Region("us").Count = count
		if _, err = rpc.Call(t.Context(), s.RPC(), method.JobRegister, rpc.To{}, &method.JobRegisterRequest{Job: big}); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("a submit of %d: %v", count, err)
		}
	}
}

// seasJob is a canonical job of some regions.
func seasJob(id string, regions ...string) *model.Job {
	j := aJob(id, 0, "*")
	j.Multiregion = &model.Multiregion{}
	for _, name := range regions {
		r := model.NewMultiregionRegion()
		r.Name = name
		j.Multiregion.Regions = append(j.Multiregion.Regions, r)
	}
	j.Canonicalize()
	j.Region = model.GlobalRegion
	return j
}
