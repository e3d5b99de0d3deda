package state

import (
	"sync/atomic"

	memdb "github.com/hashicorp/go-memdb"
)

// Watch collects what a blocking query waits on; nil collects nothing. Its
// channels close when what was read changes.
type Watch = memdb.WatchSet

// lazyChan is a channel that one version of an immutable value carries and that
// closes when the value is replaced. It is made only when somebody watches, so
// that a value nobody watches costs a word. The zero value is open.
type lazyChan struct{ p atomic.Pointer[chan struct{}] }

// closedChan stands for "replaced" in every lazyChan.
var closedChan = func() *chan struct{} { c := make(chan struct{}); close(c); return &c }()

// channel returns the channel, which is closed already when the value it
// belongs to was replaced: a reader of an old snapshot does not miss the change
// that came between.
func (l *lazyChan) channel() <-chan struct{} {
	if c := l.p.Load(); c != nil {
		return *c
	}
	c := make(chan struct{})
	if l.p.CompareAndSwap(nil, &c) {
		return c
	}
	return *l.p.Load()
}

// replaced wakes all who watch, now and later.
func (l *lazyChan) replaced() {
	if c := l.p.Swap(closedChan); c != nil && c != closedChan {
		close(*c)
	}
}

func (l *lazyChan) watch(ws Watch) {
	if ws != nil {
		ws.Add(l.channel())
	}
}
