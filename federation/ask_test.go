package federation

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// here serves every call in this process, whatever its region.
type here struct{}

func (here) Region() string { return "us" }
func (here) Route(context.Context, *rpc.Envelope, method.Spec) (rpc.Decision, error) {
	return rpc.Decision{Local: true}, nil
}
func (here) Report(string, string, error, time.Duration) {}
func (here) Leads(string, string)                        {}
func (here) Unreachable(region string, cause error) *model.Error {
	return &model.Error{Kind: model.KindUnreachable, Region: region}
}

func TestEachRegionsPartIsWhatItIsWorth(t *testing.T) {
	const slow = 700 * time.Millisecond
	answer := func(index uint64) *method.JobListResponse {
		return &method.JobListResponse{Meta: method.Meta{Index: index, LastContact: 3 * time.Second}}
	}
	// How a region answers its leader's question, and a stale one.
	regions := map[string]func(ctx context.Context, stale bool) (*method.JobListResponse, error){
		"live": func(context.Context, bool) (*method.JobListResponse, error) { return answer(7), nil },
		"live, slowly": func(ctx context.Context, _ bool) (*method.JobListResponse, error) {
			time.Sleep(slow)
			return answer(8), nil
		},
		"electing": func(_ context.Context, stale bool) (*method.JobListResponse, error) {
			if !stale {
				return nil, model.Errorf(model.KindNoLeader, "no leader")
			}
			return answer(9), nil
		},
		"its leader hangs": func(ctx context.Context, stale bool) (*method.JobListResponse, error) {
			if !stale {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			time.Sleep(slow)
			return answer(10), nil
		},
		"frozen": func(ctx context.Context, _ bool) (*method.JobListResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"cut off": func(context.Context, bool) (*method.JobListResponse, error) {
			return nil, &model.Error{Kind: model.KindUnreachable, Message: "gone", LastContact: 42 * time.Second}
		},
		"never seen": func(context.Context, bool) (*method.JobListResponse, error) {
			return nil, &model.Error{Kind: model.KindUnreachable, Message: "gone"}
		},
		"refusing": func(context.Context, bool) (*method.JobListResponse, error) {
			return nil, model.Invalidf("filter", "no")
		},
	}
	half := AskTime / 2
	want := map[string]struct {
		model.RegionAnswer
		kind model.Kind
	}{
		"live":             {RegionAnswer: model.RegionAnswer{Freshness: model.Live, Index: 7}},
		"live, slowly":     {RegionAnswer: model.RegionAnswer{Freshness: model.Live, Index: 8}},
		"electing":         {RegionAnswer: model.RegionAnswer{Freshness: model.Stale, Index: 9, Age: 3*time.Second + half, Error: "no leader"}},
		"its leader hangs": {RegionAnswer: model.RegionAnswer{Freshness: model.Stale, Index: 10, Age: 3*time.Second + half + slow, Error: "context deadline exceeded"}},
		"frozen":           {RegionAnswer: model.RegionAnswer{Freshness: model.Unreachable, Age: time.Minute + AskTime, Error: "context deadline exceeded"}, kind: model.KindDeadline},
		"cut off":          {RegionAnswer: model.RegionAnswer{Freshness: model.Unreachable, Age: 42 * time.Second, Error: "gone"}, kind: model.KindUnreachable},
		"never seen":       {RegionAnswer: model.RegionAnswer{Freshness: model.Unreachable, Age: -1, Error: "gone"}, kind: model.KindUnreachable},
		"refusing":         {RegionAnswer: model.RegionAnswer{Freshness: model.Unreachable, Age: time.Minute, Error: "no"}, kind: model.KindInvalid},
	}
	synctest.Test(t, func(t *testing.T) {
		s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
		rpc.Handle(s, method.JobList, func(ctx context.Context, c *rpc.Inbound, _ *method.ListRequest) (*method.JobListResponse, error) {
			return regions[c.Envelope.Region](ctx, c.Envelope.AllowStale)
		})
		var list []model.RegionStatus
		for name := range regions {
			st := model.RegionStatus{Name: name, LastContact: time.Minute}
			if name == "never seen" {
				st.LastContact = -1
			}
			list = append(list, st)
		}
		begun := time.Now()
		parts := Ask(t.Context(), s, list, method.JobList, &method.ListRequest{}, func(r *method.JobListResponse) *method.Meta { return &r.Meta })
		if took := time.Since(begun); took > AskTime {
			t.Errorf("it took %s, and its asker has 2 s", took)
		}
		if len(parts) != len(regions) {
			t.Fatalf("%d parts", len(parts))
		}
		for i, p := range parts {
			if i > 0 && parts[i-1].Region >= p.Region {
				t.Errorf("%q comes after %q", p.Region, parts[i-1].Region)
			}
			w := want[p.Region]
			w.Region = p.Region
			if p.RegionAnswer != w.RegionAnswer {
				t.Errorf("%s: %+v\nwant %+v", p.Region, p.RegionAnswer, w.RegionAnswer)
			}
			gone := p.Freshness == model.Unreachable
			if (p.Reply == nil) != gone || (p.Err != nil) != gone || gone && model.KindOf(p.Err) != w.kind {
				t.Errorf("%s: reply %v, error %v", p.Region, p.Reply, p.Err)
			}
		}
	})
}

func TestTheHeaderSaysWhatEachPartIsWorth(t *testing.T) {
	answers := []model.RegionAnswer{
		{Region: "us", Freshness: model.Live, Index: 120},
		{Region: "eu", Freshness: model.Stale, Age: 4250 * time.Millisecond, Index: 97},
		{Region: "ap", Freshness: model.Unreachable, Age: 31 * time.Second, Index: 5},
		{Region: "mars", Freshness: model.Unreachable, Age: -1},
		{Region: "a b,c;d=e", Freshness: model.Live, Index: 1},
		{Region: "Zürich", Freshness: model.Stale, Age: 0, Index: 18446744073709551615},
	}
	const want = "us=live;index=120, eu=stale;age=4.2s;index=97, ap=unreachable;age=31.0s, mars=unreachable, a+b%2Cc%3Bd%3De=live;index=1, Z%C3%BCrich=stale;age=0.0s;index=18446744073709551615"
	header := FormatHeader(answers)
	if header != want {
		t.Errorf("%q\nwant %q", header, want)
	}
	got, err := ParseHeader(header)
	if err != nil {
		t.Fatal(err)
	}
	// Ages are told by tenths, and an index only of what has rows.
	answers[1].Age, answers[2].Index = 4200*time.Millisecond, 0
	if !reflect.DeepEqual(got, answers) {
		t.Errorf("%+v\nwant %+v", got, answers)
	}
	for _, empty := range []string{"", "  "} {
		if got, err := ParseHeader(empty); err != nil || got != nil {
			t.Errorf("%q: %v %v", empty, got, err)
		}
	}
	for _, bad := range []string{"us", "us=live,", ",", "%zz=live", "us=stale;age=old", "us=stale;age=-4s", "us=live;index=-1", "us=live;index=x"} {
		if got, err := ParseHeader(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add("us=live;index=120, eu=stale;age=4.2s;index=97, ap=unreachable;age=31s")
	f.Add("a+b%2C=live; index=1;what=ever")
	f.Add("x=stale;age=2562047h47m16.854775807s")
	f.Fuzz(func(t *testing.T, header string) {
		answers, err := ParseHeader(header)
		if err != nil {
			return
		}
		// What was read is written so that it is read again to the same end.
		once := FormatHeader(answers)
		again, err := ParseHeader(once)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", header, once, err)
		}
		if twice := FormatHeader(again); twice != once {
			t.Fatalf("%q and then %q", once, twice)
		}
		for i, a := range again {
			if a.Region != answers[i].Region || a.Freshness != answers[i].Freshness {
				t.Fatalf("%+v and then %+v", answers[i], a)
			}
		}
	})
}
