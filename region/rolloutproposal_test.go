package region

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell"
	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/rollout"
	"atoll/region/worker"
	"atoll/scheduler"
)

// instant commits at once.
type instant struct{ *cell.Machine }

func (i instant) Apply(_ context.Context, cmd cell.Command, body any) (uint64, any, error) {
	return i.Machine.Apply(cmd, nil, body)
}

func (i instant) ApplyOnce(_ context.Context, cmd cell.Command, req *state.Request, body any) (uint64, any, error) {
	return i.Machine.Apply(cmd, req, body)
}

// aDoor is the door of a region that knows nothing yet.
func aDoor(t testing.TB, region string) (*rollouts, *cell.Machine) {
	t.Helper()
	m, err := cell.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	id := model.NewUUID(nil).String()
	if _, _, err := m.Apply(cell.CmdCellInit, nil, &cell.CellInit{Cell: state.Cell{ID: id, Region: region, Incarnation: id}}); err != nil {
		t.Fatal(err)
	}
	return &rollouts{reader: &reader{snapshot: m.Snapshot}, writer: &writer{applier: instant{m}, clock: clock.Real}, region: region}, m
}

// aProposal is what a door makes of a first version.
func aProposal() *model.Proposal {
	now := time.Now().UnixNano()
	return &model.Proposal{ID: "p", Request: "r", Job: seasJob("web", "us", "eu"), Door: "eu", Born: now, Time: now}
}

// take gives a region a proposal in each of the ways in which it comes from
// another, and has what is taken run. It reports what was said to it.
func take(t testing.TB, p *model.Proposal) (told, voted error) {
	t.Helper()
	var key model.JobID
	var mark model.Mark
	if mark = p.Mark(); p != nil && p.Job != nil {
		key = p.Key()
	}
	s, m := aDoor(t, "us")
	_, voted = s.vote(t.Context(), nil, &method.RolloutVoteRequest{Proposal: p})
	if r := m.Snapshot().Rollout(nil, key); voted == nil && r != nil && r.Accepted != nil {
		r.Accepted.Judge([]string{"us"}, nil)
		rollout.News(m.Snapshot(), key)
	}
	s, m = aDoor(t, "us")
	told = tell(t, s, method.RolloutNews{Key: key, Region: "eu", Won: mark, Proposal: p})
	if r := m.Snapshot().Rollout(nil, key); told == nil && r != nil && r.Won != nil {
		run(t, m, r)
	}
	return told, voted
}

// tell tells a region news, and returns what it says of the first.
func tell(t testing.TB, s *rollouts, news ...method.RolloutNews) error {
	t.Helper()
	out, err := s.told(t.Context(), nil, &method.RolloutTellRequest{News: news})
	if err != nil {
		t.Fatal(err)
	}
	if why := out.News[0].Error; why != "" {
		return errors.New(why)
	}
	return nil
}

// run does what the leader's loops and a worker do with a version that has won.
func run(t testing.TB, m *cell.Machine, r *model.Rollout) {
	t.Helper()
	step := rollout.Advance(rollout.Turn{Region: "us", Now: time.Now(), Gone: func(string) bool { return false }}, m.Snapshot(), nil, r)
	if step == nil {
		return
	}
	if _, _, err := m.Apply(cell.CmdRolloutShare, nil, step); err != nil {
		t.Fatal(err)
	}
	if job := m.Snapshot().Job(nil, r.Key()); job != nil && step.Eval != nil {
		if _, err := scheduler.Propose(worker.View{Snapshot: m.Snapshot()}, step.Eval, scheduler.Options{Now: time.Now(), Rand: rand.New(rand.NewPCG(1, 1))}); err != nil {
			t.Error(err)
		}
	}
}

