// Package group runs named goroutines under one owner: they share a context,
// the first unexpected end cancels them all, and Wait returns when every one
// has ended. It is how a component answers for its goroutines.
package group

import (
	"context"
	"fmt"
	"sync"
)

// Group is a set of goroutines with one lifetime. Make one with New.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// New returns a group whose context ends with parent, with Stop, or with the
// first error of one of its goroutines.
func New(parent context.Context) *Group {
	ctx, cancel := context.WithCancelCause(parent)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context is the context that the group's goroutines run under.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs f; a non-nil error, unless the group was already stopping, stops the
// group with that error as cause.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := f(g.ctx); err != nil && g.ctx.Err() == nil {
			g.cancel(fmt.Errorf("%s: %w", name, err))
		}
	}()
}

// Stop asks every goroutine to end. It does not wait.
func (g *Group) Stop() { g.cancel(context.Canceled) }

// Wait returns when every goroutine has ended, with the error that stopped the
// group, nil when it was Stop or the parent. It releases the group's context.
func (g *Group) Wait() error {
	g.wg.Wait()
	err := context.Cause(g.ctx)
	g.cancel(context.Canceled)
	if err == context.Canceled || err == context.DeadlineExceeded {
		return nil
	}
	return err
}
