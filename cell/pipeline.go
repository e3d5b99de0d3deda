package cell

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline is one of Raft's transport's, whose answers always find a taker.
//
// Raft's own stands still for good when a follower refuses an entry, as one whose
// disk is full does: the goroutine that takes the answers goes at the first
// refusal, the one that reads them waits to hand over the next, and the one that
// sends waits for that one to read on, when it should see that the first has
// gone (hashicorp/raft#612; in v1.8.0 pipelineDecode, netPipeline.decodeResponses
// and netPipeline.AppendEntries). The leader then sends that follower nothing more
// for as long as it leads, and does not end when it is shut down.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pass() // ended by Close, which Raft calls
	return p
}

// pass takes each answer as it comes and holds it for Raft. Those held are few:
// entries are still sent only as fast as answers are read.
func (p *pipeline) pass() {
	var held []raft.AppendFuture
	for {
		var to chan raft.AppendFuture
		var next raft.AppendFuture
		if len(held) > 0 {
			to, next = p.answers, held[0]
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			held = append(held, f)
		case to <- next:
			held = held[1:]
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