func TestABrokenProposalIsRefused(t *testing.T) {
	if told, voted := take(t, aProposal()); told != nil || voted != nil {
		t.Fatalf("a whole one: told %v, voted %v", told, voted)
	}
	for name, break_ := range map[string]func(*model.Proposal){
		"no job":                func(p *model.Proposal) { p.Job = nil },
		"no id":                 func(p *model.Proposal) { p.ID = "" },
		"the last version":      func(p *model.Proposal) { p.Version = math.MaxUint64 },
		"no multiregion block":  func(p *model.Proposal) { p.Job.Multiregion = nil },
		"no regions":            func(p *model.Proposal) { p.Job.Multiregion.Regions = nil },
		"no strategy":           func(p *model.Proposal) { p.Job.Multiregion.Strategy = nil },
		"no strategy of a stop": func(p *model.Proposal) { p.Job.Stop, p.Job.Multiregion.Strategy = true, nil },
		"a null region":         func(p *model.Proposal) { p.Job.Multiregion.Regions[1] = nil },
		"a null group":          func(p *model.Proposal) { p.Job.TaskGroups[0] = nil },
		"no update":             func(p *model.Proposal) { p.Job.TaskGroups[0].Update = nil },
		"a null task":           func(p *model.Proposal) { p.Job.TaskGroups[0].Tasks[0] = nil },
		"no resources":          func(p *model.Proposal) { p.Job.TaskGroups[0].Tasks[0].Resources = nil },
		"no namespace":          func(p *model.Proposal) { p.Job.Namespace = "" },
		"a count without bound": func(p *model.Proposal) { p.Job.Multiregion.Regions[0].Count = 2_000_000_000 },
		"a part without bound":  func(p *model.Proposal) { p.Counts = []int{2_000_000_000, 1} },
		"a negative part":       func(p *model.Proposal) { p.Counts = []int{-3, 1} },
	} {
		t.Run(name, func(t *testing.T) {
			p := aProposal()
			break_(p)
			told, voted := take(t, p)
			if told == nil || model.KindOf(voted) != model.KindInvalid {
				t.Errorf("told: %v; voted: %v", told, voted)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		s, _ := aDoor(t, "us")
		if _, err := s.vote(t.Context(), nil, &method.RolloutVoteRequest{}); model.KindOf(err) != model.KindInvalid {
			t.Error(err)
		}
	})
	t.Run("of another job", func(t *testing.T) {
		s, m := aDoor(t, "us")
		p := aProposal()
		for _, n := range []method.RolloutNews{
			{Key: model.JobID{Namespace: "default", ID: "api"}, Won: p.Mark(), Proposal: p},
			{Key: p.Key(), Won: model.Mark{Born: p.Born, Version: 7, ID: p.ID}, Proposal: p},
		} {
			if err := tell(t, s, n); err == nil {
				t.Errorf("news of %v, version %d, are taken", n.Key, n.Won.Version)
			}
		}
		for r := range m.Snapshot().Rollouts(nil) {
			t.Errorf("it is taken all the same: %+v", r)
		}
	})
	t.Run("beside a whole one", func(t *testing.T) {
		s, m := aDoor(t, "us")
		p, broken := aProposal(), aProposal()
		broken.Job.ID, broken.Job.TaskGroups[0] = "api", nil
		err := tell(t, s, method.RolloutNews{Key: broken.Key(), Won: broken.Mark(), Proposal: broken}, method.RolloutNews{Key: p.Key(), Won: p.Mark(), Proposal: p})
		if r := m.Snapshot().Rollout(nil, p.Key()); err == nil || r == nil || r.Won == nil {
			t.Errorf("%v; the other is %+v", err, r)
		}
	})
}

// What another region answers to the leader's loop is checked as what it tells.
func TestABrokenAnswerIsNotTakenUp(t *testing.T) {
	d := newLone(t)
	job := seasJob("web", "eu", "us")
	job.Multiregion.Strategy.MaxParallel = 1
	d.must(d.submit("first", &method.JobRegisterRequest{Job: job}))
	won := d.machine.Snapshot().Rollout(nil, simKey).Won
	ctx, cancel := context.WithCancel(t.Context())
	asked, done := make(chan struct{}), make(chan error)
	go func() {
		done <- rollout.Run(ctx, rollout.Config{
			Region: "us", Snapshot: d.machine.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger(),
			Apply: func(_ context.Context, cmd cell.Command, body any) error {
				_, _, err := d.machine.Apply(cmd, nil, body)
				return err
			},
			Tell: func(_ context.Context, region string, req *method.RolloutTellRequest) (*method.RolloutTellResponse, error) {
				select {
				case asked <- struct{}{}:
				case <-ctx.Done():
				}
				next := model.Mark{Born: won.Born, Version: 9, ID: "next"}
				return &method.RolloutTellResponse{News: []method.RolloutNews{{Key: simKey, Region: region, Won: next, Proposal: &model.Proposal{ID: "next", Version: 9, Born: won.Born}}}}, nil
			},
		})
	}()
	for range 3 { // the first is over when the third is asked
		<-asked
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r := d.machine.Snapshot().Rollout(nil, simKey); r.Won.ID != won.ID {
		t.Errorf("%+v is taken up", r.Won)
	}
}

// Whatever single thing of a proposal is missing or out of all bounds: it is refused,
// or what is made of it does no harm.
func TestWhatIsTakenOfAProposalCanBeRun(t *testing.T) {
	whole := aProposal()
	full := whole.Job.TaskGroups[0]
	full.Tasks[0].Constraints = []*model.Constraint{{LTarget: "${node.datacenter}", Operand: "=", RTarget: "dc1"}}
	full.Networks = []*model.NetworkResource{{Mode: "host", DynamicPorts: []model.Port{{Label: "http"}}}}
	whole.Job.Multiregion.Regions[0].Meta = map[string]string{"a": "b"}
	whole.Base, whole.Before = []string{"us"}, []model.Submit{{ID: "o", Request: "q"}}
	if told, voted := take(t, clone(t, whole)); told != nil || voted != nil {
		t.Fatalf("the whole one: told %v, voted %v", told, voted)
	}
	taken, n := 0, 0
	for _, where := range spots(reflect.ValueOf(whole), "") {
		for _, how := range []string{"zero", "most", "least"} {
			p := clone(t, whole)
			if !distort(reflect.ValueOf(p), where, how) {
				continue
			}
			n++
			t.Run(fmt.Sprint(where, "=", how), func(t *testing.T) {
				told, voted := take(t, p)
				if kind := model.KindOf(voted); voted != nil && kind != model.KindInvalid && kind != model.KindConflict {
					t.Errorf("%v: %v", kind, voted)
				}
				if told == nil {
					taken++
				}
			})
		}
	}
	if n < 200 || taken < 50 || n-taken < 50 {
		t.Errorf("of %d broken proposals %d are taken: the test tries too little", n, taken)
	}
}

func clone(t testing.TB, p *model.Proposal) *model.Proposal {
	t.Helper()
	b, err := wire.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	out := new(model.Proposal)
	if err := wire.Decode(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// spots are the places within v, as ".Job.TaskGroups.0.Count".
func spots(v reflect.Value, at string) (out []string) {
	if at != "" {
		out = append(out, at)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return append(out, within(v.Elem(), at)...)
		}
	case reflect.Struct, reflect.Slice:
		return append(out, within(v, at)...)
	}
	return out
}

func within(v reflect.Value, at string) (out []string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out = append(out, spots(v.Field(i), at+"."+v.Type().Field(i).Name)...)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, spots(v.Index(i), fmt.Sprint(at, ".", i))...)
		}
	}
	return out
}

// distort changes the place within v; it reports whether that is another value now.
func distort(v reflect.Value, at, how string) bool {
	for _, step := range strings.Split(at, ".")[1:] {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() == reflect.Slice {
			i := 0
			fmt.Sscan(step, &i)
			v = v.Index(i)
		} else {
			v = v.FieldByName(step)
		}
	}
	before := fmt.Sprintf("%#v", v.Interface())
	switch {
	case how == "zero":
		v.SetZero()
	case v.CanInt():
		v.SetInt(map[string]int64{"most": math.MaxInt64, "least": math.MinInt64}[how])
	case v.CanUint() && how == "most" && v.Type().Bits() == 64:
		v.SetUint(math.MaxUint64)
	case v.Kind() == reflect.String && how == "most":
		v.SetString(strings.Repeat("x", 1<<17))
	}
	return fmt.Sprintf("%#v", v.Interface()) != before
}
