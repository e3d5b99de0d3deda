package cell

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"atoll/model"
)

// Autopilot is what autopilot needs of Raft. Nothing in it writes to the state.
func (c *Cell) Autopilot() autopilot.Raft { return c.raft }

// Configuration returns the cell's members without their names, which Raft does
// not know, as this server has them.
func (c *Cell) Configuration() (*model.RaftConfiguration, error) {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("cannot read raft configuration: %w", err)
	}
	_, leader := c.raft.LeaderWithID()
	out := &model.RaftConfiguration{Index: f.Index()}
	for _, s := range f.Configuration().Servers {
		out.Servers = append(out.Servers, &model.RaftServer{
			ID: string(s.ID), Address: string(s.Address), Leader: s.ID == leader, Voter: s.Suffrage == raft.Voter, RaftProtocol: "3",
		})
	}
	return out, nil
}

// LogEnd returns the term and the index of the last entry in this server's log.
func (c *Cell) LogEnd() (term, index uint64) {
	term, _ = strconv.ParseUint(c.raft.Stats()["last_log_term"], 10, 64)
	return term, c.raft.LastIndex()
}

// RemoveServer takes a member out of the cell. Only the leader can, itself too:
// then it leads no more. Raft refuses to remove the last voter.
func (c *Cell) RemoveServer(id string) error {
	if err := c.raft.RemoveServer(raft.ServerID(id), 0, transportTimeout).Error(); err != nil {
		return membershipError(fmt.Sprintf("remove server %s", id), err)
	}
	return nil
}

// HandOver gives leadership to another member, if this server has it and there
// is one with a vote.
func (c *Cell) HandOver() error {
	conf, err := c.Configuration()
	if err != nil || !c.IsLeader() {
		return err
	}
	others := slices.ContainsFunc(conf.Servers, func(s *model.RaftServer) bool { return s.Voter && s.ID != string(c.id) })
	if !others {
		return nil
	}
	return c.raft.LeadershipTransfer().Error()
}

// HandOverTo gives leadership to a member. Only the leader can. An error means
// that this server may lead still, or that another than the wished one does.
func (c *Cell) HandOverTo(s Server) error {
	if err := c.raft.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Addr)).Error(); err != nil {
		return membershipError(fmt.Sprintf("hand leadership to server %s at %s", s.ID, s.Addr), err)
	}
	return nil
}

// membershipError is NoLeader when this server could not even try.
func membershipError(doing string, err error) error {
	if errors.Is(err, raft.ErrNotLeader) {
		return model.Errorf(model.KindNoLeader, "cannot %s: this server is not the leader", doing)
	}
	return fmt.Errorf("cannot %s: %w", doing, err)
}
