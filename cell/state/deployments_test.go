package state

import (
	"fmt"
	"testing"
	"time"

	"atoll/model"
)

// deployed is a store with a job whose version was placed by a plan that makes a
// deployment: two ordinary allocations and a canary.
func deployed(t testing.TB) (s *Store, j *model.Job, d *model.Deployment, on model.UUID, allocs []model.UUID) {
	s = newStore(t)
	n, on := node("n")
	write(t, s, 1, func(tx *Txn) error { return tx.UpsertNode(n, 1) })
	write(t, s, 2, func(tx *Txn) (err error) { j, err = tx.UpsertJob(job("a")); return err })
	id := model.NewUUID(nil)
	c := place(j, []model.UUID{on}, 3, nil)
	c.Plan.Deployment = &model.Deployment{
		ID: id.String(), Namespace: "default", JobID: "a", JobCreateIndex: j.CreateIndex, Status: model.DeploymentRunning,
		TaskGroups: map[string]*model.DeploymentState{"web": {DesiredTotal: 2, DesiredCanaries: 1, ProgressDeadline: time.Minute}},
	}
	c.Plan.Groups[0].DeploymentID = id
	c.Extras = map[uint32]*model.AllocExtra{2: {DeploymentStatus: &model.AllocDeploymentStatus{Canary: true}}}
	write(t, s, 3, func(tx *Txn) error { return applyPlan(tx, c) })
	rows, _ := s.Snapshot().AllocsOfJob(nil, j.Key())
	for r := range rows {
		allocs = append(allocs, r.ID)
	}
	return s, j, s.Snapshot().Deployment(nil, id.String()), on, allocs
}

// judged is a node's report of an allocation's health.
func judged(id model.UUID, deployment string, healthy bool) *model.AllocUpdate {
	return &model.AllocUpdate{
		ID: id.String(), ClientStatus: model.AllocClientRunning, DeploymentID: deployment,
		DeploymentStatus: &model.AllocDeploymentStatus{Healthy: &healthy, Timestamp: time.Unix(7, 0).UTC()},
	}
}

func report(t testing.TB, s *Store, index uint64, node model.UUID, now time.Time, updates ...*model.AllocUpdate) (out Reported) {
	write(t, s, index, func(tx *Txn) (err error) {
		out, err = tx.ReportAllocs(node, updates, now.UnixNano())
		return err
	})
	return out
}

func counts(s *model.DeploymentState) string {
	return fmt.Sprintf("placed %d, canaries %d, healthy %d, unhealthy %d", s.PlacedAllocs, len(s.PlacedCanaries), s.HealthyAllocs, s.UnhealthyAllocs)
}

func TestADeploymentCountsWhatIsPlacedAndHowItFares(t *testing.T) {
	s, j, d, node, allocs := deployed(t)
	if d.CreateIndex != 3 || d.ModifyIndex != 3 {
		t.Errorf("made at %d, changed at %d; want 3", d.CreateIndex, d.ModifyIndex)
	}
	if got := counts(d.TaskGroups["web"]); got != "placed 3, canaries 1, healthy 0, unhealthy 0" {
		t.Error(got)
	}
	now := time.Unix(1000, 0)
	out := report(t, s, 4, node, now, judged(allocs[0], d.ID, true), judged(allocs[1], d.ID, false), judged(allocs[2], "another", true))
	if len(out.Healthy) != 1 || out.Healthy[0] != d.ID {
		t.Errorf("healthy: %v", out.Healthy)
	}
	got := s.Snapshot().LatestDeployment(nil, j.Key()).TaskGroups["web"]
	if counts(got) != "placed 3, canaries 1, healthy 1, unhealthy 1" {
		t.Error(counts(got))
	}
	if want := now.Add(time.Minute).UTC(); !got.RequireProgressBy.Equal(want) {
		t.Errorf("the deadline is %s, want %s", got.RequireProgressBy, want)
	}
	// A node has one word; an operator may have another.
	report(t, s, 5, node, now, judged(allocs[1], d.ID, true))
	if got := s.Snapshot().Deployment(nil, d.ID).TaskGroups["web"]; got.UnhealthyAllocs != 1 {
		t.Error("a node took its word back: " + counts(got))
	}
	write(t, s, 6, func(tx *Txn) error { _, err := tx.SetHealth(d.ID, allocs[1:2], nil, 9); return err })
	if got := s.Snapshot().Deployment(nil, d.ID).TaskGroups["web"]; counts(got) != "placed 3, canaries 1, healthy 2, unhealthy 0" {
		t.Error(counts(got))
	}
	if d.TaskGroups["web"].HealthyAllocs != 0 {
		t.Error("a row of an older snapshot was changed")
	}
}

