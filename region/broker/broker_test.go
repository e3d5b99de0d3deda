package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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

// world is a state, a broker that runs on it, and what the broker wrote.
type world struct {
	t      *testing.T
	store  *state.Store
	broker *Broker
	// fail is called instead of Config.Fail, when set.
	fail func(e *model.Evaluation, why string) error

	mu        sync.Mutex // guards what follows
	index     uint64
	failed    []string
	cancelled [][]string
}

// newWorld runs a broker until the test, which is a bubble of synctest, ends.
func newWorld(t *testing.T) *world {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store}
	w.broker = New(Config{Snapshot: store.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger(), Fail: w.failEval, Cancel: w.cancel})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.broker.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) write(f func(*state.Txn) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	if err := w.store.Write(w.index, f); err != nil {
		w.t.Error(err)
	}
}

func (w *world) put(evals ...*model.Evaluation) {
	w.write(func(tx *state.Txn) error { return tx.UpsertEvals(evals) })
}

// finish completes an evaluation as its worker does.
func (w *world) finish(e *model.Evaluation, delivery uint64) error {
	err := w.broker.Hold(delivery, func() error {
		done := *e
		done.Status = model.EvalComplete
		w.put(&done)
		return nil
	})
	w.broker.Ack(delivery)
	return err
}

func (w *world) done(e *model.Evaluation, delivery uint64) {
	w.t.Helper()
	if err := w.finish(e, delivery); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) failEval(_ context.Context, e *model.Evaluation, why string) error {
	if w.fail != nil {
		if err := w.fail(e, why); err != nil {
			return err
		}
	}
	failed := *e
	failed.Status, failed.StatusDescription = model.EvalFailed, why
	w.put(&failed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, e.ID)
	return nil
}

func (w *world) cancel(_ context.Context, ids []model.UUID) error {
	var names []string
	w.write(func(tx *state.Txn) error {
		_, err := tx.MoveEvals(ids, model.EvalPending, model.EvalCancelled, "superseded", 1)
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		names = append(names, id.String())
	}
	w.cancelled = append(w.cancelled, names)
	return nil
}

func pending(job string, change ...func(*model.Evaluation)) *model.Evaluation {
	e := &model.Evaluation{
		ID: model.NewUUID(nil).String(), Namespace: model.DefaultNamespace, JobID: job, Priority: 50, Status: model.EvalPending,
	}
	for _, f := range change {
		f(e)
	}
	return e
}

func priority(p int) func(*model.Evaluation) { return func(e *model.Evaluation) { e.Priority = p } }

// next takes an evaluation; nil when there is none within d.
func (w *world) next(d time.Duration) (*model.Evaluation, uint64) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	e, delivery, err := w.broker.Dequeue(ctx)
	if err != nil {
		return nil, 0
	}
	return e, delivery
}

func (w *world) want(want *model.Evaluation, within time.Duration) uint64 {
	w.t.Helper()
	e, delivery := w.next(within)
	if e == nil || e.ID != want.ID {
		w.t.Fatalf("got %+v, want %s of job %s", e, want.ID, want.JobID)
	}
	return delivery
}

func (w *world) wantNone(within time.Duration) {
	w.t.Helper()
	if e, _ := w.next(within); e != nil {
		w.t.Fatalf("got %s of job %s, want none", e.ID, e.JobID)
	}
}

func TestEvaluationsComeByPriorityThenAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		low, first, second, high := pending("low", priority(1)), pending("first"), pending("second"), pending("high", priority(99))
		w.write(func(tx *state.Txn) error { return tx.UpsertEvals([]*model.Evaluation{low, first}) })
		w.put(second)
		w.put(high)
		synctest.Wait()
		time.Sleep(2 * settle)
		for _, e := range []*model.Evaluation{high, first, second, low} {
			w.want(e, time.Second)
		}
	})
}

