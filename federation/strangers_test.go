package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"atoll/internal/clock"
	"atoll/internal/freeport"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// loud is a log that a test reads.
type loud struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *loud) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// says fails unless some line has all of the words.
func (l *loud) says(words ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return nil
		}
	}
	return fmt.Errorf("no line has %q", words)
}

func (l *loud) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Info})
}

func TestARegionOfAnotherProtocolIsRefusedByNameAtBothEnds(t *testing.T) {
	var ours, theirs loud
	old := memberOf(t, GossipConfig{Name: "u1", Region: "us", Build: "1.0", Log: ours.logger()}, freeport.Addr(t), 0)
	// The other speaks what comes next, as it says itself: to it we are the past.
	next := memberOf(t, GossipConfig{Name: "e1", Region: "eu", Build: "9.0", Log: theirs.logger()}, freeport.Addr(t), 0)
	for tag, value := range map[string]string{tagMin: "2", tagMax: "3", tagProto: "3"} {
		if err := next.setTag(tag, value); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := next.Join(t.Context(), []string{old.addr}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the older end says so", func() error {
		return ours.says("[ERROR]", "e1.eu", "region=eu", "9.0", "protocols 2 to 3", "speaks 1")
	})
	d := newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real})
	eventually(t, "the refusal", func() error {
		peers, refused := old.Peers()
		d.Update(peers)
		d.Refuse(refused)
		if len(refused) != 1 || len(peers) != 1 {
			return fmt.Errorf("peers %v, refused %v", peers, refused)
		}
		return nil
	})
	st := d.Regions()
	if len(st) != 2 || st[0].Name != "eu" || st[0].Healthy || len(st[0].Refused) != 1 || st[0].Refused[0].Build != "9.0" {
		t.Errorf("the regions are %+v", st)
	}
	_, err := NewRouter(d, &fakeCell{}, fakeSessions{}).Route(t.Context(), &rpc.Envelope{Region: "eu"}, method.StatusPing.Spec)
	if model.KindOf(err) != model.KindUnreachable || !strings.Contains(err.Error(), "protocols 2 to 3") || !strings.Contains(err.Error(), `region "eu"`) {
		t.Errorf("a call for it: %v", err)
	}
	// Once it is of our protocol it is used.
	if err := next.setTag(tagMin, "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its return", func() error {
		peers, refused := old.Peers()
		d.Update(peers)
		d.Refuse(refused)
		if err := d.Down("eu"); err != nil {
			return err
		}
		return old.sees(2)
	})
	// The newer end meets one of no range that it knows in the same way.
	if err := old.setTag(tagMax, "0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newer end says so", func() error { return theirs.says("[ERROR]", "u1.us", "region=us", "1.0", "protocols 1 to 0") })
}

func TestOnlyRegionsOnTheListAreSpokenWith(t *testing.T) {
	var log loud
	us := memberOf(t, GossipConfig{Name: "u1", Region: "us", Regions: []string{"eu"}, Log: log.logger()}, freeport.Addr(t), 0)
	memberOf(t, GossipConfig{Name: "e1", Region: "eu"}, freeport.Addr(t), 0, us.addr)
	memberOf(t, GossipConfig{Name: "x1", Region: "mars"}, freeport.Addr(t), 0, us.addr)
	var peers []Peer
	var refused []model.RefusedServer
	eventually(t, "both are seen", func() error {
		if peers, refused = us.Peers(); len(peers) != 2 || len(refused) != 1 {
			return fmt.Errorf("peers %v, refused %v", peers, refused)
		}
		return nil
	})
	if refused[0].Region != "mars" || !strings.Contains(refused[0].Cause, "federation.regions") {
		t.Errorf("refused %+v", refused)
	}
	eventually(t, "it is told", func() error { return log.says("[ERROR]", "x1.mars", "federation.regions") })

	dir := t.TempDir()
	open := func(list ...string) *Directory {
		return newDirectory(t, DirectoryConfig{Region: "us", Self: "us1", Clock: clock.Real, DataDir: dir, Regions: list})
	}
	d := open()
	d.Update(slices.Concat(peersOf("eu", "eu1"), peersOf("mars", "m1")))
	d.write()
	d = open("eu") // what was remembered before there was a list is not used
	d.Refuse(refused)
	r := NewRouter(d, &fakeCell{leads: true}, fakeSessions{})
	for name, c := range map[string]struct {
		env  rpc.Envelope
		want model.Kind // 0: it is routed
	}{
		"to one on the list":        {rpc.Envelope{Region: "eu"}, 0},
		"to another":                {rpc.Envelope{Region: "mars"}, model.KindUnknownRegion},
		"from one on the list":      {rpc.Envelope{Region: "us", Path: []string{"eu"}}, 0},
		"from another":              {rpc.Envelope{Region: "us", Path: []string{"mars"}}, model.KindForbidden},
		"over another":              {rpc.Envelope{Region: "us", Path: []string{"eu", "mars"}}, model.KindForbidden},
		"from us and back over one": {rpc.Envelope{Region: "us", Path: []string{"us", "eu"}}, 0},
	} {
		if _, err := r.Route(t.Context(), &c.env, method.StatusPing.Spec); (err == nil) != (c.want == 0) || err != nil && model.KindOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hosts is a name service that a test changes.
type hosts struct {
	mu sync.Mutex
	ip map[string]string
}

func (h *hosts) set(host, ip string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ip[host] = ip
}

func (h *hosts) lookup(_ context.Context, host string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ip := h.ip[host]; ip != "" {
		return []string{ip}, nil
	}
	if net.ParseIP(host) != nil {
		return []string{host}, nil
	}
	return nil, errors.New("no such host")
}

func TestAServerIsFoundAgainWhenItsNameHasAnotherAddress(t *testing.T) {
	names := &hosts{ip: make(map[string]string)}
	port := freeport.Port(t)
	at := func(ip string) string { return fmt.Sprintf("%s:%d", ip, port) }
	// The name is of nobody at first.
	a := memberOf(t, GossipConfig{Name: "a", Region: "us", Resolve: names.lookup}, freeport.Addr(t), 0, fmt.Sprintf("door.test:%d", port))
	b := memberOf(t, GossipConfig{Name: "b", Region: "eu"}, at("127.0.0.1"), 0)
	names.set("door.test", "127.0.0.1")
	eventually(t, "it is joined by its name", func() error { return errors.Join(a.sees(2), b.sees(2)) })

	// Its machine dies, and another takes its place, name and data.
	b.close()
	b = memberOf(t, GossipConfig{Name: "b", Region: "eu"}, at("127.0.0.2"), 0)
	names.set("door.test", "127.0.0.2")
	begun := time.Now()
	eventually(t, "it is found under its new address", func() error {
		for _, m := range a.Members() {
			if m.Name == "b.eu" && m.Addr == "127.0.0.2" && m.Status == "alive" {
				return b.sees(2)
			}
		}
		return fmt.Errorf("the members are %+v", a.Members())
	})
	t.Logf("found after %s", time.Since(begun).Round(100*time.Millisecond))
}
