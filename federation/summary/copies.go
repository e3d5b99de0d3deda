package summary

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"

	"atoll/internal/backoff"
	"atoll/internal/clock"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// Config wires copies.
type Config struct {
	// Region is our own, of which no copy is pulled.
	Region string
	// Caller makes the calls; it finds each region's nearest server that is well,
	// and fails at once for a region that is down.
	Caller rpc.Caller
	// Regions are all that are known.
	Regions func() []model.RegionStatus
	Clock   clock.Clock
	Log     hclog.Logger
	Metrics *metrics.Metrics // nil measures nothing
	// Limit bounds the bytes that a region's rows may take; 0 means 128 MiB.
	Limit int64
}

// Copies are the copies of all other regions.
type Copies struct {
	cfg Config

	mu sync.Mutex // guards what follows
	of map[string]*followed
}

// followed is a region that is followed.
type followed struct {
	copy    *Copy
	traffic Traffic
	cancel  context.CancelFunc
}

// Traffic is what the copy of a region has cost.
type Traffic struct {
	// Answers counts answers, Full those that held everything.
	Answers, Full int
	// Rows are those taken, gone ones too, Bytes what they took on the way.
	Rows, Bytes int
}

// Times of pulling.
const (
	// idlePull is between two questions, busyPull after one that told of changes;
	// each row makes that longer by rowPause, up to longPull.
	idlePull = time.Second
	busyPull = 500 * time.Millisecond
	rowPause = 500 * time.Microsecond
	longPull = 5 * time.Second
	// pullTime bounds a question: a copy of everything over a slow link takes
	// long, and one on which nothing comes ends by itself.
	pullTime = time.Minute
	// reportPulls is how many questions go between two for the region's word
	// about itself, once as many have gone with: round trips change always, and
	// matter little, but a region that is new knows none yet.
	reportPulls = 10
)

// again is the wait after a question that failed. A region that is down costs no
// more than asking the directory.
var again = backoff.Policy{Min: 200 * time.Millisecond, Max: 2 * time.Second}

// NewCopies returns copies of nothing; Run gets them.
func NewCopies(cfg Config) *Copies {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Limit == 0 {
		cfg.Limit = maxSize
	}
	return &Copies{cfg: cfg, of: make(map[string]*followed)}
}

// Of returns the copy of a region, nil when there is none.
func (c *Copies) Of(region string) *Copy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.of[region]; f != nil {
		return f.copy
	}
	return nil
}

// Traffic returns what the copy of a region has cost so far.
func (c *Copies) Traffic(region string) Traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.of[region]; f != nil {
		return f.traffic
	}
	return Traffic{}
}

// Run follows every other region that is known, each in a goroutine of its own,
// until ctx ends; it waits for them. A region that is forgotten loses its copy.
func (c *Copies) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	tick := time.NewTicker(idlePull)
	defer tick.Stop()
	for {
		c.supervise(ctx, &loops)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *Copies) supervise(ctx context.Context, loops *sync.WaitGroup) {
	known := make(map[string]model.RegionStatus)
	for _, st := range c.cfg.Regions() {
		if st.Name != c.cfg.Region {
			known[st.Name] = st
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.of)) {
		f := c.of[name]
		st, there := known[name]
		if !there {
			f.cancel()
			delete(c.of, name)
		} else if f.copy != nil && f.copy.Report != nil && st.CellID != "" && f.copy.Report.CellID != "" && f.copy.Report.CellID != st.CellID {
			// The name is another cell's now.
			f.copy = nil
		}
	}
	for name := range known {
		if c.of[name] != nil {
			continue
		}
		loop, cancel := context.WithCancel(ctx)
		f := &followed{cancel: cancel}
		c.of[name] = f
		loops.Go(func() {
			defer cancel()
			c.follow(loop, name, f)
		})
	}
}

// follow asks a region what changed, again and again, until ctx ends.
func (c *Copies) follow(ctx context.Context, region string, f *followed) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed, asked := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		rows, err := c.pull(ctx, region, f, asked < reportPulls || asked%reportPulls == 0)
		switch {
		case err != nil:
			if failed == 0 && ctx.Err() == nil {
				c.cfg.Log.Debug("cannot bring the copy of a region up to date; trying on", "region", region, "error", err)
			}
			timer.Reset(again.Wait(failed))
			failed++
			continue
		}
		timer.Reset(pause(rows))
		asked++
		failed = 0
	}
}

