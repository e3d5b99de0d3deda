package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"atoll/model"
)

// cellOfDoors takes requests at a time that a test sets.
type cellOfDoors struct {
	t     *testing.T
	s     *Store
	now   time.Time // by nobody's clock
	index uint64
	made  int
}

func newCellOfDoors(t *testing.T) *cellOfDoors {
	return &cellOfDoors{t: t, s: newStore(t), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

// make makes an id by a clock that is ahead by skew.
func (c *cellOfDoors) make(skew time.Duration) *Request {
	c.made++
	return &Request{ID: fmt.Sprint(c.made), Namespace: "default", Issued: c.now.Add(skew).UnixNano()}
}

// take sends a request to a leader whose clock is ahead by skew, and says why it
// is refused.
func (c *cellOfDoors) take(r *Request, skew time.Duration) error {
	c.index++
	again := *r
	again.Taken = c.now.Add(skew).UnixNano()
	kept, err := c.s.Snapshot().Recall(&again)
	if kept != nil || err != nil {
		return err
	}
	write(c.t, c.s, c.index, func(tx *Txn) error { return tx.Remember(&again, nil) })
	return nil
}

// known reports whether a request was applied and is remembered.
func (c *cellOfDoors) known(r *Request) bool {
	k, err := c.s.Snapshot().Recall(r)
	return err == nil && k != nil
}

// work lets doors send requests to a leader for a while, one each second, none of
// which may be refused, and returns the first of each.
func (c *cellOfDoors) work(leader, forTime time.Duration, doors ...time.Duration) (first []*Request) {
	c.t.Helper()
	refused := 0
	for end := c.now.Add(forTime); c.now.Before(end); c.now = c.now.Add(time.Second) {
		for i, skew := range doors {
			r := c.make(skew)
			if len(first) == i {
				first = append(first, r)
			}
			if err := c.take(r, leader); err != nil {
				if refused++; refused == 1 {
					c.t.Errorf("the request of a door that is %s ahead, at a leader that is %s: %v", skew, leader, err)
				}
			}
		}
	}
	if refused > 0 {
		c.t.Errorf("%d new requests were refused", refused)
	}
	return first
}

// refuses fails unless requests are too old to be applied.
func (c *cellOfDoors) refuses(leader time.Duration, requests ...*Request) {
	c.t.Helper()
	for _, r := range requests {
		if err := c.take(r, leader); model.KindOf(err) != model.KindConflict {
			c.t.Errorf("%+v, which was forgotten: %v; want a conflict", r, err)
		}
	}
}

func TestDoorsWhoseClocksDifferAreAllServed(t *testing.T) {
	for name, leader := range map[string]time.Duration{"a leader ahead": time.Minute, "a leader behind": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			c := newCellOfDoors(t)
			first := c.work(leader, RequestAge, time.Minute, 0, -time.Minute)
			for _, r := range first {
				if !c.known(r) {
					t.Errorf("%+v is forgotten before its time", r)
				}
			}
			c.work(leader, 2*RequestAge, time.Minute, 0, -time.Minute)
			c.refuses(leader, first...)
			if n := memoryOf(c.s).byID.Len(); n > 4*int(RequestAge/time.Second) {
				t.Errorf("%d requests are remembered of the last %s", n, RequestAge)
			}
		})
	}
}

func memoryOf(s *Store) *memory { return first[*memory](s.Snapshot().tx, nil, tableRequests) }

const years = 2 * 365 * 24 * time.Hour

func TestAClockThatWasYearsAheadCostsNobodyHisRequests(t *testing.T) {
	c := newCellOfDoors(t)
	old := c.work(0, RequestAge, 0, 0)
	// The leader, which is a door too, is ahead for a moment.
	c.work(years, time.Minute, 0, years)
	c.work(0, 3*RequestAge, 0, -time.Minute)
	c.refuses(0, old...)
}

func TestAHorizonInTheFutureIsMended(t *testing.T) {
	c := newCellOfDoors(t)
	// As it was written when horizons could lie there.
	write(t, c.s, 1, func(tx *Txn) error {
		m := newMemory()
		m.horizon = c.now.Add(years).UnixNano()
		return tx.tx.Insert(tableRequests, m)
	})
	c.index = 1
	var b bytes.Buffer
	if err := c.s.Snapshot().Persist(&b); err != nil {
		t.Fatal(err)
	}
	c.s = newStore(t)
	if err := c.s.Restore(&b); err != nil {
		t.Fatal(err)
	}
	c.refuses(0, c.make(-RequestAge-time.Minute))
	first := c.work(0, 2*RequestAge, 0, -time.Minute)
	c.refuses(0, first...)
	if m := memoryOf(c.s); m.horizon > c.now.UnixNano() {
		t.Errorf("the horizon is still at %s", at(m.horizon))
	}
}

func TestALeaderWhoseClockLagsTakesWrites(t *testing.T) {
	c := newCellOfDoors(t)
	c.work(0, 2*RequestAge, 0)
	c.work(-3*RequestAge, 2*RequestAge, 0, -3*RequestAge)
	c.work(0, 2*RequestAge, 0)
}

// The number of requests is bounded too. One that was in the future when it was
// forgotten does not change what is known of the others.
func TestTheOldestOfTooManyAreForgottenAndThenRefused(t *testing.T) {
	const over = 10
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := func(i int) *Request {
		taken := now.Add(time.Duration(i-RequestsKept) * time.Millisecond)
		r := &Request{ID: fmt.Sprint(i), Namespace: "default", Issued: taken.UnixNano(), Taken: taken.UnixNano()}
		if i == over-1 {
			r.Issued += int64(time.Hour)
		}
		return r
	}
	s := newStore(t)
	write(t, s, 1, func(tx *Txn) error {
		m := newMemory()
		for i := range RequestsKept {
			m.add(&Kept{Request: *id(i), Index: uint64(i + 1)})
		}
		return tx.tx.Insert(tableRequests, m)
	})
	for i := RequestsKept; i < RequestsKept+over; i++ {
		write(t, s, uint64(i+1), func(tx *Txn) error { return tx.Remember(id(i), nil) })
	}
	check := func(s *Store) {
		t.Helper()
		snap := s.Snapshot()
		if k, err := snap.Recall(id(over)); err != nil || k == nil || k.Index != over+1 {
			t.Errorf("the oldest kept: %+v, %v", k, err)
		}
		for i := range over - 1 {
			again := id(i)
			again.Taken = now.UnixNano()
			if k, err := snap.Recall(again); k != nil || model.KindOf(err) != model.KindConflict {
				t.Errorf("forgotten %d: %+v, %v; want a conflict", i, k, err)
			}
		}
		if k, err := snap.Recall(&Request{ID: "new", Namespace: "default", Issued: now.UnixNano(), Taken: now.UnixNano()}); k != nil || err != nil {
			t.Errorf("a new one: %+v, %v", k, err)
		}
		if k, err := snap.Recall(&Request{ID: "of no known age", Namespace: "default"}); k != nil || err != nil {
			t.Errorf("one of no known age: %+v, %v", k, err)
		}
	}
	check(s)
	other := reread(t, s)
	check(other)
}
