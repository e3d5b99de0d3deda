// Package broker hands evaluations to workers: by priority, one at a time for
// each job, again after a failure, later when they say so. It reads the state
// for evaluations to hand out and keeps only who has which; what it forgets when
// leadership ends, the next leader's broker reads again.
//
// An evaluation goes through these stages:
//
//	delayed     until its time comes                            → waiting or ready
//	waiting     behind another of its job                       → ready or superseded
//	ready       until a worker takes it                         → out
//	out         delivered to a worker                           → done, delayed or failing
//	superseded  a newer one of its job does its work            → done, once that is written
//	failing     given up after MaxDeliveries                    → done, once that is written
//
// A delivery has a number and ends when its worker says so or its time is over;
// then nothing can be written for it any more (Hold).
//
// Run is the one goroutine that reads the state and writes to it, through the
// functions it is given; the other methods may be called by any number of
// workers. The package knows no scheduler.
package broker

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/cell/state"
	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/model"
)

// Config wires a broker.
type Config struct {
	Snapshot func() *state.Snapshot
	// Fail records that an evaluation is given up.
	Fail func(ctx context.Context, e *model.Evaluation, why string) error
	// Cancel records that pending evaluations are superseded.
	Cancel func(ctx context.Context, ids []model.UUID) error
	// Timeout is how long a worker may have an evaluation without writing;
	// 0 means DefaultTimeout.
	Timeout time.Duration
	Clock   clock.Clock
	Log     hclog.Logger
}

const (
	// MaxDeliveries is how often an evaluation is handed out before it fails.
	MaxDeliveries = 5
	// DefaultTimeout is many times what the largest evaluation takes.
	DefaultTimeout = time.Minute

	// settle lets a burst of commits be read at once: the state is read again
	// no sooner than this after the last time.
	settle = 2 * time.Millisecond
	// cancelAtOnce bounds the evaluations of one write.
	cancelAtOnce = 4096
)

var (
	// retry is the wait before a failed evaluation is handed out again.
	retry = backoff.Policy{Min: 200 * time.Millisecond, Max: 20 * time.Second}
	// rewrite is the wait before a write that failed is tried again.
	rewrite = backoff.Policy{Min: 100 * time.Millisecond, Max: 5 * time.Second}
)

// ErrOver says that a delivery has ended: its evaluation is, or will be,
// another worker's.
var ErrOver = errors.New("the evaluation was given to another worker, as this one took too long")

// Broker is one term's broker.
type Broker struct {
	cfg Config
	// work wakes Run when there is something to read or to write.
	work chan struct{}

	mu sync.Mutex // guards what follows
	// items are all pending evaluations that were read, by id; out those of
	// them that a worker has, by delivery.
	items      map[string]*item
	out        map[uint64]*item
	deliveries uint64
	// ready is ordered by priority, then age; delayed by time. Items that are
	// in another stage by now are passed over.
	ready   readyHeap
	delayed delayedHeap
	// jobs are those with an evaluation ready or out; others of the same job
	// wait in line behind it.
	jobs map[model.JobID]*line
	// superseded and failing are to be written.
	superseded []*item
	failing    []*item
	// wake is closed and replaced when ready or delayed changed.
	wake chan struct{}
	// over says that the term is; paused that the scheduler configuration has
	// nothing handed out. What is out then goes on.
	over, paused bool
}

type stage uint8

const (
	delayed stage = iota
	waiting
	ready
	out
	superseded
	failing
	done
)

type item struct {
	eval  *model.Evaluation
	stage stage
	// priority is the evaluation's, or that of one that it superseded.
	priority int
	// at is when a delayed item becomes ready.
	at time.Time
	// tries counts deliveries; delivery is the present one's number, which
	// timer ends unless the item is held.
	tries    int
	delivery uint64
	timer    *time.Timer
	held     bool
	// why is the cause of the last failure.
	why string
}

type line struct {
	current *item
	waiting []*item
}

// New returns a broker that has read nothing yet.
func New(cfg Config) *Broker {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Broker{
		cfg: cfg, work: make(chan struct{}, 1), items: make(map[string]*item), out: make(map[uint64]*item),
		jobs: make(map[model.JobID]*line), wake: make(chan struct{}),
	}
}

