package periodic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"atoll/cell/state"
	"atoll/internal/clock"
	"atoll/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store that the loop writes to, as a cell would.
type world struct {
	t     *testing.T
	store *state.Store
	// mu guards what follows: a bubble's clock orders goroutines and does not
	// synchronize them.
	mu       sync.Mutex
	index    uint64
	launches []string
	// broken fails every launch.
	broken atomic.Bool
	log    hclog.Logger
}

func newWorld(t *testing.T) *world {
	s, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: s, log: hclog.NewNullLogger()}
}

func (w *world) write(f func(*state.Txn) error) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	if err := w.store.Write(w.index, f); err != nil {
		w.t.Fatal(err)
	}
}

// register registers a periodic job now.
func (w *world) register(id, zone string, crons ...string) {
	w.t.Helper()
	j := &model.Job{ID: id, Type: model.JobTypeBatch, SubmitTime: time.Now().UnixNano(), Periodic: &model.PeriodicConfig{Enabled: true, Specs: crons, TimeZone: zone}}
	j.Canonicalize()
	w.write(func(tx *state.Txn) error { _, err := tx.UpsertJob(j); return err })
}

// launch does what the cell's command does.
func (w *world) launch(_ context.Context, launches []Launch) error {
	if w.broken.Load() {
		return errors.New("no leader")
	}
	for _, l := range launches {
		w.mu.Lock()
		w.launches = append(w.launches, l.Job.ID+" "+l.At.UTC().Format("01-02T15:04:05"))
		w.mu.Unlock()
		w.write(func(tx *state.Txn) error { return tx.SetLaunched(l.Job, l.At, time.Now().UnixNano()) })
	}
	return nil
}

// lead runs a leader's term.
func (w *world) lead() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() {
		done <- Run(ctx, Config{Snapshot: w.store.Snapshot, Launch: w.launch, Clock: clock.Real, Log: w.log})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

// until moves the clock to a moment.
func until(t time.Time) {
	time.Sleep(time.Until(t))
	synctest.Wait()
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	if got := w.taken(); !slices.Equal(got, want) {
		w.t.Errorf("at %s were launched\n %s\nwant\n %s", time.Now().UTC().Format("01-02T15:04:05"), strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// taken are the launches since the last look.
func (w *world) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.launches
	w.launches = nil
	return got
}

// The clock of a bubble begins with the year 2000, when Berlin's went forward on
// 26 March and back on 29 October.
func TestBothDaysOfSummerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		until(time.Date(2000, 3, 24, 12, 0, 0, 0, time.UTC))
		w.register("two", "Europe/Berlin", "0 2 * * *")
		w.register("half", "Europe/Berlin", "30 2 * * *")
		stop := w.lead()
		until(time.Date(2000, 3, 27, 12, 0, 0, 0, time.UTC))
		w.expect("two 03-25T01:00:00", "half 03-25T01:30:00", "two 03-27T00:00:00", "half 03-27T00:30:00")
		stop()

		until(time.Date(2000, 10, 28, 12, 0, 0, 0, time.UTC))
		w.register("two", "Europe/Berlin", "0 2 * * 0-6") // another schedule, which begins now
		w.register("half", "Europe/Berlin", "30 2 * * 0-6")
		stop = w.lead()
		defer stop()
		until(time.Date(2000, 10, 30, 12, 0, 0, 0, time.UTC))
		w.expect("two 10-29T00:00:00", "half 10-29T00:30:00", "two 10-29T01:00:00", "half 10-29T01:30:00", "two 10-30T01:00:00", "half 10-30T01:30:00")
	})
}

func TestWhatWasMissedIsLaunchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		w.register("hourly", "UTC", "@hourly")
		w.register("daily", "UTC", "30 2 * * *")
		w.register("later", "UTC", "0 12 * * *")
		// Nobody leads until 05:10:07 and a bit.
		until(begin.Add(5*time.Hour + 10*time.Minute + 7*time.Second + 5))
		stop := w.lead()
		synctest.Wait()
		// One for all five hours, now; the one that was missed alone, for its
		// own time.
		got := w.taken()
		slices.Sort(got)
		if want := []string{"daily 01-01T02:30:00", "hourly 01-01T05:10:07"}; !slices.Equal(got, want) {
			t.Errorf("launched %v, want %v", got, want)
		}
		until(begin.Add(7 * time.Hour))
		w.expect("hourly 01-01T06:00:00", "hourly 01-01T07:00:00")
		stop()
		// The next leader has nothing to launch again.
		stop = w.lead()
		defer stop()
		until(begin.Add(7*time.Hour + 59*time.Minute))
		w.expect()
	})
}

func TestJobsComeChangeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		stop := w.lead()
		defer stop()
		until(begin.Add(10 * time.Second))
		w.register("a", "UTC", "*/20 * * * * * *")
		until(begin.Add(41 * time.Second))
		w.expect("a 01-01T00:00:20", "a 01-01T00:00:40")
		w.register("a", "UTC", "*/50 * * * * * *")
		until(begin.Add(61 * time.Second))
		w.expect("a 01-01T00:00:50", "a 01-01T00:01:00")
		w.write(func(tx *state.Txn) error {
			_, err := tx.StopJob(model.JobID{Namespace: model.DefaultNamespace, ID: "a"})
			return err
		})
		until(begin.Add(time.Hour))
		w.expect()
	})
}

func TestManyThatComeDueTogetherAreAllLaunched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		for i := range batch*2 + 10 {
			w.register(fmt.Sprint(i), "UTC", "@hourly")
		}
		stop := w.lead()
		defer stop()
		until(begin.Add(90 * time.Minute))
		if n := len(w.taken()); n != batch*2+10 {
			t.Errorf("%d were launched, want %d", n, batch*2+10)
		}
	})
}

func TestALaunchThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		w.register("a", "UTC", "@hourly")
		w.broken.Store(true)
		stop := w.lead()
		defer stop()
		until(begin.Add(time.Hour + 10*time.Second))
		w.expect()
		w.broken.Store(false)
		until(begin.Add(time.Hour + 12*time.Second))
		w.expect("a 01-01T01:00:00")
	})
}

func TestALaunchOfAClockThatWasAheadStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.register("a", "UTC", "0 * * * *")
		begin := time.Now()
		ahead := begin.AddDate(2, 0, 0)
		w.write(func(tx *state.Txn) error {
			return tx.SetLaunched(model.JobID{Namespace: model.DefaultNamespace, ID: "a"}, ahead, ahead.UnixNano())
		})
		stop := w.lead()
		until(begin.Add(2*time.Hour + time.Minute))
		stop()
		w.expect("a 01-01T01:00:00", "a 01-01T02:00:00")
	})
}

// trap panics when it is told of a job that cannot be read.
type trap struct{ hclog.Logger }

func (l trap) Error(msg string, args ...any) {
	if strings.Contains(msg, "cannot read its schedule") {
		panic("planted")
	}
}

func TestAJobThatMakesTheLoopPanicHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.log = trap{hclog.NewNullLogger()}
		w.register("a", "No/Where", "0 * * * *")
		w.register("b", "UTC", "0 * * * *")
		begin := time.Now()
		stop := w.lead()
		until(begin.Add(time.Hour + time.Minute))
		stop()
		w.expect("b 01-01T01:00:00")
	})
}

// BenchmarkLook is a look at many periodic jobs of which one changed.
func BenchmarkLook(b *testing.B) {
	s, err := state.New()
	if err != nil {
		b.Fatal(err)
	}
	const jobs = 1000
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	err = s.Write(1, func(tx *state.Txn) error {
		for i := range jobs {
			j := &model.Job{ID: fmt.Sprint(i), Type: model.JobTypeBatch, SubmitTime: begin.UnixNano(), Periodic: &model.PeriodicConfig{Enabled: true, Spec: "30 2 * * *", TimeZone: "Europe/Berlin"}}
			j.Canonicalize()
			if _, err := tx.UpsertJob(j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	l := &launcher{log: hclog.NewNullLogger()}
	snap := s.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if due, _ := l.look(snap, nil, begin); len(due) > 0 {
			b.Fatal("something is due")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/jobs, "ns/job")
}
