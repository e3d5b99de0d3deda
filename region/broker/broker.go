// Package broker hands evaluations to workers: by priority, one at a time for
// each job, again after a failure, later when they say so. It reads the state
// for evaluations to hand out and keeps only who has which; what it forgets when
// leadership ends, the next leader's broker reads again.
//
// Run is the one goroutine that reads the state; Dequeue, Ack and Nack may be
// called by any number of workers. The package knows no scheduler and writes
// nothing but evaluations that failed too often, through the function it is
// given.
package broker

import (
	"cmp"
	"container/heap"
	"context"
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
	Fail  func(ctx context.Context, e *model.Evaluation, why string) error
	Clock clock.Clock
	Log   hclog.Logger
}

// MaxDeliveries is how often an evaluation is handed out before it fails.
const MaxDeliveries = 5

// settle lets a burst of commits be read at once: the state is read again no
// sooner than this after the last time.
const settle = 2 * time.Millisecond

// retry is the wait before a failed evaluation is handed out again.
var retry = backoff.Policy{Min: 200 * time.Millisecond, Max: 20 * time.Second}

// Broker is one term's broker.
type Broker struct {
	cfg Config

	mu sync.Mutex // guards what follows
	// items are all pending evaluations that were read, by id.
	items map[string]*item
	// ready is ordered by priority, then age; delayed by time.
	ready   readyHeap
	delayed delayedHeap
	// jobs are those with an evaluation ready or handed out; others of the
	// same job wait in line behind it.
	jobs map[model.JobID]*line
	// wake is closed and replaced when ready or delayed changed.
	wake chan struct{}
}

type item struct {
	eval       *model.Evaluation
	deliveries int
	// at is when a delayed item becomes ready.
	at   time.Time
	out  bool
	gone bool
}

type line struct {
	current *item
	waiting []*item
}

// New returns a broker that has read nothing yet.
func New(cfg Config) *Broker {
	return &Broker{cfg: cfg, items: make(map[string]*item), jobs: make(map[model.JobID]*line), wake: make(chan struct{})}
}

// Run reads pending evaluations from the state until ctx ends.
func (b *Broker) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		ws := make(state.Watch)
		snap := b.cfg.Snapshot()
		b.read(snap, ws)
		if err := ws.WatchCtx(ctx); err != nil {
			return nil
		}
		timer.Reset(settle)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

// read takes up new pending evaluations and drops those that are no longer
// pending, unless a worker has them.
func (b *Broker) read(snap *state.Snapshot, ws state.Watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[string]bool)
	changed := false
	for e := range snap.EvalsByStatus(ws, model.EvalPending) {
		seen[e.ID] = true
		if it := b.items[e.ID]; it != nil {
			it.eval = e
			continue
		}
		it := &item{eval: e, at: e.WaitUntil}
		b.items[e.ID] = it
		b.enter(it)
		changed = true
	}
	for id, it := range b.items {
		if !seen[id] && !it.out && !it.gone {
			it.gone = true
			delete(b.items, id)
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
		l.waiting = append(l.waiting, it)
		return
	}
	l.current = it
	heap.Push(&b.ready, it)
}

// leave ends an item's turn and gives it to the next of its job.
func (b *Broker) leave(it *item) {
	key := it.eval.JobKey()
	l := b.jobs[key]
	if l == nil || l.current != it {
		return
	}
	l.current = nil
	for len(l.waiting) > 0 && l.current == nil {
		next := l.waiting[0]
		l.waiting = l.waiting[1:]
		if !next.gone {
			l.current = next
			heap.Push(&b.ready, next)
		}
	}
	if l.current == nil {
		delete(b.jobs, key)
	}
}

// Dequeue waits for an evaluation; an error is ctx's. Its worker must Ack or
// Nack it.
func (b *Broker) Dequeue(ctx context.Context) (*model.Evaluation, error) {
	for {
		e, wake, next := b.take()
		if e != nil {
			return e, nil
		}
		var timer *time.Timer
		var due <-chan time.Time
		if !next.IsZero() {
			timer = time.NewTimer(next.Sub(b.cfg.Clock.Now()))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// take returns an evaluation, or what to wait for.
func (b *Broker) take() (*model.Evaluation, <-chan struct{}, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Clock.Now()
	for len(b.delayed) > 0 && !b.delayed[0].at.After(now) {
		if it := heap.Pop(&b.delayed).(*item); !it.gone {
			b.enter(it)
		}
	}
	for len(b.ready) > 0 {
		it := heap.Pop(&b.ready).(*item)
		if it.gone {
			b.leave(it)
			continue
		}
		it.out = true
		it.deliveries++
		return it.eval, nil, time.Time{}
	}
	var next time.Time
	if len(b.delayed) > 0 {
		next = b.delayed[0].at
	}
	return nil, b.wake, next
}

// Ack says that the evaluation was dealt with: its new status is in the state.
func (b *Broker) Ack(e *model.Evaluation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.items[e.ID]
	if it == nil || !it.out {
		return
	}
	// It may be pending again, or still, in the state; then the next read
	// takes it up anew.
	it.gone = true
	delete(b.items, e.ID)
	b.leave(it)
	b.signal()
}

// Nack says that the evaluation could not be dealt with: it is handed out
// again later, or fails after MaxDeliveries.
func (b *Broker) Nack(ctx context.Context, e *model.Evaluation, cause error) {
	if b.again(e) {
		return
	}
	why := "gave up after the last of its attempts: " + cause.Error()
	if err := b.cfg.Fail(ctx, e, why); err != nil {
		b.cfg.Log.Warn("cannot record a failed evaluation; it will be tried again", "eval", e.ID, "error", err)
	}
	b.Ack(e)
}

func (b *Broker) again(e *model.Evaluation) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.items[e.ID]
	if it == nil || !it.out {
		return true
	}
	if it.deliveries >= MaxDeliveries {
		return false
	}
	it.out = false
	it.at = b.cfg.Clock.Now().Add(retry.Wait(it.deliveries - 1))
	b.leave(it)
	b.enter(it)
	b.signal()
	return true
}

// Counts are how many evaluations are ready, handed out, and waiting for
// another of their job or for their time.
func (b *Broker) Counts() (ready, out, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, it := range b.items {
		if it.out {
			out++
		}
	}
	return len(b.ready), out, len(b.items) - len(b.ready) - out
}

type readyHeap []*item

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	a, b := h[i].eval, h[j].eval
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.CreateIndex, b.CreateIndex), cmp.Compare(a.ID, b.ID)) < 0
}
func (h readyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *readyHeap) Push(x any)   { *h = append(*h, x.(*item)) }
func (h *readyHeap) Pop() any     { return popLast((*[]*item)(h)) }

type delayedHeap []*item

func (h delayedHeap) Len() int           { return len(h) }
func (h delayedHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h delayedHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *delayedHeap) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *delayedHeap) Pop() any          { return popLast((*[]*item)(h)) }

func popLast(s *[]*item) *item {
	last := len(*s) - 1
	it := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return it
}
