package broker

import (
	"cmp"
	"container/heap"
	"context"
	"time"

	"atoll/model"
)

// Dequeue waits for an evaluation; an error is ctx's. Its worker must Ack or
// Nack the delivery in time.
func (b *Broker) Dequeue(ctx context.Context) (e *model.Evaluation, delivery uint64, err error) {
	for {
		e, delivery, wake, next := b.take()
		if e != nil {
			return e, delivery, nil
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
			return nil, 0, err
		}
	}
}

// take returns an evaluation, or what to wait for.
func (b *Broker) take() (e *model.Evaluation, delivery uint64, wake <-chan struct{}, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.paused {
		return nil, 0, b.wake, due
	}
	now := b.cfg.Clock.Now()
	for len(b.delayed) > 0 && !b.delayed[0].at.After(now) {
		if it := heap.Pop(&b.delayed).(*item); it.stage == delayed {
			b.enter(it)
		}
	}
	for len(b.ready) > 0 {
		it := heap.Pop(&b.ready).(*item)
		if it.stage != ready {
			continue
		}
		b.deliveries++
		delivery = b.deliveries
		it.stage, it.delivery, it.held = out, delivery, false
		it.tries++
		b.out[delivery] = it
		it.timer = time.AfterFunc(b.cfg.Timeout, func() { b.expire(delivery) })
		return it.eval, delivery, nil, due
	}
	if len(b.delayed) > 0 {
		due = b.delayed[0].at
	}
	return nil, 0, b.wake, due
}

// Hold runs f, which writes something for a delivery, unless the delivery has
// ended: then it returns ErrOver. While f runs the delivery does not end, so
// that no other worker looks at the job meanwhile.
func (b *Broker) Hold(delivery uint64, f func() error) error {
	b.mu.Lock()
	it := b.out[delivery]
	if it == nil {
		b.mu.Unlock()
		return ErrOver
	}
	it.held = true
	it.timer.Stop()
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		it.held = false
		it.timer.Reset(b.cfg.Timeout)
	}()
	return f()
}

// Ack says that the evaluation was dealt with: its new status is in the state.
func (b *Broker) Ack(delivery uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it := b.finish(delivery); it != nil {
		it.stage = done
		delete(b.items, it.eval.ID)
		b.leave(it)
		b.signal()
		// It may be pending again by now, as one that blocked and was woken
		// is: then it is to be taken up anew.
		b.rouse()
	}
}

// Nack says that the evaluation could not be dealt with: it is handed out
// again later, or fails after MaxDeliveries.
func (b *Broker) Nack(delivery uint64, cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it := b.finish(delivery); it != nil {
		b.giveBack(it, cause.Error())
	}
}

// expire ends a delivery whose worker was not heard of in time.
func (b *Broker) expire(delivery uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it := b.out[delivery]; it == nil || it.held {
		return
	}
	it := b.finish(delivery)
	b.cfg.Log.Error("a worker took too long over an evaluation; another gets it", "eval", it.eval.ID, "job", it.eval.JobID, "limit", b.cfg.Timeout)
	b.giveBack(it, "its worker took longer than "+b.cfg.Timeout.String())
}

// finish ends a delivery; nil when it has ended.
func (b *Broker) finish(delivery uint64) *item {
	it := b.out[delivery]
	if it != nil {
		delete(b.out, delivery)
		it.timer.Stop()
	}
	return it
}

func (b *Broker) giveBack(it *item, why string) {
	it.why = why
	if it.tries >= MaxDeliveries {
		it.stage = failing
		b.failing = append(b.failing, it)
		b.leave(it)
		b.rouse()
	} else {
		it.stage = delayed // so that its job goes on with another meanwhile
		b.leave(it)
		it.at = b.cfg.Clock.Now().Add(retry.Wait(it.tries - 1))
		b.enter(it)
	}
	b.signal()
}

// Counts are how many evaluations are ready, handed out, and waiting for
// another of their job or for their time.
func (b *Broker) Counts() (readyNow, outNow, waitingNow int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, it := range b.items {
		switch it.stage {
		case ready:
			readyNow++
		case out:
			outNow++
		case delayed, waiting:
			waitingNow++
		}
	}
	return readyNow, outNow, waitingNow
}

type readyHeap []*item

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.eval.CreateIndex, b.eval.CreateIndex), cmp.Compare(a.eval.ID, b.eval.ID)) < 0
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
