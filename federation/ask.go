package federation

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// AskTime bounds a question to all regions, so that its asker has the answer
// within two seconds.
const AskTime = 1800 * time.Millisecond

// Part is one region's answer; Reply is nil when it gave none, and Err is why.
type Part[R any] struct {
	model.RegionAnswer
	Reply *R
	Err   error
}

// Refuse makes an answer that cannot be used none, for the reason given: what one region
// tells wrongly is no reason to answer for none.
func (p *Part[R]) Refuse(reason string) {
	p.Err = &model.Error{Kind: model.KindUnreachable, Region: p.Region, Message: fmt.Sprintf("region %q is unreachable: its answer cannot be used: %s", p.Region, reason)}
	p.RegionAnswer = model.RegionAnswer{Region: p.Region, Freshness: model.Unreachable, Error: p.Err.Error()}
	p.Reply = nil
}

// Ask asks every region the same and returns what each answered, by region. A
// region whose leader cannot be had is asked for what its servers hold, which
// is stale; one that does not answer in time is unreachable. meta finds in a
// reply what it says of itself.
func Ask[Q, R any](ctx context.Context, c rpc.Caller, regions []model.RegionStatus, m method.Method[Q, R], req *Q, meta func(*R) *method.Meta) []Part[R] {
	ctx, cancel := context.WithTimeout(ctx, AskTime)
	defer cancel()
	parts := make([]Part[R], len(regions))
	var wg sync.WaitGroup
	for i, region := range regions {
		wg.Go(func() { parts[i] = askOne(ctx, c, region, m, req, meta) })
	}
	wg.Wait()
	sort.Slice(parts, func(i, j int) bool { return parts[i].Region < parts[j].Region })
	return parts
}

func askOne[Q, R any](ctx context.Context, c rpc.Caller, region model.RegionStatus, m method.Method[Q, R], req *Q, meta func(*R) *method.Meta) Part[R] {
	p := Part[R]{RegionAnswer: model.RegionAnswer{Region: region.Name}}
	// The leader has half of the time; a region in an election still has
	// followers that can answer in the other half.
	asked := time.Now()
	live, cancel := context.WithTimeout(ctx, AskTime/2)
	r, err := rpc.Call(live, c, m, rpc.To{Region: region.Name}, req)
	cancel()
	if err == nil {
		p.Freshness, p.Reply, p.Index = model.Live, r, meta(r).Index
		return p
	}
	if kind := model.KindOf(err); kind == model.KindNoLeader || kind == model.KindDeadline {
		if stale, staleErr := rpc.Call(ctx, c, m, rpc.To{Region: region.Name, AllowStale: true}, req); staleErr == nil {
			p.Freshness, p.Reply, p.Index = model.Stale, stale, meta(stale).Index
			p.Age = max(meta(stale).LastContact, 0) + time.Since(asked)
			p.Error = err.Error()
			return p
		}
	}
	p.Freshness, p.Age, p.Error, p.Err = model.Unreachable, -1, err.Error(), err
	var e *model.Error
	switch {
	case errors.As(err, &e) && e.LastContact > 0:
		p.Age = e.LastContact
	case region.LastContact >= 0:
		p.Age = region.LastContact + time.Since(asked)
	}
	return p
}

// FormatHeader writes what each region's part is worth, as the X-Atoll-Regions
// header has it: "us=live;index=120, eu=stale;age=4.2s;index=97,
// ap=unreachable;age=31s". Ages never known are left out.
func FormatHeader(answers []model.RegionAnswer) string {
	var parts []string
	for _, a := range answers {
		s := url.QueryEscape(a.Region) + "=" + string(a.Freshness)
		if a.Freshness != model.Live && a.Age >= 0 {
			s += fmt.Sprintf(";age=%.1fs", a.Age.Truncate(100*time.Millisecond).Seconds())
		}
		if a.Freshness != model.Unreachable {
			s += fmt.Sprintf(";index=%d", a.Index)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// ParseHeader reads what FormatHeader wrote.
func ParseHeader(header string) ([]model.RegionAnswer, error) {
	var out []model.RegionAnswer
	if strings.TrimSpace(header) == "" {
		return nil, nil
	}
	for _, part := range strings.Split(header, ",") {
		fields := strings.Split(strings.TrimSpace(part), ";")
		name, freshness, ok := strings.Cut(fields[0], "=")
		region, err := url.QueryUnescape(name)
		if !ok || err != nil {
			return nil, fmt.Errorf("cannot read region answer %q", part)
		}
		a := model.RegionAnswer{Region: region, Freshness: model.Freshness(freshness), Age: -1}
		if a.Freshness == model.Live {
			a.Age = 0
		}
		for _, f := range fields[1:] {
			switch key, value, _ := strings.Cut(f, "="); key {
			case "age":
				if a.Age, err = time.ParseDuration(value); err == nil && a.Age < 0 {
					err = errors.New("an age is not negative")
				}
			case "index":
				a.Index, err = strconv.ParseUint(value, 10, 64)
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read region answer %q: %w", part, err)
			}
		}
		out = append(out, a)
	}
	return out, nil
}
