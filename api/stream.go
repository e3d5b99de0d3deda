package api

import (
	"errors"
	"io"
	"time"

	"atoll/rpc"
)

// each hands each reply of a stream to take, and calls beat at even times
// between, until the stream ends, the client goes or either fails.
func each[R any](r *request, stream *rpc.Stream[R], every time.Duration, take func(*R) error, beat func() error) error {
	replies := make(chan *R)
	ended := make(chan error, 1)
	go func() {
		for {
			v, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case replies <- v:
			case <-r.Context().Done():
				ended <- r.Context().Err()
				return
			}
		}
	}()
	// The stream's end ends the goroutine.
	defer func() {
		stream.Close()
		for {
			select {
			case <-replies:
			case <-ended:
				return
			}
		}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case v := <-replies:
			if err := take(v); err != nil {
				return err
			}
		case err := <-ended:
			ended <- err // for the clean-up
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-tick.C:
			if err := beat(); err != nil {
				return err
			}
		}
	}
}
