package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shore is the state of region "us", and what its loop says and does.
type shore struct {
	mu      sync.Mutex // serializes what is applied
	machine *cell.Machine
	tell    func(region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error)
}

func newShore(t *testing.T) *shore {
	t.Helper()
	m, err := cell.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	s := &shore{machine: m}
	s.apply(t, cell.CmdCellInit, &cell.CellInit{Cell: state.Cell{ID: "c", Region: "us", Incarnation: "c"}})
	return s
}

func (s *shore) apply(t *testing.T, cmd cell.Command, body any) {
	t.Helper()
	if _, _, err := s.machine.Apply(cmd, nil, body); err != nil {
		t.Fatal(err)
	}
}

// hold has the region hold a version of a job that is to run in some regions.
func (s *shore) hold(t *testing.T, id string, change func(*model.Proposal), regions ...string) {
	t.Helper()
	job := &model.Job{ID: id, Type: model.JobTypeService, Multiregion: &model.Multiregion{}}
	for _, name := range regions {
		r := model.NewMultiregionRegion()
		r.Name = name
		job.Multiregion.Regions = append(job.Multiregion.Regions, r)
	}
	job.Canonicalize()
	p := &model.Proposal{ID: "p-" + id, Request: id, Born: 1, Job: job, Time: time.Now().UnixNano()}
	if change != nil {
		change(p)
	}
	s.apply(t, cell.CmdRolloutLearn, &cell.RolloutLearn{Key: p.Key(), Own: "us", Won: p, Time: p.Time})
}

// run lets the loop go on for a while.
func (s *shore) run(t *testing.T, d time.Duration, change func(*Config)) *loop {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	cfg := Config{
		Region: "us", Snapshot: s.machine.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger(), Rand: func() float64 { return 0.5 },
		Apply: func(_ context.Context, cmd cell.Command, body any) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			_, _, err := s.machine.Apply(cmd, nil, body)
			return err
		},
		Tell: func(_ context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
			if s.tell == nil {
				return nil, &model.Error{Kind: model.KindUnreachable, Region: region, Message: "it is silent"}
			}
			return s.tell(region, req)
		},
	}
	if change != nil {
		change(&cfg)
	}
	l := newLoop(cfg)
	if err := l.run(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// A rollout that the loop panics over is set aside: the others go on.
func TestOneRolloutThatBreaksLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShore(t)
		s.hold(t, "broken", nil, "eu", "us")
		s.hold(t, "sound", nil, "eu", "us")
		broken := model.JobID{Namespace: model.DefaultNamespace, ID: "broken"}
		store, err := state.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Write(1, func(tx *state.Txn) error {
			var all error
			for r := range s.machine.Snapshot().Rollouts(nil) {
				c := *r
				if c.Key() == broken {
					c.Shares = c.Shares[1:] // a listed region without a share: none can be like that
				}
				all = errors.Join(all, tx.PutRollout(&c))
			}
			return all
		}); err != nil {
			t.Fatal(err)
		}
		moved := make(map[string]bool)
		s.run(t, time.Minute, func(c *Config) {
			c.Snapshot = store.Snapshot
			c.Apply = func(_ context.Context, _ cell.Command, body any) error {
				moved[body.(*cell.RolloutShare).Key.ID] = true
				return errors.New("it is only watched")
			}
		})
		if !moved["sound"] || moved["broken"] {
			t.Errorf("moved: %v", moved)
		}
	})
}

// answerFor answers as a region does that holds what it is told of.
func answerFor(region string, n method.RolloutNews) method.RolloutNews {
	return method.RolloutNews{Key: n.Key, Region: region, Won: n.Won, Shares: n.Shares}
}