func TestCanariesArePromotedOnceTheyAreHealthy(t *testing.T) {
	s, _, d, node, allocs := deployed(t)
	promote := func(index uint64) error {
		return s.Write(index, func(tx *Txn) error { _, err := tx.Promote(d.ID, nil, 5); return err })
	}
	if err := promote(4); model.KindOf(err) != model.KindConflict {
		t.Errorf("a canary that is not healthy: %v", err)
	}
	report(t, s, 5, node, time.Unix(9, 0), judged(allocs[2], d.ID, true))
	if err := promote(6); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	if got := snap.Deployment(nil, d.ID); !got.TaskGroups["web"].Promoted || got.RequiresPromotion() {
		t.Errorf("%+v", got.TaskGroups["web"])
	}
	if st := snap.Alloc(nil, allocs[2]).DeploymentStatus(); st.Canary || !st.IsHealthy() {
		t.Errorf("the canary is %+v", st)
	}
	if err := promote(7); model.KindOf(err) != model.KindConflict {
		t.Errorf("twice: %v", err)
	}
}

func TestASuccessfulDeploymentMakesItsVersionStable(t *testing.T) {
	s, j, d, _, _ := deployed(t)
	set := func(index uint64, status string) error {
		return s.Write(index, func(tx *Txn) error {
			_, err := tx.SetDeploymentStatus(model.DeploymentUpdate{DeploymentID: d.ID, Status: status}, 5)
			return err
		})
	}
	if err := set(4, model.DeploymentSuccessful); err != nil {
		t.Fatal(err)
	}
	if err := set(5, model.DeploymentFailed); model.KindOf(err) != model.KindConflict {
		t.Errorf("a deployment that is over changed: %v", err)
	}
	snap := s.Snapshot()
	if !snap.Job(nil, j.Key()).Stable || len(snap.ActiveDeployments(nil)) != 0 {
		t.Error("the version is not stable, or the deployment goes on")
	}
	next := job("a")
	next.Meta = map[string]string{"v": "1"}
	write(t, s, 6, func(tx *Txn) error { _, err := tx.UpsertJob(next); return err })
	snap = s.Snapshot()
	if j := snap.Job(nil, j.Key()); j.Stable || j.Version != 1 {
		t.Errorf("version %d is stable: %t", j.Version, j.Stable)
	}
	if v := snap.StableVersion(j.Key(), 1); v == nil || v.Version != 0 {
		t.Errorf("the stable version is %+v", v)
	}
	write(t, s, 7, func(tx *Txn) error { _, err := tx.RevertJob(j.Key(), 0, 8); return err })
	if back := s.Snapshot().Job(nil, j.Key()); back.Version != 2 || back.Meta["v"] != "" || back.Stable {
		t.Errorf("reverted to %+v", back)
	}
}

func TestHistoryKeepsWhatMayBeNeeded(t *testing.T) {
	s := newStore(t)
	key := model.JobID{Namespace: "default", ID: "a"}
	register := func(i int) {
		j := job("a")
		j.Meta = map[string]string{"v": fmt.Sprint(i)}
		write(t, s, uint64(10+10*i), func(tx *Txn) error { _, err := tx.UpsertJob(j); return err })
	}
	for i := range 3 {
		register(i)
	}
	write(t, s, 35, func(tx *Txn) error { return tx.SetJobStability(key, 0, true) })
	write(t, s, 36, func(tx *Txn) error { return tx.SetJobStability(key, 1, true) })
	write(t, s, 37, func(tx *Txn) error { return tx.TagVersion(key, 2, &model.JobVersionTag{Name: "good"}) })
	for i := 3; i < 12; i++ {
		register(i)
	}
	versions := func() (out []uint64) {
		for _, v := range s.Snapshot().JobVersions(nil, key) {
			out = append(out, v.Version)
		}
		return out
	}
	if got := fmt.Sprint(versions()); got != "[11 10 9 8 7 6 2 1]" {
		t.Errorf("kept %s: want six, the tagged and the newest stable", got)
	}
	if err := s.Write(200, func(tx *Txn) error { return tx.TagVersion(key, 11, &model.JobVersionTag{Name: "good"}) }); model.KindOf(err) != model.KindConflict {
		t.Errorf("one name for two versions: %v", err)
	}
	write(t, s, 201, func(tx *Txn) error { return tx.UntagVersion(key, "good") })
	register(30)
	if got := fmt.Sprint(versions()); got != "[12 11 10 9 8 7 1]" {
		t.Errorf("kept %s", got)
	}
}