func TestAJobHasOneInFlightAndOnlyTheNewestComesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		current := pending("j")
		w.put(current)
		delivery := w.want(current, time.Second)
		var pile []*model.Evaluation
		for i := range 5 {
			pile = append(pile, pending("j", priority(50+(i*3)%5))) // 50 53 51 54 52
			w.put(pile[i])
		}
		other := pending("other", priority(53))
		w.put(other)
		w.done(other, w.want(other, time.Second))
		w.wantNone(DefaultTimeout / 2)
		w.done(current, delivery)
		// It has the priority of the most urgent that it does the work of.
		rival := pending("rival", priority(53))
		w.put(rival)
		synctest.Wait()
		time.Sleep(2 * settle)
		last := w.want(pile[4], time.Second)
		w.done(rival, w.want(rival, time.Second))
		if len(w.cancelled) != 1 || len(w.cancelled[0]) != 4 {
			t.Errorf("cancelled %v, want 4 in one write", w.cancelled)
		}
		for i, e := range pile {
			want := model.EvalCancelled
			if i == 4 {
				want = model.EvalPending
			}
			if got := w.store.Snapshot().Eval(nil, e.ID); got.Status != want {
				t.Errorf("evaluation %d is %s, want %s", i, got.Status, want)
			}
		}
		w.done(pile[4], last)
		w.wantNone(DefaultTimeout / 4)
	})
}

func TestADelayedEvaluationComesAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		later := pending("later", func(e *model.Evaluation) { e.WaitUntil = time.Now().Add(time.Hour) })
		sooner := pending("sooner", func(e *model.Evaluation) { e.WaitUntil = time.Now().Add(time.Minute) })
		gone := pending("gone", func(e *model.Evaluation) { e.WaitUntil = time.Now().Add(time.Second) })
		w.put(later)
		w.put(sooner, gone)
		synctest.Wait()
		time.Sleep(2 * settle)
		_ = w.cancel(t.Context(), []model.UUID{uuid(gone)})
		w.wantNone(59 * time.Second)
		w.done(sooner, w.want(sooner, 2*time.Second))
		w.wantNone(58 * time.Minute)
		w.want(later, 2*time.Minute)
	})
}

func uuid(e *model.Evaluation) model.UUID {
	id, _ := model.ParseUUID(e.ID)
	return id
}

func TestAFailingEvaluationComesAgainLaterAndLaterAndThenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		tries := 0
		w.fail = func(_ *model.Evaluation, why string) error {
			if tries++; tries < 3 {
				return errors.New("the log is slow")
			}
			if want := "gave up after 5 attempts; the last: no luck at try 5"; why != want {
				t.Errorf("failed because %q, want %q", why, want)
			}
			return nil
		}
		e := pending("j")
		w.put(e)
		last := time.Duration(0)
		for try := 1; try <= MaxDeliveries; try++ {
			begin := time.Now()
			delivery := w.want(e, time.Minute)
			// The jitter leaves at least half of a wait, which doubles.
			if waited := time.Since(begin); try > 2 && waited < last/2 || try > 1 && waited < retry.Min/2 {
				t.Errorf("try %d came after %s, the one before after %s", try, waited, last)
			} else {
				last = waited
			}
			w.broker.Nack(delivery, fmt.Errorf("no luck at try %d", try))
		}
		w.wantNone(DefaultTimeout / 4)
		if got := w.store.Snapshot().Eval(nil, e.ID); got.Status != model.EvalFailed || tries != 3 {
			t.Errorf("%s after %d writes", got.Status, tries)
		}
		// Its job goes on.
		next := pending("j")
		w.put(next)
		w.want(next, time.Second)
	})
}

func TestAWorkerThatHangsLosesItsEvaluation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := pending("j")
		w.put(e)
		hung := w.want(e, time.Second)
		w.wantNone(DefaultTimeout - 2*time.Second)
		delivery := w.want(e, time.Minute)
		if err := w.finish(e, hung); !errors.Is(err, ErrOver) {
			t.Errorf("the late worker wrote: %v", err)
		}
		w.broker.Nack(hung, errors.New("late"))
		// What the late worker says of its delivery does not end the other's.
		w.wantNone(DefaultTimeout / 2)
		if err := w.finish(e, delivery); err != nil {
			t.Error(err)
		}
		w.wantNone(DefaultTimeout / 4)
	})
}

func TestADeliveryDoesNotEndWhileItsWorkerWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := pending("j")
		w.put(e)
		delivery := w.want(e, time.Second)
		if err := w.broker.Hold(delivery, func() error { w.wantNone(10 * DefaultTimeout); return nil }); err != nil {
			t.Error(err)
		}
		w.wantNone(DefaultTimeout - 2*time.Second)
		w.want(e, time.Minute) // and its time begins anew
	})
}

func TestOneThatIsPendingAgainBeforeItsAckComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := pending("j")
		w.put(e)
		delivery := w.want(e, time.Second)
		blocked := *e
		blocked.Status = model.EvalBlocked
		w.put(&blocked)
		w.write(func(tx *state.Txn) error {
			_, err := tx.MoveEvals([]model.UUID{uuid(e)}, model.EvalBlocked, model.EvalPending, "", 1)
			return err
		})
		w.wantNone(time.Second)
		w.broker.Ack(delivery)
		w.want(e, time.Second)
	})
}