// A region that lacks many large versions is brought them a few at a time, and one
// that it cannot take up costs the others nothing, nor makes it a lost region.
func TestExchangesAreBoundedByBytesAndFailJobByJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShore(t)
		const jobs, spec = 20, 200 << 10
		for i := range jobs {
			s.hold(t, fmt.Sprintf("j%02d", i), func(p *model.Proposal) {
				p.Job.Meta = map[string]string{"large": strings.Repeat("x", spec)}
			}, "us", "eu")
		}
		var mu sync.Mutex
		holds := make(map[model.JobID]model.Mark)
		largest := 0
		s.tell = func(region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			b, err := wire.Encode(req)
			if err != nil {
				return nil, err
			}
			largest = max(largest, len(b))
			out := &method.RolloutTellResponse{}
			for _, n := range req.News {
				a := method.RolloutNews{Key: n.Key, Region: region, Won: holds[n.Key], Shares: n.Shares}
				switch {
				case n.Key.ID == "j03" && n.Proposal != nil:
					return nil, model.Invalidf("News", "there is something about %s", n.Key.ID)
				case n.Key.ID == "j07" && n.Proposal != nil:
					a = method.RolloutNews{Key: n.Key, Region: region, Error: "it cannot be written"}
				case n.Proposal != nil:
					holds[n.Key] = n.Won
					a.Won = n.Won
				}
				out.News = append(out.News, a)
			}
			return out, nil
		}
		l := s.run(t, time.Minute, nil)
		if len(holds) != jobs-2 {
			t.Errorf("of %d versions, %d were brought", jobs, len(holds))
		}
		if largest > specsAtOnce+spec+(64<<10) {
			t.Errorf("one exchange has %d bytes", largest)
		}
		if l.gone("eu") {
			t.Error("the region counts as lost, though it answers")
		}
	})
}

// What was not told yet, or has changed, does not wait for what is told again and
// again.
func TestManyOpenRolloutsStarveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShore(t)
		const jobs = 3 * newsAtOnce
		for i := range jobs {
			s.hold(t, fmt.Sprintf("j%04d", i), nil, "us", "eu")
		}
		var mu sync.Mutex
		told := make(map[string]int)
		s.tell = func(region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			time.Sleep(calm) // a slow link: each exchange takes as long as what is repeated waits
			out := &method.RolloutTellResponse{}
			for _, n := range req.News {
				told[n.Key.ID]++
				out.News = append(out.News, answerFor(region, n))
			}
			return out, nil
		}
		s.run(t, time.Minute, nil)
		least, most := told["j0000"], told["j0000"]
		for _, n := range told {
			least, most = min(least, n), max(most, n)
		}
		if len(told) != jobs || most > least+3 {
			t.Errorf("%d of %d are told, from %d to %d times", len(told), jobs, least, most)
		}
	})
}

// A share waits for its namespace, which comes to its region by another way than
// the job.
func TestAShareWaitsForItsNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShore(t)
		s.hold(t, "web", func(p *model.Proposal) { p.Job.Namespace = "team" }, "us")
		key := model.JobID{Namespace: "team", ID: "web"}
		state := func() model.ShareState { return s.machine.Snapshot().Rollout(nil, key).Share("us").State }
		s.run(t, time.Minute, nil)
		if got := state(); got != model.SharePending {
			t.Errorf("without its namespace the share is %s", got)
		}
		s.apply(t, cell.CmdNamespaceLearn, &cell.NamespaceLearn{Rows: []*model.Namespace{{Name: "team", Version: 1}}})
		s.run(t, time.Minute, nil)
		if got := state(); got != model.ShareRunning {
			t.Errorf("with it, it is %s", got)
		}
	})
}

// A share whose evaluation failed is not done: the next one is waited for, and
// when none comes the share has failed.
func TestAShareIsDoneOnceItWasScheduled(t *testing.T) {
	for name, c := range map[string]struct {
		next string
		want model.ShareState
	}{
		"it is tried again, and done":    {model.EvalComplete, model.ShareSuccessful},
		"it is tried again, and waits":   {model.EvalPending, model.ShareRunning},
		"it is not tried again any more": {"", model.ShareFailed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShore(t)
				s.hold(t, "web", func(p *model.Proposal) { p.Job.Type = model.JobTypeBatch }, "us")
				s.run(t, time.Minute, nil)
				key := model.JobID{Namespace: model.DefaultNamespace, ID: "web"}
				share := func() *model.Share { return s.machine.Snapshot().Rollout(nil, key).Share("us") }
				failed := *s.machine.Snapshot().Eval(nil, share().EvalID)
				failed.Status = model.EvalFailed
				evals := []*model.Evaluation{&failed}
				if c.next != "" {
					next := failed
					next.ID, next.Status, next.CreateIndex = model.NewUUID(nil).String(), c.next, 0
					failed.NextEval = next.ID
					evals = append(evals, &next)
				}
				s.apply(t, cell.CmdEvals, &cell.Evals{Evals: evals})
				s.run(t, time.Minute, nil)
				if got := share(); got.State != c.want {
					t.Errorf("%+v, want %s", got, c.want)
				}
			})
		})
	}
}