func TestDeploymentsOfAJobAreBoundedAndGoWithIt(t *testing.T) {
	s := newStore(t)
	key := model.JobID{Namespace: "default", ID: "a"}
	write(t, s, 1, func(tx *Txn) error { _, err := tx.UpsertJob(job("a")); return err })
	var newest string
	for i := range 3 * DeploymentsKept {
		newest = model.NewUUID(nil).String()
		status := model.DeploymentSuccessful
		if i == 0 {
			status = model.DeploymentPaused
		}
		write(t, s, uint64(2+i), func(tx *Txn) error {
			return tx.addDeployment(&model.Deployment{ID: newest, Namespace: "default", JobID: "a", Status: status})
		})
	}
	all := s.Snapshot().DeploymentsOfJob(nil, key)
	if len(all) != DeploymentsKept+1 || all[0].ID != newest || all[len(all)-1].Status != model.DeploymentPaused {
		t.Errorf("%d are kept; want the %d newest and the one that is not over", len(all), DeploymentsKept)
	}
	write(t, s, 100, func(tx *Txn) error { return tx.PurgeJob(key) })
	if n := len(s.Snapshot().DeploymentsOfJob(nil, key)); n != 0 {
		t.Errorf("%d outlive their job", n)
	}
}

func TestAPlanOfAVersionThatHistoryLostTakesItFromWhatItReplaces(t *testing.T) {
	s, old, _, node, allocs := deployed(t)
	for i := range VersionsKept + 1 {
		j := job("a")
		j.Meta = map[string]string{"v": fmt.Sprint(i)}
		write(t, s, uint64(10+i), func(tx *Txn) error { _, err := tx.UpsertJob(j); return err })
	}
	cur := s.Snapshot().Job(nil, old.Key())
	c := place(cur, []model.UUID{node}, 1, &model.AllocExtra{Previous: allocs[0]})
	version := old.Version
	c.Plan.Groups[0].JobVersion = &version
	write(t, s, 50, func(tx *Txn) error { return applyPlan(tx, c) })
	prev := s.Snapshot().Alloc(nil, allocs[0])
	if next := s.Snapshot().Alloc(nil, prev.Extra.Next); next == nil || next.Job().Version != old.Version {
		t.Errorf("placed %+v", next)
	}
}

func TestUnknownAllocationsStayKnownAsSuchUntilAPlanSaysOtherwise(t *testing.T) {
	s, j, _, node, allocs := deployed(t)
	apply := func(index uint64, p model.Plan) {
		p.JobKey, p.JobVersion = j.Key(), j.Version
		write(t, s, index, func(tx *Txn) error { return applyPlan(tx, NewPlanCommand(&p, int64(index))) })
	}
	later := model.NewUUID(nil)
	away := model.Plan{Disconnect: []model.PlanDisconnect{{ID: allocs[0], FollowupEval: later}}}
	status := func(index uint64, status string) {
		write(t, s, index, func(tx *Txn) error {
			_, err := tx.SetNodeStatus(node.String(), status, "", int64(index))
			return err
		})
	}
	// Its node was back before the plan came.
	apply(7, away)
	if r := s.Snapshot().Alloc(nil, allocs[0]); r.Client == model.ClientUnknown || r.Disconnected() != 0 {
		t.Errorf("on a node that is heard: %+v %+v", r, r.Extra)
	}
	status(8, model.NodeStatusDisconnected)
	apply(9, away)
	status(10, model.NodeStatusReady)
	report(t, s, 11, node, time.Unix(0, 11), &model.AllocUpdate{ID: allocs[0].String(), ClientStatus: model.AllocClientRunning})
	r := s.Snapshot().Alloc(nil, allocs[0])
	if r.Client != model.ClientRunning || r.Disconnected() != 9 || r.Extra.FollowupEval != later {
		t.Errorf("after a report: %+v %+v", r, r.Extra)
	}
	apply(12, model.Plan{Reconnect: allocs[:1], Followup: []model.PlanFollowup{{ID: allocs[1], Eval: later}}})
	r = s.Snapshot().Alloc(nil, allocs[0])
	if r.Disconnected() != 0 || !r.Extra.FollowupEval.IsZero() {
		t.Errorf("after a plan: %+v", r.Extra)
	}
	if r = s.Snapshot().Alloc(nil, allocs[1]); r.Extra.FollowupEval != later || r.ModifyTime == 12 {
		t.Errorf("what waits: %+v, changed at %d", r.Extra, r.ModifyTime)
	}
}
