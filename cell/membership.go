package cell

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"atoll/model"
)

// Autopilot is what autopilot needs of Raft, for as long as this server takes
// part in its cell without a break. Nothing in it writes to the state.
func (c *Cell) Autopilot() (autopilot.Raft, error) {
	m, err := c.up()
	if err != nil {
		return nil, err
	}
	return m.raft, nil
}

// Configuration returns the cell's members without their names, which Raft does
// not know, as this server has them.
func (c *Cell) Configuration() (*model.RaftConfiguration, error) {
	m, err := c.up()
	if err != nil {
		return nil, err
	}
	f := m.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("cannot read raft configuration: %w", err)
	}
	_, leader := m.raft.LeaderWithID()
	out := &model.RaftConfiguration{Index: f.Index()}
	for _, s := range f.Configuration().Servers {
		out.Servers = append(out.Servers, &model.RaftServer{
			ID: string(s.ID), Address: string(s.Address), Leader: s.ID == leader, Voter: s.Suffrage == raft.Voter, RaftProtocol: "3",
		})
	}
	return out, nil
}

// LogEnd returns the term and the index of the last entry in this server's log,
// zeros while it takes no part in its cell.
func (c *Cell) LogEnd() (term, index uint64) {
	m := c.current()
	if m == nil {
		return 0, 0
	}
	term, _ = strconv.ParseUint(m.raft.Stats()["last_log_term"], 10, 64)
	return term, m.raft.LastIndex()
}

// RemoveServer takes a member out of the cell. Only the leader can, itself too:
// then it leads no more. Raft refuses to remove the last voter.
func (c *Cell) RemoveServer(id string) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	if err := m.promise(m.raft.RemoveServer(raft.ServerID(id), 0, transportTimeout), nil).wait(context.Background()); err != nil {
		return membershipError(fmt.Sprintf("remove server %s", id), err)
	}
	return nil
}

// HandOver gives leadership to another member, if this server has it and there
// is one with a vote.
func (c *Cell) HandOver() error {
	m := c.current()
	if m == nil || m.raft.State() != raft.Leader {
		return nil
	}
	conf, err := c.Configuration()
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(conf.Servers, func(s *model.RaftServer) bool { return s.Voter && s.ID != string(m.id) })
	if !others {
		return nil
	}
	return m.promise(m.raft.LeadershipTransfer(), nil).wait(context.Background())
}

// HandOverTo gives leadership to a member. Only the leader can. An error means
// that this server may lead still, or that another than the wished one does.
func (c *Cell) HandOverTo(s Server) error {
	m, err := c.up()
	if err != nil {
		return err
	}
	if err := m.promise(m.raft.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Addr)), nil).wait(context.Background()); err != nil {
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
