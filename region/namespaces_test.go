package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// apply makes or changes a namespace by a region's door.
func (u *union) apply(door, token, name, description string) error {
	_, err := rpc.Call(u.t.Context(), u.servers[door].RPC(), method.NamespaceUpsert, rpc.To{Region: door, RequestID: token},
		&method.NamespaceUpsertRequest{Namespace: &model.Namespace{Name: name, Description: description}})
	return err
}

func (u *union) remove(door, token, name string) error {
	_, err := rpc.Call(u.t.Context(), u.servers[door].RPC(), method.NamespaceDelete, rpc.To{Region: door, RequestID: token}, &method.NamespaceDeleteRequest{Name: name})
	return err
}

// copy is a region's copy of a namespace, as "v2 ours", "v3 gone" or "none".
func (u *union) copy(region, name string) string {
	n := u.servers[region].cell.Snapshot().NamespaceRow(nil, name)
	switch {
	case n == nil:
		return "none"
	case n.Deleted:
		return fmt.Sprintf("v%d gone", n.Version)
	}
	return fmt.Sprintf("v%d %s", n.Version, n.Description)
}

// hold waits until regions hold a namespace so.
func (u *union) hold(name, want string, regions ...string) {
	u.t.Helper()
	for _, region := range regions {
		wait(u.t, fmt.Sprintf("%s has %s as %q", region, name, want), func() error {
			if got := u.copy(region, name); got != want {
				return fmt.Errorf("it has %q", got)
			}
			return nil
		})
	}
}

func (u *union) held(name, want string, regions ...string) {
	u.t.Helper()
	for _, region := range regions {
		if got := u.copy(region, name); got != want {
			u.t.Errorf("%s has %s as %q, want %q", region, name, got, want)
		}
	}
}

// job registers a job of a namespace in one region.
func (u *union) registerIn(region, namespace string) error {
	j := aJob("web", 1, "*")
	j.Namespace = namespace
	_, err := rpc.Call(u.t.Context(), u.servers[region].RPC(), method.JobRegister, rpc.To{Region: region}, &method.JobRegisterRequest{Job: j})
	return err
}

func TestANamespaceIsOfAllRegions(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	// What was acknowledged is in a majority at once, and here in all.
	if err := u.apply("eu", "", "team", "one"); err != nil {
		t.Fatal(err)
	}
	u.held("team", "v1 one", u.regions...)
	if err := u.apply("ap", "", "team", "two"); err != nil {
		t.Fatal(err)
	}
	u.held("team", "v2 two", u.regions...)
	// Each says how old its copy is.
	for _, region := range u.regions {
		wait(t, region+" has heard from all", func() error {
			r := call(t, u.servers[region].RPC(), method.NamespaceList, rpc.To{}, &method.ListRequest{})
			if len(r.Regions) != 3 {
				t.Fatalf("%+v", r.Regions)
			}
			for _, a := range r.Regions {
				switch {
				case a.Region == region && a.Freshness == model.Live && a.Index == r.Index:
				case a.Region != region && a.Freshness == model.Stale && a.Age >= 0 && a.Age < time.Minute && a.Index > 0:
				default:
					return fmt.Errorf("%+v", a)
				}
			}
			return nil
		})
	}
	if err := u.registerIn("us", "team"); err != nil {
		t.Fatal(err)
	}
	if err := u.remove("eu", "", "team"); model.KindOf(err) != model.KindConflict || !strings.Contains(err.Error(), `job "web" in it is`) || !strings.Contains(err.Error(), `in region "us"`) {
		t.Errorf("with a job in another region: %v", err)
	}
	u.held("team", "v2 two", u.regions...)
	call(t, u.servers["us"].RPC(), method.JobDeregister, rpc.To{}, &method.JobDeregisterRequest{Namespace: "team", JobID: "web"})
	if err := u.remove("eu", "", "team"); err != nil {
		t.Fatal(err)
	}
	u.held("team", "v3 gone", u.regions...)
	if err := u.remove("us", "", "team"); model.KindOf(err) != model.KindNotFound {
		t.Errorf("deleted again: %v", err)
	}
	if err := u.registerIn("us", "team"); model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), `does not exist in region "us"`) || !strings.Contains(err.Error(), "if another region has it") {
		t.Errorf("a job in it: %v", err)
	}
	// It can be made anew, and all of it outlives a restart of everything.
	if err := u.apply("us", "", "team", "four"); err != nil {
		t.Fatal(err)
	}
	for _, region := range u.regions {
		u.stop(region)
	}
	for _, region := range u.regions {
		u.start(region)
	}
	u.hold("team", "v4 four", u.regions...)
	wait(t, "it is changed again", func() error { return u.apply("eu", "the-fifth", "team", "five") })
	u.hold("team", "v5 five", u.regions...)
}

