package client

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/backoff"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// Registrar keeps a node registered and heard of. It is all that a node does
// which runs nothing.
type Registrar struct {
	Caller rpc.Caller
	// Node describes the node as it is now; Changed is signalled when that
	// differs from what was registered. A nil channel never is.
	Node     func() *model.Node
	SecretID string
	Changed  <-chan struct{}
	// Heard takes what a server answered; anew says that the servers had
	// forgotten the node.
	Heard func(answer *method.NodeHeartbeatResponse, anew bool)
	// Took takes how long a heartbeat took; nil drops it.
	Took func(time.Duration, error)
	Log  hclog.Logger
}

// Run registers the node and heartbeats until ctx ends. A node whose servers are
// gone goes on trying, and what it runs goes on running.
func (r *Registrar) Run(ctx context.Context) error {
	unknown := false
	for ctx.Err() == nil {
		ttl, ok := r.register(ctx, unknown)
		for ok {
			part := method.BeatEarliest + rand.Float64()*(method.BeatLatest-method.BeatEarliest)
			timer := time.NewTimer(time.Duration(part * float64(ttl)))
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-r.Changed:
				timer.Stop()
				ok, unknown = false, false
				continue
			case <-timer.C:
			}
			ttl, ok = r.beat(ctx)
			unknown = !ok
		}
	}
	return nil
}

func (r *Registrar) register(ctx context.Context, anew bool) (ttl time.Duration, ok bool) {
	err := backoff.Policy{Min: 100 * time.Millisecond, Max: 5 * time.Second}.Retry(ctx, nil, func(ctx context.Context) error {
		answer, err := rpc.Call(ctx, r.Caller, method.NodeRegister, rpc.To{}, &method.NodeRegisterRequest{Node: r.Node(), SecretID: r.SecretID})
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("cannot register; trying on", "error", err)
			}
			return err
		}
		ttl = answer.TTL
		r.Heard(answer, anew)
		return nil
	})
	return max(ttl, time.Second), err == nil
}

// beat sends a heartbeat, and again until one is taken; false when the servers
// do not know the node.
func (r *Registrar) beat(ctx context.Context) (ttl time.Duration, ok bool) {
	// Slowly enough that ten thousand nodes do not keep a server that has more
	// than it can do from ever having less.
	_ = backoff.Policy{Min: 500 * time.Millisecond, Max: 5 * time.Second}.Retry(ctx, nil, func(ctx context.Context) error {
		start := time.Now()
		answer, err := rpc.Call(ctx, r.Caller, method.NodeHeartbeat, rpc.To{Timeout: 5 * time.Second}, &method.NodeHeartbeatRequest{NodeID: r.Node().ID, SecretID: r.SecretID})
		if r.Took != nil {
			r.Took(time.Since(start), err)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("a heartbeat was not taken; trying on", "error", err)
			}
			return err
		}
		if ok = answer.Registered; ok {
			ttl = answer.TTL
			r.Heard(answer, false)
		}
		return nil
	})
	return max(ttl, time.Second), ok
}