// Run reads pending evaluations from the state, and writes what became of those
// that no worker deals with, until ctx ends.
func (b *Broker) Run(ctx context.Context) error {
	defer b.end(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		ws := make(state.Watch)
		ws.Add(b.work)
		b.read(ws)
		if err := b.write(ctx); err == nil {
			failures = 0
			if ws.WatchCtx(ctx) != nil {
				return nil
			}
			timer.Reset(settle)
		} else {
			if ctx.Err() != nil {
				return nil
			}
			b.cfg.Log.Warn("cannot record what became of evaluations; trying again", "error", err)
			timer.Reset(rewrite.Wait(failures))
			failures++
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

// end ends all deliveries with the term. A Run that failed is started again, and
// they go on.
func (b *Broker) end(ctx context.Context) {
	if ctx.Err() == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for delivery := range b.out {
		b.finish(delivery)
	}
}

// read takes up new pending evaluations and drops those that are no longer
// pending, unless a worker has them.
func (b *Broker) read(ws state.Watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Under the lock: what was acknowledged before it was taken is no longer
	// pending in the snapshot, and is not taken for a new evaluation.
	snap := b.cfg.Snapshot()
	seen := make(map[string]bool)
	paused := snap.SchedulerConfig(ws).PauseEvalBroker
	changed := paused != b.paused
	b.paused = paused
	for e := range snap.EvalsByStatus(ws, model.EvalPending) {
		seen[e.ID] = true
		if b.items[e.ID] != nil {
			continue
		}
		it := &item{eval: e, priority: e.Priority, at: e.WaitUntil}
		b.items[e.ID] = it
		b.enter(it)
		changed = true
	}
	for id, it := range b.items {
		if !seen[id] && it.stage != out {
			was := it.stage
			it.stage = done
			delete(b.items, id)
			if was == ready {
				b.leave(it)
				changed = true
			}
		}
	}
	if changed {
		b.signal()
	}
}

func (b *Broker) signal() {
	close(b.wake)
	b.wake = make(chan struct{})
}

// enter puts an item where it belongs: among the delayed, in its job's line,
// or among the ready.
func (b *Broker) enter(it *item) {
	if it.at.After(b.cfg.Clock.Now()) {
		it.stage = delayed
		heap.Push(&b.delayed, it)
		return
	}
	key := it.eval.JobKey()
	l := b.jobs[key]
	if l == nil {
		l = &line{}
		b.jobs[key] = l
	}
	if l.current != nil {
		it.stage = waiting
		l.waiting = append(l.waiting, it)
		return
	}
	b.front(l, it)
}

func (b *Broker) front(l *line, it *item) {
	l.current, it.stage = it, ready
	heap.Push(&b.ready, it)
}

// leave ends an item's turn and gives it to the newest of those that wait
// behind it. That one sees all that the others were made for.
func (b *Broker) leave(it *item) {
	key := it.eval.JobKey()
	l := b.jobs[key]
	if l == nil || l.current != it {
		return
	}
	var next *item
	for _, w := range l.waiting {
		switch {
		case w.stage != waiting:
		case next == nil:
			next = w
		case w.eval.CreateIndex > next.eval.CreateIndex:
			b.supersede(next, w)
			next = w
		default:
			b.supersede(w, next)
		}
	}
	l.current, l.waiting = nil, nil
	if next == nil {
		delete(b.jobs, key)
		return
	}
	b.front(l, next)
}

func (b *Broker) supersede(it, by *item) {
	by.priority = max(by.priority, it.priority)
	it.stage = superseded
	b.superseded = append(b.superseded, it)
	b.rouse()
}

func (b *Broker) rouse() {
	select {
	case b.work <- struct{}{}:
	default:
	}
}

// write records which evaluations were superseded, and which are given up. What
// it could not write stays to be written.
func (b *Broker) write(ctx context.Context) error {
	b.mu.Lock()
	cancel, fail := b.superseded, b.failing
	b.superseded, b.failing = nil, nil
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.superseded, b.failing = append(cancel, b.superseded...), append(fail, b.failing...)
	}()
	for len(cancel) > 0 {
		n := min(len(cancel), cancelAtOnce)
		ids := make([]model.UUID, 0, n)
		for _, it := range cancel[:n] {
			if id, ok := model.ParseUUID(it.eval.ID); ok {
				ids = append(ids, id)
			}
		}
		if err := b.cfg.Cancel(ctx, ids); err != nil {
			return err
		}
		cancel = cancel[n:]
	}
	for len(fail) > 0 {
		it := fail[0]
		why := fmt.Sprintf("gave up after %d attempts; the last: %s", it.tries, it.why)
		if err := b.cfg.Fail(ctx, it.eval, why); err != nil {
			return err
		}
		fail = fail[1:]
	}
	return nil
}
