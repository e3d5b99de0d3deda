package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
)

var once = method.Method[ping, ping]{Spec: method.Spec{Name: "Test.Once", Place: method.AtLeader, Write: true, Once: true}}

// electing routes a call of its own region to one road after another, as leaders
// come and go.
type electing struct {
	*fakeRouter
	roads []Decision
	asked atomic.Int64
}

func (r *electing) Route(context.Context, *Envelope, method.Spec) (Decision, error) {
	n := int(r.asked.Add(1)) - 1
	d := r.roads[min(n, len(r.roads)-1)]
	d.Region = r.region
	return d, nil
}

func TestACallIsHeldThroughAChangeOfLeader(t *testing.T) {
	noLeader := func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, model.Errorf(model.KindNoLeader, "not I")
	}
	unsure := func(_ context.Context, c *Inbound, _ *ping) (*ping, error) {
		return nil, &model.Error{Kind: model.KindOutcomeUnknown, Message: "leadership was lost", Token: c.Envelope.RequestID}
	}
	refused := func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, model.Errorf(model.KindConflict, "taken")
	}
	full := func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, model.Errorf(model.KindBusy, "try again")
	}
	old := func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, model.Errorf(model.KindUnsupported, "what is that?")
	}
	needy := func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, &model.Error{Kind: model.KindUnreachable, Region: "eu", Message: "eu is silent"}
	}
	takes := func(_ context.Context, _ *Inbound, q *ping) (*ping, error) { return q, nil }
	other := func(h func(context.Context, *Inbound, *ping) (*ping, error)) Decision {
		p := newPeer(t, "us")
		for _, m := range []method.Method[ping, ping]{once, put} {
			delete(p.handlers, m.Name)
			Handle(p.Server, m, h)
		}
		return Decision{Servers: []string{p.addr}}
	}
	gone, mute := Decision{Servers: []string{deadAddr(t)}}, Decision{Servers: []string{silent(t)}}
	for name, c := range map[string]struct {
		roads []Decision
		local func(context.Context, *Inbound, *ping) (*ping, error)
		m     method.Method[ping, ping]
		want  model.Kind
		ok    bool
	}{
		"no leader, then one":                                     {[]Decision{other(noLeader), other(takes)}, nil, once, 0, true},
		"no leader, then this server":                             {[]Decision{other(noLeader), {Local: true}}, takes, once, 0, true},
		"the leader's process is gone":                            {[]Decision{gone, gone, other(takes)}, nil, once, 0, true},
		"the leader falls silent after it had the write":          {[]Decision{mute, other(takes)}, nil, once, 0, true},
		"this server loses the lead with the write under way":     {[]Decision{{Local: true}, other(takes)}, unsure, once, 0, true},
		"an unsure outcome, then a refusal: that is the answer":   {[]Decision{other(unsure), other(refused)}, nil, once, model.KindConflict, false},
		"unsure, and then the leader has too much to do":          {[]Decision{other(unsure), other(full)}, nil, once, model.KindOutcomeUnknown, false},
		"unsure, and then a leader that does not know the method": {[]Decision{other(unsure), other(old)}, nil, once, model.KindOutcomeUnknown, false},
		"unsure, and then another region is out of reach":         {[]Decision{other(unsure), {Local: true}}, needy, once, model.KindOutcomeUnknown, false},
		"unsure until the end":                                    {[]Decision{other(unsure), gone}, nil, once, model.KindOutcomeUnknown, false},
		"no leader until the end":                                 {[]Decision{other(noLeader)}, nil, once, model.KindNoLeader, false},
		"another region is out of reach, which the call needs":    {[]Decision{{Local: true}, other(takes)}, needy, once, model.KindUnreachable, false},
		"a write that is not applied once is not sent again":      {[]Decision{other(unsure), other(takes)}, nil, put, model.KindOutcomeUnknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			router := &electing{fakeRouter: &fakeRouter{region: "us"}, roads: c.roads}
			s := NewServer(ServerConfig{Router: router, Limits: testLimits})
			defer func() { _ = s.Shutdown(context.Background()) }()
			if c.local != nil {
				Handle(s, once, c.local)
			} else {
				Handle(s, once, takes)
			}
			Handle(s, put, takes)
			_, err := Call(t.Context(), s, c.m, To{RequestID: "r1", Timeout: 2 * time.Second}, &ping{N: 3})
			if (err == nil) != c.ok || err != nil && model.KindOf(err) != c.want {
				t.Errorf("%v, want kind %s", err, c.want)
			}
			var e *model.Error
			if errors.As(err, &e) && e.Kind == model.KindOutcomeUnknown && e.Token != "r1" {
				t.Errorf("the token is %q", e.Token)
			}
		})
	}
}

func TestACallThatCameOverTheWireIsHeldToo(t *testing.T) {
	var calls atomic.Int64
	leader := newPeer(t, "us")
	Handle(leader.Server, once, func(_ context.Context, c *Inbound, q *ping) (*ping, error) {
		if calls.Add(1) < 3 {
			return nil, model.Errorf(model.KindNoLeader, "not yet")
		}
		if c.Envelope.RequestID != "r9" || !c.Envelope.Forwarded {
			t.Errorf("the envelope is %+v", c.Envelope)
		}
		return q, nil
	})
	follower := newPeer(t, "us")
	follower.SetRouter(&electing{fakeRouter: follower.router, roads: []Decision{{Servers: []string{leader.addr}}}})
	Handle(follower.Server, once, func(context.Context, *Inbound, *ping) (*ping, error) {
		return nil, errors.New("a follower serves no writes")
	})
	cl := NewClient(ClientConfig{Region: "us", Limits: testLimits})
	defer func() { _ = cl.Shutdown(context.Background()) }()
	cl.SetServers([]string{follower.addr})
	got, err := Call(t.Context(), cl, once, To{RequestID: "r9"}, &ping{N: 7})
	if err != nil || got.N != 7 || calls.Load() != 3 {
		t.Errorf("%+v, %v after %d calls", got, err, calls.Load())
	}
}