// pause is the wait after an answer that told of so many changes. Where most of
// what there is changes all the time, telling it twice a second to everybody would
// cost the region more than it is worth.
func pause(changes int) time.Duration {
	if changes == 0 {
		return idlePull
	}
	return min(busyPull+time.Duration(changes)*rowPause, longPull)
}

// pull asks once, and returns how many rows changed since the last time, 0 when
// everything was told.
func (c *Copies) pull(ctx context.Context, region string, f *followed, report bool) (changed int, err error) {
	c.mu.Lock()
	have := f.copy
	c.mu.Unlock()
	req := &method.SummaryPullRequest{Report: report || have == nil}
	// What was not taken when there was no room is asked for once there is.
	if have != nil && (have.Dropped == 0 || have.Size > c.cfg.Limit/4*3) {
		req.State, req.Since = have.State, have.Index
	}
	asked := c.cfg.Clock.Now()
	stream, err := rpc.Open(ctx, c.cfg.Caller, method.SummaryPull, rpc.To{Region: region, Timeout: pullTime}, req)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	d, bytes, err := receive(stream.Recv, c.cfg.Limit)
	if err != nil {
		return 0, err
	}
	if !d.Full && (have == nil || req.State == "" || d.State != have.State) {
		return 0, fmt.Errorf("cannot use what region %q answers: it told of changes to what was not there", region)
	}
	next := have.next(region, d, asked, c.cfg.Limit)
	if next.Dropped > 0 && (have == nil || have.Dropped == 0) {
		c.cfg.Log.Warn("a region tells of more than is kept of it; ask it itself for all", "region", region, "limit", c.cfg.Limit, "rows left out", next.Dropped)
	}
	rows := count(&d.Rows)
	c.mu.Lock()
	defer c.mu.Unlock()
	f.copy = next
	f.traffic.Answers++
	f.traffic.Rows += rows
	f.traffic.Bytes += bytes
	if d.Full {
		f.traffic.Full++
	}
	if m := c.cfg.Metrics; m != nil {
		labels := []metrics.Label{{Name: "region", Value: region}}
		m.IncrCounterWithLabels([]string{"summary", "rows"}, float32(rows), labels)
		m.IncrCounterWithLabels([]string{"summary", "bytes"}, float32(bytes), labels)
		if d.Full {
			m.IncrCounterWithLabels([]string{"summary", "full_copies"}, 1, labels)
		}
	}
	if d.Full {
		return 0, nil
	}
	return rows, nil
}

// Own is the copy of our own region, which is read, not pulled.
type Own struct {
	region string
	read   func(req *method.SummaryPullRequest) (*Delta, error)
	clock  clock.Clock

	mu   sync.Mutex // guards copy, and is held while it is brought up to date
	copy *Copy
}

// NewOwn returns the copy of our own region, of what read tells.
func NewOwn(region string, read func(req *method.SummaryPullRequest) (*Delta, error), c clock.Clock) *Own {
	return &Own{region: region, read: read, clock: c}
}

// Now returns the copy, with whatever the region's state held when it was asked
// for. Its cost grows with what changed since the last time.
func (o *Own) Now() (*Copy, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	req := &method.SummaryPullRequest{}
	if o.copy != nil {
		req.State, req.Since = o.copy.State, o.copy.Index
	}
	asked := o.clock.Now()
	d, err := o.read(req)
	if err != nil {
		return nil, err
	}
	// It has no limit: whatever is in it is in the state too.
	o.copy = o.copy.next(o.region, d, asked, 1<<62)
	return o.copy, nil
}

// Run keeps the copy near the state, so that nobody who asks has much to wait
// for, until ctx ends.
func (o *Own) Run(ctx context.Context) error {
	tick := time.NewTicker(idlePull)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			// Without a state there is nothing to keep up with.
			_, _ = o.Now()
		}
	}
}
