package region

import (
	"strings"
	"testing"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// What a lost region would have run the others take over, of groups with a count of
// their own too, as far as there is room for all of it.
func TestAPlanWithoutARegionTriesAllItsGroups(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	job := u.job("web", func(j *model.Job) {
		own := model.Clone(j.TaskGroups[0])
		own.Name, own.Count = "own", 2
		j.TaskGroups = append(j.TaskGroups, own)
		j.Multiregion.Region("eu").Count = 1
	})
	if _, err := u.submit("us", job); err != nil {
		t.Fatal(err)
	}
	u.become("web", "us=successful eu=successful ap=successful")
	u.runs("web", "us=v0/4 eu=v0/3 ap=v0/4")
	plan := func() (*method.RolloutPlanResponse, error) {
		return rpc.Call(t.Context(), u.servers["us"].RPC(), method.RolloutPlan, rpc.To{}, &method.RolloutPlanRequest{Job: job, Without: "eu"})
	}
	got, err := plan()
	if err != nil || len(got.Regions) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	taken := map[string]int{}
	for _, p := range got.Regions {
		if p.Plan == nil || len(p.Plan.FailedTGAllocs) > 0 {
			t.Fatalf("%s: %+v, %s", p.Region, p.Plan, p.Error)
		}
		for name, d := range p.Plan.Annotations.DesiredTGUpdates {
			taken[name] += int(d.Place)
		}
	}
	if taken["g"] != 1 || taken["own"] != 2 {
		t.Errorf("of eu's 1 and 2 the others take %v", taken)
	}
	// Ten fit a node, of which four are taken: one is left in each region, and three
	// are to be placed.
	for _, region := range []string{"us", "ap"} {
		register(t, u.servers[region].RPC(), region, aJob("busy", 5, "*"))
		wait(t, region+" is busy", func() error { return placed(u.servers[region].RPC(), region, "busy", 5) })
	}
	if got, err := plan(); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), `group "own"`) {
		t.Errorf("without room: %+v, %v", got, err)
	}
}
