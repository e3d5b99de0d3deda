package client

import (
	"strings"
	"testing"
	"time"

	"atoll/model"
)

func (s *fakeServer) set(f func()) { s.change(f) }

// timed gives an allocation's group a bound of its time out of touch.
func timed(a *model.Allocation, after time.Duration) *model.Allocation {
	a.Job.TaskGroups[0].Disconnect = &model.DisconnectStrategy{Replace: true, StopOnClientAfter: after}
	return a
}

// awaitRunner waits until the node has an allocation.
func awaitRunner(t testing.TB, n *node, id string) *allocRunner {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if r := n.runner(id); r != nil {
			return r
		}
	}
	t.Fatal("the node does not have the allocation after 15 s")
	return nil
}

// awaitEnd waits until all tasks of an allocation are dead, and returns the
// events of its task t.
func awaitEnd(t testing.TB, n *node, id string) string {
	t.Helper()
	r := awaitRunner(t, n, id)
	select {
	case <-r.ended:
	case <-time.After(15 * time.Second):
		t.Fatal("its tasks did not end within 15 s")
	}
	var out []string
	for _, e := range r.report().TaskStates["t"].Events {
		out = append(out, e.DisplayMessage)
	}
	return strings.Join(out, "; ")
}

func TestTasksEndByThemselvesWhenTheirNodeIsOutOfTouch(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), nil)
	ends, stays := timed(newAlloc(model.JobTypeService, shell("t", "sleep 300")), 2*time.Second), newAlloc(model.JobTypeService, shell("t", "sleep 300"))
	for _, a := range []*model.Allocation{ends, stays} {
		s.place(a, nil)
		s.awaitStatus(t, a.ID, model.AllocClientRunning)
	}
	start := time.Now()
	s.set(func() { s.deaf = true })
	events := awaitEnd(t, n, ends.ID)
	// Since the last heartbeat, which was up to a TTL of one second before.
	if took := time.Since(start); took < time.Second || took > 2*time.Second+checkContact+2*time.Second {
		t.Errorf("it ended after %s, want about 2 s", took)
	}
	if !strings.Contains(events, "stop_on_client_after is over") {
		t.Errorf("events: %s", events)
	}
	if r := n.runner(stays.ID); r.terminal() {
		t.Error("the allocation without a bound ended too")
	}
	// Back in touch, the servers hear of all of them, also of what did not change.
	s.set(func() { s.deaf = false; clear(s.updates) })
	s.awaitStatus(t, ends.ID, model.AllocClientComplete)
	s.awaitStatus(t, stays.ID, model.AllocClientRunning)
}

func TestServersThatDoNotKnowHowAllocationsAreAreTold(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), nil)
	a, over := newAlloc(model.JobTypeService, shell("t", "sleep 300")), newAlloc(model.JobTypeBatch, shell("t", "true"))
	s.place(a, nil)
	s.place(over, nil)
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	awaitEnd(t, n, over.ID)
	s.awaitStatus(t, over.ID, model.AllocClientComplete)
	s.set(func() { s.asks = true; clear(s.updates) })
	s.awaitStatus(t, a.ID, model.AllocClientRunning)
	s.awaitStatus(t, over.ID, model.AllocClientComplete)
}

func TestARestartedAgentGrantsNoMoreTime(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	n := startNode(t, s, dir, nil)
	const after = 4 * time.Second
	late := timed(newAlloc(model.JobTypeService, shell("t", "sleep 300")), after)
	s.place(late, nil)
	s.awaitStatus(t, late.ID, model.AllocClientRunning)
	s.set(func() { s.deaf = true })
	last := time.Now() // of a heartbeat, or a little after
	n.stop()

	n = startNode(t, s, dir, nil)
	events := awaitEnd(t, n, late.ID)
	// The last heartbeat was up to a TTL of one second before.
	if took := time.Since(last); took < after-time.Second || took > after+checkContact+2*time.Second {
		t.Errorf("it ended %s after the last contact, want about %s", took, after)
	}
	if !strings.Contains(events, "stop_on_client_after is over") {
		t.Errorf("events: %s", events)
	}
	n.stop()
}

func TestAnAgentThatComesBackTooLateEndsWhatItFinds(t *testing.T) {
	for name, forget := range map[string]bool{"its time is over": false, "the last contact is not known": true} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			dir := t.TempDir()
			n := startNode(t, s, dir, nil)
			after := time.Hour
			if !forget {
				after = 2 * time.Second
			}
			a := timed(newAlloc(model.JobTypeService, shell("t", "sleep 300")), after)
			s.place(a, nil)
			s.awaitStatus(t, a.ID, model.AllocClientRunning)
			s.set(func() { s.deaf = true })
			n.stop()
			if forget {
				st, err := openStore(dir + "/client")
				if err != nil {
					t.Fatal(err)
				}
				if err := st.putContact(contact{}); err != nil {
					t.Fatal(err)
				}
				if err := st.close(); err != nil {
					t.Fatal(err)
				}
			} else {
				time.Sleep(after) // the machine goes on without an agent
			}
			n = startNode(t, s, dir, nil)
			events := awaitEnd(t, n, a.ID)
			if strings.Count(events, "Starting") > 1 {
				t.Errorf("it was started again: %s", events)
			}
		})
	}
}

func TestWhatWasStoppedBeforeItCameIsReportedOver(t *testing.T) {
	s := newFakeServer(t)
	startNode(t, s, t.TempDir(), nil)
	a := newAlloc(model.JobTypeService, shell("t", "sleep 300"))
	s.place(a, func(a *model.Allocation) { a.DesiredStatus = model.AllocDesiredStop })
	s.awaitStatus(t, a.ID, model.AllocClientComplete)
}

func TestNothingIsForgottenThatTheServersHaveNotHeard(t *testing.T) {
	s := newFakeServer(t)
	n := startNode(t, s, t.TempDir(), func(c *Config) { c.KeepEnded = 1 })
	s.set(func() { s.mute = true })
	var all []*model.Allocation
	for range 3 {
		a := newAlloc(model.JobTypeBatch, shell("t", "true"))
		s.place(a, nil)
		all = append(all, a)
	}
	kept := func() (n2 int) {
		for _, a := range all {
			if n.runner(a.ID) != nil {
				n2++
			}
		}
		return n2
	}
	for _, a := range all {
		awaitEnd(t, n, a.ID)
	}
	n.allocEnded()
	time.Sleep(200 * time.Millisecond) // for the collector to do what it should not
	if got := kept(); got != 3 {
		t.Fatalf("%d of 3 ended allocations are kept, of which nobody has heard", got)
	}
	s.set(func() { s.mute = false })
	for _, a := range all {
		s.awaitStatus(t, a.ID, model.AllocClientComplete)
	}
	for deadline := time.Now().Add(15 * time.Second); kept() != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d ended allocations are kept, want 1", kept())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
