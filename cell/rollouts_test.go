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