// A snapshot from before an Ack, read after it, would show the acknowledged
// evaluation as one that nobody had yet.
func TestTheStateIsReadUnderTheLock(t *testing.T) {
	store, err := state.New()
	if err != nil {
		t.Fatal(err)
	}
	var b *Broker
	b = New(Config{Clock: clock.Real, Log: hclog.NewNullLogger(), Snapshot: func() *state.Snapshot {
		if b.mu.TryLock() {
			b.mu.Unlock()
			t.Error("the broker's lock is free while it takes a snapshot")
		}
		return store.Snapshot()
	}})
	b.read(make(state.Watch))
}

func TestTheTermsEndEndsDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := state.New()
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, store: store}
		w.broker = New(Config{Snapshot: store.Snapshot, Clock: clock.Real, Log: hclog.NewNullLogger()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.broker.Run(ctx) }()
		e, other := pending("j"), pending("k")
		w.put(e)
		delivery := w.want(e, time.Second)
		w.put(other)
		cancel()
		<-done
		if err := w.finish(e, delivery); !errors.Is(err, ErrOver) {
			t.Errorf("written after the term: %v", err)
		}
		w.wantNone(DefaultTimeout / 4)
	})
}

// Whatever workers do, a job has one evaluation in flight, and in the end each
// is complete, failed or cancelled.
func TestWorkersOfAllSorts(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			flying := make(map[string]int)
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					for {
						e, delivery, err := w.broker.Dequeue(ctx)
						if err != nil {
							return
						}
						mu.Lock()
						if flying[e.JobID]++; flying[e.JobID] > 1 {
							t.Errorf("seed %d: job %s is twice in flight", seed, e.JobID)
						}
						dice := rng.IntN(10)
						mu.Unlock()
						land := func() {
							mu.Lock()
							defer mu.Unlock()
							flying[e.JobID]--
						}
						switch dice {
						case 0: // hangs: its delivery ends while it does
							land()
							time.Sleep(2 * DefaultTimeout)
							if err := w.finish(e, delivery); !errors.Is(err, ErrOver) {
								t.Errorf("seed %d: a late worker wrote: %v", seed, err)
							}
						case 1, 2:
							land()
							w.broker.Nack(delivery, errors.New("no luck"))
						default:
							time.Sleep(time.Duration(dice) * time.Millisecond)
							land()
							if err := w.finish(e, delivery); err != nil {
								t.Errorf("seed %d: %v", seed, err)
							}
						}
					}
				})
			}
			for i := range 300 {
				mu.Lock()
				job, wait, pause := rng.IntN(8), rng.IntN(20), rng.IntN(3)
				mu.Unlock()
				w.put(pending(fmt.Sprint("j", job), priority(1+i%7), func(e *model.Evaluation) {
					if wait == 0 {
						e.WaitUntil = time.Now().Add(time.Minute)
					}
				}))
				time.Sleep(time.Duration(pause) * time.Millisecond)
			}
			time.Sleep(time.Hour)
			n := 0
			for e := range w.store.Snapshot().Evals(nil, "") {
				n++
				if !e.Terminal() {
					t.Errorf("seed %d: %s of job %s is %s", seed, e.ID, e.JobID, e.Status)
				}
			}
			if r, o, d := w.broker.Counts(); n != 300 || r+o+d != 0 {
				t.Errorf("seed %d: %d evaluations; the broker has %d ready, %d out, %d waiting", seed, n, r, o, d)
			}
			cancel()
			workers.Wait()
		})
	}
}

func TestAPausedBrokerHandsNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pause := func(paused bool) {
			w.write(func(tx *state.Txn) error {
				c := model.DefaultSchedulerConfig()
				c.PauseEvalBroker = paused
				return tx.SetSchedulerConfig(c)
			})
			synctest.Wait()
			time.Sleep(2 * settle)
			synctest.Wait()
		}
		first, second := pending("a"), pending("b", func(e *model.Evaluation) { e.Priority = 40 })
		w.put(first, second)
		delivery := w.want(first, time.Second)
		pause(true)
		w.wantNone(DefaultTimeout / 4)
		third := pending("c")
		w.put(third)
		w.wantNone(DefaultTimeout / 4)
		// What was out goes on, and may be written.
		w.done(first, delivery)
		pause(false)
		w.want(third, time.Second)
		w.want(second, time.Second)
	})
}
