package rollout

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"atoll/model"
)

// rolloutOf makes a rollout of its shares, as "us=blocked eu=pending".
func rolloutOf(strategy model.MultiregionStrategy, shares string) *model.Rollout {
	strategy.OnUnreachable = cmp.Or(strategy.OnUnreachable, model.OnUnreachableWait)
	r := &model.Rollout{Won: &model.Proposal{ID: "p", Job: &model.Job{ID: "j", Multiregion: &model.Multiregion{Strategy: &strategy}}}}
	for _, s := range strings.Fields(shares) {
		name, state, _ := strings.Cut(s, "=")
		r.Won.Job.Multiregion.Regions = append(r.Won.Job.Multiregion.Regions, &model.MultiregionRegion{Name: name})
		r.Shares = append(r.Shares, model.Share{Region: name, State: model.ShareState(state)})
	}
	return r
}

func TestNext(t *testing.T) {
	one := model.MultiregionStrategy{MaxParallel: 1}
	with := func(onFailure, onUnreachable string) model.MultiregionStrategy {
		return model.MultiregionStrategy{MaxParallel: 1, OnFailure: onFailure, OnUnreachable: onUnreachable}
	}
	for _, c := range []struct {
		name     string
		strategy model.MultiregionStrategy
		shares   string
		own      string
		gone     string
		local    Local
		want     model.ShareState
	}{
		{"the first begins", one, "us=pending eu=pending", "us", "", Local{}, "running"},
		{"the second waits", one, "us=running eu=pending", "eu", "", Local{}, ""},
		{"and follows", one, "us=blocked eu=pending", "eu", "", Local{}, "running"},
		{"two at a time", model.MultiregionStrategy{MaxParallel: 2}, "us=running eu=pending ap=pending", "eu", "", Local{}, "running"},
		{"and no third", model.MultiregionStrategy{MaxParallel: 2}, "us=running eu=running ap=pending", "ap", "", Local{}, ""},
		{"all at once", model.MultiregionStrategy{}, "us=pending eu=pending ap=pending", "ap", "", Local{}, "running"},
		{"it is done here", one, "us=running eu=pending", "us", "", Local{Done: true}, "blocked"},
		{"and everywhere", one, "us=blocked eu=blocked", "us", "", Local{Done: true}, "successful"},
		{"an operator lets it be", one, "us=blocked eu=running", "us", "", Local{Done: true, Released: true}, "successful"},
		{"its own failure", one, "us=running eu=pending", "us", "", Local{Failed: "it is sick"}, "failed"},
		{"one that an operator failed while it waited", one, "us=pending eu=pending", "us", "", Local{Failed: "it was sick"}, "failed"},
		{"later ones fail too", one, "us=failed eu=pending", "eu", "", Local{}, "failed"},
		{"earlier ones stay", one, "us=blocked eu=failed", "us", "", Local{Done: true}, ""},
		{"unless all fail", with("fail_all", ""), "us=blocked eu=failed", "us", "", Local{Done: true}, "failed"},
		{"but for what is over", with("fail_all", ""), "us=successful eu=failed", "us", "", Local{Done: true}, ""},
		{"others go on", with("fail_local", ""), "us=failed eu=pending", "eu", "", Local{}, "running"},
		{"and stay blocked", with("fail_local", ""), "us=failed eu=blocked", "eu", "", Local{Done: true}, ""},
		{"a lost region is waited for", one, "us=running eu=pending", "eu", "us", Local{}, ""},
		{"or passed over", with("", "skip"), "us=running eu=pending", "eu", "us", Local{}, "running"},
		{"to the end", with("", "skip"), "us=pending eu=blocked", "eu", "us", Local{Done: true}, "successful"},
		{"or fails those after it", with("", "fail"), "us=running eu=pending", "eu", "us", Local{}, "failed"},
		{"nor does it go on alone when it is back", with("", "fail"), "us=pending eu=failed", "us", "", Local{}, "failed"},
		{"a later failure is nothing to one that began", with("", "fail"), "us=running eu=failed", "us", "", Local{}, ""},
		{"nor to one that was waited for", with("", "wait"), "us=pending eu=failed", "us", "", Local{}, "running"},
		{"once its turn has come", with("fail_all", "fail"), "us=running eu=pending", "us", "eu", Local{}, ""},
		{"and then all", with("fail_all", "fail"), "us=blocked eu=pending", "us", "eu", Local{Done: true}, "failed"},
		{"one that is done does no harm by being lost", with("fail_all", "fail"), "us=blocked eu=pending", "eu", "us", Local{}, "running"},
		{"a failure is not undone by being lost", with("", "skip"), "us=failed eu=pending", "eu", "us", Local{}, "failed"},
		{"a region that is not listed any more", one, "us=running", "us", "", Local{}, ""},
	} {
		r := rolloutOf(c.strategy, c.shares)
		got, why := Next(r, c.own, func(region string) bool { return region == c.gone }, c.local)
		if got != c.want || got == model.ShareFailed && why == "" {
			t.Errorf("%s: %s of %s becomes %q (%s), want %q", c.name, c.own, c.shares, got, why, c.want)
		}
	}
	stopped := rolloutOf(one, "us=pending eu=pending")
	stopped.Won.Job.Stop = true
	if got, _ := Next(stopped, "eu", nil, Local{}); got != model.ShareStopped {
		t.Errorf("a stop does not wait for its turn: %q", got)
	}
	removed := rolloutOf(one, "us=pending")
	removed.Shares = append(removed.Shares, model.Share{Region: "eu", State: model.SharePending})
	if got, _ := Next(removed, "eu", nil, Local{}); got != model.ShareStopped {
		t.Errorf("a region that is not listed any more: %q", got)
	}
}

// Regions that hear of each other late and out of order keep the order and the
// limit, whatever they are told when.
func TestRegionsKeepTheOrderOnOldKnowledge(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 2 + rng.IntN(5)
		var shares []string
		for i := range n {
			shares = append(shares, fmt.Sprintf("r%d=pending", i))
		}
		limit := 1 + rng.IntN(n)
		views := make([]*model.Rollout, n)
		for i := range views {
			views[i] = rolloutOf(model.MultiregionStrategy{MaxParallel: limit}, strings.Join(shares, " "))
		}
		for range 5000 {
			i := rng.IntN(n)
			own := fmt.Sprintf("r%d", i)
			if j := rng.IntN(n); j != i {
				views[i].Hear("p", views[j].Shares, own)
				continue
			}
			state, _ := Next(views[i], own, func(string) bool { return false }, Local{Done: rng.IntN(4) == 0})
			if state == "" {
				continue
			}
			views[i].Set(model.Share{Region: own, State: state})
			unfinished := 0
			for k := range views {
				if s := views[k].Shares[k].State; s == model.ShareRunning {
					unfinished++
				}
				if s := views[k].Shares[k].State; k < i && s == model.SharePending && state == model.ShareRunning && unfinished >= limit {
					t.Fatalf("seed %d: %s began too early", seed, own)
				}
			}
			if unfinished > limit {
				t.Fatalf("seed %d: %d regions run at once, %d may", seed, unfinished, limit)
			}
		}
		for k := range views {
			if s := views[k].Shares[k].State; s != model.ShareSuccessful {
				t.Fatalf("seed %d: region %d of %d is %s in the end", seed, k, n, s)
			}
		}
	}
}
