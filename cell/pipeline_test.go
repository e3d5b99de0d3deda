package cell

import (
	"testing"

	"github.com/hashicorp/raft"
)

// stubPipeline hands its answers over one by one, as Raft's own does.
type stubPipeline struct {
	raft.AppendPipeline
	done chan raft.AppendFuture
}

func (s *stubPipeline) Consumer() <-chan raft.AppendFuture { return s.done }
func (s *stubPipeline) Close() error                       { return nil }

type stubFuture struct {
	raft.AppendFuture
	n int
}

func TestAPipelinesAnswersFindATakerWhenRaftHasGone(t *testing.T) {
	inner := &stubPipeline{done: make(chan raft.AppendFuture)}
	p := newPipeline(inner)
	defer p.Close()
	const answers = 20
	for i := range answers { // nobody reads: this must not wait
		inner.done <- &stubFuture{n: i}
	}
	for i := range answers {
		if f := (<-p.Consumer()).(*stubFuture); f.n != i {
			t.Fatalf("answer %d came as the %dth", f.n, i)
		}
	}
}
