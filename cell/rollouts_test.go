package cell

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"atoll/cell/state"
	"atoll/model"
)

func aProposal(id string, version uint64, follows *model.Proposal, regions ...string) *model.Proposal {
	job := &model.Job{ID: "web", Multiregion: &model.Multiregion{}}
	for _, name := range regions {
		r := model.NewMultiregionRegion()
		r.Name = name
		job.Multiregion.Regions = append(job.Multiregion.Regions, r)
	}
	job.Canonicalize()
	p := &model.Proposal{ID: id, Request: id, Version: version, Job: job}
	if follows != nil {
		p.Base, p.Follows, p.Born = follows.Regions(), follows.Mark(), follows.Born
	}
	return p
}

// newMachine is a state machine, and what applies a command to it.
func newMachine(t *testing.T) (*Machine, func(Command, any)) {
	t.Helper()
	m, err := NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	return m, func(cmd Command, body any) {
		t.Helper()
		if _, _, err := m.Apply(cmd, nil, body); err != nil {
			t.Fatal(err)
		}
	}
}

// A region that was restored from a snapshot does not know what it has voted for
// since: it votes for no number that another region has heard of.
func TestARestoredRegionDoesNotVoteTwice(t *testing.T) {
	m, err := NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(cmd Command, body any) error {
		_, _, err := m.Apply(cmd, nil, body)
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(apply(CmdCellInit, &CellInit{Cell: state.Cell{Region: "us", Incarnation: "first"}}))
	one := aProposal("one", 0, nil, "us", "eu", "ap")
	must(apply(CmdRolloutVote, &RolloutVote{Proposal: one}))
	must(apply(CmdRolloutLearn, &RolloutLearn{Key: one.Key(), Own: "us", Won: one}))
	var saved bytes.Buffer
	must(m.Snapshot().Persist(&saved))
	two := aProposal("two", 1, one, "us", "eu", "ap")
	must(apply(CmdRolloutVote, &RolloutVote{Proposal: two}))

	must(m.fsm.Restore(io.NopCloser(&saved)))
	m.index++
	must(m.fsm.store.Write(m.index, func(tx *state.Txn) error { return tx.Reincarnate("second") }))
	other := aProposal("other", 1, one, "us", "eu", "ap")
	for _, heard := range []string{"", "eu", "ap"} {
		if heard != "" {
			// "eu" voted for the second proposal, "ap" has not heard of it.
			open := map[string]uint64{"eu": 2, "ap": 1}[heard]
			must(apply(CmdRolloutLearn, &RolloutLearn{Key: one.Key(), Own: "us", From: heard, Open: open}))
		}
		if err := apply(CmdRolloutVote, &RolloutVote{Proposal: other}); model.KindOf(err) != model.KindConflict || heard != "ap" && !strings.Contains(err.Error(), "restored") {
			t.Errorf("having heard %q, it votes anew for a number that it may have voted for: %v", heard, err)
		}
	}
	// What it voted for then it can tell neither way.
	if m.Snapshot().Rollout(nil, one.Key()).Refuses(two) {
		t.Error("it says that it did not vote for what it did vote for")
	}
	three := aProposal("three", 2, one, "us", "eu", "ap")
	must(apply(CmdRolloutVote, &RolloutVote{Proposal: three}))
}

// A deployment that waited for its turn and was cancelled before that is neither
// the job's latest, nor in the way of one that begins under its id.
func TestADeploymentThatNeverBeganIsInNobodysWay(t *testing.T) {
	m, must := newMachine(t)
	must(CmdCellInit, &CellInit{Cell: state.Cell{Region: "us"}})
	ids := make([]string, 2)
	var before *model.Proposal
	for i := range ids {
		ids[i] = model.NewUUID(nil).String()
		p := aProposal(ids[i], uint64(i), before, "us")
		must(CmdRolloutLearn, &RolloutLearn{Key: p.Key(), Own: "us", Won: p, Awaits: ids[i]})
		before = p
	}
	key := before.Key()
	if d := m.Snapshot().Deployment(nil, ids[0]); d.Status != model.DeploymentCancelled || m.Snapshot().LatestDeployment(nil, key) != nil {
		t.Errorf("%+v", d)
	}
	must(CmdRolloutShare, &RolloutShare{Key: key, Version: 1, ID: before.ID, From: model.SharePending, Share: model.Share{Region: "us", State: model.ShareRunning}})
	job := m.Snapshot().Job(nil, key)
	must(CmdPlan, state.NewPlanCommand(&model.Plan{JobKey: key, JobVersion: job.Version, JobModifyIndex: job.JobModifyIndex, Deployment: &model.Deployment{
		ID: ids[0], Namespace: key.Namespace, JobID: key.ID, JobVersion: job.Version, JobCreateIndex: job.CreateIndex, JobModifyIndex: job.ModifyIndex,
		IsMultiregion: true, Status: model.DeploymentRunning,
	}}, 1))
	if d := m.Snapshot().LatestDeployment(nil, key); d == nil || d.ID != ids[0] || d.Status != model.DeploymentRunning || m.Snapshot().Deployment(nil, ids[1]) != nil {
		t.Errorf("%+v", d)
	}
}

// Whatever is in the log, applying it ends no server: a proposal of which parts
// are missing is refused, and leaves the state as it was.
func TestAProposalWithPartsMissingIsRefused(t *testing.T) {
	m, err := NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	key := model.JobID{Namespace: "default", ID: "web"}
	for name, change := range map[string]func(*model.Proposal) *model.Proposal{
		"none":         func(*model.Proposal) *model.Proposal { return nil },
		"no job":       func(p *model.Proposal) *model.Proposal { p.Job = nil; return p },
		"no regions":   func(p *model.Proposal) *model.Proposal { p.Job.Multiregion = nil; return p },
		"no strategy":  func(p *model.Proposal) *model.Proposal { p.Job.Multiregion.Strategy = nil; return p },
		"a nil region": func(p *model.Proposal) *model.Proposal { p.Job.Multiregion.Regions[1] = nil; return p },
		"a nil group":  func(p *model.Proposal) *model.Proposal { p.Job.TaskGroups = []*model.TaskGroup{nil}; return p },
		"a nil task": func(p *model.Proposal) *model.Proposal {
			p.Job.TaskGroups = []*model.TaskGroup{{Tasks: []*model.Task{nil}}}
			return p
		},
		"nothing in it": func(*model.Proposal) *model.Proposal { return &model.Proposal{} },
	} {
		if _, _, err := m.Apply(CmdRolloutVote, nil, &RolloutVote{Proposal: change(aProposal("p", 0, nil, "us", "eu"))}); model.KindOf(err) != model.KindInvalid {
			t.Errorf("a vote for a proposal with %s: %v", name, err)
		}
		won := change(aProposal("p", 0, nil, "us", "eu"))
		if won == nil {
			continue // nothing was won
		}
		if _, _, err := m.Apply(CmdRolloutLearn, nil, &RolloutLearn{Key: key, Own: "us", Won: won}); model.KindOf(err) != model.KindInvalid {
			t.Errorf("a proposal with %s that has won: %v", name, err)
		}
	}
	if r := m.Snapshot().Rollout(nil, key); r != nil {
		t.Errorf("%+v", r)
	}
}

// A restored region that hears of a version which it had lost has to hear the
// regions of that too before it votes: it may have voted for what follows it.
func TestARestoredRegionHearsTheVotersOfWhatItLost(t *testing.T) {
	m, must := newMachine(t)
	must(CmdCellInit, &CellInit{Cell: state.Cell{Region: "us", Incarnation: "first"}})
	one := aProposal("one", 0, nil, "us", "eu")
	two := aProposal("two", 1, one, "us", "eu", "ap")
	three := aProposal("three", 2, two, "us", "eu", "ap")
	must(CmdRolloutLearn, &RolloutLearn{Key: one.Key(), Own: "us", Won: one})
	m.index++
	if err := m.fsm.store.Write(m.index, func(tx *state.Txn) error { return tx.Reincarnate("second") }); err != nil {
		t.Fatal(err)
	}
	must(CmdRolloutLearn, &RolloutLearn{Key: one.Key(), Own: "us", Won: two})
	for _, heard := range []string{"eu", "ap"} {
		if _, _, err := m.Apply(CmdRolloutVote, nil, &RolloutVote{Proposal: three}); model.KindOf(err) != model.KindConflict || !strings.Contains(err.Error(), heard) {
			t.Errorf("before it has heard %s: %v", heard, err)
		}
		must(CmdRolloutLearn, &RolloutLearn{Key: one.Key(), Own: "us", From: heard, Open: 2})
	}
	must(CmdRolloutVote, &RolloutVote{Proposal: three})
}