func TestANamespaceIsChangedByAMajority(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	if err := u.apply("us", "", "team", "one"); err != nil {
		t.Fatal(err)
	}
	u.stop("ap")
	if err := u.apply("us", "", "team", "two"); err != nil {
		t.Fatalf("two of three: %v", err)
	}
	if err := u.apply("eu", "", "new", "one"); err != nil {
		t.Fatalf("two of three: %v", err)
	}
	u.held("team", "v2 two", "us", "eu")
	// Who cannot be asked may have jobs there.
	if err := u.remove("us", "", "team"); model.KindOf(err) != model.KindUnreachable || model.AsError(err).Region != "ap" || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a deletion: %v", err)
	}
	wait(t, "us knows that ap is out of reach", func() error {
		for _, a := range call(t, u.servers["us"].RPC(), method.NamespaceGet, rpc.To{}, &method.NamespaceRequest{Name: "team"}).Regions {
			if a.Region == "ap" && a.Freshness == model.Unreachable && a.Age > 0 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	u.stop("eu")
	begun := time.Now()
	err := u.apply("us", "", "team", "three")
	if e := model.AsError(err); e.Kind != model.KindUnreachable || !strings.Contains(e.Message, `"ap"`) || !strings.Contains(e.Message, `"eu"`) || !strings.Contains(e.Message, "nothing was changed") {
		t.Errorf("one of three: %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("the refusal took %s", d)
	}
	u.held("team", "v2 two", "us")
	u.start("eu")
	u.start("ap")
	u.hold("team", "v2 two", u.regions...)
	u.hold("new", "v1 one", u.regions...)
	wait(t, "the deletion", func() error { return u.remove("ap", "", "team") })
	u.hold("team", "v3 gone", u.regions...)
}

func TestOfTwoRegionsTheFirstByNameIsAMajority(t *testing.T) {
	u := newUnion(t, "us", "eu")
	u.stop("us")
	if err := u.apply("eu", "", "team", "one"); err != nil {
		t.Fatal(err)
	}
	u.start("us")
	u.hold("team", "v1 one", u.regions...)
	u.stop("eu")
	if err := u.apply("us", "", "team", "two"); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("the second alone: %v", err)
	}
}

func TestConcurrentChangesEndTheSameEverywhere(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	for round := range 5 {
		name := fmt.Sprintf("team-%d", round)
		var wg sync.WaitGroup
		for i, door := range slices.Concat(u.regions, u.regions) {
			wg.Go(func() {
				if err := u.apply(door, "", name, fmt.Sprintf("%s-%d", door, i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		wait(t, "all have the same of "+name, func() error {
			first := u.servers["us"].cell.Snapshot().NamespaceRow(nil, name)
			for _, region := range u.regions {
				n := u.servers[region].cell.Snapshot().NamespaceRow(nil, name)
				if first == nil || n == nil || n.Compare(first) != 0 || n.Description != first.Description {
					return fmt.Errorf("%s has %+v, us %+v", region, n, first)
				}
			}
			return nil
		})
	}
}

func TestAChangeThatComesByTwoDoorsIsMadeOnce(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	for _, door := range []string{"us", "eu", "us", "ap"} {
		if err := u.apply(door, "my-token", "team", "one"); err != nil {
			t.Fatalf("by %s: %v", door, err)
		}
		u.held("team", "v1 one", u.regions...)
	}
	if err := u.apply("eu", "", "team", "two"); err != nil {
		t.Fatal(err)
	}
	// The first is known still, and does not undo the second.
	for _, door := range u.regions {
		if err := u.apply(door, "my-token", "team", "one"); err != nil {
			t.Errorf("by %s: %v", door, err)
		}
		if err := u.apply(door, "my-token", "team", "other"); model.KindOf(err) != model.KindConflict {
			t.Errorf("another change with its token, by %s: %v", door, err)
		}
	}
	u.held("team", "v2 two", u.regions...)
	for _, door := range []string{"ap", "us"} {
		if err := u.remove(door, "my-deletion", "team"); err != nil {
			t.Errorf("deleted by %s: %v", door, err)
		}
	}
	u.held("team", "v3 gone", u.regions...)
}

// leave makes a change in one region's cell alone, as a door does that is cut off
// in the middle of it.
func (u *union) leave(region, token string, cmd cell.Command, body any) {
	u.t.Helper()
	req := &state.Request{ID: token, Namespace: model.DefaultNamespace}
	if token == "" {
		req = nil
	}
	if _, _, err := u.servers[region].cell.ApplyOnce(context.Background(), cmd, req, body); err != nil {
		u.t.Fatal(err)
	}
}

func TestAChangeThatItsDoorLeftSpreads(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	if err := u.apply("us", "", "team", "one"); err != nil {
		t.Fatal(err)
	}
	u.leave("us", "", cell.CmdNamespaceUpsert, &cell.NamespaceUpsert{Namespace: &model.Namespace{Name: "team", Description: "two", Writer: "us"}})
	u.hold("team", "v2 two", u.regions...)
	// What only one has is brought to a majority before it is followed.
	u.stop("eu")
	u.stop("ap")
	u.leave("us", "", cell.CmdNamespaceUpsert, &cell.NamespaceUpsert{Namespace: &model.Namespace{Name: "team", Description: "three", Writer: "us"}})
	if err := u.apply("us", "", "team", "four"); model.KindOf(err) != model.KindUnreachable {
		t.Errorf("one of three: %v", err)
	}
	u.held("team", "v3 three", "us")
	u.start("eu")
	wait(t, "a change with two of three", func() error { return u.apply("us", "the-fourth", "team", "four") })
	u.held("team", "v4 four", "us", "eu")
	u.start("ap")
	u.hold("team", "v4 four", u.regions...)
}

func TestADeletionDoesNotTakeANamespaceFromAJob(t *testing.T) {
	u := newUnion(t, "us", "eu", "ap")
	for _, name := range []string{"team", "idle"} {
		if err := u.apply("us", "", name, "one"); err != nil {
			t.Fatal(err)
		}
	}
	// A job comes to ap after it was asked for its jobs, and then it is cut off.
	if err := u.registerIn("ap", "team"); err != nil {
		t.Fatal(err)
	}
	u.stop("ap")
	for _, name := range []string{"team", "idle"} {
		u.leave("us", "", cell.CmdNamespaceDelete, &cell.NamespaceDelete{Name: name, Writer: "us", Write: model.NamespaceWrite{ID: "delete-" + name, Time: time.Now().UnixNano()}})
		u.hold(name, "v2 gone", "us", "eu")
	}
	u.start("ap")
	u.hold("idle", "v2 gone", u.regions...)
	u.hold("team", "v3 one", u.regions...)
	if n := u.servers["us"].cell.Snapshot().Namespace(nil, "team"); n.Writer != "ap" {
		t.Errorf("it was brought back by %q", n.Writer)
	}
	wait(t, "a deletion is refused for the job", func() error {
		if err := u.remove("us", "", "team"); model.KindOf(err) != model.KindConflict {
			return fmt.Errorf("deleted once more: %w", err)
		}
		return nil
	})
}

func TestARegionThatJoinsBringsAndGetsNamespaces(t *testing.T) {
	us := startServer(t, "s-us", "us", t.TempDir(), 1)
	eu := startServer(t, "s-eu", "eu", t.TempDir(), 1)
	u := &union{t: t, regions: []string{"us", "eu"}, servers: map[string]*testServer{"us": us, "eu": eu}}
	for _, region := range u.regions {
		lead(t, u.servers[region])
		for name, description := range map[string]string{region: "mine", "team": "of " + region} {
			if err := u.apply(region, "", name, description); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range 40 {
		if err := u.apply("us", "", fmt.Sprint("more-", n), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.apply("eu", "", "newer", "one"); err != nil {
		t.Fatal(err)
	}
	for _, description := range []string{"one", "two"} {
		if err := u.apply("us", "", "newer", description); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := eu.gossip.Join(t.Context(), []string{us.cfg.AdvertiseSerf}); err != nil {
		t.Fatal(err)
	}
	for _, name := range u.regions {
		u.hold(name, "v1 mine", u.regions...)
	}
	for n := range 40 {
		u.hold(fmt.Sprint("more-", n), "v1 x", u.regions...)
	}
	u.hold("newer", "v2 two", u.regions...)
	// Of two changes that did not know of each other, one stands.
	u.hold("team", "v1 of us", u.regions...)
}

func TestRegionsThatDoNotAnswerAreNamed(t *testing.T) {
	got := silence([]string{"af", "ap", "eu", "sa", "us"}, []string{"us"}, map[string]error{
		"ap": context.DeadlineExceeded, "eu": model.NoAnswer("eu", errors.New("refused"), time.Time{}, time.Now()), "sa": model.Errorf(model.KindUnsupported, "no such method"),
	})
	for _, want := range []string{
		`region "af" did not answer when it was asked before`, `region "ap" gave no answer within 1.8s`, `region "eu" is unreachable: refused`, `region "sa": no such method`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
