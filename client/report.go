package client

import (
	"context"
	"sync"
	"time"

	"atoll/internal/backoff"
	"atoll/model"
)

// reporter sends what became of allocations: the newest of each, at once when
// nothing was sent for a while, else what gathers meanwhile in one batch.
type reporter struct {
	send func(context.Context, []*model.AllocUpdate) error
	// taken is told when the servers have taken a batch.
	taken func()
	wake  chan struct{}

	mu      sync.Mutex // guards what follows
	pending map[string]*model.AllocUpdate
	// sending are those of a batch that is under way.
	sending map[string]bool
}

// reportEvery is between batches.
const reportEvery = 50 * time.Millisecond

func newReporter(send func(context.Context, []*model.AllocUpdate) error, taken func()) *reporter {
	return &reporter{send: send, taken: taken, wake: make(chan struct{}, 1), pending: make(map[string]*model.AllocUpdate), sending: make(map[string]bool)}
}

func (r *reporter) add(u *model.AllocUpdate) {
	r.mu.Lock()
	r.pending[u.ID] = u
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) take() []*model.AllocUpdate {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*model.AllocUpdate, 0, len(r.pending))
	for _, u := range r.pending {
		out = append(out, u)
		r.sending[u.ID] = true
	}
	clear(r.pending)
	return out
}

// sent ends a batch.
func (r *reporter) sent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.sending)
}

// unsent reports whether the servers have not taken all that there is to say of an
// allocation.
func (r *reporter) unsent(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending[id] != nil || r.sending[id]
}

// giveBack puts updates back that were not taken, unless there are newer ones.
func (r *reporter) giveBack(updates []*model.AllocUpdate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range updates {
		if r.pending[u.ID] == nil {
			r.pending[u.ID] = u
		}
	}
}

func (r *reporter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		_ = backoff.Policy{Max: 5 * time.Second}.Retry(ctx, nil, func(ctx context.Context) error {
			updates := r.take()
			if len(updates) == 0 {
				return nil
			}
			err := r.send(ctx, updates)
			if err != nil {
				r.giveBack(updates)
			}
			r.sent()
			if err == nil {
				r.taken()
			}
			return err
		})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reportEvery):
		}
	}
}
